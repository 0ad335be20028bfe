#include "tests/unit/keystore_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/error.h"
#include "common/log.h"
#include "usage/credits.h"
#include "usage/recount.h"
#include "usage/spool.h"

#define SLOTS 2
#define RING_BYTES (64 * 1024)
#define KEYS 256
#define NOW FIXTURE_AT_MS /* a Sunday */
#define DAY_MS INT64_C(86400000)
#define ROWS_MAX 8
#define BALANCE INT64_C(1000000)

struct fixture {
    char dir[64];
    char spool[128];
    struct config *config;
    struct keystore ks;
    struct outbox_region *outbox;
    struct counters counters;
    struct open_request rows[ROWS_MAX];
    size_t row_count;
    void (*on_look)(struct fixture *f); /* runs while the rows are visited, once */
    struct open_requests requests;
    struct recount *recount;
    int64_t now_ms;
};

static void each_row(void *arg, open_request_fn visit, void *visit_arg)
{
    struct fixture *f = arg;
    void (*on_look)(struct fixture *) = f->on_look;

    f->on_look = NULL;
    for (size_t i = 0; i < f->row_count; i++)
        visit(visit_arg, &f->rows[i]);
    if (on_look != NULL)
        on_look(f);
}

static void start_recount(struct fixture *f)
{
    const struct recount_setup setup = {
        .keystore = &f->ks,
        .outbox = f->outbox,
        .requests = &f->requests,
        .spool_dir = f->spool,
        .counters = &f->counters,
    };

    f->recount = recount_new(&setup);
    assert_non_null(f->recount);
}

static int set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    f.config = fixture_config("{}", "/tmp");
    fixture_open_keys(&f.ks, f.dir, f.config, KEYS);
    snprintf(f.spool, sizeof(f.spool), "%s/spool", f.dir);
    f.outbox = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(f.outbox, SLOTS, RING_BYTES);
    f.requests = (struct open_requests){each_row, &f};
    start_recount(&f);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    recount_free(f->recount);
    ledger_close(f->ks.ledger);
    config_unref(f->config);
    munmap(f->ks.table, keytable_region_spec(KEYS).bytes);
    munmap(f->ks.accounts, accounts_region_spec(KEYS).bytes);
    munmap(f->outbox, outbox_region_spec(SLOTS, RING_BYTES).bytes);
    fixture_remove_dir(f->dir);
    return 0;
}

/* ---- keys, rows, events ---- */

static struct key_record make_key(struct fixture *f, int64_t balance_nano)
{
    struct key_record r;
    char text[KEY_TEXT_BYTES];

    key_record_init(&r);
    r.balance_nano = balance_nano;
    assert_int_equal(keystore_create(&f->ks, NOW, &r, text), 0);
    return r;
}

static void set_limit(struct fixture *f, struct key_record *r, enum spend_period p, int64_t nano)
{
    r->spending_nano[p] = nano;
    assert_int_equal(keystore_update(&f->ks, r), 0);
}

static uint32_t account_of(const struct fixture *f, const struct key_record *r)
{
    uint32_t account;

    assert_int_equal(accounts_find(f->ks.accounts, r->id, &account), 0);
    return account;
}

static struct usage_event event_of(const struct key_record *r, uint32_t n, int64_t cost_nano)
{
    struct usage_event e = fixture_event(n);

    e.key_id = r->id;
    e.cost_nano = cost_nano;
    return e;
}

static void add_row(struct fixture *f, const struct usage_event *e, int state,
                    int64_t reserved_nano)
{
    struct open_request *row = &f->rows[f->row_count++];

    assert_true(f->row_count <= ROWS_MAX);
    *row = (struct open_request){
        .key_id = e->key_id,
        .id = e->id,
        .reservation = {.at_ms = e->created_at_ms, .amount_nano = reserved_nano},
        .cost_nano = e->cost_nano,
    };
    if (state == OPEN_IN_BRACKET)
        row->state = OPEN_IN_BRACKET;
    else
        row->state = state == OPEN_RUNNING ? OPEN_RUNNING : OPEN_FINAL;
}

static void append(struct fixture *f, size_t slot, const struct usage_event *e)
{
    assert_true(outbox_reserve(outbox_slot(f->outbox, slot)));
    outbox_append(outbox_slot(f->outbox, slot), e);
}

/* ---- counting ---- */

static void turn_at(struct fixture *f, int64_t now_at_ms)
{
    f->now_ms += 1000;
    recount_turn(f->recount, f->now_ms, now_at_ms);
}

