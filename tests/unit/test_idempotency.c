#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/secret.h"
#include "tests/unit/forked.h"
#include "usage/idempotency.h"

#define CAPACITY 64
#define NOW INT64_C(1795460000000)
#define TTL 1000
#define SLOT 3

static struct idempotency_region *region_new(size_t capacity)
{
    struct idempotency_region *r = forked_memory(idempotency_region_spec(capacity).bytes);

    idempotency_region_init(r, capacity);
    return r;
}

static int setup(void **state)
{
    *state = region_new(CAPACITY);
    return 0;
}

static int teardown(void **state)
{
    return munmap(*state, idempotency_region_spec(CAPACITY).bytes);
}

/* As digests are: spread over all bits. */
static struct idempotency_key key_number(uint64_t n, uint64_t request)
{
    struct idempotency_key key;
    uint8_t digest[DIGEST_BYTES];

    assert_int_equal(secret_sha256(&n, sizeof(n), digest), 0);
    memcpy(key.key, digest, sizeof(key.key));
    assert_int_equal(secret_sha256(&request, sizeof(request), digest), 0);
    memcpy(key.request, digest, sizeof(key.request));
    return key;
}

static struct usage_id id_number(uint64_t n)
{
    struct usage_id id = {{1}};

    memcpy(id.bytes + 8, &n, sizeof(n));
    return id;
}

static enum idempotency_state claim(struct idempotency_region *r, uint64_t n, size_t slot,
                                    struct idempotency_claim *out)
{
    const struct idempotency_key key = key_number(n, n);
    const struct usage_id id = id_number(n);

    return idempotency_claim(r, &key, slot, &id, NOW, out);
}

static enum idempotency_state look(struct idempotency_region *r, uint64_t n, int64_t at_ms)
{
    const struct idempotency_key key = key_number(n, n);

    return idempotency_look(r, &key, at_ms);
}

static int put(struct idempotency_region *r, uint64_t n, uint64_t id, bool stored)
{
    const struct idempotency_key key = key_number(n, n);
    const struct usage_id usage_id = id_number(id);

    return idempotency_put(r, &key, &usage_id, stored, NOW, NOW + TTL);
}

static void given_new_key_when_claimed_then_others_find_it_running(void **state)
{
    struct idempotency_claim c;

    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_ABSENT);
    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
    assert_int_equal(claim(*state, 1, SLOT + 1, &c), IDEMPOTENCY_RUNNING);
    assert_int_equal(look(*state, 1, NOW + 10 * TTL), IDEMPOTENCY_RUNNING);
    assert_int_equal(look(*state, 2, NOW), IDEMPOTENCY_ABSENT);
}

static void given_key_with_another_request_when_claimed_then_reused(void **state)
{
    const struct idempotency_key other = key_number(1, 2);
    const struct usage_id id = id_number(2);
    struct idempotency_claim c, c2;

    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
    assert_int_equal(idempotency_claim(*state, &other, SLOT, &id, NOW, &c2), IDEMPOTENCY_REUSED);
    idempotency_give_up(*state, &c, NOW + TTL);
    assert_int_equal(idempotency_look(*state, &other, NOW), IDEMPOTENCY_REUSED);
}

static void given_request_that_cost_nothing_when_released_then_it_may_run_again(void **state)
{
    struct idempotency_claim c;

    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
    idempotency_release(*state, &c);
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_ABSENT);
    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
}

static void given_answer_on_its_way_when_stored_then_replayed_until_its_time_is_over(void **state)
{
    const struct idempotency_key key = key_number(1, 1);
    const struct usage_id id = id_number(1);
    struct idempotency_claim c;

    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
    assert_false(idempotency_is_storing(*state, key.key, &id));
    idempotency_begin_storing(*state, &c, NOW + TTL);
    assert_true(idempotency_is_storing(*state, key.key, &id));
    assert_int_equal(look(*state, 1, NOW + TTL), IDEMPOTENCY_STORING);
    assert_int_equal(put(*state, 1, 1, true), 0);
    assert_false(idempotency_is_storing(*state, key.key, &id));
    assert_int_equal(look(*state, 1, NOW + TTL - 1), IDEMPOTENCY_STORED);
    assert_int_equal(look(*state, 1, NOW + TTL), IDEMPOTENCY_ABSENT);
}

