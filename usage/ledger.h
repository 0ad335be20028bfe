/* ledger.h - usage events become rows: usage and usage_attempts, the sums by hour and by day,
 * last_used_at; of a prepaid key also the balance and one row of credit_ledger a batch.
 *
 * Between ledger_begin() and ledger_commit() at most LEDGER_BATCH_MAX events are inserted. An event
 * whose id is there already changes nothing: events arrive at least once, rows exist exactly once.
 * A batch that would add more than LEDGER_BATCH_LOG_BYTES to the write-ahead log is refused.
 * One with an Idempotency-Key is also written into the table idempotency (usage/answers.h).
 * The sums are kept in memory during the batch and written once per (hour, key, model), what a key
 * owes once per key. */
#ifndef XROUTER_USAGE_LEDGER_H
#define XROUTER_USAGE_LEDGER_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "usage/database.h"
#include "usage/event.h"

#define LEDGER_BATCH_MAX 2048 /* a power of two */
/* A number of events does not tell what they add to the log. Measured, of 2,000 events: 170 pages
 * if they are one key's; 11,000 if each has a key with a balance and an Idempotency-Key of its own,
 * in a database of 20,000 such keys; 18,600 (77 MB) right after a VACUUM, when each page is full
 * and divides. What bounds a batch is SQLite's cache: until a page has to leave it, nine tenths of
 * it are changed at most, some 1,800 pages of 4096 bytes and 24 in the log, 7.4 MB. The rest is for
 * the statement that makes the first page leave: it touches tens of pages, not hundreds. */
#define LEDGER_BATCH_LOG_BYTES (DATABASE_CACHE_KIB * 1024)

struct ledger; /* opaque: the connection and its prepared statements */

/* Opens the database at path, made and migrated when needed; one that was there once and is
 * missing, empty or has lost a part of its log is refused (usage/ledger_file.h). 0, or -errno as
 * database_open() with the reason in why. */
int ledger_open(const char *path, struct ledger **out, char why[DATABASE_WHY_BYTES]);
void ledger_close(struct ledger *l); /* what was not committed is rolled back; NULL is fine */
/* Opens the connection anew, after a failure that makes it doubtful, and makes durable what may be
 * half written; or waits for files that were moved away. 0, 1 (it is another database than before:
 * what was read from it must be read again) or -errno with ledger_fault(): call it again later. */
int ledger_reopen(struct ledger *l);
/* Whether the names still lead to the files that are open. 0 or -ESTALE: ledger_reopen(). */
int ledger_look(struct ledger *l);
/* For the other tables; NULL while there is no connection to the right file. Not inside a batch. */
sqlite3 *ledger_db(struct ledger *l);
/* A statement on that connection, to be finalized before the turn ends; *out is NULL on failure. 0
 * or -errno. */
int ledger_prepare(struct ledger *l, const char *sql, sqlite3_stmt **out);

/* Called for each inserted event that is remembered under its Idempotency-Key, before the commit.
 */
typedef void (*ledger_event_fn)(void *arg, const struct usage_event *event);
void ledger_on_remembered(struct ledger *l, ledger_event_fn on_remembered, void *arg);

enum ledger_result {
    LEDGER_INSERTED,
    LEDGER_DUPLICATE, /* its row is there, with the same key, model, tokens and cost */
    LEDGER_DIFFERS,   /* its row is there with others: the first one stays */
    LEDGER_REFUSED    /* a constraint forbids it: ledger_reason() */
};

/* 0, -ESTALE (the files are gone: ledger_reopen()) or -errno as database_errno(). */
int ledger_begin(struct ledger *l);
/* An enum ledger_result, or -errno: the whole batch must be rolled back and tried again; with fewer
 * events after -EFBIG, from here or from ledger_commit(): it outgrew LEDGER_BATCH_LOG_BYTES. */
int ledger_insert(struct ledger *l, const struct usage_event *event);
const char *ledger_reason(const struct ledger *l); /* of the last LEDGER_REFUSED */
/* Durable on 0. On -errno the batch may or may not have been committed: roll back and insert it
 * again, the ids tell. */
int ledger_commit(struct ledger *l);
void ledger_rollback(struct ledger *l);
/* What was wrong when a batch or ledger_reopen() failed last: a sentence for a person, "" if none.
 */
const char *ledger_fault(const struct ledger *l);

/* Pages in the write-ahead log that the database does not have yet. */
unsigned ledger_wal_pages(const struct ledger *l);
/* The size of its file. */
uint64_t ledger_wal_bytes(const struct ledger *l);
/* Copies the log into the database, between batches: as far as readers allow, or (truncate) all of
 * it, leaving an empty file. 0 or -errno. */
int ledger_checkpoint(struct ledger *l, bool truncate);
/* Before a batch: empties the log if it could grow beyond max_bytes. 0, -EBUSY (somebody reads the
 * database) or -errno. */
int ledger_make_room(struct ledger *l, uint64_t max_bytes);

#endif
