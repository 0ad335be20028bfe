/* spent.h - what a key has spent in the periods of its spending limits, by the ledger's daily sums.
 * Usage-writer only. */
#ifndef XROUTER_USAGE_SPENT_H
#define XROUTER_USAGE_SPENT_H

#include <stdint.h>

#include "common/buf.h"
#include "usage/accounts.h"
#include "usage/key_record.h"
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
/* The same for one key, all periods. */
int spent_read_all(struct ledger *ledger, uint64_t key_id, int64_t now_at_ms,
                   struct spent out[SPEND_PERIODS]);

/* Appends the array of {"period","limit","spent","left","resets_at"}: what the key has spent is
 * told of periods without a limit, too. left may be NULL: it is not known. */
void spent_encode(const struct spent spent[SPEND_PERIODS], const struct key_record *key,
                  const struct account_values *left, struct buf *out);

#endif
