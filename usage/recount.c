#include "usage/recount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "usage/debts.h"
#include "usage/ledger.h"
#include "usage/spent.h"
#include "usage/spool.h"

#define BATCH 64         /* accounts counted at once: so many keys wait for each other */
#define SCAN_SLICE 16384 /* accounts looked at before the clock is */
#define TURN_MS 4        /* no new batch after this */
#define POLL_MS 50       /* the reaper's marks come without a wake-up */
/* A request leaves its bracket in microseconds, a dead worker's row with the reaper. */
#define PAUSE_MIN_MS 2
#define PAUSE_MAX_MS 50
#define PATIENCE_MS 3000 /* then it is told */

struct recount {
    struct recount_setup setup;
    uint32_t batch[BATCH]; /* accounts; those that could not be counted stay */
    size_t count;
    struct debts debts;

    /* The search for accounts. */
    bool scanning;
    bool again; /* something was marked, maybe behind the cursor */
    size_t cursor;
    uint64_t seen_marks;
    int64_t seen_day;

    int64_t due_ms, pause_ms;
    int64_t stuck_since_ms; /* -1 = it is not */
    bool is_told;
};

struct recount *recount_new(const struct recount_setup *setup)
{
    struct recount *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->setup = *setup;
    r->seen_day = -1; /* so that the first turn looks at all of them */
    r->pause_ms = PAUSE_MIN_MS;
    r->stuck_since_ms = -1;
    return r;
}

void recount_free(struct recount *r)
{
    if (r == NULL)
        return;
    debts_clear(&r->debts);
    free(r);
}

static struct accounts_region *accounts_of(const struct recount *r)
{
    return r->setup.keystore->accounts;
}

/* ---- which accounts ---- */

static void note_marks(struct recount *r, int64_t now_at_ms)
{
    uint64_t marks = accounts_marks(accounts_of(r));
    int64_t day = spend_period_number(SPEND_DAY, now_at_ms);

    if (marks == r->seen_marks && day == r->seen_day)
        return;
    r->seen_marks = marks;
    r->seen_day = day; /* weeks and months begin with one */
    r->again = r->scanning;
    r->scanning = true;
}

static bool is_in_batch(const struct recount *r, uint32_t account)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->batch[i] == account)
            return true;
    }
    return false;
}

/* Fills the batch up. */
static void scan(struct recount *r, int64_t now_at_ms)
{
    const struct accounts_region *accounts = accounts_of(r);
    size_t all = accounts_count(accounts);
    size_t end = all - r->cursor > SCAN_SLICE ? r->cursor + SCAN_SLICE : all;

    for (; r->cursor < end && r->count < BATCH; r->cursor++) {
        uint32_t account = (uint32_t)r->cursor;

        if ((account_is_marked(accounts, account) ||
             account_is_stale(accounts, account, now_at_ms)) &&
            !is_in_batch(r, account))
            r->batch[r->count++] = account;
    }
    if (r->cursor < all)
        return;
    r->cursor = 0;
    r->scanning = r->again;
    r->again = false;
}

/* ---- a batch ---- */

/* In the order of the keys, which their debts have too. */
static void sort_batch(struct recount *r)
{
    for (size_t i = 1; i < r->count; i++) {
        uint32_t account = r->batch[i];
        size_t at = i;

        for (; at > 0 && account_key_id(accounts_of(r), r->batch[at - 1]) >
                             account_key_id(accounts_of(r), account);
             at--)
            r->batch[at] = r->batch[at - 1];
        r->batch[at] = account;
    }
}

/* In one transaction: locking the database for each look-up would take as long as the look-up. */
struct reading {
    sqlite3 *db;
    sqlite3_stmt *key;
    struct spent_reader spent;
};