static void turn(struct fixture *f)
{
    turn_at(f, NOW);
}

static bool is_marked(const struct fixture *f, const struct key_record *r)
{
    return account_is_marked(f->ks.accounts, account_of(f, r));
}

static struct account_values values_at(const struct fixture *f, const struct key_record *r,
                                       int64_t now_at_ms)
{
    struct account_values values;
    bool marked;

    account_get(f->ks.accounts, account_of(f, r), now_at_ms, &values, &marked);
    assert_false(marked);
    return values;
}

static int64_t balance(const struct fixture *f, const struct key_record *r)
{
    return values_at(f, r, NOW).balance_nano;
}

static int64_t left(const struct fixture *f, const struct key_record *r, enum spend_period p)
{
    return values_at(f, r, NOW).spending[p].left_nano;
}

static void mark(struct fixture *f, const struct key_record *r)
{
    account_mark(f->ks.accounts, account_of(f, r));
}

/* ---- the balance ---- */

static void given_new_keys_when_counted_then_balance_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct key_record paid = make_key(f, BALANCE), plain = make_key(f, ACCOUNT_UNLIMITED);

    assert_true(is_marked(f, &paid));
    assert_false(is_marked(f, &plain));
    assert_false(account_is_limited(f->ks.accounts, account_of(f, &plain)));
    turn(f);
    assert_int_equal(balance(f, &paid), BALANCE);
    assert_int_equal(left(f, &paid, SPEND_DAY), ACCOUNT_UNLIMITED);
    assert_int_equal(f->counters.recounts_total, 1);
}

static void given_running_row_when_counted_then_its_reservation_is_missing(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 0);

    add_row(f, &e, OPEN_RUNNING, 300);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 300);
}

/* Settlement will add 300 - 120, and the commit takes 120 from the ledger's balance alone. */
static void given_final_row_not_committed_when_counted_then_its_reservation_is_missing(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    add_row(f, &e, OPEN_FINAL, 300);
    append(f, 0, &e); /* with or without this */
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 300);
}

static void given_final_row_committed_when_counted_then_cost_is_added_back(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    add_row(f, &e, OPEN_FINAL, 300);
    append(f, 0, &e);
    fixture_insert(f->ks.ledger, &e);
    turn(f);
    /* The ledger has BALANCE - 120; settled it will be that again. */
    assert_int_equal(balance(f, &key), BALANCE - 120 - 300 + 120);
}

static void given_event_in_ring_without_row_when_counted_then_its_cost_is_missing(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 1, &e);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

static void given_committed_event_still_in_ring_when_counted_then_once(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 0, &e);
    fixture_insert(f->ks.ledger, &e);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

static void given_event_twice_in_rings_when_counted_then_once(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 0, &e);
    append(f, 0, &e); /* the worker's and the reaper's */
    append(f, 1, &e);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

static void given_everything_at_once_when_counted_then_each_key_pays_its_own(void **state)
{
    struct fixture *f = *state;
    struct key_record a = make_key(f, BALANCE), b = make_key(f, 2 * BALANCE),
                      c = make_key(f, ACCOUNT_UNLIMITED);
    struct usage_event running = event_of(&a, 1, 0), final = event_of(&a, 2, 50),
                       done = event_of(&a, 3, 70), waiting = event_of(&a, 4, 90),
                       other = event_of(&b, 5, 1000), plain = event_of(&c, 6, 5000);

    add_row(f, &running, OPEN_RUNNING, 300);
    add_row(f, &final, OPEN_FINAL, 400);
    add_row(f, &done, OPEN_FINAL, 500);
    append(f, 0, &final);
    append(f, 0, &done);
    append(f, 0, &waiting);
    append(f, 1, &other);
    append(f, 1, &plain);
    fixture_insert(f->ks.ledger, &done);
    turn(f);
    assert_int_equal(balance(f, &a), BALANCE - 70 - 300 - 400 - 500 + 70 - 90);
    assert_int_equal(balance(f, &b), 2 * BALANCE - 1000);
    assert_false(account_is_limited(f->ks.accounts, account_of(f, &c)));
}

static void given_event_spent_more_than_there_is_when_counted_then_below_zero(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, 100);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 0, &e);
    turn(f);
    assert_int_equal(balance(f, &key), -20);
}

