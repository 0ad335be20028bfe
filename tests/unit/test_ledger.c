#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/error.h"

struct fixture {
    char dir[64];
    char path[128];
    struct ledger *ledger;
};

static void open_ledger(struct fixture *f)
{
    char why[DATABASE_WHY_BYTES];

    assert_int_equal(ledger_open(f->path, &f->ledger, why), 0);
}

static int set_up(void **state)
{
    static struct fixture f;

    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/xrouter.db", f.dir);
    open_ledger(&f);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    f->ledger = NULL;
    fixture_remove_dir(f->dir);
    return 0;
}

static void insert(struct ledger *l, const struct usage_event *e, int expected)
{
    assert_int_equal(ledger_begin(l), 0);
    assert_int_equal(ledger_insert(l, e), expected);
    assert_int_equal(ledger_commit(l), 0);
}

static int refused(const char *path, char why[DATABASE_WHY_BYTES])
{
    struct ledger *l;
    int rc = ledger_open(path, &l, why);

    assert_null(l);
    return rc;
}

static void overwrite(const char *path, off_t at, const char *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);

    assert_int_not_equal(fd, -1);
    assert_int_equal(pwrite(fd, bytes, len, at), len);
    close(fd);
}

static void given_new_database_when_opened_then_private_wal_and_full_sync(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(fixture_get(f->ledger, "PRAGMA synchronous"), 2);
    assert_int_equal(fixture_get(f->ledger, "PRAGMA foreign_keys"), 1);
    assert_int_equal(fixture_get(f->ledger, "PRAGMA wal_autocheckpoint"), 0);
    assert_int_equal(fixture_get(f->ledger, "PRAGMA busy_timeout"), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"),
                     1);
}

static void given_event_when_committed_then_row_attempt_sums_and_last_use(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(5);

    insert(f->ledger, &e, LEDGER_INSERTED);

    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM usage WHERE api_key_id = '" FIXTURE_KEY_TEXT
                                 "' AND provider = 'gigachat' AND model = 'gigachat/GigaChat-2'"
                                 " AND tokens_input = 105 AND tokens_cached = 10 AND tokens_output"
                                 " = 20 AND cost = 1005 AND error IS NULL AND first_byte_ms = 120"
                                 " AND price_input = 500 AND length(id) = 16"),
                     1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts WHERE number = 1"
                                            " AND status = 200 AND error IS NULL"),
                     1);
    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT hour FROM usage_hourly WHERE requests = 1 AND errors = 0"
                                 " AND tokens_input = 105 AND cost = 1005"),
                     FIXTURE_AT_MS);
    assert_int_equal(fixture_get(f->ledger, "SELECT last_used_at FROM api_keys"),
                     FIXTURE_AT_MS + 5);
}

static void given_failed_event_when_committed_then_error_code_and_error_count(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    e.outcome = USAGE_ERROR;
    e.error = XR_ETIMEOUT;
    e.attempts[0].error = XR_EUPSTREAM;
    e.attempts[0].http_status = 0;
    insert(f->ledger, &e, LEDGER_INSERTED);

    assert_int_equal(
        fixture_get(f->ledger, "SELECT count(*) FROM usage WHERE error = 'upstream_timeout'"), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts WHERE error ="
                                            " 'upstream_failed' AND status IS NULL"),
                     1);
    assert_int_equal(fixture_get(f->ledger, "SELECT errors FROM usage_hourly"), 1);
}

static void given_attempts_when_committed_then_each_says_who_pays(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    e.attempt_count = 3;
    e.attempts[1] = e.attempts[2] = e.attempts[0];
    e.attempts[0].tokens_input = e.attempts[0].tokens_output = 0; /* refused at once */
    insert(f->ledger, &e, LEDGER_INSERTED);

    assert_int_equal(fixture_get(f->ledger, "SELECT payer FROM usage_attempts WHERE number = 1"),
                     0);
    assert_int_equal(fixture_get(f->ledger, "SELECT payer FROM usage_attempts WHERE number = 2"),
                     2);
    assert_int_equal(fixture_get(f->ledger, "SELECT payer FROM usage_attempts WHERE number = 3"),
                     1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts_view"
                                            " WHERE payer = 'gateway' AND number = 2"),
                     1);
}

