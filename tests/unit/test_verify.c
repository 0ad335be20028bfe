#include "tests/unit/ledger_fixture.h"

#include <errno.h>

#include "common/json.h"
#include "usage/drift.h"
#include "usage/meta.h"
#include "usage/verify.h"

#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)
#define OTHER_KEY UINT64_C(0xb2)
#define OTHER_KEY_TEXT "key_00000000000000b2"
#define MODEL "gigachat/GigaChat-2"

struct fixture {
    char dir[64];
    struct ledger *ledger;
    uint32_t next;
};

static void insert_at(struct fixture *f, int64_t at_ms, uint64_t key, const char *model)
{
    struct usage_event e = fixture_event(f->next++);

    fixture_set_time(&e, at_ms);
    e.key_id = key;
    e.outcome = f->next % 2 == 0 ? USAGE_OK : USAGE_ERROR;
    snprintf(e.model, sizeof(e.model), "%s", model);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
}

static void begin(struct fixture *f)
{
    assert_int_equal(ledger_begin(f->ledger), 0);
}

static void commit(struct fixture *f)
{
    assert_int_equal(ledger_commit(f->ledger), 0);
}

/* Two keys (one prepaid), two models, three hours over midnight. */
static int set_up(void **state)
{
    static struct fixture f;
    int64_t late = FIXTURE_AT_MS + 11 * HOUR; /* 23:00 */

    memset(&f, 0, sizeof(f));
    f.ledger = fixture_open(f.dir);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    fixture_add_key(f.ledger, OTHER_KEY_TEXT, "other");
    fixture_run(f.ledger,
                "UPDATE api_keys SET balance = 1000000 WHERE name = 'demo';"
                "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, created_at)"
                " VALUES ('" FIXTURE_KEY_TEXT "', 'add', 1000000, 1000000, 1)");
    begin(&f);
    insert_at(&f, FIXTURE_AT_MS, FIXTURE_KEY, MODEL);
    insert_at(&f, FIXTURE_AT_MS + 5, FIXTURE_KEY, "b");
    insert_at(&f, late, FIXTURE_KEY, MODEL);
    insert_at(&f, late + HOUR, OTHER_KEY, MODEL);
    commit(&f);
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

static struct verify *finish(struct verify *v)
{
    int rc;

    assert_non_null(v);
    do {
        rc = verify_step(v);
    } while (rc == 1);
    assert_int_equal(rc, 0);
    return v;
}

/* How many drifts there are, and the first as a sentence. */
static uint64_t check(struct fixture *f, char first[256])
{
    struct verify *v = finish(verify_new(f->ledger));
    uint64_t count = verify_drift_count(v);
    struct buf text;

    first[0] = '\0';
    buf_init_fixed(&text, first, 256);
    if (count > 0) {
        verify_describe(v, 0, &text);
        assert_non_null(buf_text(&text));
    }
    verify_free(v);
    return count;
}

static void assert_found(struct fixture *f, const char *tamper, const char *expected)
{
    char first[256];
    uint64_t count;

    fixture_run(f->ledger, tamper);
    count = check(f, first);
    assert_string_equal(first, expected);
    assert_int_equal(count, 1);
}

static void given_sound_ledger_when_verified_then_clean_with_totals(void **state)
{
    struct fixture *f = *state;
    struct verify *v = finish(verify_new(f->ledger));
    struct buf json;

    buf_init(&json, 65536);
    assert_int_equal(verify_encode(v, &json), 0);
    assert_string_equal(buf_text(&json),
                        "{\"clean\":true,\"drifts\":0,\"named\":[],\"keys\":2,\"requests\":4,"
                        "\"hours\":3,\"days\":3,\"cost\":\"0.000004006\"}");
    buf_clear(&json);
    verify_free(v);
}

static void given_empty_ledger_when_verified_then_clean(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(f->ledger, "DELETE FROM usage; DELETE FROM usage_hourly; DELETE FROM usage_daily;"
                           "DELETE FROM credit_ledger; DELETE FROM api_keys");
    assert_int_equal(check(f, first), 0);
}

static void given_other_balance_when_verified_then_named(void **state)
{
    assert_found(*state, "UPDATE api_keys SET balance = balance + 1 WHERE name = 'demo'",
                 "api_keys.balance of " FIXTURE_KEY_TEXT ": expected 996997, found 996998");
}

static void given_prepaid_key_made_unlimited_when_verified_then_named(void **state)
{
    assert_found(*state, "UPDATE api_keys SET balance = NULL WHERE name = 'demo'",
                 "api_keys.balance of " FIXTURE_KEY_TEXT ": expected 996997, found none");
}

static void given_balance_without_history_when_verified_then_named(void **state)
{
    assert_found(*state, "UPDATE api_keys SET balance = 7 WHERE name = 'other'",
                 "api_keys.balance of " OTHER_KEY_TEXT ": expected 0, found 7");
}

static void given_changed_row_when_verified_then_hour_named(void **state)
{
    assert_found(*state, "UPDATE usage SET cost = cost + 5 WHERE model = 'b'",
                 "usage_hourly.cost of " FIXTURE_KEY_TEXT ", b, 2026-03-01T12:00:00.000Z:"
                 " expected 1006, found 1001");
}

static void given_row_without_sum_when_verified_then_every_field_named(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(f->ledger,
                "DELETE FROM usage_hourly WHERE model = 'b'; DELETE FROM usage_daily WHERE"
                " model = 'b'");
    /* requests, tokens_input, _cached, _output, cost; no error. */
    assert_int_equal(check(f, first), 5);
    assert_string_equal(first, "usage_hourly.requests of " FIXTURE_KEY_TEXT
                               ", b, 2026-03-01T12:00:00.000Z: expected 1, found 0");
}

static void given_sum_without_rows_when_verified_then_named(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(f->ledger, "DELETE FROM usage WHERE api_key_id = '" OTHER_KEY_TEXT "'");
    assert_int_equal(check(f, first), 5);
    assert_string_equal(first, "usage_hourly.requests of " OTHER_KEY_TEXT ", " MODEL
                               ", 2026-03-02T00:00:00.000Z: expected 0, found 1");
}

static void given_changed_day_when_verified_then_named(void **state)
{
    assert_found(*state, "UPDATE usage_daily SET errors = errors + 1 WHERE model = 'b'",
                 "usage_daily.errors of " FIXTURE_KEY_TEXT ", b, 2026-03-01T00:00:00.000Z:"
                 " expected 0, found 1");
}

static void given_missing_day_when_verified_then_named(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(f->ledger, "DELETE FROM usage_daily WHERE model = 'b'");
    assert_int_equal(check(f, first), 5);
    assert_string_equal(first, "usage_daily.requests of " FIXTURE_KEY_TEXT
                               ", b, 2026-03-01T00:00:00.000Z: expected 1, found 0");
}

static void given_day_without_hours_when_verified_then_named(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(
        f->ledger,
        "INSERT INTO usage_daily VALUES (0, 'key_00000000000000ff', 'm', 1, 0, 0, 0, 0, 0)");
    assert_int_equal(check(f, first), 1);
    assert_string_equal(first, "usage_daily.requests of key_00000000000000ff, m,"
                               " 1970-01-01T00:00:00.000Z: expected 0, found 1");
}

static void given_more_drifts_than_are_named_when_verified_then_all_counted(void **state)
{
    struct fixture *f = *state;
    struct verify *v;
    struct buf json;
    cJSON *root;

    fixture_run(f->ledger,
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
                "INSERT INTO usage_daily SELECT i * 86400000, 'key_00000000000000ff', 'm',"
                " 1, 0, 0, 0, 0, 0 FROM n");
    v = finish(verify_new(f->ledger));
    assert_int_equal(verify_drift_count(v), 300);
    buf_init(&json, 1 << 20);
    assert_int_equal(verify_encode(v, &json), 0);
    root = json_parse(json.data, json.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "named")), DRIFTS_NAMED_MAX);
    cJSON_Delete(root);
    buf_clear(&json);
    verify_free(v);
}

