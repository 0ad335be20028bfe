/* Rate limits: windows, requests at once, and what is left of a worker that dies. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/error.h"
#include "gateway/rate_headers.h"

#define KEYS 4
#define MODELS 3
#define SLOTS 4
#define DAY_MS INT64_C(86400000)
#define NOON_AT_MS (20000 * DAY_MS + DAY_MS / 2)

struct fixture {
    struct limits_region *region;
    size_t bytes;
    struct limit_moment now;
    struct limit_refusal refusal;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->bytes = limits_region_spec(KEYS, MODELS, SLOTS).bytes;
    f->region = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->region != MAP_FAILED);
    limits_region_init(f->region, KEYS, MODELS, SLOTS);
    f->now = (struct limit_moment){.now_ms = 1000000, .now_at_ms = NOON_AT_MS};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->region, f->bytes);
    free(f);
    return 0;
}

static void pass(struct fixture *f, int64_t ms)
{
    f->now.now_ms += ms;
    f->now.now_at_ms += ms;
}

static struct limit_scope key_scope(struct fixture *f, enum limit_kind kind, uint32_t limit)
{
    struct limit_scope scope = {.row = limits_row_of_key(f->region, 1)};

    scope.values.of[kind] = limit;
    return scope;
}

static int claim_tokens(struct fixture *f, const struct limit_scope *scope, uint32_t prompt,
                        uint32_t output, struct limit_claim *claim)
{
    return limits_claim(f->region, 0, scope, 1, prompt, output, &f->now, claim, &f->refusal);
}

static int claim(struct fixture *f, const struct limit_scope *scope, struct limit_claim *claim)
{
    return claim_tokens(f, scope, 0, 0, claim);
}

static void given_a_limit_by_the_minute_when_it_is_reached_then_refused_until_it_ends(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_RPM, 3);
    struct limit_claim c;
    int64_t reset_ms;

    assert_int_equal(limits_left(f->region, &scope, LIMIT_RPM, &f->now, &reset_ms), 3);
    assert_int_equal(reset_ms, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(claim(f, &scope, &c), 0);
        limits_settle(f->region, 0, &c, 100);
        pass(f, 1000);
    }
    assert_int_equal(limits_left(f->region, &scope, LIMIT_RPM, &f->now, &reset_ms), 0);
    assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
    assert_int_equal(f->refusal.kind, LIMIT_RPM);
    assert_int_equal(f->refusal.limit, 3);
    assert_int_equal(f->refusal.wait_ms, reset_ms);
    assert_in_range(f->refusal.wait_ms, 57000, 57010);
    pass(f, 56999); /* 60 s but 1 ms after the first */
    assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
    pass(f, reset_ms - 56999);
    assert_int_equal(claim(f, &scope, &c), 0);
    assert_int_equal(limits_left(f->region, &scope, LIMIT_RPM, &f->now, &reset_ms), 2);
}

static void given_a_wait_when_obeyed_at_any_moment_then_it_succeeds(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_RPM, 1);
    struct limit_claim c;

    for (int i = 0; i < 1000; i++) {
        assert_int_equal(claim(f, &scope, &c), 0);
        pass(f, (i * 37) % 60000);
        assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
        assert_true(f->refusal.wait_ms > 0 && f->refusal.wait_ms <= 60010);
        pass(f, f->refusal.wait_ms);
    }
}

static void given_a_limit_by_the_day_when_midnight_comes_then_it_begins_anew(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_RPD, 1);
    struct limit_claim c;

    assert_int_equal(claim(f, &scope, &c), 0);
    assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
    assert_int_equal(f->refusal.wait_ms, DAY_MS / 2);
    pass(f, DAY_MS / 2 - 1);
    assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
    pass(f, 1);
    assert_int_equal(claim(f, &scope, &c), 0);
    f->now.now_at_ms -= 3 * DAY_MS; /* a clock that is set back gives nothing anew */
    assert_int_equal(claim(f, &scope, &c), XR_ERATELIMIT);
    assert_int_equal(f->refusal.wait_ms, 4 * DAY_MS);
}

