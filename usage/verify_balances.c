#include "usage/verify_private.h"

#include <errno.h>

static void bind_text(sqlite3_stmt *stmt, int column, const char *text)
{
    sqlite3_bind_text(stmt, column, text, -1, SQLITE_STATIC);
}

static int next_key(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int rc =
        database_prepare(db, "SELECT id FROM api_keys WHERE id > ?1 ORDER BY id LIMIT 1", &stmt);
    int step;

    if (rc < 0)
        return rc;
    bind_text(stmt, 1, v->key);
    step = sqlite3_step(stmt);
    rc = database_errno(step);
    if (step == SQLITE_ROW && verify_text(stmt, 0) == NULL) {
        rc = -ENOMEM;
    } else if (step == SQLITE_ROW) {
        text_copy(v->key, sizeof(v->key), verify_text(stmt, 0));
        v->in_key = true;
    } else if (rc == 0) {
        rc = 1;
    }
    sqlite3_finalize(stmt);
    return rc;
}

static void begin_balance(struct verify *v)
{
    v->entry = 0;
    v->balance = 0;
    v->has_history = false;
}

/* Retention folds entries into later ones. While the last one that was read stands, none before it
 * can have become part of one behind it. */
static int begin_anew_if_folded(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, "SELECT 1 FROM credit_ledger WHERE id = ?1", &stmt);
    int step;

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(stmt, 1, v->entry);
    step = sqlite3_step(stmt);
    sqlite3_finalize(stmt);
    if (step == SQLITE_DONE)
        begin_balance(v);
    return database_errno(step);
}

/* Returns how many rows were added. */
static int add_entries(struct verify *v, sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db,
                              "SELECT id, amount FROM credit_ledger"
                              " WHERE api_key_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
                              &stmt);
    int count = 0;
    int step;

    if (rc < 0)
        return rc;
    bind_text(stmt, 1, v->key);
    sqlite3_bind_int64(stmt, 2, v->entry);
    sqlite3_bind_int(stmt, 3, VERIFY_UNIT_ROWS);
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        v->entry = sqlite3_column_int64(stmt, 0);
        sum_add(&v->balance, sqlite3_column_int64(stmt, 1));
        v->has_history = true;
        count++;
    }
    sqlite3_finalize(stmt);
    rc = database_errno(step);
    return rc < 0 ? rc : count;
}

static int compare_balance(struct verify *v, sqlite3 *db)
{
    struct drift drift = drift_at("api_keys", v->key, "", -1);
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, "SELECT balance FROM api_keys WHERE id = ?1", &stmt);
    int step;

    if (rc < 0)
        return rc;
    bind_text(stmt, 1, v->key);
    step = sqlite3_step(stmt);
    if (step == SQLITE_ROW) {
        drift.field = "balance";
        drift.is_amount = true;
        drift.expected = v->balance;
        drift.is_null = sqlite3_column_type(stmt, 0) == SQLITE_NULL;
        drift.found = sqlite3_column_int64(stmt, 0);
        if (drift.is_null ? v->has_history : drift.found != drift.expected)
            drifts_add(&v->drifts, &drift);
        v->keys++;
    }
    sqlite3_finalize(stmt);
    v->in_key = false;
    return database_errno(step);
}

int verify_balances(struct verify *v, sqlite3 *db)
{
    int rc, count;

    if (v->in_key) {
        rc = begin_anew_if_folded(v, db);
    } else {
        rc = next_key(v, db);
        begin_balance(v);
    }
    if (rc != 0)
        return rc;
    count = add_entries(v, db);
    if (count < 0)
        return count;
    return count < VERIFY_UNIT_ROWS ? compare_balance(v, db) : 0;
}