static void given_request_that_costs_nothing_when_committed_then_no_key_pays(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    e.source = USAGE_BY_NOBODY;
    e.tokens_input = e.tokens_cached = e.tokens_output = e.cost_nano = 0;
    insert(f->ledger, &e, LEDGER_INSERTED);

    assert_int_equal(fixture_get(f->ledger, "SELECT payer FROM usage_attempts"), 2);
}

static void given_same_event_again_when_inserted_then_duplicate_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_DUPLICATE);
    assert_int_equal(ledger_commit(f->ledger), 0);
    e.outcome = USAGE_ABORTED; /* the reaper's variant: same tokens, same cost */
    insert(f->ledger, &e, LEDGER_DUPLICATE);

    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT outcome FROM usage"), USAGE_OK);
    assert_int_equal(fixture_get(f->ledger, "SELECT requests FROM usage_hourly"), 1);
}

static void given_same_id_with_other_cost_when_inserted_then_differs_and_first_stays(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    insert(f->ledger, &e, LEDGER_INSERTED);
    e.cost_nano++;
    insert(f->ledger, &e, LEDGER_DIFFERS);

    assert_int_equal(fixture_get(f->ledger, "SELECT cost FROM usage"), 1001);
    assert_int_equal(fixture_get(f->ledger, "SELECT cost FROM usage_hourly"), 1001);
}

static void given_refused_event_in_batch_when_committed_then_only_the_others_count(void **state)
{
    struct fixture *f = *state;
    struct usage_event good = fixture_event(1), stranger = fixture_event(2),
                       negative = fixture_event(3);

    stranger.key_id = 0xdead;
    negative.cost_nano = -1;
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &stranger), LEDGER_REFUSED);
    assert_non_null(strstr(ledger_reason(f->ledger), "FOREIGN KEY"));
    assert_int_equal(ledger_insert(f->ledger, &good), LEDGER_INSERTED);
    assert_int_equal(ledger_insert(f->ledger, &negative), LEDGER_REFUSED);
    assert_non_null(strstr(ledger_reason(f->ledger), "CHECK"));
    assert_int_equal(ledger_commit(f->ledger), 0);

    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts"), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_hourly"), 1);
}

static void given_refused_attempt_when_inserted_then_its_usage_row_goes_too(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    e.attempt_count = 2;
    e.attempts[1] = e.attempts[0];
    assert_int_equal(
        database_exec(ledger_db(f->ledger),
                      "CREATE TRIGGER no_second BEFORE INSERT ON usage_attempts WHEN new.number = 2"
                      " BEGIN SELECT raise(ABORT, 'no second'); END"),
        0);
    insert(f->ledger, &e, LEDGER_REFUSED);

    assert_string_equal(ledger_reason(f->ledger), "no second");
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_attempts"), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_hourly"), 0);
}

static void given_full_batch_over_hours_and_models_when_committed_then_sums_equal_rows(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ledger_begin(f->ledger), 0);
    for (uint32_t i = 0; i < LEDGER_BATCH_MAX; i++) {
        struct usage_event e = fixture_event(i);

        e.created_at_ms += (int64_t)(i % 37) * 3600000;
        snprintf(e.model, sizeof(e.model), "model-%u", i % 29);
        assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    }
    assert_int_equal(ledger_commit(f->ledger), 0);

    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), LEDGER_BATCH_MAX);
    assert_int_equal(
        fixture_get(f->ledger,
                    "SELECT count(*) FROM usage_hourly h JOIN (SELECT created_at / 3600000 * "
                    "3600000 AS hour, model, count(*) AS n, sum(tokens_input) AS t, sum(cost) AS c"
                    " FROM usage GROUP BY 1, 2) u ON u.hour = h.hour AND u.model = h.model"
                    " AND u.n = h.requests AND u.t = h.tokens_input AND u.c = h.cost"),
        fixture_get(f->ledger, "SELECT count(*) FROM usage_hourly"));
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_hourly"),
                     LEDGER_BATCH_MAX);
}

/* ---- by day, and what keys owe ---- */

static void set_balance(struct ledger *l, const char *balance)
{
    char sql[128];

    snprintf(sql, sizeof(sql), "UPDATE api_keys SET balance = %s WHERE id = '" FIXTURE_KEY_TEXT "'",
             balance);
    assert_int_equal(database_exec(ledger_db(l), sql), 0);
}

