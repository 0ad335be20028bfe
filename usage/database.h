/* database.h - the one SQLite connection: how it is opened, checked and tidied, and what SQLite's
 * result codes mean to us.
 *
 * Statements of rare operations are prepared, run and finalized inside one call; no statement is
 * ever left open when control goes back to the loop. */
#ifndef XROUTER_USAGE_DATABASE_H
#define XROUTER_USAGE_DATABASE_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#define DATABASE_WHY_BYTES 320
/* Of SQLite's pages. Those that a transaction has changed wait here for the COMMIT; when they are
 * nine tenths of it, some are written into the log early. */
#define DATABASE_CACHE_KIB 8192

/* Opens the file: WAL, synchronous=FULL, foreign keys, no waiting for locks, no automatic
 * checkpoints. With check, it is made (mode 0600) when absent, verified to be a sound database of
 * ours, and the migrations are applied. Returns 0, or -errno with a sentence in why: -EBADMSG (no
 * database, damaged, or not ours), -EPROTO (a schema this binary does not know), else as
 * database_errno(). */
int database_open(const char *path, bool check, sqlite3 **out, char why[DATABASE_WHY_BYTES]);
void database_close(sqlite3 *db); /* NULL is fine; every statement must be finalized */

/* A result code of SQLite as -errno; 0 for SQLITE_OK, ROW and DONE. -EBUSY (another connection
 * holds a lock), -ENOSPC (disk full), -EROFS, -ENOMEM, -EBADMSG (damaged), -EINVAL (the values were
 * refused by a constraint or type), -EIO (everything else: the connection is not to be trusted any
 * more). */
int database_errno(int rc);

int database_exec(sqlite3 *db, const char *sql);                        /* 0 or -errno */
int database_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out); /* 0 or -errno */
/* Steps a statement that returns no row and resets it. 0 or -errno. */
int database_step(sqlite3_stmt *stmt);
/* The first column of the first row, or missing if there is no row. 0 or -errno. */
int database_get_i64(sqlite3 *db, const char *sql, int64_t missing, int64_t *value);
/* Copies a text column, "" for NULL. 0 or -EBADMSG: it does not fit. */
int database_copy_text(sqlite3_stmt *stmt, int column, char *out, size_t size);
/* Leaves the transaction that is open, if any; errors do not matter, SQLite then did it itself. */
void database_rollback(sqlite3 *db);

#endif
