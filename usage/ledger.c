#include "usage/ledger.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/error.h"
#include "usage/accounts.h"
#include "usage/keytable.h"
#include "usage/ledger_link.h"

#define ROLLUP_BUCKETS (2 * LEDGER_BATCH_MAX) /* a power of two, never more than half full */

/* One row of usage_hourly in the making; usage_daily takes it too. */
struct rollup {
    int64_t hour_at_ms;
    uint64_t key_id;
    char key_text[KEY_ID_TEXT_BYTES];
    char model[USAGE_NAME_BYTES];
    int64_t requests, errors;
    int64_t tokens_input, tokens_cached, tokens_output;
    int64_t cost_nano;
    int64_t last_used_at_ms;
};

/* Stored numbers: never renumber. */
enum attempt_payer { PAYER_NOBODY = 0, PAYER_KEY = 1, PAYER_GATEWAY = 2 };

enum statement {
    ST_BEGIN,
    ST_COMMIT,
    ST_INSERT_USAGE,
    ST_SELECT_USAGE,
    ST_DELETE_USAGE,
    ST_DELETE_ATTEMPTS,
    ST_INSERT_ATTEMPT,
    ST_REMEMBER,
    ST_ADD_HOURLY,
    ST_ADD_DAILY,
    ST_CHARGE_KEY,
    ST_ADD_CREDIT,
    ST_COUNT
};

/* A sum of costs ends at the largest number: one more would be a REAL, which a STRICT table
 * refuses, and the batch with it for good. */
#define ADD_SUMS(table, period)                                                             \
    "INSERT INTO " table " (" period ", api_key_id, model, requests, errors, tokens_input," \
    " tokens_cached, tokens_output, cost) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"      \
    " ON CONFLICT (" period ", api_key_id, model) DO UPDATE SET"                            \
    " requests = requests + excluded.requests, errors = errors + excluded.errors,"          \
    " tokens_input = tokens_input + excluded.tokens_input,"                                 \
    " tokens_cached = tokens_cached + excluded.tokens_cached,"                              \
    " tokens_output = tokens_output + excluded.tokens_output,"                              \
    " cost = min(cost, 9223372036854775807 - excluded.cost) + excluded.cost"
#define BALANCE_MIN "-4000000000000000000"      /* -ACCOUNT_MAX_NANO */
#define COST_MAX_NANO INT64_C(1000000000000000) /* of an event: the table's constraint */

_Static_assert(LEDGER_BATCH_MAX <= (INT64_MAX - ACCOUNT_MAX_NANO) / COST_MAX_NANO,
               "the smallest balance less the cost of a batch still fits");

static const char *const STATEMENTS[ST_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    /* Not OR IGNORE: that would also swallow rows that a constraint forbids. */
    [ST_INSERT_USAGE] =
        "INSERT INTO usage (id, api_key_id, provider, model, tokens_input, tokens_cached,"
        " tokens_output, cost, created_at, outcome, source, http_status, error, streamed,"
        " duration_ms, first_byte_ms, price_from, price_input, price_cached_input, price_output,"
        " price_request) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
        " ?16, ?17, ?18, ?19, ?20, ?21) ON CONFLICT (id) DO NOTHING",
    [ST_SELECT_USAGE] = "SELECT 1 FROM usage WHERE id = ?1 AND api_key_id = ?2 AND model = ?3"
                        " AND tokens_input = ?4 AND tokens_cached = ?5 AND tokens_output = ?6"
                        " AND cost = ?7",
    [ST_DELETE_USAGE] = "DELETE FROM usage WHERE id = ?1",
    [ST_DELETE_ATTEMPTS] = "DELETE FROM usage_attempts WHERE usage_id = ?1",
    [ST_INSERT_ATTEMPT] =
        "INSERT INTO usage_attempts (usage_id, number, provider, model, status, error, started_at,"
        " duration_ms, tokens_input, tokens_cached, tokens_output, payer)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    /* A key whose time was over may be used anew; what arrives late does not replace what is newer.
     */
    [ST_REMEMBER] = "INSERT INTO idempotency (key_digest, request_digest, usage_id, created_at)"
                    " VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key_digest) DO UPDATE SET"
                    " request_digest = excluded.request_digest, usage_id = excluded.usage_id,"
                    " created_at = excluded.created_at, status = NULL, content_type = NULL,"
                    " answer = NULL WHERE excluded.usage_id > usage_id",
    [ST_ADD_HOURLY] = ADD_SUMS("usage_hourly", "hour"),
    [ST_ADD_DAILY] = ADD_SUMS("usage_daily", "day"),
    [ST_CHARGE_KEY] = "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?2),"
                      " balance = max(balance - ?3, " BALANCE_MIN ")"
                      " WHERE id = ?1 AND (coalesce(last_used_at, 0) < ?2 OR balance IS NOT NULL)"
                      " RETURNING balance",
    [ST_ADD_CREDIT] = "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, requests,"
                      " created_at) VALUES (?1, 'usage', ?2, ?3, ?4, ?5)",
};

