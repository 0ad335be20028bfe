#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/forked.h"
#include "usage/calibration.h"

#define MODELS 4
#define FULL CALIBRATION_MEMORY_TOKENS

static int set_up(void **state)
{
    struct calibration_region *r = forked_memory(calibration_region_spec(MODELS).bytes);

    calibration_region_init(r, MODELS);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    munmap(*state, calibration_region_spec(MODELS).bytes);
    return 0;
}

static void assert_known(const struct calibration_region *r, size_t model, uint32_t ratio,
                         uint32_t tokens)
{
    struct calibration known = calibration_get(r, model);

    assert_int_equal(known.ratio, ratio);
    assert_int_equal(known.tokens, tokens);
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 32);
}

static uint32_t distance(uint32_t a, uint32_t b)
{
    return a > b ? a - b : b - a;
}

/* ---- the region ---- */

static void given_object_when_attached_then_region_is_found_and_checked(void **state)
{
    struct shm_region_spec spec = calibration_region_spec(MODELS), other = spec;
    uint8_t start_id[SHM_START_ID_BYTES] = {1};
    struct calibration_region *r;
    char name[SHM_NAME_BYTES];
    struct shm *shm;

    snprintf(name, sizeof(name), "/test-calibration-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    r = shm_region(shm, CALIBRATION_REGION, spec.layout, NULL);
    calibration_region_init(r, MODELS);
    assert_ptr_equal(calibration_region_get(shm), r);
    assert_int_equal(calibration_count(r), MODELS);
    calibration_region_init(r, SIZE_MAX / 8); /* damaged: more than fits */
    assert_null(calibration_region_get(shm));
    shm_close(shm);
    assert_int_equal(shm_unlink_name(name), 0);

    other.layout++;
    assert_int_equal(shm_create(name, 0600, &other, 1, start_id, &shm), 0);
    assert_null(calibration_region_get(shm));
    shm_close(shm);
    assert_int_equal(shm_unlink_name(name), 0);
}

static void given_zeroed_memory_when_asked_then_nothing_is_known(void **state)
{
    for (size_t i = 0; i < MODELS; i++)
        assert_known(*state, i, CALIBRATION_ONE, 0);
}

/* ---- learning ---- */

static void given_first_request_when_learned_then_its_ratio_is_the_ratio(void **state)
{
    calibration_learn(*state, 2, 300, 400);
    assert_known(*state, 2, 1333333, 300);
    assert_known(*state, 1, CALIBRATION_ONE, 0);
    assert_known(*state, 3, CALIBRATION_ONE, 0);
}

static void given_several_requests_when_learned_then_each_weighs_its_tokens(void **state)
{
    calibration_learn(*state, 0, 100, 200);
    calibration_learn(*state, 0, 300, 300);
    assert_known(*state, 0, 1250000, 400); /* 500 for 400 */
    calibration_learn(*state, 0, 1, 20);
    assert_known(*state, 0, 1296758, 401); /* 520 for 401 */
}

static void given_huge_request_when_learned_then_it_weighs_no_more_than_allowed(void **state)
{
    calibration_learn(*state, 0, CALIBRATION_REQUEST_TOKENS, CALIBRATION_REQUEST_TOKENS);
    calibration_learn(*state, 0, 1000000, 2000000);
    assert_known(*state, 0, 1500000, 2 * CALIBRATION_REQUEST_TOKENS);
}

static void given_full_memory_when_learned_then_old_requests_fade(void **state)
{
    calibration_restore(*state, 0, (struct calibration){1000000, FULL});
    calibration_learn(*state, 0, 4096, 8192);
    assert_known(*state, 0, 1062500, FULL); /* 4096 of 65536 weigh a sixteenth */
    for (int i = 0; i < 16 * 16; i++)
        calibration_learn(*state, 0, 4096, 8192);
    assert_true(distance(calibration_get(*state, 0).ratio, 2000000) < 10);
    assert_int_equal(calibration_get(*state, 0).tokens, FULL);
}

static void given_nonsense_when_learned_then_nothing_or_the_bound_is_learned(void **state)
{
    static const int64_t IGNORED[][2] = {{0, 10}, {10, 0}, {-1, 10}, {10, -1}, {INT64_MIN, 10}};

    for (size_t i = 0; i < sizeof(IGNORED) / sizeof(IGNORED[0]); i++)
        calibration_learn(*state, 0, IGNORED[i][0], IGNORED[i][1]);
    assert_known(*state, 0, CALIBRATION_ONE, 0);
    calibration_learn(*state, 0, 10, 201);
    assert_known(*state, 0, CALIBRATION_MAX, 10);
    calibration_learn(*state, 1, 100, 4);
    assert_known(*state, 1, CALIBRATION_MIN, 100);
    calibration_learn(*state, 2, 1, INT64_MAX);
    assert_known(*state, 2, CALIBRATION_MAX, 1);
    calibration_learn(*state, 3, INT64_MAX, 1);
    assert_known(*state, 3, CALIBRATION_MIN, CALIBRATION_REQUEST_TOKENS);
    calibration_learn(*state, 3, INT64_MAX, INT64_MAX);
    assert_known(*state, 3, 525000, 2 * CALIBRATION_REQUEST_TOKENS);
}

static void given_any_samples_when_learned_then_word_stays_within_its_bounds(void **state)
{
    uint64_t seed = 7;

    for (int i = 0; i < 200000; i++) {
        unsigned shift = next_random(&seed) % 62;
        int64_t counted = next_random(&seed) % 4 ? next_random(&seed) % 9000 : INT64_C(1) << shift;
        int64_t reported = next_random(&seed) % 4 ? next_random(&seed) % 9000 : INT64_MAX >> shift;
        struct calibration known;

        calibration_learn(*state, 0, counted, reported);
        known = calibration_get(*state, 0);
        assert_in_range(known.ratio, CALIBRATION_MIN, CALIBRATION_MAX);
        assert_true(known.tokens <= FULL);
    }
    assert_int_equal(calibration_get(*state, 0).tokens, FULL);
}

/* The ratio ends within half a millionth of what each sample says, however little that weighs. */
static void creep(struct calibration_region *r, uint32_t from, int64_t counted, int64_t reported,
                  uint32_t to)
{
    int steps = (int)(20 * FULL / (counted < CALIBRATION_REQUEST_TOKENS ? counted : 4096));

    memset(r, 0, calibration_region_spec(MODELS).bytes);
    calibration_region_init(r, MODELS);
    calibration_restore(r, 0, (struct calibration){from, FULL});
    for (int i = 0; i < steps; i++)
        calibration_learn(r, 0, counted, reported);
    assert_known(r, 0, to, FULL);
}

static void given_smallest_weight_and_difference_when_learned_then_ratio_never_sticks(void **state)
{
    creep(*state, 1000001, 1, 1, 1000000);
    creep(*state, 999999, 1, 1, 1000000);
    creep(*state, CALIBRATION_MAX, 1, 1, 1000000);
    creep(*state, CALIBRATION_MIN, 1, 1, 1000000);
    creep(*state, 1000001, 3, 3, 1000000);
    creep(*state, 1000000, 1000000, 1000001, 1000001);
    creep(*state, CALIBRATION_MAX, 1000000, 1083401, 1083401);
    creep(*state, 1000000, 3, 2, 666667);
}

/* Requests as they are: most small, some a token or two, each off by up to noise in 1000, and
 * rounded to whole tokens. */
static uint32_t learn_noisy(struct calibration_region *r, uint32_t ratio, uint32_t smallest,
                            uint32_t largest, uint32_t noise, int requests)
{
    uint64_t seed = ratio ^ largest;

    for (int i = 0; i < requests; i++) {
        int64_t counted = smallest + next_random(&seed) % (largest - smallest + 1);
        int64_t off = 1000 - (int64_t)noise + next_random(&seed) % (2 * noise + 1);

        calibration_learn(r, 0, counted,
                          (counted * ratio / 1000 * off + CALIBRATION_ONE / 2) / CALIBRATION_ONE);
    }
    return distance(calibration_get(r, 0).ratio, ratio);
}

static void given_noisy_samples_when_learned_then_within_one_percent(void **state)
{
    static const struct {
        uint32_t ratio, smallest, largest, noise;
    } CASES[] = {
        {1083400, 20, 2000, 100}, {780000, 20, 2000, 200}, {2500000, 1, 60, 100},
        {1500000, 1, 4, 50},      {400000, 5, 30, 100},    {1083400, 1000, 60000, 50},
    };

    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        uint32_t ratio = CASES[i].ratio;

        memset(*state, 0, calibration_region_spec(MODELS).bytes);
        calibration_region_init(*state, MODELS);
        assert_true(learn_noisy(*state, ratio, CASES[i].smallest, CASES[i].largest, CASES[i].noise,
                                50000) < ratio / 100);
    }
}

