#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/query.h"

#define COUNT 2

struct decoded {
    struct query_param params[COUNT];
    struct error error;
    int rc;
};

static struct decoded decode(const char *target)
{
    struct decoded d = {.params = {{.name = "since"}, {.name = "model"}}};

    d.rc = query_decode(target, d.params, COUNT, &d.error);
    return d;
}

static void given_a_query_when_decoded_then_values_by_name(void **state)
{
    struct decoded d = decode("/v1/usage?model=gigachat%2FGigaChat-2&since=2026-02-01");

    assert_int_equal(d.rc, 0);
    assert_string_equal(query_value(d.params, COUNT, "model"), "gigachat/GigaChat-2");
    assert_string_equal(query_value(d.params, COUNT, "since"), "2026-02-01");
}

static void given_no_query_when_decoded_then_nothing_is_given(void **state)
{
    static const char *const targets[] = {"/v1/usage", "/v1/usage?", "/v1/usage?&&", "",
                                          "/v1/usage?#since=1d"};

    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct decoded d = decode(targets[i]);

        assert_int_equal(d.rc, 0);
        assert_null(query_value(d.params, COUNT, "since"));
        assert_null(query_value(d.params, COUNT, "model"));
    }
}

static void given_plus_and_percent_when_decoded_then_space_and_bytes(void **state)
{
    struct decoded d = decode("/?model=a+b%2Bc%25%d0%B9&since");

    assert_int_equal(d.rc, 0);
    assert_string_equal(query_value(d.params, COUNT, "model"), "a b+c%\xd0\xb9");
    assert_string_equal(query_value(d.params, COUNT, "since"), "");
}

static void given_equals_in_a_value_when_decoded_then_part_of_it(void **state)
{
    struct decoded d = decode("/?model==a=b");

    assert_int_equal(d.rc, 0);
    assert_string_equal(query_value(d.params, COUNT, "model"), "=a=b");
}

static void given_bad_bytes_when_decoded_then_the_parameter_is_named(void **state)
{
    static const char *const bad[] = {"%",   "%4",  "%zz",       "a%0",   "%00", "%0a",
                                      "%7F", "%ff", "%ed%a0%80", "a\x01", "%-1"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char target[64];
        struct decoded d;

        snprintf(target, sizeof(target), "/?since=1d&model=%s", bad[i]);
        d = decode(target);
        assert_int_equal(d.rc, XR_EINVALID);
        assert_string_equal(d.error.param, "model");
    }
}

static void given_an_escape_cut_by_the_next_pair_when_decoded_then_refused(void **state)
{
    struct decoded d = decode("/?model=%4&since=1d");

    assert_int_equal(d.rc, XR_EINVALID);
    assert_string_equal(d.error.param, "model");
}

static void given_a_duplicate_when_decoded_then_refused(void **state)
{
    struct decoded d = decode("/?since=1d&sinc%65=2d");

    assert_int_equal(d.rc, XR_EINVALID);
    assert_string_equal(d.error.param, "since");
}

static void given_an_unknown_name_when_decoded_then_it_is_named(void **state)
{
    struct decoded d = decode("/?since=1d&form=x");

    assert_int_equal(d.rc, XR_EINVALID);
    assert_string_equal(d.error.param, "form");
}

static void given_the_longest_value_when_decoded_then_one_more_is_refused(void **state)
{
    char target[256] = "/?model=";
    size_t start = strlen(target);
    struct decoded d;

    memset(target + start, 'a', QUERY_VALUE_BYTES - 1);
    d = decode(target);
    assert_int_equal(d.rc, 0);
    assert_int_equal(strlen(query_value(d.params, COUNT, "model")), QUERY_VALUE_BYTES - 1);
    target[start + QUERY_VALUE_BYTES - 1] = 'a';
    d = decode(target);
    assert_int_equal(d.rc, XR_EINVALID);
    assert_string_equal(d.error.param, "model");
}

static void given_other_parameters_when_one_is_picked_then_they_are_left_alone(void **state)
{
    struct query_param param = {.name = "explain"};
    struct error e = {0};

    assert_int_equal(query_pick("/?a=1&%zz=2&explain=1&a=%00", &param, &e), 0);
    assert_true(param.is_given);
    assert_string_equal(param.value, "1");
    assert_int_equal(query_pick("/?a=1&b", &param, &e), 0);
    assert_false(param.is_given);
    assert_int_equal(query_pick("/?explain=1&explain=1", &param, &e), XR_EINVALID);
    assert_string_equal(e.param, "explain");
    assert_int_equal(query_pick("/?explain=%zz", &param, &e), XR_EINVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_query_when_decoded_then_values_by_name),
        cmocka_unit_test(given_no_query_when_decoded_then_nothing_is_given),
        cmocka_unit_test(given_plus_and_percent_when_decoded_then_space_and_bytes),
        cmocka_unit_test(given_equals_in_a_value_when_decoded_then_part_of_it),
        cmocka_unit_test(given_bad_bytes_when_decoded_then_the_parameter_is_named),
        cmocka_unit_test(given_an_escape_cut_by_the_next_pair_when_decoded_then_refused),
        cmocka_unit_test(given_a_duplicate_when_decoded_then_refused),
        cmocka_unit_test(given_an_unknown_name_when_decoded_then_it_is_named),
        cmocka_unit_test(given_the_longest_value_when_decoded_then_one_more_is_refused),
        cmocka_unit_test(given_other_parameters_when_one_is_picked_then_they_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
