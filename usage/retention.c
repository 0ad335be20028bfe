#include "usage/retention.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/clock.h"
#include "usage/database.h"
#include "usage/event.h"
#include "usage/keytable.h"
#include "usage/meta.h"

#define BATCH_FIRST 100
#define BATCH_MIN 10
#define BATCH_MAX 400
#define TOO_LONG_US 3000
#define SHORT_US 1000

struct entry { /* of credit_ledger */
    int64_t id;
    char key[KEY_ID_TEXT_BYTES];
    bool is_usage;
    int64_t amount_nano, requests, created_at_ms;
};

static int64_t midnight_before(int64_t now_at_ms, uint32_t days)
{
    int64_t at_ms = now_at_ms - (int64_t)days * CLOCK_DAY_MS;

    return at_ms > 0 ? at_ms - at_ms % CLOCK_DAY_MS : 0;
}

/* Runs a statement whose first parameter is a blob or nothing. */
static int delete_up_to(sqlite3 *db, const char *sql, const uint8_t id[USAGE_ID_BYTES])
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, sql, &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(stmt, 1, id, USAGE_ID_BYTES, SQLITE_STATIC);
    rc = database_step(stmt);
    sqlite3_finalize(stmt);
    return rc;
}

/* ---- usage ---- */

/* The last id of the next batch and the latest moment in it; returns how many rows there are. */
static int find_old_rows(sqlite3 *db, int64_t cutoff_ms, int max, uint8_t last[USAGE_ID_BYTES],
                         int64_t *latest_ms)
{
    uint8_t cutoff[USAGE_ID_BYTES] = {0};
    sqlite3_stmt *stmt = NULL;
    int count = 0, step;
    int rc = database_prepare(
        db, "SELECT id, created_at FROM usage WHERE id < ?1 ORDER BY id LIMIT ?2", &stmt);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < 6; i++)
        cutoff[i] = (uint8_t)((uint64_t)cutoff_ms >> (40 - 8 * i));
    sqlite3_bind_blob(stmt, 1, cutoff, sizeof(cutoff), SQLITE_STATIC);
    sqlite3_bind_int(stmt, 2, max);
    *latest_ms = 0;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        const void *id = sqlite3_column_blob(stmt, 0);
        int64_t created_at_ms = sqlite3_column_int64(stmt, 1);

        if (id == NULL) {
            step = SQLITE_NOMEM;
            break;
        }
        memcpy(last, id, USAGE_ID_BYTES); /* its length is checked by the table */
        if (created_at_ms > *latest_ms)
            *latest_ms = created_at_ms;
        count++;
    }
    sqlite3_finalize(stmt);
    rc = database_errno(step);
    return rc < 0 ? rc : count;
}

/* Hours of which a row is gone are not compared with their sums any more. */
static int note_trimmed(sqlite3 *db, const char *name, int64_t until_ms)
{
    int64_t before_ms;
    int rc = meta_get(db, name, 0, &before_ms);

    return rc == 0 && until_ms > before_ms ? meta_set(db, name, until_ms) : rc;
}

static int trim_usage(sqlite3 *db, int64_t cutoff_ms, int max)
{
    uint8_t last[USAGE_ID_BYTES];
    int64_t latest_ms;
    int count = find_old_rows(db, cutoff_ms, max, last, &latest_ms);
    int rc;

    if (count <= 0)
        return count;
    rc =
        note_trimmed(db, META_USAGE_TRIMMED, latest_ms - latest_ms % CLOCK_HOUR_MS + CLOCK_HOUR_MS);
    if (rc == 0)
        rc = delete_up_to(db, "DELETE FROM usage_attempts WHERE usage_id <= ?1", last);
    if (rc == 0)
        rc = delete_up_to(db, "DELETE FROM usage WHERE id <= ?1", last);
    return rc < 0 ? rc : count;
}

/* ---- usage_hourly ---- */