static void given_answer_that_is_not_kept_when_given_up_then_unavailable_until_its_end(void **state)
{
    struct idempotency_claim c;

    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_CLAIMED);
    idempotency_give_up(*state, &c, NOW + TTL);
    assert_int_equal(claim(*state, 1, SLOT, &c), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(*state, 1, NOW + TTL), IDEMPOTENCY_ABSENT);
}

static void given_stored_answer_when_lost_then_unavailable(void **state)
{
    const struct idempotency_key key = key_number(1, 1);
    const struct usage_id id = id_number(1), other = id_number(2);

    assert_int_equal(put(*state, 1, 1, true), 0);
    idempotency_lose(*state, key.key, &other); /* of another run of that key: not this one */
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_STORED);
    idempotency_lose(*state, key.key, &id);
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_UNAVAILABLE);
    idempotency_forget(*state, key.key, &id);
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_ABSENT);
}

static void given_row_of_the_ledger_when_put_then_known_and_running_ones_stay(void **state)
{
    struct idempotency_claim c;

    assert_int_equal(put(*state, 1, 1, true), 0);
    assert_int_equal(put(*state, 2, 2, false), 0);
    assert_int_equal(claim(*state, 3, SLOT, &c), IDEMPOTENCY_CLAIMED);
    assert_int_equal(put(*state, 3, 3, false), 0); /* its event is committed, it still runs */
    assert_int_equal(claim(*state, 4, SLOT, &c), IDEMPOTENCY_CLAIMED);
    assert_int_equal(put(*state, 4, 99, true), 0); /* of an earlier request */
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_STORED);
    assert_int_equal(look(*state, 2, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(*state, 3, NOW), IDEMPOTENCY_RUNNING);
    assert_int_equal(look(*state, 4, NOW), IDEMPOTENCY_RUNNING);
    assert_int_equal(put(*state, 2, 2, true), 0); /* the answer comes after the event */
    assert_int_equal(look(*state, 2, NOW), IDEMPOTENCY_STORED);
}

