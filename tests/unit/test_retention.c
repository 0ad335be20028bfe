#include "tests/unit/ledger_fixture.h"

#include "usage/meta.h"
#include "usage/retention.h"
#include "usage/verify.h"

#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)
#define MODEL "gigachat/GigaChat-2"

struct fixture {
    char dir[64];
    struct ledger *ledger;
    struct config config;
    struct retention retention;
    uint32_t next;
};

static void insert_at(struct fixture *f, int64_t at_ms)
{
    struct usage_event e = fixture_event(f->next++);

    fixture_set_time(&e, at_ms);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
}

/* A prepaid key; 100 requests an hour in the first ten hours after FIXTURE_AT_MS, then one a day.
 */
static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];

    memset(&f, 0, sizeof(f));
    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    fixture_run(f.ledger,
                "UPDATE api_keys SET balance = 1000000000;"
                "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, created_at)"
                " VALUES ('" FIXTURE_KEY_TEXT "', 'add', 1000000000, 1000000000, 1)");
    for (int hour = 0; hour < 10; hour++) {
        assert_int_equal(ledger_begin(f.ledger), 0);
        for (int i = 0; i < 100; i++)
            insert_at(&f, FIXTURE_AT_MS + hour * HOUR + i * 1000);
        assert_int_equal(ledger_commit(f.ledger), 0);
    }
    for (int day = 1; day < 5; day++) {
        assert_int_equal(ledger_begin(f.ledger), 0);
        insert_at(&f, FIXTURE_AT_MS + day * DAY);
        assert_int_equal(ledger_commit(f.ledger), 0);
    }
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

static unsigned retain(struct fixture *f, int64_t now_at_ms)
{
    unsigned slices = 0;
    int rc;

    while ((rc = retention_step(&f->retention, ledger_db(f->ledger), &f->config, now_at_ms)) == 1)
        slices++;
    assert_int_equal(rc, 0);
    return slices;
}

static void assert_verified(struct fixture *f)
{
    struct verify *v = verify_new(f->ledger);

    while (verify_step(v) == 1)
        ;
    assert_int_equal(verify_drift_count(v), 0);
    verify_free(v);
}

static void given_no_limit_when_retained_then_nothing_goes(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(retain(f, FIXTURE_AT_MS + 1000 * DAY), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1004);
}

static void given_old_rows_when_retained_then_only_they_go_in_slices(void **state)
{
    struct fixture *f = *state;

    f->config.retention_days = 2;
    /* The cutoff is in the middle of the fourth hour's requests. */
    assert_true(retain(f, FIXTURE_AT_MS + 2 * DAY + 3 * HOUR + 50 * 1000) >= 3);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1004 - 350);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts"), 1004 - 350);
    assert_int_equal(fixture_get(f->ledger, "SELECT min(created_at) FROM usage"),
                     FIXTURE_AT_MS + 3 * HOUR + 50 * 1000);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_hourly"), 1004);
    assert_int_equal(f->retention.rows, 350);
    assert_verified(f);
}

static void given_trimmed_hour_when_verified_then_later_drift_is_still_found(void **state)
{
    struct fixture *f = *state;
    struct verify *v;

    f->config.retention_days = 2;
    retain(f, FIXTURE_AT_MS + 2 * DAY + 3 * HOUR + 50 * 1000);
    fixture_run(f->ledger, "UPDATE usage SET cost = 1 WHERE id = (SELECT max(id) FROM usage)");
    v = verify_new(f->ledger);
    while (verify_step(v) == 1)
        ;
    assert_int_equal(verify_drift_count(v), 1);
    verify_free(v);
}

static void given_old_hours_when_retained_then_whole_days_go_and_days_stay(void **state)
{
    struct fixture *f = *state;

    f->config.hourly_retention_days = 3;
    retain(f, FIXTURE_AT_MS + 4 * DAY); /* noon: the cutoff is the midnight before */
    assert_int_equal(fixture_get(f->ledger, "SELECT min(hour) FROM usage_hourly"),
                     FIXTURE_AT_MS + DAY);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_daily"), 1004);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1004);
    assert_verified(f);
}

