#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "usage/report_query.h"

#define NOW INT64_C(1772366400000) /* 2026-03-01T12:00:00Z */
#define HOUR INT64_C(3600000)

static void given_nothing_when_decoded_then_thirty_days_by_day(void **state)
{
    struct report_query q;
    struct error e = {0};

    assert_int_equal(report_query_decode(&(struct report_words){0}, NOW, &q, &e), 0);
    assert_true(q.since_at_ms == NOW - 30 * 24 * HOUR && q.until_at_ms == NOW);
    assert_int_equal(q.by, REPORT_BY_DAY);
    assert_string_equal(q.model, "");
    assert_true(q.key_id == 0);
}

static void given_words_when_decoded_then_their_meaning(void **state)
{
    const struct report_words words = {
        .since = "2w", .until = "2026-02-28T10:00:00Z", .by = "model", .model = "a/b"};
    struct report_query q;
    struct error e = {0};

    assert_int_equal(report_query_decode(&words, NOW, &q, &e), 0);
    assert_true(q.since_at_ms == NOW - 14 * 24 * HOUR);
    assert_true(q.until_at_ms == NOW - 26 * HOUR);
    assert_int_equal(q.by, REPORT_BY_MODEL);
    assert_string_equal(q.model, "a/b");
}

static void given_a_bad_word_when_decoded_then_it_is_named(void **state)
{
    static const char *const moments[] = {
        "",           "7",    "d", "-1d", "1x", "7dd", "+7d", " 7d", "99999999999999999999d",
        "1960-01-01", "3000w"};
    char long_name[200];
    struct report_query q;

    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        struct error e = {0};

        assert_int_equal(
            report_query_decode(&(struct report_words){.since = moments[i]}, NOW, &q, &e),
            XR_EINVALID);
        assert_string_equal(e.param, "since");
        assert_int_equal(
            report_query_decode(&(struct report_words){.until = moments[i]}, NOW, &q, &e),
            XR_EINVALID);
        assert_string_equal(e.param, "until");
    }
    {
        struct error e = {0};

        assert_int_equal(report_query_decode(&(struct report_words){.by = "week"}, NOW, &q, &e),
                         XR_EINVALID);
        assert_string_equal(e.param, "by");
        assert_int_equal(report_query_decode(&(struct report_words){.model = ""}, NOW, &q, &e),
                         XR_EINVALID);
        assert_int_equal(
            report_query_decode(&(struct report_words){.model = long_name}, NOW, &q, &e),
            XR_EINVALID);
        assert_string_equal(e.param, "model");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_nothing_when_decoded_then_thirty_days_by_day),
        cmocka_unit_test(given_words_when_decoded_then_their_meaning),
        cmocka_unit_test(given_a_bad_word_when_decoded_then_it_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
