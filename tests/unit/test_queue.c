#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/error.h"
#include "router/queue.h"

#define WORKERS 3
#define LENGTH 64
#define LONG_MS 60000

struct fixture {
    struct queue_region *region;
    size_t bytes;
    int fds[WORKERS];
    struct loop *loops[WORKERS];
    struct queues *workers[WORKERS];
};

struct request {
    struct queue_ticket ticket;
    int told; /* how often */
    int rc;
    unsigned order; /* among those that were told */
};

static unsigned order;
static const struct queue_place one_slot = {0, 1, 1};

static void on_turn(struct queue_ticket *t, int rc)
{
    struct request *r = container_of(t, struct request, ticket);

    r->told++;
    r->rc = rc;
    r->order = ++order;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->bytes = queue_region_spec(2).bytes;
    f->region = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->region != MAP_FAILED);
    queue_region_init(f->region, 2);
    for (size_t i = 0; i < WORKERS; i++) {
        f->fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        f->loops[i] = loop_new();
        assert_non_null(f->loops[i]);
        assert_int_equal(queues_new(f->loops[i], f->region, i, f->fds, &f->workers[i]), 0);
    }
    order = 0;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < WORKERS; i++) {
        queues_free(f->workers[i]);
        loop_free(f->loops[i]);
        close(f->fds[i]);
    }
    munmap(f->region, f->bytes);
    free(f);
    return 0;
}

static int enter(struct fixture *f, size_t worker, struct request *r, uint32_t limit, uint64_t key)
{
    *r = (struct request){.ticket = {.on_turn = on_turn}};
    return queue_enter(f->workers[worker], &r->ticket, &(struct queue_place){0, 1, limit}, key,
                       LENGTH, LONG_MS);
}

static void turn_all(struct fixture *f)
{
    for (int round = 0; round < 4; round++)
        for (size_t i = 0; i < WORKERS; i++)
            assert_true(loop_turn(f->loops[i], 0) >= 0);
}

static uint32_t taken(struct fixture *f)
{
    uint32_t slots, waiting;

    queue_look(f->region, 0, &slots, &waiting);
    return slots;
}

static uint32_t waiting(struct fixture *f)
{
    uint32_t slots, count;

    queue_look(f->region, 0, &slots, &count);
    return count;
}

static void given_free_slots_when_entered_then_held_up_to_the_limit(void **state)
{
    struct fixture *f = *state;
    struct request r[3];

    assert_int_equal(enter(f, 0, &r[0], 2, 1), 0);
    assert_int_equal(enter(f, 1, &r[1], 2, 1), 0);
    assert_int_equal(enter(f, 2, &r[2], 2, 1), 1);
    assert_int_equal(taken(f), 2);
    assert_int_equal(waiting(f), 1);
    queue_leave(f->workers[1], &r[1].ticket);
    assert_int_equal(r[2].told, 0); /* from the loop only */
    turn_all(f);
    assert_int_equal(r[2].told, 1);
    assert_int_equal(r[2].rc, 0);
    assert_int_equal(taken(f), 2);
    queue_leave(f->workers[0], &r[0].ticket);
    queue_leave(f->workers[2], &r[2].ticket);
    assert_int_equal(taken(f), 0);
    queue_leave(f->workers[2], &r[2].ticket); /* nothing held is fine */
    assert_int_equal(taken(f), 0);
}

static void given_no_limit_when_entered_then_nothing_is_taken(void **state)
{
    struct fixture *f = *state;
    struct request r;

    assert_int_equal(enter(f, 0, &r, QUEUE_SLOTS_MAX, 1), 0);
    assert_int_equal(taken(f), 0);
    queue_leave(f->workers[0], &r.ticket);
}