static void given_tokens_when_claimed_then_put_right_at_the_end(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_TPM, 1000);
    struct limit_claim first, second;
    int64_t reset_ms;

    assert_int_equal(claim_tokens(f, &scope, 300, 256, &first), 0);
    assert_int_equal(claim_tokens(f, &scope, 300, 256, &second), XR_ERATELIMIT);
    assert_int_equal(f->refusal.kind, LIMIT_TPM);
    limits_settle(f->region, 0, &first, 310);
    assert_int_equal(limits_left(f->region, &scope, LIMIT_TPM, &f->now, &reset_ms), 690);
    limits_settle(f->region, 0, &first, 5000); /* it holds nothing any more */
    assert_int_equal(limits_left(f->region, &scope, LIMIT_TPM, &f->now, &reset_ms), 690);
    assert_int_equal(claim_tokens(f, &scope, 300, 256, &second), 0);
    limits_settle(f->region, 0, &second, 2000); /* more than there was: nothing is left */
    assert_int_equal(limits_left(f->region, &scope, LIMIT_TPM, &f->now, &reset_ms), 0);
    assert_int_equal(claim_tokens(f, &scope, 1, 0, &second), XR_ERATELIMIT);
    pass(f, 60010);
    assert_int_equal(limits_left(f->region, &scope, LIMIT_TPM, &f->now, &reset_ms), 1000);
}

static void given_a_window_that_has_ended_when_settled_then_the_next_one_is_left_alone(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_TPM, 1000);
    struct limit_claim slow, next;
    int64_t reset_ms;

    assert_int_equal(claim_tokens(f, &scope, 100, 100, &slow), 0);
    pass(f, 60010);
    assert_int_equal(claim_tokens(f, &scope, 100, 0, &next), 0);
    limits_settle(f->region, 0, &slow, 900);
    assert_int_equal(limits_left(f->region, &scope, LIMIT_TPM, &f->now, &reset_ms), 900);
}

static void given_a_large_request_when_claimed_then_alone_or_never(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_TPM, 1000);
    struct limit_claim c;

    assert_int_equal(claim_tokens(f, &scope, 1001, 0, &c), XR_ERATELIMIT);
    assert_int_equal(f->refusal.wait_ms, -1);
    assert_int_equal(claim_tokens(f, &scope, 1000, UINT32_MAX, &c),
                     0); /* the answer may be short */
    limits_give_back(f->region, 0, &c);
    assert_int_equal(claim_tokens(f, &scope, 1000, 0, &c), 0);
}

static void given_several_scopes_when_one_refuses_then_nothing_is_taken(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scopes[] = {
        {.row = limits_row_of_key(f->region, 0), .values = {{10, 10, 1000, 1000, 5}}},
        {.row = limits_row_of_model(f->region, 0), .values = {{10, 10, 1000, 1000, 5}}},
        {.row = limits_row_of_gateway(), .values = {{0, 0, 0, 0, 1}}}};
    struct limit_claim first, second;
    int64_t reset_ms;

    assert_int_equal(limits_claim(f->region, 0, scopes, 3, 100, 50, &f->now, &first, &f->refusal),
                     0);
    assert_int_equal(limits_claim(f->region, 1, scopes, 3, 100, 50, &f->now, &second, &f->refusal),
                     XR_ERATELIMIT);
    assert_int_equal(f->refusal.scope, 2);
    assert_int_equal(f->refusal.kind, LIMIT_PARALLEL);
    assert_int_equal(f->refusal.wait_ms, 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(limits_left(f->region, &scopes[i], LIMIT_RPM, &f->now, &reset_ms), 9);
        assert_int_equal(limits_left(f->region, &scopes[i], LIMIT_TPD, &f->now, &reset_ms), 850);
        assert_int_equal(limits_running(f->region, scopes[i].row), 1);
    }
    limits_settle(f->region, 0, &first, 150);
    assert_int_equal(limits_claim(f->region, 1, scopes, 3, 1, 1, &f->now, &second, &f->refusal), 0);
    limits_settle(f->region, 1, &second, 2);
    assert_int_equal(limits_running(f->region, limits_row_of_gateway()), 0);
}

static void given_answers_when_noted_then_their_typical_length(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(limits_typical_output(f->region, 1), 256);
    for (int i = 0; i < 200; i++)
        limits_note_output(f->region, 1, 40);
    assert_in_range(limits_typical_output(f->region, 1), 40, 55);
    for (int i = 0; i < 400; i++)
        limits_note_output(f->region, 1, 1000);
    assert_in_range(limits_typical_output(f->region, 1), 985, 1000);
    assert_int_equal(limits_typical_output(f->region, 2), 256);
}

/* ---- several processes ---- */

#define CHILDREN 4
#define ROUNDS 20000
#define LIMIT 7

struct tally {
    _Atomic uint32_t served, inside, most;
};

static void note_inside(struct tally *t)
{
    uint32_t inside = atomic_fetch_add(&t->inside, 1) + 1, most = atomic_load(&t->most);

    while (inside > most && !atomic_compare_exchange_weak(&t->most, &most, inside))
        ;
}

static struct tally *new_tally(void)
{
    struct tally *t =
        mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(t != MAP_FAILED);
    return t;
}

