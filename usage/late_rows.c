#include "usage/late_rows.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "usage/database.h"

#define SQL_BYTES 640

__attribute__((format(printf, 2, 3))) static int run(sqlite3 *db, const char *format, ...)
{
    char sql[SQL_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(sql, sizeof(sql), format, args);
    va_end(args);
    return database_exec(db, sql);
}

static int is_open(sqlite3 *db, unsigned number, bool *open)
{
    char sql[128];
    int64_t count;
    int rc;

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM sqlite_temp_schema WHERE name = 'late_rows_%u'", number);
    rc = database_get_i64(db, sql, 0, &count);
    *open = count > 0;
    return rc;
}

static int make(sqlite3 *db, unsigned n)
{
    int rc = run(db,
                 "CREATE TEMP TABLE late_rows_%u (sign INTEGER, api_key_id TEXT,"
                 " created_at INTEGER, id BLOB, model TEXT, requests INTEGER, errors INTEGER,"
                 " tokens_input INTEGER, tokens_cached INTEGER, tokens_output INTEGER,"
                 " cost INTEGER)",
                 n);

    if (rc == 0)
        rc = run(db,
                 "CREATE TEMP TRIGGER late_rows_added_%u AFTER INSERT ON main.usage BEGIN"
                 " INSERT INTO late_rows_%u VALUES (1, new.api_key_id, new.created_at, new.id,"
                 " new.model, 1, new.outcome IN (1, 3), new.tokens_input, new.tokens_cached,"
                 " new.tokens_output, new.cost); END",
                 n, n);
    if (rc == 0)
        rc = run(db,
                 "CREATE TEMP TRIGGER late_rows_removed_%u AFTER DELETE ON main.usage BEGIN"
                 " INSERT INTO late_rows_%u VALUES (-1, old.api_key_id, old.created_at, old.id,"
                 " old.model, 1, old.outcome IN (1, 3), old.tokens_input, old.tokens_cached,"
                 " old.tokens_output, old.cost); END",
                 n, n);
    return rc;
}

int late_rows_open(sqlite3 *db, unsigned *number)
{
    for (unsigned n = 1; n <= LATE_ROWS_MAX; n++) {
        bool open;
        int rc = is_open(db, n, &open);

        if (rc == 0 && open)
            continue;
        if (rc == 0)
            rc = make(db, n);
        if (rc == 0)
            *number = n;
        else
            late_rows_close(db, n);
        return rc;
    }
    return -EBUSY;
}

void late_rows_close(sqlite3 *db, unsigned number)
{
    /* Without the triggers nobody fills the table; what cannot be dropped goes with the connection.
     */
    (void)run(db, "DROP TRIGGER IF EXISTS temp.late_rows_added_%u", number);
    (void)run(db, "DROP TRIGGER IF EXISTS temp.late_rows_removed_%u", number);
    (void)run(db, "DROP TABLE IF EXISTS temp.late_rows_%u", number);
}

static int visit_row(sqlite3_stmt *stmt, late_row_fn visit, void *arg)
{
    struct late_row row = {
        .sign = sqlite3_column_int(stmt, 0),
        .key = (const char *)sqlite3_column_text(stmt, 1),
        .created_at_ms = sqlite3_column_int64(stmt, 2),
        .model = (const char *)sqlite3_column_text(stmt, 4),
    };
    const void *id = sqlite3_column_blob(stmt, 3);

    if (row.key == NULL || row.model == NULL || id == NULL ||
        sqlite3_column_bytes(stmt, 3) != USAGE_ID_BYTES)
        return -ENOMEM; /* columns that are NOT NULL and checked */
    memcpy(row.id, id, USAGE_ID_BYTES);
    sums_add_columns(&row.sums, stmt, 5, row.sign);
    return visit(arg, &row);
}

int late_rows_take(sqlite3 *db, unsigned number, late_row_fn visit, void *arg)
{
    char sql[128];
    sqlite3_stmt *stmt = NULL;
    bool open;
    int rc = is_open(db, number, &open);

    if (rc == 0 && !open)
        return -ESTALE;
    snprintf(sql, sizeof(sql), "SELECT * FROM temp.late_rows_%u ORDER BY rowid", number);
    if (rc == 0)
        rc = database_prepare(db, sql, &stmt);
    while (rc == 0) {
        int step = sqlite3_step(stmt);

        if (step != SQLITE_ROW) {
            rc = database_errno(step);
            break;
        }
        rc = visit_row(stmt, visit, arg);
    }
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : run(db, "DELETE FROM temp.late_rows_%u", number);
}