struct ledger {
    struct ledger_link link;
    sqlite3_stmt *statements[ST_COUNT];
    ledger_event_fn on_remembered;
    void *on_remembered_arg;
    char reason[160];
    size_t inserted; /* calls since ledger_begin() */
    size_t rollup_count;
    uint16_t buckets[ROLLUP_BUCKETS]; /* index in rollups + 1, 0 = empty */
    struct rollup rollups[LEDGER_BATCH_MAX];
    const struct rollup *by_key[LEDGER_BATCH_MAX]; /* for charge_keys() */
};

static void finalize(void *arg)
{
    struct ledger *l = arg;

    for (size_t i = 0; i < ST_COUNT; i++) {
        sqlite3_finalize(l->statements[i]);
        l->statements[i] = NULL;
    }
}

static int prepare(struct ledger *l)
{
    int rc = 0;

    for (size_t i = 0; i < ST_COUNT && rc == 0; i++) {
        if (l->statements[i] == NULL) /* the connection may be the old one */
            rc = database_prepare(l->link.db, STATEMENTS[i], &l->statements[i]);
    }
    return ledger_link_explain(&l->link, rc);
}

int ledger_open(const char *path, struct ledger **out, char why[DATABASE_WHY_BYTES])
{
    struct ledger *l = calloc(1, sizeof(*l));
    int rc;

    *out = NULL;
    snprintf(why, DATABASE_WHY_BYTES, "out of memory");
    if (l == NULL)
        return -ENOMEM;
    l->link.on_close = finalize;
    l->link.arg = l;
    rc = ledger_link_open(&l->link, path);
    if (rc == 0)
        rc = prepare(l);
    if (rc < 0) {
        memcpy(why, l->link.fault, DATABASE_WHY_BYTES);
        ledger_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

void ledger_close(struct ledger *l)
{
    if (l == NULL)
        return;
    ledger_link_close(&l->link);
    free(l);
}

int ledger_reopen(struct ledger *l)
{
    int reopened = ledger_link_reopen(&l->link);
    int rc = reopened < 0 ? reopened : prepare(l);

    if (reopened >= 0 && rc < 0)
        ledger_link_drop(&l->link);
    return rc < 0 ? rc : reopened;
}

int ledger_look(struct ledger *l)
{
    return ledger_link_look(&l->link);
}

const char *ledger_fault(const struct ledger *l)
{
    return l->link.fault;
}

sqlite3 *ledger_db(struct ledger *l)
{
    return l->link.is_lost ? NULL : l->link.db;
}

int ledger_prepare(struct ledger *l, const char *sql, sqlite3_stmt **out)
{
    sqlite3 *db = ledger_db(l);

    *out = NULL;
    return db != NULL ? database_prepare(db, sql, out) : -EIO;
}

/* ---- the batch's size ---- */

/* Pages that could not wait for the COMMIT since ledger_begin(). */
static int spilled_pages(struct ledger *l, bool reset)
{
    int pages = 0, highest;
    int rc = sqlite3_db_status(l->link.db, SQLITE_DBSTATUS_CACHE_SPILL, &pages, &highest, reset);

    assert(rc == SQLITE_OK);
    return pages;
}

/* After each statement or few: what has spilled lengthens the log, rolled back or not. */
static int unless_outgrown(struct ledger *l, int rc)
{
    return rc >= 0 && spilled_pages(l, false) > 0 ? -EFBIG : rc;
}

/* ---- the sums ---- */

static uint64_t rollup_hash(const struct usage_event *e, int64_t hour_at_ms)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ e->key_id ^ (uint64_t)hour_at_ms;

    for (const char *p = e->model; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static bool rollup_is(const struct rollup *r, const struct usage_event *e, int64_t hour_at_ms)
{
    return r->key_id == e->key_id && r->hour_at_ms == hour_at_ms && strcmp(r->model, e->model) == 0;
}

/* The event's sum, made when absent: there are as many places as events in a batch. */
static struct rollup *rollup_find(struct ledger *l, const struct usage_event *e)
{
    int64_t hour_at_ms = e->created_at_ms - e->created_at_ms % CLOCK_HOUR_MS;
    size_t at = rollup_hash(e, hour_at_ms) % ROLLUP_BUCKETS;
    struct rollup *r;

    for (; l->buckets[at] != 0; at = (at + 1) % ROLLUP_BUCKETS) {
        r = &l->rollups[l->buckets[at] - 1];
        if (rollup_is(r, e, hour_at_ms))
            return r;
    }
    r = &l->rollups[l->rollup_count++];
    l->buckets[at] = (uint16_t)l->rollup_count;
    memset(r, 0, sizeof(*r));
    r->hour_at_ms = hour_at_ms;
    r->key_id = e->key_id;
    key_id_format(e->key_id, r->key_text);
    memcpy(r->model, e->model, sizeof(r->model));
    return r;
}

static void rollup_add(struct rollup *r, const struct usage_event *e)
{
    r->requests++;
    if (e->outcome == USAGE_ERROR || e->outcome == USAGE_ABORTED)
        r->errors++;
    r->tokens_input += e->tokens_input; /* the table's constraints bound each number */
    r->tokens_cached += e->tokens_cached;
    r->tokens_output += e->tokens_output;
    r->cost_nano += e->cost_nano;
    if (e->created_at_ms > r->last_used_at_ms)
        r->last_used_at_ms = e->created_at_ms;
}

static int add_sums(sqlite3_stmt *add, int64_t period_at_ms, const struct rollup *r)
{
    sqlite3_bind_int64(add, 1, period_at_ms);
    sqlite3_bind_text(add, 2, r->key_text, -1, SQLITE_STATIC);
    sqlite3_bind_text(add, 3, r->model, -1, SQLITE_STATIC);
    sqlite3_bind_int64(add, 4, r->requests);
    sqlite3_bind_int64(add, 5, r->errors);
    sqlite3_bind_int64(add, 6, r->tokens_input);
    sqlite3_bind_int64(add, 7, r->tokens_cached);
    sqlite3_bind_int64(add, 8, r->tokens_output);
    sqlite3_bind_int64(add, 9, r->cost_nano);
    return database_step(add);
}

static int rollup_write(struct ledger *l, const struct rollup *r)
{
    int rc = add_sums(l->statements[ST_ADD_HOURLY], r->hour_at_ms, r);

    if (rc < 0)
        return rc;
    return add_sums(l->statements[ST_ADD_DAILY], r->hour_at_ms - r->hour_at_ms % CLOCK_DAY_MS, r);
}

/* ---- the keys ---- */

/* Of one key over the whole batch. */
struct charge {
    const char *key_text;
    int64_t requests;
    int64_t cost_nano;
    int64_t last_used_at_ms;
};

static int add_credit(struct ledger *l, const struct charge *c, int64_t balance_nano)
{
    sqlite3_stmt *st = l->statements[ST_ADD_CREDIT];

    sqlite3_bind_text(st, 1, c->key_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, -c->cost_nano);
    sqlite3_bind_int64(st, 3, balance_nano);
    sqlite3_bind_int64(st, 4, c->requests);
    sqlite3_bind_int64(st, 5, clock_now_at_ms());
    return database_step(st);
}

static int charge_key(struct ledger *l, const struct charge *c)
{
    sqlite3_stmt *st = l->statements[ST_CHARGE_KEY];
    bool is_prepaid = false;
    int64_t balance_nano = 0;
    int rc;

    sqlite3_bind_text(st, 1, c->key_text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, c->last_used_at_ms);
    sqlite3_bind_int64(st, 3, c->cost_nano);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        is_prepaid = sqlite3_column_type(st, 0) != SQLITE_NULL;
        balance_nano = sqlite3_column_int64(st, 0);
        rc = sqlite3_step(st);
    }
    sqlite3_reset(st);
    if (rc != SQLITE_DONE)
        return database_errno(rc);
    /* What cost nothing has changed nothing. */
    return is_prepaid && c->cost_nano != 0 ? add_credit(l, c, balance_nano) : 0;
}

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = (*(const struct rollup *const *)a)->key_id;
    uint64_t y = (*(const struct rollup *const *)b)->key_id;

    return (x > y) - (x < y);
}

static int charge_keys(struct ledger *l)
{
    const struct rollup **by_key = l->by_key;
    struct charge charge;
    size_t count = 0;
    int rc = 0;

    for (size_t i = 0; i < l->rollup_count; i++) {
        if (l->rollups[i].requests > 0)
            by_key[count++] = &l->rollups[i];
    }
    qsort(by_key, count, sizeof(by_key[0]), compare_keys);
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct rollup *r = by_key[i];

        if (i == 0 || by_key[i - 1]->key_id != r->key_id)
            charge = (struct charge){.key_text = r->key_text};
        charge.requests += r->requests;
        charge.cost_nano += r->cost_nano;
        if (r->last_used_at_ms > charge.last_used_at_ms)
            charge.last_used_at_ms = r->last_used_at_ms;
        if (i + 1 == count || by_key[i + 1]->key_id != r->key_id)
            rc = unless_outgrown(l, charge_key(l, &charge));
    }
    return rc;
}

