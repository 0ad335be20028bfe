/* verify.h - whether the ledger agrees with itself.
 *
 * Compared are each key's balance with the sum of its credit_ledger, the rows of usage with
 * usage_hourly by hour, key and model, and usage_hourly with usage_daily, as far back as retention
 * has left both sides. The work goes in slices between which events are committed: a sum that takes
 * several slices hears of every row that is added or removed behind it, so what is compared is
 * always one moment's state. */
#ifndef XROUTER_USAGE_VERIFY_H
#define XROUTER_USAGE_VERIFY_H

#include <stdint.h>

#include "common/buf.h"
#include "usage/ledger.h"

struct verify; /* opaque */

/* ledger is borrowed. NULL when out of memory. */
struct verify *verify_new(struct ledger *ledger);
void verify_free(struct verify *v); /* before the ledger is closed; NULL is fine */
/* A slice of some milliseconds. 1 = there is more, 0 = complete, -EBUSY (as database_errno(), or
 * too many at once) or another -errno. */
int verify_step(struct verify *v);
uint64_t verify_drift_count(const struct verify *v);
/* Appends {"clean","drifts","named":[{"table","field","key","model","at","expected","found"}],
 * "keys","requests","hours","days","cost"}. expected is what the finer table says: amounts are
 * decimal text, everything else is numbers; null = not prepaid. model and at may be null. */
int verify_encode(const struct verify *v, struct buf *out);
/* One drift as a sentence for people; index below both the count and DRIFTS_NAMED_MAX. */
void verify_describe(const struct verify *v, size_t index, struct buf *out);

#endif
