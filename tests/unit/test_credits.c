#include "tests/unit/ledger_fixture.h"

#include <errno.h>

#include "common/config.h"
#include "usage/credits.h"

#define KEYS 16
#define NOW FIXTURE_AT_MS /* Sunday, 2026-03-01T12:00:00Z */
#define CREDIT INT64_C(1000000000)

struct fixture {
    char dir[64];
    char path[128];
    struct config *config;
    struct keystore ks;
};

static void *region(size_t bytes)
{
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    void *memory = aligned_alloc(4096, rounded);

    assert_non_null(memory);
    memset(memory, 0, rounded);
    return memory;
}

static int set_up(void **state)
{
    static struct fixture f;
    uint8_t pepper[KEY_PEPPER_BYTES] = {3};
    char why[DATABASE_WHY_BYTES];
    struct config_error e;

    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(f.path, &f.ks.ledger, why), 0);
    assert_int_equal(config_parse("{}", 2, "test.json", f.dir, &f.config, &e), 0);
    f.ks.config = f.config;
    f.ks.table = region(keytable_region_spec(KEYS).bytes);
    f.ks.accounts = region(accounts_region_spec(KEYS).bytes);
    keytable_region_init(f.ks.table, KEYS, pepper);
    accounts_region_init(f.ks.accounts, KEYS);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ks.ledger);
    config_unref(f->config);
    free(f->ks.table);
    free(f->ks.accounts);
    fixture_remove_dir(f->dir);
    return 0;
}

static struct key_record make_key(struct fixture *f, const char *name, int64_t balance_nano)
{
    struct key_record r;
    char text[KEY_TEXT_BYTES];

    key_record_init(&r);
    snprintf(r.name, sizeof(r.name), "%s", name);
    r.balance_nano = balance_nano;
    assert_int_equal(keystore_create(&f->ks, NOW, &r, text), 0);
    return r;
}

static struct credit_entry entry(int64_t amount_nano, const char *operation_id, const char *note)
{
    struct credit_entry e = {.amount_nano = amount_nano};

    snprintf(e.operation_id, sizeof(e.operation_id), "%s", operation_id);
    snprintf(e.note, sizeof(e.note), "%s", note);
    return e;
}

static int64_t stored_balance(struct fixture *f)
{
    return fixture_get(f->ks.ledger, "SELECT balance FROM api_keys");
}

static int64_t drift(struct fixture *f)
{
    return fixture_get(f->ks.ledger,
                       "SELECT count(*) FROM api_keys k WHERE balance IS NOT (SELECT sum(amount)"
                       " FROM credit_ledger c WHERE c.api_key_id = k.id)");
}

/* Puts a value into the key's words, as the recount would. */
static uint32_t count_as(struct fixture *f, const struct key_record *r, int64_t balance_nano)
{
    struct account_values values = {.balance_nano = balance_nano};
    struct account_marks marks;
    uint32_t account;

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        values.spending[p].period = spend_period_number(p, NOW);
        values.spending[p].left_nano = values.spending[p].next_left_nano = ACCOUNT_UNLIMITED;
    }
    assert_int_equal(accounts_find(f->ks.accounts, r->id, &account), 0);
    account_recount_begin(f->ks.accounts, account, &marks);
    assert_true(account_recount_end(f->ks.accounts, account, &marks, &values));
    return account;
}

static int64_t available(const struct fixture *f, uint32_t account)
{
    struct account_values values;
    bool is_marked;

    account_get(f->ks.accounts, account, NOW, &values, &is_marked);
    assert_false(is_marked);
    return values.balance_nano;
}

static void given_prepaid_key_when_paid_then_balance_entry_and_word(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 5 * CREDIT);
    uint32_t account = count_as(f, &key, 4 * CREDIT); /* one is reserved */
    struct credit_entry e = entry(2 * CREDIT, "invoice-1", "May");

    assert_int_equal(credits_add(&f->ks, "demo", NOW + 9, &e), 0);
    assert_true(e.key_id == key.id);
    assert_int_equal(e.balance_nano, 7 * CREDIT);
    assert_int_equal(e.created_at_ms, NOW + 9);
    assert_int_equal(stored_balance(f), 7 * CREDIT);
    assert_int_equal(available(f, account), 6 * CREDIT);
    assert_int_equal(fixture_get(f->ks.ledger,
                                 "SELECT id FROM credit_ledger WHERE operation_id = 'invoice-1'"
                                 " AND note = 'May' AND kind = 'add' AND requests = 0"),
                     e.id);
    assert_int_equal(drift(f), 0);
}