static int trim_hourly(sqlite3 *db, int64_t cutoff_ms, int max)
{
    sqlite3_stmt *stmt = NULL;
    int count;
    int rc = database_prepare(db,
                              "DELETE FROM usage_hourly WHERE (hour, api_key_id, model) IN"
                              " (SELECT hour, api_key_id, model FROM usage_hourly WHERE hour < ?1"
                              "  ORDER BY hour, api_key_id, model LIMIT ?2)",
                              &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, cutoff_ms);
    sqlite3_bind_int(stmt, 2, max);
    rc = database_step(stmt);
    count = sqlite3_changes(db);
    sqlite3_finalize(stmt);
    if (rc == 0 && count > 0)
        rc = note_trimmed(db, META_HOURLY_TRIMMED, cutoff_ms);
    return rc < 0 ? rc : count;
}

/* ---- credit_ledger ---- */

static int read_entry(sqlite3_stmt *stmt, struct entry *e)
{
    const char *key = (const char *)sqlite3_column_text(stmt, 1);
    const char *kind = (const char *)sqlite3_column_text(stmt, 2);

    if (key == NULL || kind == NULL)
        return -ENOMEM; /* columns that are NOT NULL */
    if (strlen(key) >= sizeof(e->key))
        return -EBADMSG;
    memcpy(e->key, key, strlen(key) + 1);
    e->id = sqlite3_column_int64(stmt, 0);
    e->is_usage = strcmp(kind, "usage") == 0;
    e->amount_nano = sqlite3_column_int64(stmt, 3);
    e->requests = sqlite3_column_int64(stmt, 4);
    e->created_at_ms = sqlite3_column_int64(stmt, 5);
    return 0;
}

#define ENTRY_COLUMNS "id, api_key_id, kind, amount, requests, created_at"

/* The entries behind id `after` that are old enough; returns how many. */
static int find_entries(sqlite3 *db, int64_t after, int64_t cutoff_ms, int max,
                        struct entry out[BATCH_MAX])
{
    sqlite3_stmt *stmt = NULL;
    int count = 0, step = SQLITE_DONE;
    int rc = database_prepare(
        db, "SELECT " ENTRY_COLUMNS " FROM credit_ledger WHERE id > ?1 ORDER BY id LIMIT ?2",
        &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, after);
    sqlite3_bind_int(stmt, 2, max);
    /* Ids are in the order of time: behind the first one that is too young nothing is looked at. */
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW &&
           sqlite3_column_int64(stmt, 5) < cutoff_ms) {
        rc = read_entry(stmt, &out[count]);
        count += rc == 0;
    }
    sqlite3_finalize(stmt);
    if (rc == 0)
        rc = database_errno(step);
    return rc < 0 ? rc : count;
}

/* The key's entry before that one: 1, 0 = there is none, -errno. */
static int find_previous(sqlite3 *db, const struct entry *e, struct entry *out)
{
    sqlite3_stmt *stmt = NULL;
    int step;
    int rc = database_prepare(db,
                              "SELECT " ENTRY_COLUMNS " FROM credit_ledger"
                              " WHERE api_key_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT 1",
                              &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_text(stmt, 1, e->key, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 2, e->id);
    step = sqlite3_step(stmt);
    rc = database_errno(step);
    if (step == SQLITE_ROW)
        rc = read_entry(stmt, out);
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : step == SQLITE_ROW;
}

static int run_with(sqlite3 *db, const char *sql, int64_t id, int64_t amount_nano, int64_t requests)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, sql, &stmt);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, id);
    if (sqlite3_bind_parameter_count(stmt) == 3) {
        sqlite3_bind_int64(stmt, 2, amount_nano);
        sqlite3_bind_int64(stmt, 3, requests);
    }
    rc = database_step(stmt);
    sqlite3_finalize(stmt);
    return rc;
}

/* The earlier row goes into the later one, whose balance is the one after both. 1 = done, 0 = they
 * stay apart, -errno. */
