#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"

static void given_moments_when_formatted_then_rfc3339_utc(void **state)
{
    char text[CLOCK_TEXT_BYTES];

    clock_format(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    clock_format(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    clock_format(INT64_C(1795461183007), text);
    assert_string_equal(text, "2026-11-23T19:13:03.007Z");
    clock_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    clock_format(INT64_MIN, text);
    assert_string_equal(text, "0001-01-01T00:00:00.000Z");
}

static void given_formatted_moments_when_parsed_then_the_same(void **state)
{
    char text[CLOCK_TEXT_BYTES];
    int64_t back;

    /* About one a month from the year 1 to 9999. */
    for (int64_t at = INT64_C(-62135596800000); at < INT64_C(253402300800000);
         at += INT64_C(2592000000) + 12345678) {
        clock_format(at, text);
        assert_int_equal(clock_parse(text, &back), 0);
        assert_int_equal(back, at);
    }
}

static void given_other_forms_when_parsed_then_read(void **state)
{
    int64_t at;

    assert_int_equal(clock_parse("2026-02-01", &at), 0);
    assert_int_equal(at, INT64_C(1769904000000));
    assert_int_equal(clock_parse("2026-02-01T00:00:01Z", &at), 0);
    assert_int_equal(at, INT64_C(1769904001000));
    assert_int_equal(clock_parse("2026-02-01T00:00:00.5+00:00", &at), 0);
    assert_int_equal(at, INT64_C(1769904000500));
    assert_int_equal(clock_parse("2026-02-01T00:00:00.1239999Z", &at), 0);
    assert_int_equal(at, INT64_C(1769904000123));
    assert_int_equal(clock_parse("2024-02-29", &at), 0);
    assert_int_equal(clock_parse("2000-02-29", &at), 0);
}

static void given_malformed_text_when_parsed_then_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "2026",
        "2026-2-1",
        "2026-02-30",
        "2025-02-29",
        "1900-02-29",
        "2026-13-01",
        "2026-00-10",
        "2026-01-00",
        "0000-01-01",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+03:00",
        "2026-01-01T00:00:00Zx",
        "2026-01-01x",
        " 2026-01-01",
        "-026-01-01",
    };
    int64_t at = 42;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(clock_parse(bad[i], &at), -EINVAL);
    assert_int_equal(at, 42);
}

static void given_clocks_when_read_then_they_agree_and_go_on(void **state)
{
    int64_t ms = clock_monotonic_ms();
    int64_t us = clock_monotonic_us();

    assert_true(us / 1000 >= ms);
    assert_true(clock_monotonic_ms() >= ms);
    assert_true(clock_now_at_ms() > INT64_C(1577836800000)); /* 2020 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_moments_when_formatted_then_rfc3339_utc),
        cmocka_unit_test(given_formatted_moments_when_parsed_then_the_same),
        cmocka_unit_test(given_other_forms_when_parsed_then_read),
        cmocka_unit_test(given_malformed_text_when_parsed_then_refused),
        cmocka_unit_test(given_clocks_when_read_then_they_agree_and_go_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