static void given_keys_that_wait_when_slots_come_then_each_key_has_one_turn_a_round(void **state)
{
    struct fixture *f = *state;
    struct request holder, noisy[6], quiet[2];

    assert_int_equal(enter(f, 0, &holder, 1, 9), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(enter(f, i % WORKERS, &noisy[i], 1, 1), 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(enter(f, i, &quiet[i], 1, 2), 1);
    queue_leave(f->workers[0], &holder.ticket);
    for (unsigned served = 1; served <= 8; served++) {
        turn_all(f);
        assert_int_equal(order, served); /* one at a time */
        for (int i = 0; i < 6; i++)
            if (noisy[i].order == served)
                queue_leave(f->workers[i % WORKERS], &noisy[i].ticket);
        for (int i = 0; i < 2; i++)
            if (quiet[i].order == served)
                queue_leave(f->workers[i], &quiet[i].ticket);
    }
    /* The key with few requests is through after two rounds; within a key the first comes first. */
    assert_true(quiet[0].order <= 2);
    assert_true(quiet[1].order <= 4);
    for (int i = 1; i < 6; i++)
        assert_true(noisy[i - 1].order < noisy[i].order);
}

static void given_somebody_who_waits_when_a_slot_is_free_then_nobody_overtakes(void **state)
{
    struct fixture *f = *state;
    struct request holder, first, late;

    assert_int_equal(enter(f, 0, &holder, 1, 1), 0);
    assert_int_equal(enter(f, 1, &first, 1, 2), 1);
    queue_leave(f->workers[0], &holder.ticket);
    assert_int_equal(enter(f, 0, &late, 1, 3), 1);
    turn_all(f);
    assert_int_equal(first.told, 1);
    assert_int_equal(late.told, 0);
    queue_leave(f->workers[1], &first.ticket);
    turn_all(f);
    assert_int_equal(late.told, 1);
    queue_leave(f->workers[0], &late.ticket);
}

static void given_a_full_queue_when_entered_then_busy(void **state)
{
    struct fixture *f = *state;
    struct request holder, first, refused = {.ticket = {.on_turn = on_turn}};

    assert_int_equal(enter(f, 0, &holder, 1, 1), 0);
    assert_int_equal(enter(f, 0, &first, 1, 1), 1);
    assert_int_equal(queue_enter(f->workers[1], &refused.ticket, &one_slot, 2, 1, LONG_MS),
                     XR_EBUSY);
    assert_in_range(queue_retry_after_ms(f->workers[1], 0), 1000, 60000);
    queue_leave(f->workers[0], &first.ticket);
    queue_leave(f->workers[0], &holder.ticket);
    turn_all(f);
    assert_int_equal(first.told, 0);
}

static void given_a_deadline_when_no_turn_comes_then_busy(void **state)
{
    struct fixture *f = *state;
    struct request holder, impatient = {.ticket = {.on_turn = on_turn}};
    int64_t begun_ms = clock_monotonic_ms();

    assert_int_equal(enter(f, 0, &holder, 1, 1), 0);
    assert_int_equal(queue_enter(f->workers[1], &impatient.ticket, &one_slot, 2, LENGTH, 30), 1);
    while (impatient.told == 0 && clock_monotonic_ms() < begun_ms + 5000)
        assert_true(loop_turn(f->loops[1], 1000) >= 0);
    assert_int_equal(impatient.rc, XR_EBUSY);
    assert_true(clock_monotonic_ms() >= begun_ms + 29);
    assert_int_equal(waiting(f), 0);
    queue_leave(f->workers[0], &holder.ticket);
}

static void given_a_dead_worker_when_reaped_then_its_slots_and_turns_are_free(void **state)
{
    struct fixture *f = *state;
    struct request mine, living;
    pid_t pid = fork();
    int status;

    if (pid == 0) { /* dies with a slot and a place in the queue */
        struct request r[2];

        _exit(enter(f, 2, &r[0], 1, 5) == 0 && enter(f, 2, &r[1], 1, 5) == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(taken(f), 1);
    assert_int_equal(waiting(f), 1);
    assert_int_equal(enter(f, 0, &living, 1, 1), 1);
    turn_all(f);
    assert_int_equal(living.told, 0);
    queue_reap(f->region, 2, f->fds);
    turn_all(f);
    assert_int_equal(living.told, 1);
    assert_int_equal(taken(f), 1);
    assert_int_equal(enter(f, 1, &mine, 1, 1), 1);
    queue_leave(f->workers[1], &mine.ticket);
    queue_leave(f->workers[0], &living.ticket);
    assert_int_equal(taken(f), 0);
}

/* ---- accounts ---- */

#define ACCOUNTS 3

static int enter_pool(struct fixture *f, struct request *r, uint32_t limit, uint64_t key)
{
    *r = (struct request){.ticket = {.on_turn = on_turn}};
    return queue_enter(f->workers[0], &r->ticket, &(struct queue_place){0, ACCOUNTS, limit}, key,
                       LENGTH, LONG_MS);
}

static void
given_accounts_when_entered_then_each_has_the_limit_and_the_keys_comes_first(void **state)
{
    struct fixture *f = *state;
    struct request r[2 * ACCOUNTS], late;
    unsigned of[ACCOUNTS] = {0};

    for (size_t i = 0; i < 2 * ACCOUNTS; i++) {
        assert_int_equal(enter_pool(f, &r[i], 2, 7), 0);
        of[r[i].ticket.account]++;
    }
    assert_int_equal(r[0].ticket.account, r[1].ticket.account);
    for (size_t i = 0; i < ACCOUNTS; i++)
        assert_int_equal(of[i], 2);
    assert_int_equal(enter_pool(f, &late, 2, 7), 1);
    queue_leave(f->workers[0], &r[4].ticket);
    turn_all(f);
    assert_int_equal(late.told, 1);
    assert_int_equal(late.ticket.account, r[4].ticket.account);
    queue_leave(f->workers[0], &late.ticket);
    for (size_t i = 0; i < 2 * ACCOUNTS; i++)
        queue_leave(f->workers[0], &r[i].ticket);
    assert_int_equal(taken(f), 0);
}

static void given_many_keys_when_entered_then_all_accounts_have_some(void **state)
{
    struct fixture *f = *state;
    unsigned of[ACCOUNTS] = {0};

    for (uint64_t key = 1; key <= 300; key++) {
        struct request r;

        assert_int_equal(enter_pool(f, &r, QUEUE_SLOTS_MAX, key), 0);
        of[r.ticket.account]++;
        queue_leave(f->workers[0], &r.ticket);
    }
    for (size_t i = 0; i < ACCOUNTS; i++)
        assert_in_range(of[i], 60, 140);
}

static void given_an_account_that_rests_when_entered_then_another_one(void **state)
{
    static const uint32_t LIMITS[] = {1, QUEUE_SLOTS_MAX};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(LIMITS) / sizeof(LIMITS[0]); i++) {
        struct request first, other, last;
        int64_t begun_ms = clock_monotonic_ms();

        assert_int_equal(enter_pool(f, &first, LIMITS[i], 7), 0);
        assert_int_equal(queue_rest_ms(f->workers[0], &first.ticket), 0);
        assert_true(queue_rest_account(f->workers[0], &first.ticket, 150));
        assert_int_equal(queue_resting(f->region, 0), 1);
        queue_leave(f->workers[0], &first.ticket);
        assert_int_equal(enter_pool(f, &other, LIMITS[i], 7), 0);
        assert_int_not_equal(other.ticket.account, first.ticket.account);
        assert_true(queue_rest_account(f->workers[0], &other.ticket, LONG_MS));
        queue_leave(f->workers[0], &other.ticket);
        assert_int_equal(enter_pool(f, &last, LIMITS[i], 7), 0);
        assert_int_not_equal(last.ticket.account, first.ticket.account);
        assert_int_not_equal(last.ticket.account, other.ticket.account);
        /* One is always there. */
        assert_false(queue_rest_account(f->workers[0], &last.ticket, LONG_MS));
        assert_in_range(queue_rest_ms(f->workers[0], &last.ticket), 1, 150);
        queue_leave(f->workers[0], &last.ticket);
        do { /* the first one is back */
            assert_int_equal(enter_pool(f, &last, LIMITS[i], 7), 0);
            queue_leave(f->workers[0], &last.ticket);
        } while (last.ticket.account != first.ticket.account);
        assert_true(clock_monotonic_ms() >= begun_ms + 150);
        memset(f->region, 0, f->bytes);
        queue_region_init(f->region, 2);
    }
}

static void given_one_account_when_it_should_rest_then_it_does_not(void **state)
{
    struct fixture *f = *state;
    struct request r;

    assert_int_equal(enter(f, 0, &r, 1, 1), 0);
    assert_false(queue_rest_account(f->workers[0], &r.ticket, LONG_MS));
    assert_int_equal(queue_rest_ms(f->workers[0], &r.ticket), 0);
    queue_leave(f->workers[0], &r.ticket);
    assert_int_equal(enter(f, 0, &r, 1, 1), 0);
    queue_leave(f->workers[0], &r.ticket);
}

/* ---- processes of their own ---- */

#define LIMIT 3
#define CHILDREN WORKERS
#define ROUNDS 400
#define CLIENTS 8

struct shared {
    _Atomic int inside, most, served;
};

struct client {
    struct queue_ticket ticket;
    struct child *child;
    int left;
    int64_t leaves_ms;
};

struct child {
    struct loop *loop;
    struct queues *queues;
    struct shared *shared;
    struct client clients[CLIENTS];
    struct timer timer;
};

static void note_inside(struct client *c)
{
    int inside = atomic_fetch_add(&c->child->shared->inside, 1) + 1;
    int most = atomic_load(&c->child->shared->most);

    while (inside > most && !atomic_compare_exchange_weak(&c->child->shared->most, &most, inside))
        ;
    c->leaves_ms = 1; /* at the next tick */
}

static void on_client_turn(struct queue_ticket *t, int rc)
{
    struct client *c = container_of(t, struct client, ticket);

    if (rc == 0)
        note_inside(c);
}

static void step(struct child *child)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &child->clients[i];

        if (c->leaves_ms == 1) {
            c->leaves_ms = 0;
            c->left--;
            atomic_fetch_sub(&child->shared->inside, 1);
            atomic_fetch_add(&child->shared->served, 1);
            queue_leave(child->queues, &c->ticket);
        }
        if (c->left > 0 && c->ticket.slot == 0 && c->ticket.entry == 0 &&
            queue_enter(child->queues, &c->ticket, &(struct queue_place){1, 1, LIMIT}, (uint64_t)i,
                        256, LONG_MS) == 0)
            note_inside(c);
    }
}

static int run_child(struct fixture *f, size_t worker, struct shared *shared)
{
    struct child child = {.loop = loop_new(), .shared = shared};
    bool is_busy = true;

    if (child.loop == NULL || queues_new(child.loop, f->region, worker, f->fds, &child.queues) < 0)
        return 1;
    for (int i = 0; i < CLIENTS; i++)
        child.clients[i] = (struct client){
            .ticket = {.on_turn = on_client_turn}, .child = &child, .left = ROUNDS / CLIENTS};
    while (is_busy) {
        step(&child);
        if (loop_turn(child.loop, 1) < 0)
            return 1;
        is_busy = false;
        for (int i = 0; i < CLIENTS; i++)
            is_busy |= child.clients[i].left > 0;
    }
    return 0;
}

static void given_many_processes_when_all_want_slots_then_never_more_than_the_limit(void **state)
{
    struct fixture *f = *state;
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;

    assert_true(shared != MAP_FAILED);
    for (size_t i = 0; i < CHILDREN; i++)
        if (fork() == 0)
            _exit(run_child(f, i, shared));
    for (size_t i = 0; i < CHILDREN; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(atomic_load(&shared->served), CHILDREN * ROUNDS);
    assert_int_equal(atomic_load(&shared->most), LIMIT);
    assert_int_equal(atomic_load(&shared->inside), 0);
    munmap(shared, sizeof(*shared));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(given_free_slots_when_entered_then_held_up_to_the_limit,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(given_no_limit_when_entered_then_nothing_is_taken, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            given_keys_that_wait_when_slots_come_then_each_key_has_one_turn_a_round, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            given_somebody_who_waits_when_a_slot_is_free_then_nobody_overtakes, setup, teardown),
        cmocka_unit_test_setup_teardown(given_a_full_queue_when_entered_then_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(given_a_deadline_when_no_turn_comes_then_busy, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            given_a_dead_worker_when_reaped_then_its_slots_and_turns_are_free, setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_accounts_when_entered_then_each_has_the_limit_and_the_keys_comes_first, setup,
            teardown),
        cmocka_unit_test_setup_teardown(given_many_keys_when_entered_then_all_accounts_have_some,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(given_an_account_that_rests_when_entered_then_another_one,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(given_one_account_when_it_should_rest_then_it_does_not,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_many_processes_when_all_want_slots_then_never_more_than_the_limit, setup,
            teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