static void given_hundred_requests_when_learned_then_within_two_percent(void **state)
{
    assert_true(learn_noisy(*state, 1083400, 20, 500, 150, 100) < 1083400 / 50);
}

static void given_provider_that_changes_when_learned_then_ratio_follows(void **state)
{
    assert_true(learn_noisy(*state, 1000000, 50, 500, 100, 2000) < 10000);
    assert_true(learn_noisy(*state, 1600000, 50, 500, 100, 2000) < 16000);
}

/* ---- many at once ---- */

#define WRITERS 4

struct crowd {
    struct calibration_region *region;
    int requests;
    int64_t counted;
    _Atomic int running;
};

static int learn_in_crowd(void *arg)
{
    struct crowd *c = arg;
    uint64_t seed = (uint64_t)getpid();

    for (int i = 0; i < c->requests; i++)
        calibration_learn(c->region, 0, c->counted, c->counted + next_random(&seed) % c->counted);
    c->running--;
    return 0;
}

static void run_crowd(struct crowd *c, void (*look)(struct crowd *c))
{
    pid_t pids[WRITERS];

    c->running = WRITERS;
    for (int i = 0; i < WRITERS; i++)
        pids[i] = forked_start(learn_in_crowd, c);
    while (look != NULL && c->running > 0)
        look(c);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(forked_wait(pids[i]), 0);
}