/* ---- the rows ---- */

static const char *error_code(int32_t number)
{
    return number == 0 ? NULL : error_info(number)->code;
}

static void bind_unless_zero(sqlite3_stmt *stmt, int column, int64_t value)
{
    if (value != 0)
        sqlite3_bind_int64(stmt, column, value);
    else
        sqlite3_bind_null(stmt, column);
}

static int insert_usage(struct ledger *l, const struct usage_event *e, const struct rollup *r)
{
    sqlite3_stmt *st = l->statements[ST_INSERT_USAGE];

    sqlite3_bind_blob(st, 1, e->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, r->key_text, KEY_ID_TEXT_BYTES - 1, SQLITE_STATIC);
    sqlite3_bind_text(st, 3, e->provider, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 4, e->model, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 5, e->tokens_input);
    sqlite3_bind_int64(st, 6, e->tokens_cached);
    sqlite3_bind_int64(st, 7, e->tokens_output);
    sqlite3_bind_int64(st, 8, e->cost_nano);
    sqlite3_bind_int64(st, 9, e->created_at_ms);
    sqlite3_bind_int(st, 10, e->outcome);
    sqlite3_bind_int(st, 11, e->source);
    sqlite3_bind_int(st, 12, e->http_status);
    sqlite3_bind_text(st, 13, error_code(e->error), -1, SQLITE_STATIC);
    sqlite3_bind_int(st, 14, e->streamed);
    sqlite3_bind_int64(st, 15, e->duration_ms);
    bind_unless_zero(st, 16, e->first_byte_ms);
    sqlite3_bind_int64(st, 17, e->price.from_at_ms);
    sqlite3_bind_int64(st, 18, e->price.input_nano);
    sqlite3_bind_int64(st, 19, e->price.cached_input_nano);
    sqlite3_bind_int64(st, 20, e->price.output_nano);
    sqlite3_bind_int64(st, 21, e->price.request_nano);
    return database_step(st);
}

