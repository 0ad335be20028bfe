/* ledger.h - usage events become rows: usage and usage_attempts, the hourly sums, last_used_at.
 *
 * Between ledger_begin() and ledger_commit() at most LEDGER_BATCH_MAX events are inserted. An event
 * whose id is there already changes nothing: events arrive at least once, rows exist exactly once.
 * The sums are kept in memory during the batch and written once per (hour, key, model). */
#ifndef XROUTER_USAGE_LEDGER_H
#define XROUTER_USAGE_LEDGER_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "usage/database.h"
#include "usage/event.h"

#define LEDGER_BATCH_MAX 1024

struct ledger; /* opaque: the connection and its prepared statements */

/* Opens the database at path, made and migrated when needed. 0, or -errno as database_open() with
 * the reason in why. */
int ledger_open(const char *path, struct ledger **out, char why[DATABASE_WHY_BYTES]);
void ledger_close(struct ledger *l); /* what was not committed is rolled back; NULL is fine */
/* Closes the connection and opens it anew, after a failure that makes it doubtful. On failure the
 * ledger has no connection: call it again later. 0 or -errno. */
int ledger_reopen(struct ledger *l);
/* For the other tables; NULL while there is no connection. Not inside a batch. */
sqlite3 *ledger_db(struct ledger *l);

enum ledger_result {
    LEDGER_INSERTED,
    LEDGER_DUPLICATE, /* its row is there, with the same key, model, tokens and cost */
    LEDGER_DIFFERS,   /* its row is there with others: the first one stays */
    LEDGER_REFUSED    /* a constraint forbids it: ledger_reason() */
};

int ledger_begin(struct ledger *l); /* 0 or -errno as database_errno() */
/* An enum ledger_result, or -errno: the whole batch must be rolled back and tried again. */
int ledger_insert(struct ledger *l, const struct usage_event *event);
const char *ledger_reason(const struct ledger *l); /* of the last LEDGER_REFUSED */
/* Durable on 0. On -errno the batch may or may not have been committed: roll back and insert it
 * again, the ids tell. */
int ledger_commit(struct ledger *l);
void ledger_rollback(struct ledger *l);

/* Pages in the write-ahead log that the database does not have yet. */
unsigned ledger_wal_pages(const struct ledger *l);
/* Copies the log into the database, between batches: as far as readers allow, or (truncate) all of
 * it, leaving an empty file. 0 or -errno. */
int ledger_checkpoint(struct ledger *l, bool truncate);

#endif
