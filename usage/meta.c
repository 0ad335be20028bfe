#include "usage/meta.h"

#include <inttypes.h>
#include <stdio.h>

#include "usage/database.h"

int meta_get(sqlite3 *db, const char *name, int64_t missing, int64_t *value)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, "SELECT CAST(value AS INTEGER) FROM meta WHERE name = ?1", &stmt);

    *value = missing;
    if (rc < 0)
        return rc;
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return database_errno(rc);
}

int meta_set(sqlite3 *db, const char *name, int64_t value)
{
    sqlite3_stmt *stmt = NULL;
    char text[24];
    int rc = database_prepare(db,
                              "INSERT INTO meta VALUES (?1, ?2)"
                              " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                              &stmt);

    if (rc < 0)
        return rc;
    snprintf(text, sizeof(text), "%" PRId64, value);
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, text, -1, SQLITE_STATIC);
    rc = database_step(stmt);
    sqlite3_finalize(stmt);
    return rc;
}
