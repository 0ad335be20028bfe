/* recount.h - puts the words of marked accounts (usage/accounts.h) right, from the ledger, the
 * rows of running requests and the events that are not in the ledger yet.
 *
 * A word becomes
 *     balance (or limit - spent in the period)
 *   - what RUNNING and FINAL rows have reserved
 *   + the cost of FINAL rows whose event is committed already
 *   - the cost of events that are not committed and have no such row.
 * It waits until the spool is empty and no row of the key is in a bracket; the rows are read before
 * the rings; an account that was marked again, or a spool file that appeared meanwhile, starts it
 * over. Usage-writer only. */
#ifndef XROUTER_USAGE_RECOUNT_H
#define XROUTER_USAGE_RECOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/counters.h"
#include "usage/accounts.h"
#include "usage/event.h"
#include "usage/keystore.h"
#include "usage/outbox.h"

/* A request that owes something. */
struct open_request {
    uint64_t key_id;
    struct usage_id id;
    enum { OPEN_IN_BRACKET, OPEN_RUNNING, OPEN_FINAL } state;
    struct reservation reservation;
    int64_t cost_nano; /* OPEN_FINAL */
};
typedef void (*open_request_fn)(void *arg, const struct open_request *request);
/* Where the rows are, one layer up: calls visit for each. */
struct open_requests {
    void (*each)(void *arg, open_request_fn visit, void *visit_arg);
    void *arg;
};

struct recount; /* opaque */

struct recount_setup {               /* all borrowed */
    const struct keystore *keystore; /* its ledger and accounts */
    struct outbox_region *outbox;
    const struct open_requests *requests;
    const char *spool_dir;
    struct counters *counters;
};
struct recount *recount_new(const struct recount_setup *setup); /* NULL when out of memory */
void recount_free(struct recount *r);                           /* NULL is fine */
/* Counts what is marked, and what a new day, week or month has made stale; some accounts a call,
 * some milliseconds at most. now_ms is monotonic. */
void recount_turn(struct recount *r, int64_t now_ms, int64_t now_at_ms);
int64_t recount_next_ms(const struct recount *r); /* monotonic time of the next due turn */

#endif
