#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/breaker.h"

static const struct config config = {.breaker_failures = 5,
                                     .breaker_requests = 20,
                                     .breaker_error_percent = 50,
                                     .breaker_window_ms = 10000,
                                     .breaker_open_ms = 1000};

#define NOW 1000000

static void fail_times(struct breaker *b, unsigned count, int64_t now_ms)
{
    for (unsigned i = 0; i < count; i++)
        (void)breaker_note(b, &config, true, now_ms);
}

static enum breaker_state state(const struct breaker *b, int64_t now_ms)
{
    return breaker_state_now(b, &config, now_ms);
}

static void given_a_new_one_when_asked_then_closed(void **s)
{
    struct breaker b = {0};

    assert_int_equal(state(&b, NOW), BREAKER_CLOSED);
    assert_true(breaker_allows(&b, &config, NOW));
    assert_int_equal(breaker_wait_ms(&b, &config, NOW), 0);
}

static void given_failures_in_a_row_when_the_last_is_noted_then_it_opens(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 4, NOW);
    assert_int_equal(state(&b, NOW), BREAKER_CLOSED);
    assert_true(breaker_note(&b, &config, true, NOW));
    assert_int_equal(state(&b, NOW), BREAKER_OPEN);
    assert_false(breaker_allows(&b, &config, NOW + 999));
    assert_int_equal(breaker_wait_ms(&b, &config, NOW + 300), 700);
    assert_int_equal(b.opened_total, 1);
}

static void given_a_success_between_when_failures_go_on_then_the_row_begins_anew(void **s)
{
    struct breaker b = {0};

    for (int i = 0; i < 4; i++) { /* fewer than breaker.requests in all */
        fail_times(&b, 4, NOW);
        assert_false(breaker_note(&b, &config, false, NOW));
        if (i == 3)
            break;
        assert_int_equal(state(&b, NOW), BREAKER_CLOSED);
    }
}

static void given_a_share_of_failures_when_enough_have_ended_then_it_opens(void **s)
{
    struct breaker b = {0};

    for (int i = 0; i < 9; i++) {
        assert_false(breaker_note(&b, &config, true, NOW + i));
        assert_false(breaker_note(&b, &config, false, NOW + i));
    }
    assert_false(breaker_note(&b, &config, false, NOW + 10)); /* 9 of 19 */
    assert_true(breaker_note(&b, &config, true, NOW + 10));   /* 10 of 20 */
    assert_int_equal(state(&b, NOW + 10), BREAKER_OPEN);
}

static void given_an_old_share_when_the_window_has_passed_then_it_does_not_count(void **s)
{
    struct breaker b = {0};

    for (int i = 0; i < 9; i++) {
        (void)breaker_note(&b, &config, true, NOW);
        (void)breaker_note(&b, &config, false, NOW);
    }
    for (int i = 0; i < 10; i++)
        (void)breaker_note(&b, &config, false, NOW + 20000);
    assert_false(breaker_note(&b, &config, true, NOW + 20000));
    assert_int_equal(state(&b, NOW + 20000), BREAKER_CLOSED);
}

static void given_an_open_one_when_its_time_is_over_then_one_probe_passes(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_int_equal(state(&b, NOW + 1000), BREAKER_HALF_OPEN);
    assert_true(breaker_allows(&b, &config, NOW + 1000));
    assert_false(breaker_allows(&b, &config, NOW + 1000));
    assert_false(breaker_allows(&b, &config, NOW + 1999));
}

static void given_a_probe_when_it_succeeds_then_closed_and_the_past_forgotten(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_true(breaker_allows(&b, &config, NOW + 1000));
    assert_true(breaker_note(&b, &config, false, NOW + 1001));
    assert_int_equal(state(&b, NOW + 1001), BREAKER_CLOSED);
    fail_times(&b, 4, NOW + 1002);
    assert_int_equal(state(&b, NOW + 1002), BREAKER_CLOSED);
}

static void given_a_probe_when_it_fails_then_open_again(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_true(breaker_allows(&b, &config, NOW + 1000));
    assert_true(breaker_note(&b, &config, true, NOW + 1500));
    assert_int_equal(state(&b, NOW + 1500), BREAKER_OPEN);
    assert_false(breaker_allows(&b, &config, NOW + 2499));
    assert_true(breaker_allows(&b, &config, NOW + 2500));
}

static void given_a_probe_without_verdict_when_given_back_then_another_passes(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_true(breaker_allows(&b, &config, NOW + 1000));
    breaker_forget(&b);
    assert_true(breaker_allows(&b, &config, NOW + 1001));
    assert_false(breaker_allows(&b, &config, NOW + 1001));
}

static void given_a_probe_that_died_when_time_passes_then_another_passes(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_true(breaker_allows(&b, &config, NOW + 1000));
    assert_true(breaker_allows(&b, &config, NOW + 2000));
}

static void given_a_late_failure_when_open_then_it_changes_nothing(void **s)
{
    struct breaker b = {0};

    fail_times(&b, 5, NOW);
    assert_false(breaker_note(&b, &config, true, NOW + 900));
    assert_int_equal(state(&b, NOW + 1000), BREAKER_HALF_OPEN); /* not from then on */
    breaker_forget(&b);                                         /* nobody probes */
    assert_true(breaker_allows(&b, &config, NOW + 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_new_one_when_asked_then_closed),
        cmocka_unit_test(given_failures_in_a_row_when_the_last_is_noted_then_it_opens),
        cmocka_unit_test(given_a_success_between_when_failures_go_on_then_the_row_begins_anew),
        cmocka_unit_test(given_a_share_of_failures_when_enough_have_ended_then_it_opens),
        cmocka_unit_test(given_an_old_share_when_the_window_has_passed_then_it_does_not_count),
        cmocka_unit_test(given_an_open_one_when_its_time_is_over_then_one_probe_passes),
        cmocka_unit_test(given_a_probe_when_it_succeeds_then_closed_and_the_past_forgotten),
        cmocka_unit_test(given_a_probe_when_it_fails_then_open_again),
        cmocka_unit_test(given_a_probe_without_verdict_when_given_back_then_another_passes),
        cmocka_unit_test(given_a_probe_that_died_when_time_passes_then_another_passes),
        cmocka_unit_test(given_a_late_failure_when_open_then_it_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