static void look_at_sense(struct crowd *c)
{
    struct calibration known = calibration_get(c->region, 0);

    assert_in_range(known.ratio, 1000000, 2000000);
    assert_true(known.tokens <= FULL);
}

static void given_writers_at_once_when_learned_then_no_update_is_lost(void **state)
{
    struct crowd *c = forked_memory(sizeof(*c));

    *c = (struct crowd){.region = *state, .requests = 1600, .counted = 10};
    run_crowd(c, NULL);
    assert_int_equal(calibration_get(*state, 0).tokens, WRITERS * 1600 * 10);
    assert_true(distance(calibration_get(*state, 0).ratio, 1450000) < 20000);
    munmap(c, sizeof(*c));
}

static void given_writers_at_once_when_looked_at_then_each_word_makes_sense(void **state)
{
    struct crowd *c = forked_memory(sizeof(*c));

    *c = (struct crowd){.region = *state, .requests = 100000, .counted = 700};
    run_crowd(c, look_at_sense);
    assert_int_equal(calibration_get(*state, 0).tokens, FULL);
    assert_known(*state, 1, CALIBRATION_ONE, 0);
    munmap(c, sizeof(*c));
}

/* ---- restoring ---- */

static void given_kept_ratio_when_restored_then_the_same_and_only_once(void **state)
{
    calibration_restore(*state, 0, (struct calibration){1083401, 12345});
    assert_known(*state, 0, 1083401, 12345);
    calibration_restore(*state, 0, (struct calibration){2000000, 500});
    assert_known(*state, 0, 1083401, 12345);
    calibration_learn(*state, 1, 100, 150);
    calibration_restore(*state, 1, (struct calibration){2000000, FULL});
    assert_known(*state, 1, 1500000, 100);
}

static void given_numbers_without_sense_when_restored_then_nothing_is_known(void **state)
{
    static const struct calibration BAD[] = {
        {0, 10},      {CALIBRATION_MIN - 1, 10}, {CALIBRATION_MAX + 1, 10},
        {1000000, 0}, {1000000, FULL + 1},       {UINT32_MAX, UINT32_MAX},
    };
    static const struct calibration GOOD[] = {{CALIBRATION_MIN, 1}, {CALIBRATION_MAX, FULL}};

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        calibration_restore(*state, 0, BAD[i]);
        assert_known(*state, 0, CALIBRATION_ONE, 0);
    }
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        calibration_restore(*state, i, GOOD[i]);
        assert_known(*state, i, GOOD[i].ratio, GOOD[i].tokens);
    }
}

/* ---- sampling ---- */

static void given_memory_not_full_when_asked_then_every_prompt_is_wanted(void **state)
{
    for (uint32_t i = 0; i < 1000; i++)
        assert_true(calibration_wants(*state, 0, i * 7919));
    calibration_restore(*state, 0, (struct calibration){1000000, FULL - 1});
    for (uint32_t i = 0; i < 1000; i++)
        assert_true(calibration_wants(*state, 0, i * 7919));
}

/* A counter in any of the word's bytes, as ids have it in either byte order. */
static void given_full_memory_when_asked_then_one_in_so_many_is_wanted(void **state)
{
    calibration_restore(*state, 0, (struct calibration){1000000, FULL});
    for (unsigned shift = 0; shift <= 24; shift += 8) {
        uint32_t wanted = 0, span = shift <= 16 ? 65536 : 256;

        for (uint32_t i = 0; i < span; i++)
            wanted += calibration_wants(*state, 0, i << shift);
        assert_true(distance(wanted, span / CALIBRATION_SAMPLE) <= 2);
    }
}