static void given_damaged_record_in_ring_when_counted_then_the_others_count(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event good = event_of(&key, 1, 120), bad = event_of(&key, 2, 7000);
    uint8_t *bytes = (uint8_t *)f->outbox;
    size_t len = outbox_region_spec(SLOTS, RING_BYTES).bytes;
    bool found = false;

    append(f, 0, &bad);
    append(f, 0, &good);
    for (size_t i = 0; i + USAGE_ID_BYTES < len && !found; i++) {
        found = memcmp(bytes + i, bad.id.bytes, USAGE_ID_BYTES) == 0;
        if (found)
            bytes[i] ^= 1; /* its CRC no longer fits */
    }
    assert_true(found);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

/* ---- waiting ---- */

static void given_row_in_bracket_when_counted_then_its_key_waits_and_others_do_not(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE), other = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    add_row(f, &e, OPEN_IN_BRACKET, 300);
    turn(f);
    assert_true(is_marked(f, &key));
    assert_int_equal(balance(f, &other), BALANCE);
    assert_true(recount_next_ms(f->recount) <= f->now_ms + 50);

    f->row_count = 0;
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE);
}

static struct key_record marked_meanwhile;

static void mark_it(struct fixture *f)
{
    mark(f, &marked_meanwhile);
}

static void given_account_marked_again_when_counted_then_starts_over(void **state)
{
    struct fixture *f = *state;
    struct usage_event e;

    marked_meanwhile = make_key(f, BALANCE);
    e = event_of(&marked_meanwhile, 1, 0);
    add_row(f, &e, OPEN_RUNNING, 300);
    f->on_look = mark_it; /* the reaper, whose row was seen before */
    turn(f);
    assert_true(is_marked(f, &marked_meanwhile));

    f->row_count = 0;
    turn(f);
    assert_int_equal(balance(f, &marked_meanwhile), BALANCE);
}

static void given_spool_file_when_counted_then_nothing_is_until_it_is_gone(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 0, &e);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    turn(f);
    turn(f);
    assert_true(is_marked(f, &key));

    fixture_insert(f->ks.ledger, &e);
    fixture_remove_dir(f->spool);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

static void spool_it(struct fixture *f)
{
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
}

static void given_ring_moved_into_spool_meanwhile_when_counted_then_starts_over(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    append(f, 0, &e);
    f->on_look = spool_it; /* the event is in no ring when the rings are read */
    turn(f);
    assert_true(is_marked(f, &key));

    fixture_insert(f->ks.ledger, &e);
    fixture_remove_dir(f->spool);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE - 120);
}

static void given_no_database_when_counted_then_marks_stay_and_later_it_goes_on(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    char path[128], away[128];

    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    snprintf(away, sizeof(away), "%s/away.db", f->dir);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(ledger_reopen(f->ks.ledger) < 0);
    turn(f);
    assert_true(is_marked(f, &key));

    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rename(away, path), 0);
    assert_int_equal(ledger_reopen(f->ks.ledger), 0);
    turn(f);
    assert_int_equal(balance(f, &key), BALANCE);
}

static void given_new_marks_when_idle_then_due_at_once(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);

    turn(f);
    assert_true(recount_next_ms(f->recount) > f->now_ms);
    mark(f, &key);
    assert_true(recount_next_ms(f->recount) <= f->now_ms);
    recount_turn(f->recount, f->now_ms, NOW);
    assert_int_equal(balance(f, &key), BALANCE);
}

static void given_writer_that_died_when_loaded_then_all_limited_are_counted_anew(void **state)
{
    struct fixture *f = *state;
    struct key_record paid = make_key(f, BALANCE), revoked = make_key(f, BALANCE),
                      plain = make_key(f, ACCOUNT_UNLIMITED);
    uint64_t after = 0;
    char id[KEY_ID_TEXT_BYTES];

    turn(f);
    key_id_format(revoked.id, id);
    assert_int_equal(keystore_revoke(&f->ks, id, NOW, &revoked), 0);
    /* A payment whose word it did not live to change. */
    assert_int_equal(database_exec(ledger_db(f->ks.ledger),
                                   "UPDATE api_keys SET balance = balance + 5"
                                   " WHERE balance IS NOT NULL"),
                     0);
    recount_free(f->recount);
    start_recount(f);
    assert_int_equal(keystore_load(&f->ks, &after, 100, true), 3);
    assert_true(is_marked(f, &paid));
    assert_true(is_marked(f, &revoked)); /* what it still runs wants to be settled */
    assert_false(is_marked(f, &plain));
    turn(f);
    assert_int_equal(balance(f, &paid), BALANCE + 5);
    assert_int_equal(balance(f, &revoked), BALANCE + 5);
}

