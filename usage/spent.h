/* spent.h - what a key has spent in the periods of its spending limits, by the ledger's daily sums.
 * Usage-writer only. */
#ifndef XROUTER_USAGE_SPENT_H
#define XROUTER_USAGE_SPENT_H

#include <stdint.h>

#include "usage/keytable.h"
#include "usage/ledger.h"
#include "usage/spend_period.h"

struct spent {
    int64_t period; /* the number of the one that now lies in */
    int64_t nano;
    int64_t next_nano; /* of period + 1: events may carry the time of a faster clock */
};

struct spent_reader {
    sqlite3_stmt *stmt;
    int64_t last_day; /* the newest in the ledger */
};

/* For many keys in one go; to be closed before the turn ends. 0 or -errno (then it is closed). */
int spent_reader_open(struct ledger *ledger, struct spent_reader *reader);
void spent_reader_close(struct spent_reader *reader); /* a zeroed one is fine */
/* Sums of the periods whose bit (1 << period) is in wanted; the others are 0. A sum ends at
 * INT64_MAX. 0 or -errno. */
int spent_read(struct spent_reader *reader, uint64_t key_id, int64_t now_at_ms, unsigned wanted,
               struct spent out[SPEND_PERIODS]);
#define SPENT_ALL ((1U << SPEND_PERIODS) - 1)

#endif
