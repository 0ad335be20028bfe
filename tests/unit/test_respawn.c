#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/respawn.h"

static void given_rare_deaths_when_asked_then_never_a_wait(void **state)
{
    struct respawn r = {0};

    for (int64_t at = 5000; at < 60000; at += 5000)
        assert_int_equal(respawn_delay_ms(&r, at - 4900, at, true), 0);
}

static void given_three_deaths_within_a_second_when_asked_then_the_third_waits(void **state)
{
    struct respawn r = {0};

    assert_int_equal(respawn_delay_ms(&r, 0, 1000, true), 0);
    assert_int_equal(respawn_delay_ms(&r, 1000, 1300, true), 0);
    assert_int_equal(respawn_delay_ms(&r, 1300, 1900, true), RESPAWN_DELAY_FIRST_MS);
}

static void given_three_deaths_over_more_than_a_second_when_asked_then_no_wait(void **state)
{
    struct respawn r = {0};

    assert_int_equal(respawn_delay_ms(&r, 0, 1000, true), 0);
    assert_int_equal(respawn_delay_ms(&r, 1000, 1600, true), 0);
    assert_int_equal(respawn_delay_ms(&r, 1600, 2200, true), 0);
}

static int64_t series(struct respawn *r, bool ready, int64_t expected[], size_t count)
{
    int64_t now_ms = 10000;

    for (size_t i = 0; i < count; i++) {
        int64_t delay_ms = respawn_delay_ms(r, now_ms, now_ms + 10, ready);

        assert_int_equal(delay_ms, expected[i]);
        now_ms += 10 + delay_ms;
    }
    return now_ms;
}

static void
given_a_ready_child_that_dies_again_and_again_then_waits_double_to_one_second(void **state)
{
    int64_t expected[] = {0, 0, 100, 200, 400, 800, 1000, 1000};
    struct respawn r = {0};

    series(&r, true, expected, sizeof(expected) / sizeof(expected[0]));
}

static void given_a_child_that_never_gets_ready_then_waits_double_to_five_seconds(void **state)
{
    int64_t expected[] = {0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
    struct respawn r = {0};

    series(&r, false, expected, sizeof(expected) / sizeof(expected[0]));
}

static void given_a_series_when_a_child_holds_for_a_second_then_it_is_over(void **state)
{
    int64_t expected[] = {0, 0, 100, 200};
    struct respawn r = {0};
    int64_t now_ms = series(&r, true, expected, sizeof(expected) / sizeof(expected[0]));

    assert_int_equal(respawn_delay_ms(&r, now_ms, now_ms + 1000, true), 0);
    assert_int_equal(respawn_delay_ms(&r, now_ms + 1000, now_ms + 1500, true), 0);
}

static void
given_long_waits_of_an_unready_child_when_it_gets_ready_then_its_limit_counts(void **state)
{
    struct respawn r = {.delay_ms = 5000, .death_count = 2, .deaths_ms = {0, 5000}};

    assert_int_equal(respawn_delay_ms(&r, 10000, 10100, true), RESPAWN_DELAY_MAX_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_rare_deaths_when_asked_then_never_a_wait),
        cmocka_unit_test(given_three_deaths_within_a_second_when_asked_then_the_third_waits),
        cmocka_unit_test(given_three_deaths_over_more_than_a_second_when_asked_then_no_wait),
        cmocka_unit_test(
            given_a_ready_child_that_dies_again_and_again_then_waits_double_to_one_second),
        cmocka_unit_test(given_a_child_that_never_gets_ready_then_waits_double_to_five_seconds),
        cmocka_unit_test(given_a_series_when_a_child_holds_for_a_second_then_it_is_over),
        cmocka_unit_test(
            given_long_waits_of_an_unready_child_when_it_gets_ready_then_its_limit_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
