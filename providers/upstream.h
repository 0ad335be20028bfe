/* upstream.h - one HTTP exchange with a provider: libcurl connects (addresses, TLS, certificates),
 * our own framing (providers/http1.h) sits on top, connections are kept alive per origin.
 *
 * Everything is a callback from the worker's loop; nothing blocks and no name is resolved here. */
#ifndef XROUTER_PROVIDERS_UPSTREAM_H
#define XROUTER_PROVIDERS_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/error.h"
#include "common/loop.h"
#include "providers/addresses.h"
#include "providers/http1.h"
#include "providers/url.h"

struct upstreams; /* a worker's connections; opaque */
struct upstream;  /* one exchange; opaque */

/* All borrowed; addresses may be NULL when every host is numeric. Made after fork. NULL when out of
 * memory. Counts connections and repeats; requests and failures are the router's to count. */
struct upstreams *upstreams_new(struct loop *loop, const struct addresses_region *addresses,
                                struct counters *counters);
void upstreams_free(struct upstreams *pool); /* cancels what still runs, without callbacks */
/* Idle connections are closed after a config change that touches origins. */
void upstreams_close_idle(struct upstreams *pool);

struct upstream_target {
    const char *url; /* scheme, host and port are the origin; the path is in the head already */
    const char *ca_bundle_file;                     /* "" = the system's */
    const char *client_cert_file, *client_key_file; /* what we show of ourselves; NULL, "" = none */
    int64_t connect_ms;                             /* look-up, TCP and TLS together */
    int64_t first_byte_ms; /* from the request sent to the first byte of the body (to the head,
                            * when there is no body); also how long sending may stand still */
    int64_t idle_ms;       /* between two reads of the body; not counted while paused */
    int64_t total_ms;
};

/* A provider's API, by its configuration; all of it at most left_ms. */
struct upstream_target upstream_target_of(const struct provider_config *p, int64_t left_ms);

struct upstream_callbacks {
    /* The final response head. Non-zero cancels and ends with that error. */
    int (*on_head)(void *arg, const struct http1_head *head);
    /* Body bytes as they come. After upstream_pause() none comes until upstream_resume(). Non-zero
     * ends the exchange: negative with that error, positive as complete (the rest is not wanted,
     * the connection is closed). */
    int (*on_body)(void *arg, const char *data, size_t len);
    /* Exactly once, last: 0 = the response is complete, else XR_EUPSTREAM, XR_ETIMEOUT, -ENOMEM or
     * what a callback returned, with the reason in e. The exchange is freed after it; its
     * connection is free for the next one already. */
    void (*on_end)(void *arg, int rc, const struct error *e);
};

/* Sends head and body (both moved out of the bufs, also on failure) and runs the callbacks, never
 * before this call returns. A reused connection that ends before one response byte is repeated once
 * on a new one (see upstream_was_repeated()). The callbacks may start, cancel, pause and resume any
 * exchange, their own too. NULL: e says why (-ENOMEM; XR_EUPSTREAM for a name that is not known).
 */
struct upstream *upstream_start(struct upstreams *pool, const struct upstream_target *target,
                                struct buf *head, struct buf *body,
                                const struct upstream_callbacks *callbacks, void *arg,
                                struct error *e);
/* Ends it now, closes its connection, calls nothing; the exchange is freed. */
void upstream_cancel(struct upstream *u);
void upstream_pause(struct upstream *u);
void upstream_resume(struct upstream *u);
bool upstream_was_repeated(const struct upstream *u);
/* What look-up, TCP and TLS of its connection took; 0 = one was kept alive, or is not there yet. */
int64_t upstream_connect_us(const struct upstream *u);

#endif
