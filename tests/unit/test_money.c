#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/money.h"

static void assert_parses(const char *text, int64_t expected)
{
    int64_t nano = -42;

    assert_int_equal(money_parse(text, &nano), 0);
    assert_int_equal(nano, expected);
}

static void given_decimal_text_when_parsed_then_nanocredits(void **state)
{
    assert_parses("0", 0);
    assert_parses("-0", 0);
    assert_parses("12", 12 * NANO_PER_CREDIT);
    assert_parses("0.000000001", 1);
    assert_parses("-3.5", -3 * NANO_PER_CREDIT - NANO_PER_CREDIT / 2);
    assert_parses("9223372036.854775807", INT64_MAX);
    assert_parses("-9223372036.854775808", INT64_MIN);
}

static void given_no_number_when_parsed_then_refused(void **state)
{
    static const char *const bad[] = {"",   "-",   "+1",  ".5",  "5.",  "1e3",
                                      " 1", "1 ",  "1,5", "0x1", "--1", "0.0000000001",
                                      "1.", "1.-", "inf", "nan"};
    int64_t nano = 42;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(money_parse(bad[i], &nano), -EINVAL);
    assert_int_equal(nano, 42);
}

static void given_too_much_when_parsed_then_out_of_range(void **state)
{
    int64_t nano;

    assert_int_equal(money_parse("9223372036.854775808", &nano), -ERANGE);
    assert_int_equal(money_parse("-9223372036.854775809", &nano), -ERANGE);
    assert_int_equal(money_parse("99999999999999999999999999", &nano), -ERANGE);
    assert_int_equal(money_parse("18446744073.709551616", &nano), -ERANGE);
}

static void given_amounts_when_formatted_then_shortest_text_that_parses_back(void **state)
{
    static const struct {
        int64_t nano;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "0.000000001"},
                 {-1, "-0.000000001"},
                 {500000000, "0.5"},
                 {1000000000, "1"},
                 {-3500000000, "-3.5"},
                 {1000000010, "1.00000001"},
                 {INT64_MAX, "9223372036.854775807"},
                 {INT64_MIN, "-9223372036.854775808"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[MONEY_TEXT_BYTES];

        money_format(cases[i].nano, text);
        assert_string_equal(text, cases[i].text);
        assert_parses(text, cases[i].nano);
    }
}

static void given_price_when_tokens_used_then_exact_cost(void **state)
{
    /* 500 credits a million tokens, both ways; cached ones free */
    const struct price price = {.input_nano = 500 * NANO_PER_CREDIT,
                                .output_nano = 500 * NANO_PER_CREDIT,
                                .request_nano = 7};

    assert_int_equal(money_cost_nano(&price, 0, 0, 0), 7);
    assert_int_equal(money_cost_nano(&price, 1, 0, 0), 500000 + 7);
    assert_int_equal(money_cost_nano(&price, 10, 4, 5), (6 + 5) * 500000 + 7);
}

static void given_half_a_nanocredit_when_rounded_then_up_and_only_once(void **state)
{
    const struct price price = {
        .input_nano = 250000, .cached_input_nano = 1, .output_nano = 250000};

    assert_int_equal(money_cost_nano(&price, 1, 0, 0), 0); /* 0.25 */
    assert_int_equal(money_cost_nano(&price, 1, 0, 1), 1); /* 0.5, not 0 + 0 */
    assert_int_equal(money_cost_nano(&price, 2, 0, 3), 1); /* 1.25 */
    assert_int_equal(money_cost_nano(&price, 3, 0, 3), 2); /* 1.5 */
}

static void given_huge_numbers_when_multiplied_then_saturated(void **state)
{
    const struct price price = {.input_nano = INT64_MAX,
                                .cached_input_nano = INT64_MAX,
                                .output_nano = INT64_MAX,
                                .request_nano = INT64_MAX};

    assert_int_equal(money_cost_nano(&price, INT64_MAX, INT64_MAX, INT64_MAX), INT64_MAX);
    assert_int_equal(money_cost_nano(&price, 0, 0, 0), INT64_MAX);
}

static void given_more_cached_than_input_when_charged_then_input_counts(void **state)
{
    const struct price price = {.input_nano = 10000000, .cached_input_nano = 1000000};

    assert_int_equal(money_cost_nano(&price, 5, 9, 0), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_decimal_text_when_parsed_then_nanocredits),
        cmocka_unit_test(given_no_number_when_parsed_then_refused),
        cmocka_unit_test(given_too_much_when_parsed_then_out_of_range),
        cmocka_unit_test(given_amounts_when_formatted_then_shortest_text_that_parses_back),
        cmocka_unit_test(given_price_when_tokens_used_then_exact_cost),
        cmocka_unit_test(given_half_a_nanocredit_when_rounded_then_up_and_only_once),
        cmocka_unit_test(given_huge_numbers_when_multiplied_then_saturated),
        cmocka_unit_test(given_more_cached_than_input_when_charged_then_input_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