static void given_events_over_days_when_committed_then_daily_sums_equal_hourly_ones(void **state)
{
    struct fixture *f = *state;

    for (uint32_t batch = 0; batch < 2; batch++) {
        assert_int_equal(ledger_begin(f->ledger), 0);
        for (uint32_t i = 0; i < 300; i++) {
            struct usage_event e = fixture_event(1000 * batch + i);

            e.created_at_ms += (int64_t)(i % 60) * 3600000;
            snprintf(e.model, sizeof(e.model), "model-%u", i % 3);
            assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
        }
        assert_int_equal(ledger_commit(f->ledger), 0);
    }
    assert_int_equal(fixture_get(f->ledger, "SELECT count(DISTINCT day) FROM usage_daily"), 3);
    assert_int_equal(fixture_get(f->ledger, "SELECT min(day % 86400000 = 0) FROM usage_daily"), 1);
    assert_int_equal(
        fixture_get(f->ledger,
                    "SELECT count(*) FROM usage_daily d JOIN (SELECT hour / 86400000 * 86400000"
                    " AS day, api_key_id, model, sum(requests) AS r, sum(errors) AS e,"
                    " sum(tokens_input) AS i, sum(tokens_cached) AS h, sum(tokens_output) AS o,"
                    " sum(cost) AS c FROM usage_hourly GROUP BY 1, 2, 3) s USING (day, api_key_id,"
                    " model) WHERE requests = r AND errors = e AND tokens_input = i AND"
                    " tokens_cached = h AND tokens_output = o AND cost = c"),
        fixture_get(f->ledger, "SELECT count(*) FROM usage_daily"));
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(requests) FROM usage_daily"), 600);
}

static void given_prepaid_key_when_committed_then_balance_and_one_entry_a_batch(void **state)
{
    struct fixture *f = *state;
    struct usage_event duplicate = fixture_event(7);

    set_balance(f->ledger, "100000");
    for (uint32_t batch = 0; batch < 2; batch++) {
        assert_int_equal(ledger_begin(f->ledger), 0);
        for (uint32_t i = 0; i < 10; i++) {
            struct usage_event e = fixture_event(10 * batch + i);

            snprintf(e.model, sizeof(e.model), "model-%u", i % 3);
            e.created_at_ms -= (int64_t)(i % 2) * 3600000;
            assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
        }
        assert_true(ledger_insert(f->ledger, &duplicate) != LEDGER_INSERTED);
        assert_int_equal(ledger_commit(f->ledger), 0);
    }
    /* 20 events of 1000 + n. */
    assert_int_equal(fixture_get(f->ledger, "SELECT balance FROM api_keys"), 100000 - 20190);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger"), 2);
    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM credit_ledger WHERE kind = 'usage' AND"
                                 " requests = 10 AND operation_id IS NULL AND ((amount = -10045"
                                 " AND balance = 89955) OR (amount = -10145 AND balance = 79810))"),
                     2);
    assert_int_equal(fixture_get(f->ledger, "SELECT last_used_at FROM api_keys"),
                     FIXTURE_AT_MS + 18);
}

static void given_keys_mixed_when_committed_then_only_the_prepaid_have_entries(void **state)
{
    struct fixture *f = *state;

    fixture_add_key(f->ledger, "key_00000000000000b2", "plain");
    fixture_add_key(f->ledger, "key_00000000000000c3", "poor");
    set_balance(f->ledger, "5000");
    assert_int_equal(database_exec(ledger_db(f->ledger), "UPDATE api_keys SET balance = 10 WHERE"
                                                         " name = 'poor'"),
                     0);
    assert_int_equal(ledger_begin(f->ledger), 0);
    for (uint32_t i = 0; i < 9; i++) {
        static const uint64_t IDS[] = {FIXTURE_KEY, 0xb2, 0xc3};
        struct usage_event e = fixture_event(i);

        e.key_id = IDS[i % 3];
        assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    }
    assert_int_equal(ledger_commit(f->ledger), 0);

    assert_int_equal(
        fixture_get(f->ledger, "SELECT balance FROM api_keys WHERE name = 'poor'"), /* in debt */
        10 - 3 * 1000 - 2 - 5 - 8);
    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM api_keys WHERE name = 'plain' AND balance IS"
                                 " NULL AND last_used_at > 1"),
                     1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger"), 2);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger c JOIN api_keys k"
                                            " ON k.id = c.api_key_id AND k.balance = c.balance"),
                     2);
}

