#include "usage/migrate.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/secret.h"

#define CHECKSUM_BYTES (2 * DIGEST_BYTES + 1)

/* Generated from sql/ by sql/embed.sh. */
static const struct migration MIGRATIONS[] = {
#include "usage/migrations.inc"
};

static int checksum(const struct migration *m, char out[CHECKSUM_BYTES])
{
    uint8_t digest[DIGEST_BYTES];
    int rc = secret_sha256(m->up, strlen(m->up), digest);

    if (rc == 0)
        hex_encode(digest, sizeof(digest), out);
    return rc;
}

static int fail(sqlite3 *db, const struct migration *m, const char *what, int rc,
                char why[DATABASE_WHY_BYTES])
{
    snprintf(why, DATABASE_WHY_BYTES, "migration %d (%s) %s: %s", m->number, m->name, what,
             sqlite3_errmsg(db));
    database_rollback(db);
    return rc;
}

static int make_table(sqlite3 *db, char why[DATABASE_WHY_BYTES])
{
    int rc = database_exec(db, "CREATE TABLE IF NOT EXISTS schema_migrations ("
                               " number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                               " checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT");

    if (rc < 0)
        snprintf(why, DATABASE_WHY_BYTES, "cannot be written: %s", sqlite3_errmsg(db));
    return rc;
}

/* One applied migration against the binary's list. */
static int check_row(sqlite3_stmt *stmt, const struct migration *list, size_t count,
                     char why[DATABASE_WHY_BYTES])
{
    int64_t number = sqlite3_column_int64(stmt, 0);
    const char *name = (const char *)sqlite3_column_text(stmt, 1);
    const char *sum = (const char *)sqlite3_column_text(stmt, 2);
    char expected[CHECKSUM_BYTES];
    int rc;

    if (name == NULL || sum == NULL)
        return -ENOMEM;
    if (number > (int64_t)count) {
        snprintf(why, DATABASE_WHY_BYTES,
                 "is newer than this xrouter: it has migration %lld (%s), this binary knows up to "
                 "%zu; run the newer version",
                 (long long)number, name, count);
        return -EPROTO;
    }
    if (number < 1) {
        snprintf(why, DATABASE_WHY_BYTES, "has an unknown migration %lld (%s)", (long long)number,
                 name);
        return -EPROTO;
    }
    rc = checksum(&list[number - 1], expected);
    if (rc < 0)
        return rc;
    if (strcmp(sum, expected) != 0) {
        snprintf(why, DATABASE_WHY_BYTES,
                 "was made by another build: migration %lld (%s) differs from this binary's",
                 (long long)number, name);
        return -EPROTO;
    }
    return 0;
}

static int check_applied(sqlite3 *db, const struct migration *list, size_t count, size_t *applied,
                         char why[DATABASE_WHY_BYTES])
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(
        db, "SELECT number, name, checksum FROM schema_migrations ORDER BY number", -1, &stmt,
        NULL);
    int bad = 0;

    *applied = 0;
    while (rc == SQLITE_OK && bad == 0) {
        int step = sqlite3_step(stmt);

        if (step == SQLITE_DONE)
            break;
        if (step != SQLITE_ROW) {
            rc = step;
            break;
        }
        bad = check_row(stmt, list, count, why);
        if (bad == 0 && (size_t)sqlite3_column_int64(stmt, 0) != *applied + 1) {
            snprintf(why, DATABASE_WHY_BYTES, "lacks migration %zu", *applied + 1);
            bad = -EPROTO;
        }
        (*applied)++;
    }
    if (rc != SQLITE_OK)
        snprintf(why, DATABASE_WHY_BYTES, "cannot be read: %s", sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    return bad < 0 ? bad : database_errno(rc);
}

static int note_applied(sqlite3 *db, const struct migration *m)
{
    sqlite3_stmt *stmt = NULL;
    char sum[CHECKSUM_BYTES];
    int rc = checksum(m, sum);

    if (rc == 0)
        rc = database_prepare(db, "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", &stmt);
    if (rc == 0) {
        sqlite3_bind_int(stmt, 1, m->number);
        sqlite3_bind_text(stmt, 2, m->name, -1, SQLITE_STATIC);
        sqlite3_bind_text(stmt, 3, sum, -1, SQLITE_STATIC);
        sqlite3_bind_int64(stmt, 4, clock_now_at_ms());
        rc = database_step(stmt);
    }
    sqlite3_finalize(stmt);
    return rc;
}

static int apply(sqlite3 *db, const struct migration *m, char why[DATABASE_WHY_BYTES])
{
    int rc = database_exec(db, "BEGIN IMMEDIATE");

    if (rc == 0)
        rc = database_exec(db, m->up);
    if (rc == 0)
        rc = note_applied(db, m);
    if (rc == 0)
        rc = database_exec(db, "COMMIT");
    return rc < 0 ? fail(db, m, "cannot be applied", rc, why) : 0;
}

static int undo(sqlite3 *db, const struct migration *m, char why[DATABASE_WHY_BYTES])
{
    char forget[64];
    int rc = database_exec(db, "BEGIN IMMEDIATE");

    snprintf(forget, sizeof(forget), "DELETE FROM schema_migrations WHERE number = %d", m->number);
    if (rc == 0)
        rc = database_exec(db, m->down);
    if (rc == 0)
        rc = database_exec(db, forget);
    if (rc == 0)
        rc = database_exec(db, "COMMIT");
    return rc < 0 ? fail(db, m, "cannot be undone", rc, why) : 0;
}

const struct migration *migrate_list(size_t *count)
{
    *count = sizeof(MIGRATIONS) / sizeof(MIGRATIONS[0]);
    return MIGRATIONS;
}

int migrate_up(sqlite3 *db, const struct migration *list, size_t count,
               char why[DATABASE_WHY_BYTES])
{
    size_t applied = 0;
    int rc = make_table(db, why);

    if (rc == 0)
        rc = check_applied(db, list, count, &applied, why);
    for (size_t i = applied; i < count && rc == 0; i++)
        rc = apply(db, &list[i], why);
    return rc;
}

int migrate_down(sqlite3 *db, const struct migration *list, size_t count, int to,
                 char why[DATABASE_WHY_BYTES])
{
    size_t applied = 0;
    int rc = make_table(db, why);

    if (rc == 0)
        rc = check_applied(db, list, count, &applied, why);
    while (rc == 0 && applied > 0 && list[applied - 1].number > to)
        rc = undo(db, &list[--applied], why);
    return rc;
}

int migrate_version(sqlite3 *db, int *number)
{
    int64_t value = 0;
    int rc =
        database_get_i64(db, "SELECT coalesce(max(number), 0) FROM schema_migrations", 0, &value);

    *number = (int)value;
    return rc;
}