static void given_same_operation_when_paid_again_then_first_result_and_nothing_more(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 5 * CREDIT);
    uint32_t account = count_as(f, &key, 5 * CREDIT);
    struct credit_entry first = entry(2 * CREDIT, "invoice-1", "May"),
                        later = entry(CREDIT, "invoice-2", ""),
                        again = entry(2 * CREDIT, "invoice-1", "");

    assert_int_equal(credits_add(&f->ks, "demo", NOW, &first), 0);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &later), 0);
    assert_int_equal(credits_add(&f->ks, "demo", NOW + 50, &again), 0);
    assert_int_equal(again.id, first.id);
    assert_int_equal(again.balance_nano, 7 * CREDIT);
    assert_int_equal(again.created_at_ms, NOW);
    assert_string_equal(again.note, "May");
    assert_int_equal(stored_balance(f), 8 * CREDIT);
    assert_int_equal(available(f, account), 8 * CREDIT);
    assert_int_equal(fixture_get(f->ks.ledger, "SELECT count(*) FROM credit_ledger"), 3);
}

static void given_operation_of_other_amount_or_key_when_paid_then_refused(void **state)
{
    struct fixture *f = *state;
    struct credit_entry e = entry(2 * CREDIT, "invoice-1", "");

    make_key(f, "demo", 5 * CREDIT);
    make_key(f, "other", 5 * CREDIT);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    e = entry(3 * CREDIT, "invoice-1", "");
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -EEXIST);
    e = entry(2 * CREDIT, "invoice-1", "");
    assert_int_equal(credits_add(&f->ks, "other", NOW, &e), -EEXIST);
    assert_int_equal(fixture_get(f->ks.ledger, "SELECT sum(balance) FROM api_keys"), 12 * CREDIT);
    assert_int_equal(drift(f), 0);
    assert_int_not_equal(sqlite3_get_autocommit(ledger_db(f->ks.ledger)), 0);
}

static void given_payments_without_operation_when_repeated_then_each_counts(void **state)
{
    struct fixture *f = *state;

    make_key(f, "demo", 0);
    for (int i = 0; i < 3; i++) {
        struct credit_entry e = entry(CREDIT, "", "");

        assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    }
    assert_int_equal(stored_balance(f), 3 * CREDIT);
}

static void given_correction_when_added_then_balance_may_pass_zero(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 5 * CREDIT);
    uint32_t account = count_as(f, &key, 5 * CREDIT);
    struct credit_entry e = entry(-6 * CREDIT, "", "paid twice");

    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    assert_int_equal(stored_balance(f), -CREDIT);
    assert_int_equal(available(f, account), -CREDIT);
    assert_int_equal(drift(f), 0);
}

static void given_key_that_is_not_prepaid_when_paid_then_it_becomes_so(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", ACCOUNT_UNLIMITED);
    struct credit_entry e = entry(CREDIT, "", "");
    uint32_t account;

    assert_int_equal(accounts_find(f->ks.accounts, key.id, &account), 0);
    assert_false(account_is_limited(f->ks.accounts, account));
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    assert_int_equal(stored_balance(f), CREDIT);
    assert_true(account_is_marked(f->ks.accounts, account)); /* to be counted anew */
    assert_int_equal(drift(f), 0);
}

static void given_balance_at_its_end_when_paid_then_refused_both_ways(void **state)
{
    struct fixture *f = *state;
    struct credit_entry e = entry(1, "x", "");

    make_key(f, "demo", ACCOUNT_MAX_NANO);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -ERANGE);
    e = entry(INT64_MAX, "x", "");
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -ERANGE);
    for (int i = 0; i < 2; i++) {
        e = entry(-ACCOUNT_MAX_NANO, "", "");
        assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    }
    e = entry(-1, "x", "");
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -ERANGE);
    assert_int_equal(stored_balance(f), -ACCOUNT_MAX_NANO);
}

static void given_unknown_key_or_locked_database_when_paid_then_nothing_changes(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 5 * CREDIT);
    uint32_t account = count_as(f, &key, 5 * CREDIT);
    struct credit_entry e = entry(CREDIT, "x", "");
    sqlite3 *other;

    assert_int_equal(credits_add(&f->ks, "nobody", NOW, &e), -ENOENT);
    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -EBUSY);
    assert_int_equal(database_exec(other, "COMMIT"), 0);
    sqlite3_close(other);
    assert_int_equal(stored_balance(f), 5 * CREDIT);
    assert_int_equal(available(f, account), 5 * CREDIT);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
}

/* ---- looking ---- */

static void one_running(void *arg, open_request_fn visit, void *visit_arg)
{
    const struct key_record *key = arg;
    struct open_request request = {
        .key_id = key->id, .state = OPEN_RUNNING, .reservation = {.amount_nano = CREDIT / 2}};

    visit(visit_arg, &request);
    request.key_id++;
    visit(visit_arg, &request);
}

static void expect_shown(struct fixture *f, const struct open_requests *requests,
                         const char *expected)
{
    struct buf out;

    buf_init(&out, 4096);
    buf_byte(&out, '{');
    assert_int_equal(credits_show(&f->ks, requests, "demo", NOW, &out), 0);
    if (strstr(buf_text(&out), expected) == NULL)
        fail_msg("%s\nis not in\n%s", expected, buf_text(&out));
    buf_clear(&out);
}

