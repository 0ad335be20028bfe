/* late_rows.h - rows of usage that are added or removed while somebody reads the table in slices.
 *
 * A temporary table of the connection, filled by temporary triggers: so it is part of every
 * transaction, and what was rolled back never shows up. It goes with the connection. */
#ifndef XROUTER_USAGE_LATE_ROWS_H
#define XROUTER_USAGE_LATE_ROWS_H

#include <sqlite3.h>
#include <stdint.h>

#include "usage/event.h"
#include "usage/sums.h"

#define LATE_ROWS_MAX 8 /* readers at once */

struct late_row {
    int sign; /* 1 = added, -1 = removed */
    const char *key;
    int64_t created_at_ms;
    uint8_t id[USAGE_ID_BYTES];
    const char *model;
    struct sums sums; /* already with the sign */
};

/* Begins to collect for the reader *number. 0, -EBUSY (there are LATE_ROWS_MAX) or -errno as
 * database_errno(). */
int late_rows_open(sqlite3 *db, unsigned *number);
void late_rows_close(sqlite3 *db, unsigned number);
/* Visits and forgets what has been collected. What visit returns below zero is returned. -ESTALE:
 * the connection is a new one, and whatever was read before may have changed unseen. */
typedef int (*late_row_fn)(void *arg, const struct late_row *row);
int late_rows_take(sqlite3 *db, unsigned number, late_row_fn visit, void *arg);

#endif
