/* reprice.h - what requests would cost if they were priced again. Nothing is changed.
 *
 * Each row of usage is priced twice: by the price stored with it, which must give its cost, and by
 * the price that the config now has for its model and moment. What differs is summed by key and
 * model. The work goes in slices between which events are committed; rows that come meanwhile with
 * a later id are in it. */
#ifndef XROUTER_USAGE_REPRICE_H
#define XROUTER_USAGE_REPRICE_H

#include "common/buf.h"
#include "common/config.h"
#include "usage/ledger.h"

#define REPRICE_ROWS_MAX 2000 /* keys and models with a difference that are told apart */

struct reprice; /* opaque */

struct reprice *reprice_new(void); /* NULL when out of memory */
void reprice_free(struct reprice *r);
/* A slice of some milliseconds. 1 = there is more, 0 = complete, -errno as database_errno(). */
int reprice_step(struct reprice *r, struct ledger *ledger, const struct config *config);
/* Appends {"rows":[{"key","name","model",...}],"total":{...},"left_out"}: the requests that differ
 * by key and model, all requests, and how many of those that differ are in no row. Each has
 * "requests", "cost" (as stored), "miscounted" and "stored_price" (requests whose cost is not what
 * their own price gives; the sum by that price), "changed" and "config_price" (requests that would
 * cost something else by the config; the sum by that), "unknown" (requests for a model that the
 * config does not have; their stored cost is in the sum). 0 or -errno. */
int reprice_encode(const struct reprice *r, struct ledger *ledger, struct buf *out);

#endif
