#include "tests/unit/ledger_fixture.h"

#include <errno.h>

#include "usage/meta.h"
#include "usage/report.h"

#define HOUR INT64_C(3600000)
#define MIDNIGHT_MS (FIXTURE_AT_MS + 12 * HOUR) /* after the fixture's first day */
#define OTHER_KEY UINT64_C(0xb2)

struct fixture {
    char dir[64];
    struct ledger *ledger;
};

static void insert(struct ledger *l, uint32_t n, int64_t at_ms, uint64_t key, const char *model)
{
    struct usage_event e = fixture_event(n);

    e.created_at_ms = at_ms;
    e.key_id = key;
    e.outcome = n % 2 == 0 ? USAGE_OK : USAGE_ERROR;
    snprintf(e.model, sizeof(e.model), "%s", model);
    e.cost_nano = INT64_C(500000000);
    assert_int_equal(ledger_insert(l, &e), LEDGER_INSERTED);
}

/* Three hours over midnight, two models, two keys. */
static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];
    int64_t late = FIXTURE_AT_MS + 11 * HOUR; /* 23:00 */

    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    fixture_add_key(f.ledger, "key_00000000000000b2", "other");
    assert_int_equal(ledger_begin(f.ledger), 0);
    insert(f.ledger, 0, FIXTURE_AT_MS, FIXTURE_KEY, "a");
    insert(f.ledger, 1, FIXTURE_AT_MS + 5, FIXTURE_KEY, "b");
    insert(f.ledger, 2, late, FIXTURE_KEY, "a");
    insert(f.ledger, 3, late + HOUR, OTHER_KEY, "a");
    assert_int_equal(ledger_commit(f.ledger), 0);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    fixture_remove_dir(f->dir);
    return 0;
}

static struct report_query everything(enum report_by by)
{
    return (struct report_query){
        .since_at_ms = FIXTURE_AT_MS, .until_at_ms = FIXTURE_AT_MS + 48 * HOUR, .by = by};
}

/* The rows and the total, without the range before them; slices of max sums. */
static void make(struct ledger *l, const struct report_query *query, size_t max, char *out,
                 size_t size)
{
    struct report *r = report_new(query);
    struct buf json;
    const char *rows;
    int rc;

    assert_non_null(r);
    do {
        rc = report_step(r, l, max);
    } while (rc == 1);
    assert_int_equal(rc, 0);
    buf_init(&json, 1 << 20);
    assert_int_equal(report_encode(r, l, &json), 0);
    rows = strstr(buf_text(&json), "\"rows\"");
    assert_non_null(rows);
    snprintf(out, size, "%s", rows);
    buf_clear(&json);
    report_free(r);
}

static void given_usage_when_by_model_then_sums_and_total(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_MODEL);
    char text[2048];

    make(f->ledger, &q, 100, text, sizeof(text));

    assert_string_equal(text, "\"rows\":["
                              "{\"model\":\"a\",\"requests\":3,\"errors\":1,\"tokens_input\":305,"
                              "\"tokens_cached\":30,\"tokens_output\":60,\"cost\":\"1.5\"},"
                              "{\"model\":\"b\",\"requests\":1,\"errors\":1,\"tokens_input\":101,"
                              "\"tokens_cached\":10,\"tokens_output\":20,\"cost\":\"0.5\"}],"
                              "\"total\":{\"requests\":4,\"errors\":2,\"tokens_input\":406,"
                              "\"tokens_cached\":40,\"tokens_output\":80,\"cost\":\"2\"}}");
}

static void given_usage_when_by_hour_and_day_then_moments_in_order(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_HOUR);
    char text[2048];
    const char *first, *second, *third;

    make(f->ledger, &q, 100, text, sizeof(text));
    first = strstr(text, "{\"hour\":\"2026-03-01T12:00:00.000Z\",\"requests\":2");
    second = strstr(text, "{\"hour\":\"2026-03-01T23:00:00.000Z\",\"requests\":1");
    third = strstr(text, "{\"hour\":\"2026-03-02T00:00:00.000Z\",\"requests\":1");
    assert_true(first != NULL && first < second && second < third);

    q.by = REPORT_BY_DAY;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "{\"day\":\"2026-03-01T00:00:00.000Z\",\"requests\":3"));
    assert_non_null(strstr(text, "{\"day\":\"2026-03-02T00:00:00.000Z\",\"requests\":1"));
}

static void given_usage_when_by_key_then_id_with_name(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_KEY);
    char text[2048];

    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(
        strstr(text, "{\"key\":\"" FIXTURE_KEY_TEXT "\",\"name\":\"demo\",\"requests\":3"));
    assert_non_null(
        strstr(text, "{\"key\":\"key_00000000000000b2\",\"name\":\"other\",\"requests\":1"));
}

static void given_slices_of_one_when_made_then_the_same_report(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 8; i++) {
        struct report_query q = everything((enum report_by)(i / 2));
        char whole[2048], sliced[2048];

        q.key_id = i % 2 == 0 ? 0 : FIXTURE_KEY;
        make(f->ledger, &q, 100, whole, sizeof(whole));
        make(f->ledger, &q, 1, sliced, sizeof(sliced));
        assert_string_equal(sliced, whole);
    }
}

static void given_filters_when_made_then_only_those(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_DAY);
    char text[2048];

    q.key_id = OTHER_KEY;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":1,"));
    q.key_id = FIXTURE_KEY;
    snprintf(q.model, sizeof(q.model), "a");
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":2,"));
}