static void given_many_keys_when_counted_then_all_in_few_turns(void **state)
{
    struct fixture *f = *state;
    struct key_record keys[200];
    int turns = 0;

    for (size_t i = 0; i < 200; i++)
        keys[i] = make_key(f, BALANCE + (int64_t)i);
    do {
        turn(f);
        turns++;
    } while (is_marked(f, &keys[199]) && turns < 100);
    turn(f);
    assert_true(turns < 100);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(balance(f, &keys[i]), BALANCE + (int64_t)i);
}

/* ---- limits that come, go and change ---- */

static void given_limit_set_and_removed_when_counted_then_words_follow(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, ACCOUNT_UNLIMITED);
    struct usage_event e = event_of(&key, 1, 120);

    fixture_insert(f->ks.ledger, &e);
    turn(f);
    set_limit(f, &key, SPEND_DAY, 1000);
    assert_true(is_marked(f, &key));
    turn(f);
    assert_int_equal(left(f, &key, SPEND_DAY), 880);
    assert_int_equal(left(f, &key, SPEND_WEEK), ACCOUNT_UNLIMITED);
    assert_int_equal(balance(f, &key), ACCOUNT_UNLIMITED);

    set_limit(f, &key, SPEND_DAY, 2000);
    turn(f);
    assert_int_equal(left(f, &key, SPEND_DAY), 1880);

    set_limit(f, &key, SPEND_DAY, ACCOUNT_UNLIMITED);
    turn(f);
    assert_false(account_is_limited(f->ks.accounts, account_of(f, &key)));
}

static void given_first_payment_when_counted_then_running_requests_are_inside(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, ACCOUNT_UNLIMITED);
    struct usage_event e = event_of(&key, 1, 0), spent = event_of(&key, 2, 77);
    struct credit_entry payment = {.amount_nano = 5000};
    char id[KEY_ID_TEXT_BYTES];

    fixture_insert(f->ks.ledger, &spent); /* before it was prepaid: free */
    turn(f);
    add_row(f, &e, OPEN_RUNNING, 0); /* admitted while nothing was limited */
    key_id_format(key.id, id);
    assert_int_equal(credits_add(&f->ks, id, NOW, &payment), 0);
    assert_true(is_marked(f, &key));
    turn(f);
    assert_int_equal(balance(f, &key), 5000);
    /* The next one needs no recount. */
    payment = (struct credit_entry){.amount_nano = -100};
    assert_int_equal(credits_add(&f->ks, id, NOW, &payment), 0);
    assert_int_equal(balance(f, &key), 4900);
}

/* ---- periods ---- */

/* NOW is Sunday, 2026-03-01: a new month began on that day, its week on Monday, February 23. */
static void given_spending_on_many_days_when_counted_then_each_limit_its_own_days(void **state)
{
    static const struct {
        int64_t days_ago;
        int64_t cost_nano;
    } SPENT[] = {{0, 1}, {1, 10}, {6, 100}, {7, 1000}, {29, 10000}};
    struct fixture *f = *state;
    struct key_record key = make_key(f, ACCOUNT_UNLIMITED);

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        key.spending_nano[p] = 1000000;
    set_limit(f, &key, SPEND_DAY, 1000000);
    for (uint32_t i = 0; i < sizeof(SPENT) / sizeof(SPENT[0]); i++) {
        struct usage_event e = event_of(&key, i, SPENT[i].cost_nano);

        e.created_at_ms = NOW - SPENT[i].days_ago * DAY_MS;
        fixture_insert(f->ks.ledger, &e);
    }
    turn(f);
    assert_int_equal(left(f, &key, SPEND_DAY), 1000000 - 1);
    assert_int_equal(left(f, &key, SPEND_WEEK), 1000000 - 111);
    assert_int_equal(left(f, &key, SPEND_MONTH), 1000000 - 1);
    turn_at(f, NOW - DAY_MS); /* the clock was set: February again */
    assert_int_equal(values_at(f, &key, NOW - DAY_MS).spending[SPEND_DAY].left_nano, 1000000 - 10);
    assert_int_equal(values_at(f, &key, NOW - DAY_MS).spending[SPEND_MONTH].left_nano,
                     1000000 - 1110);
}