/* The key pays for the attempt that gave it its answer; what others used up is the gateway's. */
static enum attempt_payer payer(const struct usage_event *e, size_t i)
{
    const struct usage_attempt *a = &e->attempts[i];

    if (i + 1 == e->attempt_count && e->source != USAGE_BY_NOBODY)
        return PAYER_KEY;
    return a->tokens_input > 0 || a->tokens_output > 0 ? PAYER_GATEWAY : PAYER_NOBODY;
}

static int insert_attempt(struct ledger *l, const struct usage_event *e, size_t i)
{
    const struct usage_attempt *a = &e->attempts[i];
    sqlite3_stmt *st = l->statements[ST_INSERT_ATTEMPT];

    sqlite3_bind_blob(st, 1, e->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, (int64_t)i + 1);
    sqlite3_bind_text(st, 3, a->provider, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 4, a->model, -1, SQLITE_STATIC);
    bind_unless_zero(st, 5, a->http_status);
    sqlite3_bind_text(st, 6, error_code(a->error), -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 7, a->started_at_ms);
    sqlite3_bind_int64(st, 8, a->duration_ms);
    sqlite3_bind_int64(st, 9, a->tokens_input);
    sqlite3_bind_int64(st, 10, a->tokens_cached);
    sqlite3_bind_int64(st, 11, a->tokens_output);
    sqlite3_bind_int(st, 12, (int)payer(e, i));
    return database_step(st);
}

static int remember(struct ledger *l, const struct usage_event *e)
{
    sqlite3_stmt *st = l->statements[ST_REMEMBER];
    int rc;

    sqlite3_bind_blob(st, 1, e->idempotency_key, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, e->request_digest, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 3, e->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, usage_event_ended_at_ms(e));
    rc = database_step(st);
    if (rc == 0 && l->on_remembered != NULL)
        l->on_remembered(l->on_remembered_arg, e);
    return rc;
}