static int open_reading(struct ledger *ledger, struct reading *reading)
{
    int rc;

    memset(reading, 0, sizeof(*reading));
    reading->db = ledger_db(ledger);
    if (reading->db == NULL)
        return -EIO;
    rc = database_exec(reading->db, "BEGIN");
    if (rc == 0)
        rc = database_prepare(
            reading->db,
            "SELECT balance, spend_day, spend_week, spend_month FROM api_keys WHERE id = ?1",
            &reading->key);
    return rc < 0 ? rc : spent_reader_open(ledger, &reading->spent);
}

static void close_reading(struct reading *reading)
{
    sqlite3_finalize(reading->key);
    spent_reader_close(&reading->spent);
    database_rollback(reading->db); /* nothing was written */
}

/* The key's balance and limits; none if there is no such row. */
static int read_key(sqlite3_stmt *stmt, uint64_t key_id, int64_t columns_nano[1 + SPEND_PERIODS])
{
    char key_text[KEY_ID_TEXT_BYTES];
    int rc;

    key_id_format(key_id, key_text);
    sqlite3_bind_text(stmt, 1, key_text, -1, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    for (int i = 0; i < 1 + SPEND_PERIODS; i++) {
        bool is_set = rc == SQLITE_ROW && sqlite3_column_type(stmt, i) != SQLITE_NULL;

        columns_nano[i] = is_set ? sqlite3_column_int64(stmt, i) : ACCOUNT_UNLIMITED;
    }
    sqlite3_reset(stmt);
    return database_errno(rc);
}

static int read_values(struct reading *reading, const struct debt *debt, int64_t now_at_ms,
                       struct account_values *out)
{
    int64_t columns_nano[1 + SPEND_PERIODS];
    const int64_t *limits_nano = columns_nano + 1;
    struct spent spent[SPEND_PERIODS] = {0};
    unsigned wanted = 0;
    int rc = read_key(reading->key, debt->key_id, columns_nano);

    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        wanted |= limits_nano[p] != ACCOUNT_UNLIMITED ? 1U << p : 0;
    if (rc == 0)
        rc = spent_read(&reading->spent, debt->key_id, now_at_ms, wanted, spent);
    if (rc < 0)
        return rc;
    out->balance_nano = ACCOUNT_UNLIMITED;
    if (columns_nano[0] != ACCOUNT_UNLIMITED)
        out->balance_nano = debt_subtract(columns_nano[0], debt->nano);
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++) {
        out->spending[p].period = debt->spending[p].period;
        out->spending[p].left_nano = ACCOUNT_UNLIMITED;
        out->spending[p].next_left_nano = ACCOUNT_UNLIMITED;
        if (limits_nano[p] == ACCOUNT_UNLIMITED)
            continue;
        out->spending[p].left_nano =
            debt_subtract(debt_subtract(limits_nano[p], spent[p].nano), debt->spending[p].nano);
        out->spending[p].next_left_nano = debt_subtract(
            debt_subtract(limits_nano[p], spent[p].next_nano), debt->spending[p].next_nano);
    }
    return 0;
}

/* Ends the recount of those whose debt is known; the others become the batch. */
static int finish(struct recount *r, struct reading *reading,
                  const struct account_marks marks[BATCH], const struct debt debts[BATCH],
                  int64_t now_at_ms)
{
    size_t left = 0;
    int rc = 0;

    for (size_t i = 0; i < r->count; i++) {
        struct account_values values;
        bool is_done = false;

        if (rc == 0 && !debts[i].in_bracket) {
            rc = read_values(reading, &debts[i], now_at_ms, &values);
            is_done =
                rc == 0 && account_recount_end(accounts_of(r), r->batch[i], &marks[i], &values);
        }
        if (is_done)
            counter_inc(&r->setup.counters->recounts_total);
        else
            r->batch[left++] = r->batch[i];
    }
    r->count = left;
    return rc;
}

static int check_spool(const struct recount *r)
{
    int rc = spool_is_empty(r->setup.spool_dir);

    if (rc < 0)
        return rc;
    return rc == 1 ? 0 : -EAGAIN;
}

/* Counts what it can of the batch and leaves the rest in it. The order is the contract: marks,
 * rows, rings, spool. Nothing is committed meanwhile: commits are this process' own. */