static void given_rows_and_events_around_midnight_when_counted_then_each_in_its_period(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, BALANCE);
    int64_t midnight = NOW - NOW % DAY_MS + DAY_MS;
    struct usage_event before = event_of(&key, 1, 10), after = event_of(&key, 2, 20),
                       long_ago = event_of(&key, 3, 4000), running = event_of(&key, 4, 0),
                       tomorrow = event_of(&key, 5, 70);

    before.created_at_ms = midnight - 1;
    after.created_at_ms = midnight;
    long_ago.created_at_ms = midnight - 2 * DAY_MS;
    running.created_at_ms = midnight - 1;
    tomorrow.created_at_ms = midnight + 5; /* committed, by a worker whose clock is ahead */
    set_limit(f, &key, SPEND_DAY, 1000);
    append(f, 0, &before);
    append(f, 0, &after);
    append(f, 1, &long_ago);
    fixture_insert(f->ks.ledger, &tomorrow);
    add_row(f, &running, OPEN_RUNNING, 300);
    turn_at(f, midnight - 1);

    assert_int_equal(values_at(f, &key, midnight - 1).spending[SPEND_DAY].left_nano,
                     1000 - 10 - 300);
    assert_int_equal(values_at(f, &key, midnight - 1).spending[SPEND_DAY].next_left_nano,
                     1000 - 20 - 70);
    assert_int_equal(balance(f, &key), BALANCE - 10 - 20 - 4000 - 300 - 70);
}

static void given_new_day_when_counted_then_the_pair_moves_on(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, ACCOUNT_UNLIMITED), paid = make_key(f, BALANCE);
    struct usage_event e = event_of(&key, 1, 120);

    set_limit(f, &key, SPEND_DAY, 1000);
    fixture_insert(f->ks.ledger, &e);
    turn(f);
    assert_int_equal(f->counters.recounts_total, 2);
    assert_int_equal(values_at(f, &key, NOW).spending[SPEND_DAY].next_left_nano, 1000);
    turn_at(f, NOW + DAY_MS);
    assert_int_equal(f->counters.recounts_total, 3); /* a balance alone knows no days */
    assert_int_equal(values_at(f, &key, NOW + DAY_MS).spending[SPEND_DAY].left_nano, 1000);
    assert_int_equal(values_at(f, &key, NOW + DAY_MS).spending[SPEND_DAY].next_left_nano, 1000);
    assert_int_equal(balance(f, &paid), BALANCE);
}

/* The words of the new day stand ready since yesterday: nobody has to wait for the spool. */
static void given_new_day_and_spool_file_when_counted_then_nothing_is_marked(void **state)
{
    struct fixture *f = *state;
    struct key_record key = make_key(f, ACCOUNT_UNLIMITED), other = make_key(f, BALANCE);
    struct usage_event e = event_of(&other, 1, 120);

    set_limit(f, &key, SPEND_DAY, 1000);
    turn(f);
    append(f, 0, &e);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    turn_at(f, NOW + DAY_MS);
    assert_false(is_marked(f, &key));
    assert_int_equal(values_at(f, &key, NOW + DAY_MS).spending[SPEND_DAY].left_nano, 1000);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_new_keys_when_counted_then_balance_or_nothing),
        T(given_running_row_when_counted_then_its_reservation_is_missing),
        T(given_final_row_not_committed_when_counted_then_its_reservation_is_missing),
        T(given_final_row_committed_when_counted_then_cost_is_added_back),
        T(given_event_in_ring_without_row_when_counted_then_its_cost_is_missing),
        T(given_committed_event_still_in_ring_when_counted_then_once),
        T(given_event_twice_in_rings_when_counted_then_once),
        T(given_everything_at_once_when_counted_then_each_key_pays_its_own),
        T(given_event_spent_more_than_there_is_when_counted_then_below_zero),
        T(given_damaged_record_in_ring_when_counted_then_the_others_count),
        T(given_row_in_bracket_when_counted_then_its_key_waits_and_others_do_not),
        T(given_account_marked_again_when_counted_then_starts_over),
        T(given_spool_file_when_counted_then_nothing_is_until_it_is_gone),
        T(given_ring_moved_into_spool_meanwhile_when_counted_then_starts_over),
        T(given_no_database_when_counted_then_marks_stay_and_later_it_goes_on),
        T(given_new_marks_when_idle_then_due_at_once),
        T(given_writer_that_died_when_loaded_then_all_limited_are_counted_anew),
        T(given_many_keys_when_counted_then_all_in_few_turns),
        T(given_limit_set_and_removed_when_counted_then_words_follow),
        T(given_first_payment_when_counted_then_running_requests_are_inside),
        T(given_spending_on_many_days_when_counted_then_each_limit_its_own_days),
        T(given_rows_and_events_around_midnight_when_counted_then_each_in_its_period),
        T(given_new_day_when_counted_then_the_pair_moves_on),
        T(given_new_day_and_spool_file_when_counted_then_nothing_is_marked),
    };
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    log_to(null, null);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