/* Whether the row that is there says the same: the reaper may have written a variant of it. */
static int compare_usage(struct ledger *l, const struct usage_event *e, const struct rollup *r)
{
    sqlite3_stmt *st = l->statements[ST_SELECT_USAGE];
    int rc;

    sqlite3_bind_blob(st, 1, e->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, r->key_text, KEY_ID_TEXT_BYTES - 1, SQLITE_STATIC);
    sqlite3_bind_text(st, 3, e->model, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, e->tokens_input);
    sqlite3_bind_int64(st, 5, e->tokens_cached);
    sqlite3_bind_int64(st, 6, e->tokens_output);
    sqlite3_bind_int64(st, 7, e->cost_nano);
    rc = sqlite3_step(st);
    sqlite3_reset(st);
    if (rc == SQLITE_ROW)
        return LEDGER_DUPLICATE;
    return rc == SQLITE_DONE ? LEDGER_DIFFERS : database_errno(rc);
}

static int delete_event(struct ledger *l, const struct usage_event *e)
{
    static const enum statement PARTS[] = {ST_DELETE_ATTEMPTS, ST_DELETE_USAGE};
    int rc = 0;

    for (size_t i = 0; i < sizeof(PARTS) / sizeof(PARTS[0]) && rc == 0; i++) {
        sqlite3_stmt *st = l->statements[PARTS[i]];

        sqlite3_bind_blob(st, 1, e->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
        rc = database_step(st);
    }
    return rc;
}

/* A constraint undoes only its own statement: the batch goes on without this event. */
static int refuse(struct ledger *l, const struct usage_event *e, bool has_row)
{
    int rc = 0;

    snprintf(l->reason, sizeof(l->reason), "%s", sqlite3_errmsg(l->link.db));
    if (has_row)
        rc = delete_event(l, e);
    return rc < 0 ? rc : LEDGER_REFUSED;
}

void ledger_on_remembered(struct ledger *l, ledger_event_fn on_remembered, void *arg)
{
    l->on_remembered = on_remembered;
    l->on_remembered_arg = arg;
}

int ledger_begin(struct ledger *l)
{
    int rc;

    if (l->link.db == NULL)
        return -EIO;
    l->link.fault[0] = '\0';
    rc = ledger_link_look(&l->link);
    if (rc < 0)
        return rc;
    l->inserted = 0;
    l->rollup_count = 0;
    memset(l->buckets, 0, sizeof(l->buckets));
    (void)spilled_pages(l, true);
    return ledger_link_explain(&l->link, database_step(l->statements[ST_BEGIN]));
}

static int insert_event(struct ledger *l, const struct usage_event *event)
{
    struct rollup *r;
    int rc;

    assert(l->inserted < LEDGER_BATCH_MAX);
    l->inserted++;
    r = rollup_find(l, event);
    rc = insert_usage(l, event, r);
    if (rc == -EINVAL)
        return refuse(l, event, false);
    if (rc < 0)
        return rc;
    if (sqlite3_changes(l->link.db) == 0)
        return compare_usage(l, event, r);
    for (size_t i = 0; i < event->attempt_count; i++) {
        rc = insert_attempt(l, event, i);
        if (rc == -EINVAL)
            return refuse(l, event, true);
        if (rc < 0)
            return rc;
    }
    if (usage_event_is_remembered(event)) {
        rc = remember(l, event);
        if (rc < 0)
            return rc;
    }
    rollup_add(r, event);
    return LEDGER_INSERTED;
}

int ledger_insert(struct ledger *l, const struct usage_event *event)
{
    int rc = ledger_link_explain(&l->link, insert_event(l, event));

    return unless_outgrown(l, rc);
}

const char *ledger_reason(const struct ledger *l)
{
    return l->reason;
}

int ledger_commit(struct ledger *l)
{
    int rc = 0;

    for (size_t i = 0; i < l->rollup_count && rc == 0; i++) {
        if (l->rollups[i].requests > 0)
            rc = unless_outgrown(l, rollup_write(l, &l->rollups[i]));
    }
    if (rc == 0)
        rc = charge_keys(l);
    if (rc == 0)
        rc = database_step(l->statements[ST_COMMIT]);
    if (rc < 0)
        return ledger_link_explain(&l->link, rc);
    /* Into these files; if they were moved meanwhile it counts for nothing. */
    return ledger_link_look(&l->link);
}

void ledger_rollback(struct ledger *l)
{
    database_rollback(l->link.db);
}

unsigned ledger_wal_pages(const struct ledger *l)
{
    return l->link.log_pages;
}

uint64_t ledger_wal_bytes(const struct ledger *l)
{
    return l->link.file.log_bytes;
}

int ledger_checkpoint(struct ledger *l, bool truncate)
{
    return ledger_link_checkpoint(&l->link, truncate);
}

int ledger_make_room(struct ledger *l, uint64_t max_bytes)
{
    if (ledger_wal_bytes(l) + LEDGER_BATCH_LOG_BYTES <= max_bytes)
        return 0;
    return ledger_checkpoint(l, true);
}
