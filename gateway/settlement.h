/* settlement.h - the last steps of a request's row (gateway/inflight.h): event into the ring,
 * credits settled, row free, in the order that makes a kill harmless.
 *
 * The event is in the ring and the credits are settled before the answer's last bytes leave: who
 * has read an answer to its end can spend at once what it did not cost. */
#ifndef XROUTER_GATEWAY_SETTLEMENT_H
#define XROUTER_GATEWAY_SETTLEMENT_H

#include <stddef.h>

#include "common/loop.h"
#include "gateway/inflight.h"

struct settlements { /* embedded in the worker */
    struct loop *loop;
    struct inflight_region *inflight;
    struct accounts_region *accounts;
    struct outbox *outbox;
    size_t slot;
    struct timer timer;
    /* Rows whose request is over and whose account is being counted anew: they wait. */
    struct inflight_row **waiting;
    size_t count;
};

/* loop and regions are borrowed. 0 or -ENOMEM. */
int settlements_init(struct settlements *s, struct loop *loop, struct inflight_region *inflight,
                     struct accounts_region *accounts, struct outbox *outbox, size_t slot);
void settlements_clear(struct settlements *s); /* all zero is fine; what waits is the reaper's */
/* A RUNNING row whose event says everything now. */
void settlement_finish(struct settlements *s, struct inflight_row *row);
/* The request is over: the row becomes free, now or once its account can be settled. */
void settlement_release(struct settlements *s, struct inflight_row *row);

#endif
