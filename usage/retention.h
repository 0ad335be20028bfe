/* retention.h - what is older than the config keeps is deleted, a little at a time.
 *
 * Rows of usage and usage_attempts go by the order of their ids, which is that of time; rows of
 * usage_hourly by whole days. Of credit_ledger nothing is lost: its 'usage' rows become one per key
 * and day, and per pause between payments, so that every balance in it stays true. What has been
 * trimmed is remembered in the table meta, in the same transaction: the ledger's check asks it. */
#ifndef XROUTER_USAGE_RETENTION_H
#define XROUTER_USAGE_RETENTION_H

#include <sqlite3.h>
#include <stdint.h>

#include "common/config.h"

struct retention {
    int batch;     /* rows a slice, found by measuring; 0 at first */
    uint64_t rows; /* deleted or folded so far */
};

/* One slice of some milliseconds, in one transaction. 1 = there is more, 0 = nothing is too old,
 * -errno as database_errno(), with nothing changed. */
int retention_step(struct retention *r, sqlite3 *db, const struct config *config,
                   int64_t now_at_ms);

#endif
