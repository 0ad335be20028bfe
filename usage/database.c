#include "usage/database.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "usage/migrate.h"

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define CACHE_SIZE "PRAGMA cache_size = -" TEXT(DATABASE_CACHE_KIB) ";"

/* A WAL that grew under a stuck reader shrinks to this once it is restarted. */
#define PRAGMAS                             \
    "PRAGMA journal_mode = WAL;"            \
    "PRAGMA synchronous = FULL;"            \
    "PRAGMA foreign_keys = ON;"             \
    "PRAGMA trusted_schema = OFF;"          \
    "PRAGMA temp_store = MEMORY;"           \
    "PRAGMA journal_size_limit = 16777216;" \
    "PRAGMA wal_autocheckpoint = 0;"

int database_errno(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EBADMSG;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
    case SQLITE_TOOBIG:
        return -EINVAL;
    default:
        return -EIO;
    }
}

int database_exec(sqlite3 *db, const char *sql)
{
    return database_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

int database_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out)
{
    return database_errno(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL));
}

int database_step(sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);

    sqlite3_reset(stmt); /* repeats the code of the step */
    return database_errno(rc);
}

int database_get_i64(sqlite3 *db, const char *sql, int64_t missing, int64_t *value)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    *value = missing;
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        if (rc == SQLITE_ROW)
            *value = sqlite3_column_int64(stmt, 0);
        sqlite3_finalize(stmt);
    }
    return database_errno(rc);
}

int database_copy_text(sqlite3_stmt *stmt, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    size_t len = text != NULL ? strlen(text) : 0;

    if (len >= size)
        return -EBADMSG;
    if (len > 0)
        memcpy(out, text, len);
    out[len] = '\0';
    return 0;
}

void database_rollback(sqlite3 *db)
{
    if (db != NULL && !sqlite3_get_autocommit(db))
        (void)database_exec(db, "ROLLBACK");
}

/* SQLite would make the file with the umask's mode, and its -wal and -shm copy the mode they find.
 */
static int make_private(const char *path, bool may_make)
{
    struct stat st;
    int rc = 0;
    int fd = open(path, O_RDWR | (may_make ? O_CREAT : 0) | O_CLOEXEC | O_NONBLOCK, 0600);

    if (fd == -1)
        return -errno;
    if (fstat(fd, &st) == -1)
        rc = -errno;
    else if (!S_ISREG(st.st_mode))
        rc = -EINVAL;
    if (rc == 0 && (st.st_mode & 0777) != 0600 && fchmod(fd, 0600) == -1)
        rc = -errno;
    close(fd);
    return rc;
}

static int check_table(sqlite3 *db, const char *sql, char why[DATABASE_WHY_BYTES])
{
    sqlite3_stmt *stmt = NULL;
    const char *text = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        text = (const char *)sqlite3_column_text(stmt, 0);
    if (text != NULL && strcmp(text, "ok") == 0) {
        sqlite3_finalize(stmt);
        return 0;
    }
    snprintf(why, DATABASE_WHY_BYTES, "the database is damaged (%s): restore a backup",
             text != NULL ? text : sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    rc = database_errno(rc);
    return rc < 0 ? rc : -EBADMSG;
}

/* Who gets in, and what they have paid, is checked at each start. The whole file would take minutes
 * (usage/integrity.h). */
static int check_tables(sqlite3 *db, char why[DATABASE_WHY_BYTES])
{
    int rc = check_table(db, "PRAGMA quick_check('api_keys')", why);

    return rc == 0 ? check_table(db, "PRAGMA quick_check('credit_ledger')", why) : rc;
}

/* An SQLite file of some other program must not get our tables. */
static int check_owner(sqlite3 *db, char why[DATABASE_WHY_BYTES])
{
    int64_t tables, ours;
    int rc =
        database_get_i64(db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'", 0, &tables);

    if (rc == 0)
        rc = database_get_i64(
            db, "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_migrations'", 0, &ours);
    if (rc < 0) {
        snprintf(why, DATABASE_WHY_BYTES, "cannot be read: %s", sqlite3_errmsg(db));
        return rc;
    }
    if (tables > 0 && ours == 0) {
        snprintf(why, DATABASE_WHY_BYTES, "is an SQLite database, but not one of xrouter's");
        return -EBADMSG;
    }
    return 0;
}

static int check(sqlite3 *db, char why[DATABASE_WHY_BYTES])
{
    size_t count;
    const struct migration *list = migrate_list(&count);
    int rc = check_owner(db, why);

    if (rc == 0)
        rc = migrate_up(db, list, count, why);
    if (rc == 0)
        rc = check_tables(db, why);
    return rc;
}

int database_open(const char *path, bool check_it, sqlite3 **out, char why[DATABASE_WHY_BYTES])
{
    sqlite3 *db = NULL;
    int rc = make_private(path, check_it);

    *out = NULL;
    why[0] = '\0';
    if (rc < 0) {
        snprintf(why, DATABASE_WHY_BYTES, "cannot be opened: %s", strerror(-rc));
        return rc;
    }
    /* Its statistics take a lock each time memory is asked for. Refused once SQLite runs: then this
     * has been said before. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    rc = database_errno(sqlite3_open_v2(
        path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL));
    if (rc == 0)
        rc = database_exec(db, PRAGMAS CACHE_SIZE);
    if (rc < 0)
        snprintf(why, DATABASE_WHY_BYTES, "cannot be used: %s",
                 db != NULL ? sqlite3_errmsg(db) : strerror(-rc));
    if (rc == 0 && check_it)
        rc = check(db, why);
    if (rc < 0) {
        database_close(db);
        return rc;
    }
    *out = db;
    return 0;
}

void database_close(sqlite3 *db)
{
    /* A backup in progress (usage/backup.h) outlives the connection until its next slice. */
    (void)sqlite3_close_v2(db);
}
