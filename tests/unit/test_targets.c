#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "router/targets.h"

#define NOW INT64_C(1000000)
#define TARGETS 2
#define PROVIDERS 2

static const struct config config = {.breaker_failures = 3,
                                     .breaker_requests = 20,
                                     .breaker_error_percent = 50,
                                     .breaker_window_ms = 10000,
                                     .breaker_open_ms = 1000};

static int setup(void **state)
{
    struct targets_region *r = calloc(1, targets_region_spec(TARGETS, PROVIDERS).bytes);

    assert_non_null(r);
    targets_region_init(r, TARGETS, PROVIDERS);
    assert_int_equal(targets_register(r, "one", "a"), 0);
    assert_int_equal(targets_register(r, "two", "a"), 1);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void assert_bar(struct targets_region *r, int provider, const struct target *t,
                       enum target_bar expected, int64_t expected_ms)
{
    int64_t wait_ms = -1;

    assert_int_equal(targets_bar(r, provider, t, &config, NOW, &wait_ms), expected);
    assert_int_equal(wait_ms, expected_ms);
}

static void given_a_new_target_when_asked_then_free(void **state)
{
    assert_bar(*state, 0, target_at(*state, 0), TARGET_FREE, 0);
}

static void given_no_place_in_the_statistics_when_asked_then_free(void **state)
{
    assert_bar(*state, -1, NULL, TARGET_FREE, 0);
    targets_set_switch(*state, PROVIDERS, PROVIDER_DISABLED); /* there is none of that index */
    assert_bar(*state, PROVIDERS, NULL, TARGET_FREE, 0);
}

static void given_a_full_table_when_one_more_is_registered_then_refused(void **state)
{
    assert_true(targets_register(*state, "three", "a") < 0);
    assert_int_equal(targets_register(*state, "two", "a"), 1);
    assert_null(target_at(*state, TARGETS));
}

static void given_a_switched_off_provider_when_asked_then_barred_until_it_is_on(void **state)
{
    static const enum provider_switch off[] = {PROVIDER_DISABLED, PROVIDER_DRAINING};

    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        targets_set_switch(*state, 1, off[i]);
        assert_int_equal(targets_switch(*state, 1), off[i]);
        assert_bar(*state, 1, target_at(*state, 1), TARGET_SWITCHED_OFF, 0);
        assert_bar(*state, 0, target_at(*state, 0), TARGET_FREE, 0);
        targets_set_switch(*state, 1, PROVIDER_ENABLED);
        assert_bar(*state, 1, target_at(*state, 1), TARGET_FREE, 0);
    }
}

static void given_a_retry_after_when_asked_then_barred_for_the_rest_of_it(void **state)
{
    target_close_for(target_at(*state, 0), NOW - 300, 1000);
    assert_bar(*state, 0, target_at(*state, 0), TARGET_LEFT_ALONE, 700);
    assert_bar(*state, 1, target_at(*state, 1), TARGET_FREE, 0);
}

static void given_an_open_breaker_when_asked_then_barred_until_its_probe(void **state)
{
    struct target *t = target_at(*state, 0);

    for (unsigned i = 0; i < config.breaker_failures; i++)
        (void)breaker_note(&t->breaker, &config, true, NOW - 400);
    assert_bar(*state, 0, t, TARGET_BREAKER_OPEN, 600);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(given_a_new_target_when_asked_then_free),
        EACH(given_no_place_in_the_statistics_when_asked_then_free),
        EACH(given_a_full_table_when_one_more_is_registered_then_refused),
        EACH(given_a_switched_off_provider_when_asked_then_barred_until_it_is_on),
        EACH(given_a_retry_after_when_asked_then_barred_for_the_rest_of_it),
        EACH(given_an_open_breaker_when_asked_then_barred_until_its_probe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