static void given_prepaid_key_when_shown_then_available_reserved_and_spending(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 5 * CREDIT);
    const struct open_requests requests = {one_running, &key};
    struct usage_event e = fixture_event(1);

    e.key_id = key.id;
    e.cost_nano = 1500;
    assert_int_equal(ledger_begin(f->ks.ledger), 0);
    assert_int_equal(ledger_insert(f->ks.ledger, &e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ks.ledger), 0);
    expect_shown(f, &requests, "\"balance\":\"4.9999985\",\"available\":null,\"reserved\":\"0.5\"");
    count_as(f, &key, 4 * CREDIT);
    expect_shown(f, &requests,
                 "\"name\":\"demo\",\"balance\":\"4.9999985\",\"available\":\"4\",\"reserved\":"
                 "\"0.5\",\"spending\":[{\"period\":\"day\",\"limit\":null,\"spent\":\"0.0000015\","
                 "\"left\":null,\"resets_at\":\"2026-03-02T00:00:00.000Z\"},{\"period\":\"week\"");
    expect_shown(f, NULL, "\"reserved\":\"0\"");
    expect_shown(f, NULL,
                 "{\"period\":\"month\",\"limit\":null,\"spent\":\"0.0000015\","
                 "\"left\":null,\"resets_at\":\"2026-04-01T00:00:00.000Z\"}]");
}

static void given_key_without_balance_when_shown_then_nulls(void **state)
{
    struct fixture *f = *state;

    make_key(f, "demo", ACCOUNT_UNLIMITED);
    expect_shown(f, NULL, "\"balance\":null,\"available\":null,\"reserved\":null");
}

static void given_history_when_listed_in_pages_then_newest_first_and_only_its_own(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, "demo", 0);
    int64_t before = INT64_MAX, seen = 0;
    struct buf out;
    int n;

    make_key(f, "other", CREDIT);
    for (int i = 1; i <= 5; i++) {
        struct credit_entry e = entry(i * CREDIT, "", i == 5 ? "the \"last\"" : "");

        assert_int_equal(credits_add(&f->ks, "demo", NOW + i, &e), 0);
    }
    buf_init(&out, 8192);
    do {
        int64_t from = before;

        n = credits_list(f->ks.ledger, key.id, &before, 4, &out);
        assert_true(n >= 0 && (n == 0 || before < from));
        seen += n;
    } while (n == 4);
    assert_int_equal(seen, 6);
    assert_non_null(strstr(buf_text(&out), "\"amount\":\"5\",\"balance\":\"15\",\"requests\":0,"
                                           "\"created_at\":\"2026-03-01T12:00:00.005Z\","
                                           "\"operation_id\":null,\"note\":\"the \\\"last\\\"\"}"));
    assert_true(strstr(buf_text(&out), "\"amount\":\"5\"") <
                strstr(buf_text(&out), "\"amount\":\"4\""));
    assert_true(strstr(buf_text(&out), "\"amount\":\"1\"") <
                strstr(buf_text(&out), "\"amount\":\"0\""));
    buf_clear(&out);
}

static void
given_database_that_was_taken_away_when_paid_then_refused_and_paid_once_later(void **state)
{
    struct fixture *f = *state;
    struct credit_entry e = entry(2 * CREDIT, "invoice-1", "");
    char away[sizeof(f->path) + 8];

    make_key(f, "demo", CREDIT);
    snprintf(away, sizeof(away), "%s.away", f->path);
    assert_int_equal(rename(f->path, away), 0);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), -ESTALE);
    assert_int_equal(rename(away, f->path), 0);
    assert_int_equal(ledger_reopen(f->ks.ledger), 0);
    assert_int_equal(stored_balance(f), CREDIT);
    assert_int_equal(credits_add(&f->ks, "demo", NOW, &e), 0);
    assert_int_equal(stored_balance(f), 3 * CREDIT);
    assert_int_equal(drift(f), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_prepaid_key_when_paid_then_balance_entry_and_word),
        T(given_same_operation_when_paid_again_then_first_result_and_nothing_more),
        T(given_operation_of_other_amount_or_key_when_paid_then_refused),
        T(given_payments_without_operation_when_repeated_then_each_counts),
        T(given_correction_when_added_then_balance_may_pass_zero),
        T(given_key_that_is_not_prepaid_when_paid_then_it_becomes_so),
        T(given_balance_at_its_end_when_paid_then_refused_both_ways),
        T(given_unknown_key_or_locked_database_when_paid_then_nothing_changes),
        T(given_database_that_was_taken_away_when_paid_then_refused_and_paid_once_later),
        T(given_prepaid_key_when_shown_then_available_reserved_and_spending),
        T(given_key_without_balance_when_shown_then_nulls),
        T(given_history_when_listed_in_pages_then_newest_first_and_only_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
