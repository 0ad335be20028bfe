/* drift.h - places where two tables of the ledger disagree: all counted, the first ones named. */
#ifndef XROUTER_USAGE_DRIFT_H
#define XROUTER_USAGE_DRIFT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "usage/event.h"
#include "usage/keytable.h"
#include "usage/sums.h"

#define DRIFTS_NAMED_MAX 100

struct drift {
    const char *table, *field; /* literals: what was found to be wrong */
    char key[KEY_ID_TEXT_BYTES];
    char model[USAGE_NAME_BYTES]; /* "" = does not apply */
    int64_t at_ms;                /* of the hour or day, -1 = does not apply */
    int64_t expected, found;
    bool is_amount;
    bool is_null; /* found is NULL */
};

struct drifts { /* all zero = none */
    uint64_t count;
    struct drift named[DRIFTS_NAMED_MAX];
};

/* A drift whose place is known and whose field and values are not yet. Long names are cut. */
struct drift drift_at(const char *table, const char *key, const char *model, int64_t at_ms);
void drifts_add(struct drifts *drifts, const struct drift *drift);
/* Adds one for each field that differs. */
void drifts_compare(struct drifts *drifts, const struct drift *place, const struct sums *expected,
                    const struct sums *found);
size_t drifts_named(const struct drifts *drifts);
/* Appends the array of the named ones. */
void drifts_encode(const struct drifts *drifts, struct buf *out);
/* One as a sentence for people. */
void drift_describe(const struct drift *drift, struct buf *out);

#endif