static int fold(sqlite3 *db, const struct entry *e)
{
    struct entry before = {0};
    int64_t amount_nano, requests;
    int rc = e->is_usage ? find_previous(db, e, &before) : 0;

    if (rc <= 0)
        return rc;
    if (!before.is_usage ||
        before.created_at_ms / CLOCK_DAY_MS != e->created_at_ms / CLOCK_DAY_MS ||
        __builtin_add_overflow(e->amount_nano, before.amount_nano, &amount_nano) ||
        __builtin_add_overflow(e->requests, before.requests, &requests))
        return 0;
    rc = run_with(db, "UPDATE credit_ledger SET amount = ?2, requests = ?3 WHERE id = ?1", e->id,
                  amount_nano, requests);
    if (rc == 0)
        rc = run_with(db, "DELETE FROM credit_ledger WHERE id = ?1", before.id, 0, 0);
    return rc < 0 ? rc : 1;
}

/* Returns how many entries were looked at. */
static int fold_credits(sqlite3 *db, int64_t cutoff_ms, int max, int *gone)
{
    struct entry entries[BATCH_MAX] = {0};
    int64_t after;
    int rc = meta_get(db, META_CREDIT_FOLDED, 0, &after);
    int count = rc == 0 ? find_entries(db, after, cutoff_ms, max, entries) : rc;

    if (count <= 0)
        return count;
    for (int i = 0; i < count && rc >= 0; i++) {
        rc = fold(db, &entries[i]);
        *gone += rc == 1;
    }
    if (rc >= 0)
        rc = meta_set(db, META_CREDIT_FOLDED, entries[count - 1].id);
    return rc < 0 ? rc : count;
}

/* ---- */

/* Returns how many old rows were looked at; *gone (0 at first) = how many of them are no more. */
static int trim(sqlite3 *db, const struct config *config, int64_t now_at_ms, int max, int *gone)
{
    int count = 0;

    if (config->retention_days > 0) {
        int64_t cutoff_ms = now_at_ms - (int64_t)config->retention_days * CLOCK_DAY_MS;

        *gone = count = cutoff_ms > 0 ? trim_usage(db, cutoff_ms, max) : 0;
        if (count == 0) /* a few look-ups a row instead of one */
            count = fold_credits(db, midnight_before(now_at_ms, config->retention_days),
                                 max / 4 + 1, gone);
    }
    if (count == 0 && config->hourly_retention_days > 0)
        *gone = count =
            trim_hourly(db, midnight_before(now_at_ms, config->hourly_retention_days), max);
    return count;
}

/* The commit's wait for the disk is not ours to shorten. */
static void measure(struct retention *r, int64_t took_us)
{
    if (took_us > TOO_LONG_US)
        r->batch = r->batch / 2 > BATCH_MIN ? r->batch / 2 : BATCH_MIN;
    else if (took_us < SHORT_US)
        r->batch = r->batch * 3 / 2 < BATCH_MAX ? r->batch * 3 / 2 : BATCH_MAX;
}

int retention_step(struct retention *r, sqlite3 *db, const struct config *config, int64_t now_at_ms)
{
    int64_t begun_us = clock_monotonic_us();
    int gone = 0;
    int rc, count;

    if (r->batch == 0)
        r->batch = BATCH_FIRST;
    /* Looks first: a transaction that writes nothing would wait for locks all the same. */
    rc = database_exec(db, "BEGIN");
    if (rc < 0)
        return rc;
    count = trim(db, config, now_at_ms, r->batch, &gone);
    if (count <= 0) {
        database_rollback(db);
        return count;
    }
    measure(r, clock_monotonic_us() - begun_us);
    rc = database_exec(db, "COMMIT");
    if (rc < 0) {
        database_rollback(db);
        return rc;
    }
    r->rows += (uint64_t)gone;
    return 1;
}