static void given_trimmed_hours_when_verified_then_not_compared(void **state)
{
    struct fixture *f = *state;
    char first[256];

    fixture_run(f->ledger, "DELETE FROM usage WHERE model = 'b'");
    assert_int_equal(check(f, first), 5);
    assert_int_equal(meta_set(ledger_db(f->ledger), META_USAGE_TRIMMED, FIXTURE_AT_MS + HOUR), 0);
    assert_int_equal(check(f, first), 0);
    fixture_run(f->ledger, "DELETE FROM usage_hourly WHERE model = 'b'");
    assert_true(check(f, first) > 0);
    assert_int_equal(meta_set(ledger_db(f->ledger), META_HOURLY_TRIMMED,
                              FIXTURE_AT_MS - FIXTURE_AT_MS % DAY + DAY),
                     0);
    assert_int_equal(check(f, first), 0);
}

/* ---- while commits go on ---- */

#define MANY 20000

static void insert_many(struct fixture *f)
{
    for (int i = 0; i < MANY / 500; i++) {
        begin(f);
        for (int j = 0; j < 500; j++)
            insert_at(f, FIXTURE_AT_MS + i * 500 + j, FIXTURE_KEY, j % 3 == 0 ? "b" : MODEL);
        commit(f);
    }
}

/* Rows behind, at and before any place of the scan, in both hours and of both keys. */
static void insert_some(struct fixture *f, unsigned step)
{
    begin(f);
    for (unsigned i = 0; i < 10; i++) {
        insert_at(f, FIXTURE_AT_MS + (int64_t)i * MANY / 10, FIXTURE_KEY, MODEL);
        insert_at(f, FIXTURE_AT_MS + (int64_t)step * 37 % MANY, FIXTURE_KEY, "b");
        insert_at(f, FIXTURE_AT_MS + HOUR + i, OTHER_KEY, MODEL);
    }
    commit(f);
}