/* What requests cost is entered at the time of the commit: put it into the past. */
static void spread_credits(struct fixture *f)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "UPDATE credit_ledger SET created_at = %lld + id / 5 * 86400000 WHERE kind = 'usage'",
             (long long)FIXTURE_AT_MS);
    fixture_run(f->ledger, sql);
}

static void given_old_credits_when_retained_then_one_a_day_and_the_sum_stays(void **state)
{
    struct fixture *f = *state;
    int64_t sum = fixture_get(f->ledger, "SELECT sum(amount) FROM credit_ledger");
    int64_t requests = fixture_get(f->ledger, "SELECT sum(requests) FROM credit_ledger");

    /* Ids 2 to 15: days 0 (2-4), 1 (5-9), 2 (10-14), 3 (15). */
    spread_credits(f);
    f->config.retention_days = 2;
    retain(f, FIXTURE_AT_MS + 4 * DAY);
    /* 'add', day 0, day 1; day 2 and 3 as they were. */
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger"), 1 + 2 + 5 + 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(amount) FROM credit_ledger"), sum);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM credit_ledger"), requests);
    assert_verified(f);
    /* Each balance is still the sum of what is before it. */
    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM (SELECT balance, sum(amount) OVER"
                                 " (ORDER BY id) AS total FROM credit_ledger) WHERE balance <>"
                                 " total"),
                     0);
    assert_int_equal(retain(f, FIXTURE_AT_MS + 4 * DAY), 0);
}

static void given_payment_between_when_retained_then_it_stays_apart(void **state)
{
    struct fixture *f = *state;

    spread_credits(f);
    fixture_run(f->ledger, "UPDATE credit_ledger SET kind = 'add', note = 'thanks' WHERE id = 7");
    f->config.retention_days = 2;
    retain(f, FIXTURE_AT_MS + 4 * DAY);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger WHERE id < 10"),
                     1 + 1 + 3);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger WHERE note ="
                                            " 'thanks'"),
                     1);
}

static void given_fold_between_slices_when_verified_then_clean(void **state)
{
    struct fixture *f = *state;
    struct verify *v;
    int rc;

    fixture_run(f->ledger,
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)"
                "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, created_at)"
                " SELECT '" FIXTURE_KEY_TEXT "', 'usage', -1, 0, i * 20000 FROM n;"
                "UPDATE api_keys SET balance = (SELECT sum(amount) FROM credit_ledger)");
    f->config.retention_days = 1;
    v = verify_new(f->ledger);
    while ((rc = verify_step(v)) == 1) {
        for (int i = 0; i < 8; i++)
            assert_true(retention_step(&f->retention, ledger_db(f->ledger), &f->config,
                                       FIXTURE_AT_MS + 30 * DAY) >= 0);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(verify_drift_count(v), 0);
    verify_free(v);
    assert_verified(f);
}

static void given_full_disk_when_retained_then_nothing_changed(void **state)
{
    struct fixture *f = *state;

    f->config.retention_days = 2;
    fixture_run(f->ledger, "CREATE TEMP TRIGGER full BEFORE DELETE ON main.usage BEGIN"
                           " SELECT RAISE(ABORT, 'no'); END");
    assert_true(retention_step(&f->retention, ledger_db(f->ledger), &f->config,
                               FIXTURE_AT_MS + 30 * DAY) < 0);
    assert_true(sqlite3_get_autocommit(ledger_db(f->ledger)));
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts"), 1004);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM meta WHERE name ="
                                            " 'usage_trimmed_until'"),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_no_limit_when_retained_then_nothing_goes),
        TEST(given_old_rows_when_retained_then_only_they_go_in_slices),
        TEST(given_trimmed_hour_when_verified_then_later_drift_is_still_found),
        TEST(given_old_hours_when_retained_then_whole_days_go_and_days_stay),
        TEST(given_old_credits_when_retained_then_one_a_day_and_the_sum_stays),
        TEST(given_payment_between_when_retained_then_it_stays_apart),
        TEST(given_fold_between_slices_when_verified_then_clean),
        TEST(given_full_disk_when_retained_then_nothing_changed),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