static void given_dead_worker_when_reaped_then_its_entries_are_free_or_never_run_again(void **state)
{
    const struct idempotency_key costly = key_number(2, 2);
    const struct usage_id costly_id = id_number(2);
    struct idempotency_claim c[5];

    for (uint64_t n = 1; n <= 3; n++)
        assert_int_equal(claim(*state, n, SLOT, &c[n]), IDEMPOTENCY_CLAIMED);
    assert_int_equal(claim(*state, 4, SLOT + 1, &c[4]), IDEMPOTENCY_CLAIMED);
    idempotency_begin_storing(*state, &c[3], NOW + TTL);
    idempotency_keep(*state, costly.key, &costly_id, NOW + TTL);
    idempotency_reap(*state, SLOT);
    assert_int_equal(look(*state, 1, NOW), IDEMPOTENCY_ABSENT);
    assert_int_equal(look(*state, 2, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(*state, 3, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(*state, 4, NOW), IDEMPOTENCY_RUNNING);
    assert_int_equal(put(*state, 3, 3, true), 0); /* its answer had reached the usage-writer */
    assert_int_equal(look(*state, 3, NOW), IDEMPOTENCY_STORED);
}

static void given_full_table_when_claimed_then_refused_until_a_place_is_over(void **state)
{
    struct idempotency_claim c;
    enum idempotency_state found = IDEMPOTENCY_CLAIMED;
    size_t claimed = 0;
    uint64_t n;

    for (n = 0; n < 100 * CAPACITY; n++) {
        found = claim(*state, n, SLOT, &c);
        if (found != IDEMPOTENCY_CLAIMED)
            break;
        idempotency_give_up(*state, &c, NOW + TTL);
        claimed++;
    }
    assert_int_equal(found, IDEMPOTENCY_FULL);
    assert_true(claimed >= CAPACITY);
    for (uint64_t i = 0; i < claimed; i++)
        assert_int_equal(look(*state, i, NOW), IDEMPOTENCY_UNAVAILABLE);
    /* Their time is over: the refused one finds a place. */
    const struct idempotency_key key = key_number(n, n);
    const struct usage_id id = id_number(n);
    assert_int_equal(idempotency_claim(*state, &key, SLOT, &id, NOW + TTL, &c),
                     IDEMPOTENCY_CLAIMED);
}

static void given_large_table_when_filled_to_capacity_then_every_key_has_a_place(void **state)
{
    const size_t capacity = 20000;
    struct idempotency_region *r = region_new(capacity);
    struct idempotency_claim c;

    for (uint64_t n = 0; n < capacity; n++)
        assert_int_equal(claim(r, n, SLOT, &c), IDEMPOTENCY_CLAIMED);
    munmap(r, idempotency_region_spec(capacity).bytes);
}

/* ---- several processes ---- */

#define PROCESSES 4
#define ROUNDS 4000
#define HELD_KEYS 3

struct race {
    struct idempotency_region *region;
    _Atomic uint32_t round[PROCESSES]; /* each has come so far */
    _Atomic uint32_t winners[ROUNDS];
    _Atomic uint32_t holders[HELD_KEYS];
    _Atomic uint64_t taken;
    _Atomic uint64_t next; /* process number */
};

static struct race *race_new(void)
{
    struct race *race = forked_memory(sizeof(*race));

    race->region = region_new(CAPACITY);
    return race;
}

static void race_free(struct race *race)
{
    munmap(race->region, idempotency_region_spec(CAPACITY).bytes);
    munmap(race, sizeof(*race));
}

static void wait_for_all(struct race *race, size_t own, uint32_t round)
{
    atomic_store(&race->round[own], round);
    for (size_t i = 0; i < PROCESSES; i++)
        while (atomic_load(&race->round[i]) < round)
            sched_yield();
}

/* All claim the same key at once; who has it keeps it until all have tried. */
static int run_rounds(void *arg)
{
    struct race *race = arg;
    size_t own = atomic_fetch_add(&race->next, 1);
    struct idempotency_claim c, other;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        enum idempotency_state found;
        const struct idempotency_key key = key_number(round, round);
        const struct usage_id id = id_number(round * PROCESSES + own);
        bool has_other;

        wait_for_all(race, own, 2 * round + 1);
        /* An entry of its own that goes again: so that the free places are not the same for all. */
        has_other = claim(race->region, 1000000 + rand() % 100, own, &other) == IDEMPOTENCY_CLAIMED;
        found = idempotency_claim(race->region, &key, own, &id, NOW, &c);
        if (has_other)
            idempotency_release(race->region, &other);
        if (found == IDEMPOTENCY_CLAIMED)
            atomic_fetch_add(&race->winners[round], 1);
        else if (found != IDEMPOTENCY_RUNNING)
            return 2;
        wait_for_all(race, own, 2 * round + 2);
        if (found == IDEMPOTENCY_CLAIMED)
            idempotency_release(race->region, &c);
    }
    return 0;
}

static void
given_same_key_in_four_processes_when_claimed_at_once_then_exactly_one_has_it(void **state)
{
    struct race *race = race_new();
    pid_t pids[PROCESSES];

    for (size_t i = 0; i < PROCESSES; i++)
        pids[i] = forked_start(run_rounds, race);
    for (size_t i = 0; i < PROCESSES; i++)
        assert_int_equal(forked_wait(pids[i]), 0);
    for (size_t i = 0; i < ROUNDS; i++)
        assert_int_equal(race->winners[i], 1);
    race_free(race);
}

/* Claims, holds and releases a few keys as fast as it can. A place that is held twice is an error.
 */
static int run_holder(void *arg)
{
    struct race *race = arg;
    size_t own = atomic_fetch_add(&race->next, 1) % PROCESSES;
    struct idempotency_key keys[HELD_KEYS];

    for (size_t i = 0; i < HELD_KEYS; i++)
        keys[i] = key_number(i, i);
    for (uint64_t n = 0; n < 100000; n++) {
        const struct usage_id id = id_number(n * PROCESSES + own);
        size_t k = n % HELD_KEYS;
        struct idempotency_claim c;
        enum idempotency_state found = idempotency_claim(race->region, &keys[k], own, &id, NOW, &c);

        if (found == IDEMPOTENCY_RUNNING)
            continue;
        if (found != IDEMPOTENCY_CLAIMED)
            return 2;
        if (atomic_fetch_or(&race->holders[k], 1u << own) != 0)
            return 3;
        if (n % 64 == 0)
            sched_yield();
        atomic_fetch_add(&race->taken, 1);
        atomic_fetch_and(&race->holders[k], ~(1u << own));
        idempotency_release(race->region, &c);
    }
    return 0;
}

static void given_four_processes_when_they_claim_and_release_then_never_two_hold_a_key(void **state)
{
    struct race *race = race_new();
    pid_t pids[PROCESSES];

    for (size_t i = 0; i < PROCESSES; i++)
        pids[i] = forked_start(run_holder, race);
    for (size_t i = 0; i < PROCESSES; i++)
        assert_int_equal(forked_wait(pids[i]), 0);
    assert_true(race->taken > 10000);
    race_free(race);
}

static void given_processes_killed_anywhere_when_reaped_then_no_key_stays_claimed(void **state)
{
    struct race *race = race_new();
    struct idempotency_claim c;

    for (int round = 0; round < 150; round++) {
        pid_t victim, witness;

        atomic_store(&race->next, 0);
        victim = forked_start(run_holder, race); /* mostly slot 0 and 1: whichever */
        witness = forked_start(run_holder, race);
        forked_kill_soon(victim, 2000);
        forked_kill_soon(witness, 1000);
        for (size_t slot = 0; slot < PROCESSES; slot++)
            idempotency_reap(race->region, slot);
        for (size_t k = 0; k < HELD_KEYS; k++) {
            atomic_store(&race->holders[k], 0);
            assert_int_equal(claim(race->region, k, SLOT, &c), IDEMPOTENCY_CLAIMED);
            idempotency_release(race->region, &c);
        }
    }
    race_free(race);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(given_new_key_when_claimed_then_others_find_it_running),
        TEST(given_key_with_another_request_when_claimed_then_reused),
        TEST(given_request_that_cost_nothing_when_released_then_it_may_run_again),
        TEST(given_answer_on_its_way_when_stored_then_replayed_until_its_time_is_over),
        TEST(given_answer_that_is_not_kept_when_given_up_then_unavailable_until_its_end),
        TEST(given_stored_answer_when_lost_then_unavailable),
        TEST(given_row_of_the_ledger_when_put_then_known_and_running_ones_stay),
        TEST(given_dead_worker_when_reaped_then_its_entries_are_free_or_never_run_again),
        TEST(given_full_table_when_claimed_then_refused_until_a_place_is_over),
        TEST(given_large_table_when_filled_to_capacity_then_every_key_has_a_place),
        cmocka_unit_test(
            given_same_key_in_four_processes_when_claimed_at_once_then_exactly_one_has_it),
        cmocka_unit_test(
            given_four_processes_when_they_claim_and_release_then_never_two_hold_a_key),
        cmocka_unit_test(given_processes_killed_anywhere_when_reaped_then_no_key_stays_claimed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