static void given_commits_between_slices_when_verified_then_clean(void **state)
{
    struct fixture *f = *state;
    struct verify *v = verify_new(f->ledger);
    unsigned steps = 0;
    int rc;

    insert_many(f);
    while ((rc = verify_step(v)) == 1)
        insert_some(f, ++steps);
    assert_int_equal(rc, 0);
    assert_true(steps > 3); /* else it proves nothing */
    assert_int_equal(verify_drift_count(v), 0);
    verify_free(v);
}

static void given_commits_and_drift_when_verified_then_only_the_drift(void **state)
{
    struct fixture *f = *state;
    struct verify *v = verify_new(f->ledger);
    unsigned steps = 0;
    int rc;

    insert_many(f);
    fixture_run(f->ledger,
                "UPDATE usage SET tokens_output = 0 WHERE id = (SELECT max(id) FROM usage"
                " WHERE model = 'b')");
    while ((rc = verify_step(v)) == 1)
        insert_some(f, ++steps);
    assert_int_equal(rc, 0);
    assert_int_equal(verify_drift_count(v), 1);
    verify_free(v);
}

static void given_rolled_back_batch_between_slices_when_verified_then_clean(void **state)
{
    struct fixture *f = *state;
    struct verify *v = verify_new(f->ledger);
    unsigned steps = 0;
    int rc;

    insert_many(f);
    while ((rc = verify_step(v)) == 1) {
        steps++;
        begin(f);
        for (int64_t i = 0; i < 10; i++)
            insert_at(f, FIXTURE_AT_MS + i * MANY / 10, FIXTURE_KEY, MODEL);
        ledger_rollback(f->ledger);
    }
    assert_int_equal(rc, 0);
    assert_true(steps > 3);
    assert_int_equal(verify_drift_count(v), 0);
    verify_free(v);
}

static void given_reopened_connection_when_verified_then_clean(void **state)
{
    struct fixture *f = *state;
    struct verify *v = verify_new(f->ledger);
    unsigned steps = 0;
    int rc;

    insert_many(f);
    while ((rc = verify_step(v)) == 1) {
        insert_some(f, ++steps);
        if (steps % 4 == 2)
            assert_int_equal(ledger_reopen(f->ledger), 0);
        insert_some(f, ++steps);
    }
    assert_int_equal(rc, 0);
    assert_true(steps > 6);
    assert_int_equal(verify_drift_count(v), 0);
    verify_free(v);
}

static void given_verify_broken_off_when_freed_then_commits_go_on(void **state)
{
    struct fixture *f = *state;
    struct verify *a = verify_new(f->ledger), *b = verify_new(f->ledger);

    insert_many(f);
    /* Both at once. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(verify_step(a), 1);
        assert_int_equal(verify_step(b), 1);
    }
    verify_free(a);
    insert_some(f, 1);
    finish(b);
    assert_int_equal(verify_drift_count(b), 0);
    verify_free(b);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM sqlite_temp_schema"), 0);
    insert_some(f, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_sound_ledger_when_verified_then_clean_with_totals),
        TEST(given_empty_ledger_when_verified_then_clean),
        TEST(given_other_balance_when_verified_then_named),
        TEST(given_prepaid_key_made_unlimited_when_verified_then_named),
        TEST(given_balance_without_history_when_verified_then_named),
        TEST(given_changed_row_when_verified_then_hour_named),
        TEST(given_row_without_sum_when_verified_then_every_field_named),
        TEST(given_sum_without_rows_when_verified_then_named),
        TEST(given_changed_day_when_verified_then_named),
        TEST(given_missing_day_when_verified_then_named),
        TEST(given_day_without_hours_when_verified_then_named),
        TEST(given_more_drifts_than_are_named_when_verified_then_all_counted),
        TEST(given_trimmed_hours_when_verified_then_not_compared),
        TEST(given_commits_between_slices_when_verified_then_clean),
        TEST(given_commits_and_drift_when_verified_then_only_the_drift),
        TEST(given_rolled_back_batch_between_slices_when_verified_then_clean),
        TEST(given_reopened_connection_when_verified_then_clean),
        TEST(given_verify_broken_off_when_freed_then_commits_go_on),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