static void given_free_requests_of_prepaid_key_when_committed_then_no_entry(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    set_balance(f->ledger, "5000");
    e.cost_nano = 0;
    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger"), 0);
    assert_int_equal(fixture_get(f->ledger, "SELECT balance FROM api_keys"), 5000);
    assert_int_equal(fixture_get(f->ledger, "SELECT last_used_at FROM api_keys"),
                     FIXTURE_AT_MS + 1);
}

static void given_rolled_back_batch_of_prepaid_key_when_repeated_then_charged_once(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    set_balance(f->ledger, "5000");
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    ledger_rollback(f->ledger);
    insert(f->ledger, &e, LEDGER_INSERTED);
    insert(f->ledger, &e, LEDGER_DUPLICATE);
    assert_int_equal(fixture_get(f->ledger, "SELECT balance FROM api_keys"), 5000 - 1001);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM credit_ledger"), 1);
}

static void given_numbers_at_their_end_when_committed_then_they_stay_there(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    set_balance(f->ledger, "-4000000000000000000");
    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_int_equal(fixture_get(f->ledger, "SELECT balance FROM api_keys"),
                     INT64_C(-4000000000000000000));
    assert_int_equal(database_exec(ledger_db(f->ledger),
                                   "UPDATE usage_hourly SET cost = 9223372036854775800;"
                                   "UPDATE usage_daily SET cost = 9223372036854775800"),
                     0);
    e = fixture_event(2);
    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_int_equal(fixture_get(f->ledger, "SELECT cost FROM usage_hourly"), INT64_MAX);
    assert_int_equal(fixture_get(f->ledger, "SELECT cost FROM usage_daily"), INT64_MAX);
}

static void given_batch_when_rolled_back_then_nothing_and_it_can_be_repeated(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    ledger_rollback(f->ledger);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 0);

    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_int_equal(fixture_get(f->ledger, "SELECT requests FROM usage_hourly"), 1);
}

static void given_committed_rows_when_reopened_then_they_are_there(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);

    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_int_equal(ledger_reopen(f->ledger), 0);
    insert(f->ledger, &e, LEDGER_DUPLICATE);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 1);
}

static void given_locked_database_when_begun_then_busy_at_once(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    assert_int_equal(ledger_begin(f->ledger), -EBUSY);
    assert_int_equal(database_exec(other, "COMMIT"), 0);
    sqlite3_close(other);

    assert_int_equal(ledger_begin(f->ledger), 0);
    ledger_rollback(f->ledger);
}

static void given_full_disk_when_inserted_then_enospc_and_repeatable(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);
    int rc = 0;

    assert_int_equal(database_exec(ledger_db(f->ledger), "PRAGMA max_page_count = 1"), 0);
    assert_int_equal(ledger_begin(f->ledger), 0);
    for (uint32_t i = 0; i < LEDGER_BATCH_MAX && rc >= 0; i++) {
        e = fixture_event(i);
        rc = ledger_insert(f->ledger, &e);
    }
    assert_int_equal(rc, -ENOSPC);
    ledger_rollback(f->ledger);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage"), 0);

    assert_int_equal(database_exec(ledger_db(f->ledger), "PRAGMA max_page_count = 100000"), 0);
    insert(f->ledger, &e, LEDGER_INSERTED);
}

static void given_wal_when_truncated_then_no_pages_left(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(1);
    char wal[160];
    struct stat st;

    insert(f->ledger, &e, LEDGER_INSERTED);
    assert_true(ledger_wal_pages(f->ledger) > 0);
    assert_int_equal(ledger_checkpoint(f->ledger, true), 0);
    assert_int_equal(ledger_wal_pages(f->ledger), 0);
    snprintf(wal, sizeof(wal), "%s-wal", f->path);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_size, 0);
}