static void wait_all(int count)
{
    for (int i = 0; i < count; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

static void given_many_processes_when_all_claim_then_exactly_the_limit_is_served(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_RPM, ROUNDS);
    struct tally *t = new_tally();

    for (size_t i = 0; i < CHILDREN; i++) {
        if (fork() != 0)
            continue;
        for (int n = 0; n < ROUNDS; n++) { /* four times as many as there may be */
            struct limit_claim c;

            if (limits_claim(f->region, i, &scope, 1, 0, 0, &f->now, &c, &f->refusal) == 0)
                atomic_fetch_add(&t->served, 1);
        }
        _exit(0);
    }
    wait_all(CHILDREN);
    assert_int_equal(atomic_load(&t->served), ROUNDS);
    munmap(t, sizeof(*t));
}

static void given_many_processes_when_all_run_then_never_more_at_once(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_PARALLEL, 2);
    struct tally *t = new_tally();

    for (size_t i = 0; i < CHILDREN; i++) {
        if (fork() != 0)
            continue;
        for (int n = 0; n < ROUNDS; n++) {
            struct limit_claim c;

            if (limits_claim(f->region, i, &scope, 1, 0, 0, &f->now, &c, &f->refusal) < 0)
                continue;
            note_inside(t);
            atomic_fetch_sub(&t->inside, 1);
            atomic_fetch_add(&t->served, 1);
            limits_settle(f->region, i, &c, 0);
        }
        _exit(0);
    }
    wait_all(CHILDREN);
    assert_true(atomic_load(&t->most) <= 2 && atomic_load(&t->served) >= ROUNDS);
    assert_int_equal(limits_running(f->region, scope.row), 0);
    munmap(t, sizeof(*t));
}

static _Noreturn void run_for_ever(struct fixture *f, size_t slot, const struct limit_scope *scope)
{
    for (;;) {
        struct limit_claim c[3];

        for (size_t i = 0; i < 3; i++)
            (void)limits_claim(f->region, slot, scope, 1, 0, 0, &f->now, &c[i], &f->refusal);
        for (size_t i = 0; i < 3; i++)
            limits_settle(f->region, slot, &c[i], 0);
    }
}

/* Killed anywhere, again and again, while others go on. */
static void given_a_worker_killed_anywhere_when_reaped_then_nothing_is_held(void **state)
{
    struct fixture *f = *state;
    const struct limit_scope scope = key_scope(f, LIMIT_PARALLEL, LIMIT);
    pid_t others[2];

    for (size_t i = 0; i < 2; i++) {
        others[i] = fork();
        if (others[i] == 0)
            run_for_ever(f, i, &scope);
    }
    for (int n = 0; n < 200; n++) {
        pid_t victim = fork();

        if (victim == 0)
            run_for_ever(f, 2, &scope);
        usleep((useconds_t)(n * 7 % 400));
        kill(victim, SIGKILL);
        assert_int_equal(waitpid(victim, NULL, 0), victim);
        limits_reap(f->region, 2);
        assert_true(limits_running(f->region, scope.row) <= LIMIT);
    }
    for (size_t i = 0; i < 2; i++) {
        kill(others[i], SIGKILL);
        assert_int_equal(waitpid(others[i], NULL, 0), others[i]);
        limits_reap(f->region, i);
    }
    assert_int_equal(limits_running(f->region, scope.row), 0);
}

/* ---- headers ---- */

static void given_durations_when_formatted_then_as_go_writes_them(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "0s"},
        {12, "12ms"},
        {999, "999ms"},
        {1000, "1s"},
        {1500, "1.5s"},
        {59999, "59.999s"},
        {60000, "1m0s"},
        {360000, "6m0s"},
        {61020, "1m1.02s"},
        {3600000, "1h0m0s"},
        {86399999, "23h59m59.999s"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[DURATION_BYTES];

        duration_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(given_a_limit_by_the_minute_when_it_is_reached_then_refused_until_it_ends),
        TEST(given_a_wait_when_obeyed_at_any_moment_then_it_succeeds),
        TEST(given_a_limit_by_the_day_when_midnight_comes_then_it_begins_anew),
        TEST(given_tokens_when_claimed_then_put_right_at_the_end),
        TEST(given_a_window_that_has_ended_when_settled_then_the_next_one_is_left_alone),
        TEST(given_a_large_request_when_claimed_then_alone_or_never),
        TEST(given_several_scopes_when_one_refuses_then_nothing_is_taken),
        TEST(given_answers_when_noted_then_their_typical_length),
        TEST(given_many_processes_when_all_claim_then_exactly_the_limit_is_served),
        TEST(given_many_processes_when_all_run_then_never_more_at_once),
        TEST(given_a_worker_killed_anywhere_when_reaped_then_nothing_is_held),
        cmocka_unit_test(given_durations_when_formatted_then_as_go_writes_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
