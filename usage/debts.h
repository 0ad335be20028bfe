/* debts.h - what keys owe that the ledger's numbers do not say yet: the open rows of running
 * requests, and events on their way. usage/recount.h needs it, and its order: first the accounts
 * are marked, then debts_collect() looks at the rows, then at the rings. Usage-writer only. */
#ifndef XROUTER_USAGE_DEBTS_H
#define XROUTER_USAGE_DEBTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "usage/event.h"
#include "usage/ledger.h"
#include "usage/outbox.h"
#include "usage/recount.h"
#include "usage/spend_period.h"

struct debt {
    uint64_t key_id;
    bool in_bracket; /* a row of the key was: the debt is not to be known now */
    int64_t nano;
    struct { /* by the time of the request */
        int64_t period;
        int64_t nano, next_nano; /* in it, and in the one after it */
    } spending[SPEND_PERIODS];
};
void debt_init(struct debt *debt, uint64_t key_id, int64_t now_at_ms);

/* A request that counts: an open row, or an event in a ring. */
struct debt_item;

struct debts { /* all zero is an empty one */
    struct debt_item *items;
    size_t count, capacity;
};
void debts_clear(struct debts *d); /* frees */

/* Collects what the keys of debts[0..count), sorted by key, owe. 0 or -ENOMEM. */
int debts_collect(struct debts *d, struct debt *debts, size_t count,
                  const struct open_requests *requests, struct outbox_region *outbox);
/* Adds it up into the same debts, of which the ledger must not have changed meanwhile. 0 or -errno.
 */
int debts_sum(struct debts *d, struct debt *debts, struct ledger *ledger);
/* nano - debt, inside +-ACCOUNT_MAX_NANO. */
int64_t debt_subtract(int64_t nano, int64_t debt_nano);

#endif