static int count_batch(struct recount *r, struct reading *reading, int64_t now_at_ms)
{
    struct account_marks marks[BATCH];
    struct debt debts[BATCH];
    int rc;

    sort_batch(r);
    for (size_t i = 0; i < r->count; i++) {
        debt_init(&debts[i], account_key_id(accounts_of(r), r->batch[i]), now_at_ms);
        account_recount_begin(accounts_of(r), r->batch[i], &marks[i]);
    }
    rc = debts_collect(&r->debts, debts, r->count, r->setup.requests, r->setup.outbox);
    if (rc == 0)
        rc = debts_sum(&r->debts, debts, r->setup.keystore->ledger);
    /* The helper moves a ring's events into a file first and only then out of the ring: what the
     * ring had no more when it was read is in a file by now. */
    if (rc == 0)
        rc = check_spool(r);
    return rc < 0 ? rc : finish(r, reading, marks, debts, now_at_ms);
}

/* Nothing is marked before it is likely that it can be counted: a new day's words can wait, the
 * keys have them already. */
static int try_batch(struct recount *r, int64_t now_at_ms)
{
    struct reading reading;
    int rc = check_spool(r);

    if (rc < 0)
        return rc;
    rc = open_reading(r->setup.keystore->ledger, &reading);
    if (rc == 0)
        rc = count_batch(r, &reading, now_at_ms);
    close_reading(&reading);
    return rc;
}

/* ---- turns ---- */

static const char *explain(int rc)
{
    if (rc == 0)
        return "a request is in the middle of a change";
    return rc == -EAGAIN ? "the spool has not been taken over yet" : strerror(-rc);
}

static void note_progress(struct recount *r, int64_t now_ms)
{
    if (r->is_told)
        log_event(LOG_WARN, "recount_goes_on", "", "after %lld ms",
                  (long long)(now_ms - r->stuck_since_ms));
    r->is_told = false;
    r->stuck_since_ms = -1;
    r->pause_ms = PAUSE_MIN_MS;
}

static void note_standstill(struct recount *r, int64_t now_ms, int rc)
{
    r->pause_ms = 2 * r->pause_ms < PAUSE_MAX_MS ? 2 * r->pause_ms : PAUSE_MAX_MS;
    if (r->stuck_since_ms == -1)
        r->stuck_since_ms = now_ms;
    if (r->is_told || now_ms - r->stuck_since_ms < PATIENCE_MS)
        return;
    r->is_told = true;
    log_event(LOG_ERROR, "recount_waits", "",
              "keys with a balance or a spending limit wait to be counted anew: %s", explain(rc));
}

void recount_turn(struct recount *r, int64_t now_ms, int64_t now_at_ms)
{
    int64_t deadline_ms = clock_monotonic_ms() + TURN_MS;
    bool stands_still = false;
    bool progressed = false;
    int rc = 0;

    if (now_ms < recount_next_ms(r))
        return;
    note_marks(r, now_at_ms);
    do {
        size_t before;

        if (r->scanning)
            scan(r, now_at_ms);
        before = r->count;
        if (before > 0)
            rc = try_batch(r, now_at_ms);
        progressed = progressed || r->count < before;
        stands_still = r->count > 0 && r->count == before;
    } while (!stands_still && (r->scanning || r->count > 0) && clock_monotonic_ms() < deadline_ms);
    if (progressed || r->count == 0)
        note_progress(r, now_ms);
    else
        note_standstill(r, now_ms, rc);
    if (stands_still)
        r->due_ms = now_ms + r->pause_ms;
    else
        r->due_ms = r->scanning || r->count > 0 ? now_ms : now_ms + POLL_MS;
}

int64_t recount_next_ms(const struct recount *r)
{
    /* New marks are looked at at once, unless older ones have to wait anyway. */
    if (r->count == 0 && accounts_marks(accounts_of(r)) != r->seen_marks)
        return 0;
    return r->due_ms;
}