static void given_range_when_made_then_whole_hours_inside_it(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_DAY);
    char text[2048];

    q.since_at_ms = FIXTURE_AT_MS + 11 * HOUR + 1800000; /* 23:30 counts from 23:00 */
    q.until_at_ms = FIXTURE_AT_MS + 12 * HOUR;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":1,"));
}

/* The daily sums are told apart by a number that the hourly ones do not have. */
static void
given_a_range_of_days_when_made_then_days_from_their_sums_and_hours_at_the_edges(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_DAY);
    char text[2048];

    assert_int_equal(database_exec(ledger_db(f->ledger), "UPDATE usage_daily SET requests = 1000"),
                     0);
    q.since_at_ms = MIDNIGHT_MS - 24 * HOUR;
    q.until_at_ms = MIDNIGHT_MS + 1;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "{\"day\":\"2026-03-01T00:00:00.000Z\",\"requests\":2000,"));
    assert_non_null(strstr(text, "{\"day\":\"2026-03-02T00:00:00.000Z\",\"requests\":1,"));

    q.since_at_ms = MIDNIGHT_MS - 2 * HOUR;
    q.until_at_ms = MIDNIGHT_MS + 24 * HOUR;
    q.key_id = OTHER_KEY;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":1000,"));
    q.key_id = FIXTURE_KEY;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":1,"));

    q = everything(REPORT_BY_HOUR);
    q.since_at_ms = MIDNIGHT_MS - 24 * HOUR;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_non_null(strstr(text, "\"total\":{\"requests\":4,"));
}

static void cover(struct ledger *l, const struct report_query *query, char *out, size_t size)
{
    struct report *r = report_new(query);
    struct buf json;

    buf_init(&json, 1 << 20);
    while (report_step(r, l, 100) == 1)
        ;
    assert_int_equal(report_encode(r, l, &json), 0);
    snprintf(out, size, "%s", buf_text(&json));
    buf_clear(&json);
    report_free(r);
}

static void given_hours_that_are_trimmed_when_made_then_the_range_grows_to_whole_days(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_MODEL);
    char text[2048];

    assert_int_equal(meta_set(ledger_db(f->ledger), META_HOURLY_TRIMMED, MIDNIGHT_MS), 0);
    assert_int_equal(
        database_exec(ledger_db(f->ledger), "DELETE FROM usage_hourly WHERE hour < 1772409600000"),
        0);
    cover(f->ledger, &q, text, sizeof(text));
    assert_non_null(strstr(text, "{\"since\":\"2026-03-01T00:00:00.000Z\""));
    assert_non_null(strstr(text, "\"total\":{\"requests\":4,"));

    q.until_at_ms = FIXTURE_AT_MS + HOUR; /* both edges in the same trimmed day */
    cover(f->ledger, &q, text, sizeof(text));
    assert_non_null(strstr(text, "\"until\":\"2026-03-02T00:00:00.000Z\""));
    assert_non_null(strstr(text, "\"total\":{\"requests\":3,"));

    q = everything(REPORT_BY_HOUR);
    cover(f->ledger, &q, text, sizeof(text));
    assert_non_null(strstr(text, "{\"since\":\"2026-03-02T00:00:00.000Z\""));
    assert_non_null(strstr(text, "\"total\":{\"requests\":1,"));
}

static void given_no_usage_when_made_then_empty_rows_and_zero_total(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_DAY);
    char text[2048];

    q.since_at_ms = FIXTURE_AT_MS + 40 * HOUR;
    make(f->ledger, &q, 100, text, sizeof(text));
    assert_string_equal(text,
                        "\"rows\":[],\"total\":{\"requests\":0,\"errors\":0,\"tokens_input\":0,"
                        "\"tokens_cached\":0,\"tokens_output\":0,\"cost\":\"0\"}}");
}

static void given_more_rows_than_a_report_holds_when_made_then_e2big(void **state)
{
    struct fixture *f = *state;
    struct report_query q = everything(REPORT_BY_HOUR);
    struct report *r;
    int rc;

    q.until_at_ms = INT64_MAX;
    assert_int_equal(
        database_exec(ledger_db(f->ledger),
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                      " 5000) INSERT INTO usage_hourly SELECT 1800000000000 + i * 3600000, 'k',"
                      " 'm', 1, 0, 1, 0, 1, 1 FROM n"),
        0);
    r = report_new(&q);
    assert_non_null(r);
    do {
        rc = report_step(r, f->ledger, 500);
    } while (rc == 1);
    assert_int_equal(rc, -E2BIG);
    report_free(r);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_usage_when_by_model_then_sums_and_total),
        T(given_usage_when_by_hour_and_day_then_moments_in_order),
        T(given_usage_when_by_key_then_id_with_name),
        T(given_slices_of_one_when_made_then_the_same_report),
        T(given_filters_when_made_then_only_those),
        T(given_range_when_made_then_whole_hours_inside_it),
        T(given_a_range_of_days_when_made_then_days_from_their_sums_and_hours_at_the_edges),
        T(given_hours_that_are_trimmed_when_made_then_the_range_grows_to_whole_days),
        T(given_no_usage_when_made_then_empty_rows_and_zero_total),
        T(given_more_rows_than_a_report_holds_when_made_then_e2big),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