static void given_no_database_when_opened_then_refused_and_not_replaced(void **state)
{
    static const char TEXT[] = "this is certainly no SQLite database, and must stay what it is";
    struct fixture *f = *state;
    char path[160], why[DATABASE_WHY_BYTES], back[sizeof(TEXT)];
    int fd;

    snprintf(path, sizeof(path), "%s/other.db", f->dir);
    overwrite(path, 0, TEXT, sizeof(TEXT));

    assert_int_equal(refused(path, why), -EBADMSG);
    assert_non_null(strstr(why, "not a database"));
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, back, sizeof(back)), sizeof(back));
    close(fd);
    assert_memory_equal(back, TEXT, sizeof(TEXT));
}

static void given_damaged_key_pages_when_opened_then_refused(void **state)
{
    struct fixture *f = *state;
    char why[DATABASE_WHY_BYTES];
    int64_t page =
        fixture_get(f->ledger, "SELECT rootpage FROM sqlite_schema WHERE name = 'api_keys'");
    char junk[4096];

    ledger_close(f->ledger);
    f->ledger = NULL;
    memset(junk, 0x5a, sizeof(junk));
    overwrite(f->path, (page - 1) * 4096, junk, sizeof(junk));

    assert_int_equal(refused(f->path, why), -EBADMSG);
    assert_non_null(strstr(why, "damaged"));
}

static void given_foreign_database_when_opened_then_refused(void **state)
{
    struct fixture *f = *state;
    char path[160], why[DATABASE_WHY_BYTES];
    sqlite3 *other;

    snprintf(path, sizeof(path), "%s/other.db", f->dir);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "CREATE TABLE theirs (x)"), 0);
    sqlite3_close(other);

    assert_int_equal(refused(path, why), -EBADMSG);
    assert_non_null(strstr(why, "not one of xrouter's"));
}

static void given_rows_when_viewed_then_decimals_dates_and_words(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = fixture_event(7);

    e.cost_nano = INT64_C(12500000001);
    insert(f->ledger, &e, LEDGER_INSERTED);

    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM usage_view WHERE cost = '12.500000001'"
                                 " AND created_at = '2026-03-01T12:00:00.007Z' AND outcome = 'ok'"
                                 " AND source = 'provider' AND key_name = 'demo'"),
                     1);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM usage_hourly_view WHERE hour ="
                                            " '2026-03-01T12:00:00.000Z'"),
                     1);
    assert_int_equal(fixture_get(f->ledger,
                                 "SELECT count(*) FROM api_keys_view WHERE expires_at IS NULL"
                                 " AND last_used_at = '2026-03-01T12:00:00.007Z'"),
                     1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_new_database_when_opened_then_private_wal_and_full_sync),
        T(given_event_when_committed_then_row_attempt_sums_and_last_use),
        T(given_attempts_when_committed_then_each_says_who_pays),
        T(given_request_that_costs_nothing_when_committed_then_no_key_pays),
        T(given_failed_event_when_committed_then_error_code_and_error_count),
        T(given_same_event_again_when_inserted_then_duplicate_changes_nothing),
        T(given_same_id_with_other_cost_when_inserted_then_differs_and_first_stays),
        T(given_refused_event_in_batch_when_committed_then_only_the_others_count),
        T(given_refused_attempt_when_inserted_then_its_usage_row_goes_too),
        T(given_full_batch_over_hours_and_models_when_committed_then_sums_equal_rows),
        T(given_events_over_days_when_committed_then_daily_sums_equal_hourly_ones),
        T(given_prepaid_key_when_committed_then_balance_and_one_entry_a_batch),
        T(given_keys_mixed_when_committed_then_only_the_prepaid_have_entries),
        T(given_free_requests_of_prepaid_key_when_committed_then_no_entry),
        T(given_rolled_back_batch_of_prepaid_key_when_repeated_then_charged_once),
        T(given_numbers_at_their_end_when_committed_then_they_stay_there),
        T(given_batch_when_rolled_back_then_nothing_and_it_can_be_repeated),
        T(given_committed_rows_when_reopened_then_they_are_there),
        T(given_locked_database_when_begun_then_busy_at_once),
        T(given_full_disk_when_inserted_then_enospc_and_repeatable),
        T(given_wal_when_truncated_then_no_pages_left),
        T(given_no_database_when_opened_then_refused_and_not_replaced),
        T(given_damaged_key_pages_when_opened_then_refused),
        T(given_foreign_database_when_opened_then_refused),
        T(given_rows_when_viewed_then_decimals_dates_and_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