/* ---- applying ---- */

static void given_ratio_when_applied_then_rounded_up(void **state)
{
    assert_int_equal(calibration_apply(CALIBRATION_ONE, 0), 0);
    assert_int_equal(calibration_apply(CALIBRATION_ONE, 123456789), 123456789);
    assert_int_equal(calibration_apply(1000001, 1), 2);
    assert_int_equal(calibration_apply(1083400, 1000), 1084);
    assert_int_equal(calibration_apply(1083400, 10000), 10834);
    assert_int_equal(calibration_apply(CALIBRATION_MIN, 1), 1);
    assert_int_equal(calibration_apply(CALIBRATION_MIN, 20), 1);
    assert_int_equal(calibration_apply(CALIBRATION_MIN, 21), 2);
    assert_int_equal(calibration_apply(999999, 1000001), 1000000);
    assert_int_equal(calibration_apply(1500000, INT64_C(4000000000000)), INT64_C(6000000000000));
}

static void given_too_many_tokens_when_applied_then_saturates(void **state)
{
    assert_true(calibration_apply(CALIBRATION_MAX, INT64_MAX) == INT64_MAX);
    assert_true(calibration_apply(CALIBRATION_MAX, INT64_MAX / 19) == INT64_MAX);
    assert_true(calibration_apply(CALIBRATION_MAX, INT64_MAX / 20) == INT64_MAX / 20 * 20);
    assert_true(calibration_apply(CALIBRATION_ONE, INT64_MAX) == INT64_MAX);
    assert_true(calibration_apply(CALIBRATION_ONE + 1, INT64_MAX) == INT64_MAX);
    assert_true(calibration_apply(UINT32_MAX, INT64_MAX) == INT64_MAX);
    assert_true(calibration_apply(CALIBRATION_ONE / 2, INT64_MAX) == INT64_MAX / 2 + 1);
}

/* ---- shown ---- */

static void given_gauges_when_read_then_only_models_that_learned_have_values(void **state)
{
    struct model_gauges known = calibration_gauges(*state), none = calibration_gauges(NULL);
    uint64_t value;

    assert_int_equal(known.count, 2);
    calibration_learn(*state, 1, 100, 110);
    assert_true(known.list[0].read(known.arg, 1, &value));
    assert_int_equal(value, 1100000);
    assert_true(known.list[1].read(known.arg, 1, &value));
    assert_int_equal(value, 100);
    for (size_t i = 0; i < known.count; i++) {
        assert_false(known.list[i].read(known.arg, 0, &value));
        assert_false(known.list[i].read(known.arg, MODELS, &value));
        assert_false(none.list[i].read(none.arg, 1, &value));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_object_when_attached_then_region_is_found_and_checked),
        TEST(given_zeroed_memory_when_asked_then_nothing_is_known),
        TEST(given_first_request_when_learned_then_its_ratio_is_the_ratio),
        TEST(given_several_requests_when_learned_then_each_weighs_its_tokens),
        TEST(given_huge_request_when_learned_then_it_weighs_no_more_than_allowed),
        TEST(given_full_memory_when_learned_then_old_requests_fade),
        TEST(given_nonsense_when_learned_then_nothing_or_the_bound_is_learned),
        TEST(given_any_samples_when_learned_then_word_stays_within_its_bounds),
        TEST(given_smallest_weight_and_difference_when_learned_then_ratio_never_sticks),
        TEST(given_noisy_samples_when_learned_then_within_one_percent),
        TEST(given_hundred_requests_when_learned_then_within_two_percent),
        TEST(given_provider_that_changes_when_learned_then_ratio_follows),
        TEST(given_writers_at_once_when_learned_then_no_update_is_lost),
        TEST(given_writers_at_once_when_looked_at_then_each_word_makes_sense),
        TEST(given_kept_ratio_when_restored_then_the_same_and_only_once),
        TEST(given_numbers_without_sense_when_restored_then_nothing_is_known),
        TEST(given_memory_not_full_when_asked_then_every_prompt_is_wanted),
        TEST(given_full_memory_when_asked_then_one_in_so_many_is_wanted),
        TEST(given_ratio_when_applied_then_rounded_up),
        TEST(given_too_many_tokens_when_applied_then_saturates),
        TEST(given_gauges_when_read_then_only_models_that_learned_have_values),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
