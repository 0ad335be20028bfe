/* connection.h - TCP and TLS connections to providers: libcurl makes them (addresses, handshake,
 * certificates), the loop watches them, and those kept alive wait here, per origin, for their next
 * request. Nothing blocks and no name is resolved here. */
#ifndef XROUTER_PROVIDERS_CONNECTION_H
#define XROUTER_PROVIDERS_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/counters.h"
#include "common/loop.h"
#include "providers/addresses.h"
#include "providers/dial.h"
#include "providers/url.h"

#define CONNECTION_IDLE_MAX 64 /* per origin */
#define CONNECTION_IDLE_MS 30000

struct connections; /* a worker's; opaque */
struct connection;  /* one; opaque */
struct origin;      /* scheme, host, port and CA file: what connections must agree in; opaque */

/* Who uses a connection. Embedded; called from the loop only, never from inside a function below.
 */
struct connection_owner {
    void (*on_ready)(struct connection_owner *owner); /* connected */
    /* It could not be made, and is gone. rc is XR_EUPSTREAM, XR_ETIMEOUT or -ENOMEM; reason is a
     * literal. */
    void (*on_failed)(struct connection_owner *owner, int rc, const char *reason);
    /* Something changed: bytes or the end came, or there is room to send. Edges, not levels: what
     * is there must be read or sent until -EAGAIN, or connection_wake() must be called. */
    void (*on_io)(struct connection_owner *owner);
};

/* All borrowed; addresses may be NULL when every host is numeric. Made after fork. NULL when out of
 * memory. */
struct connections *connections_new(struct loop *loop, const struct addresses_region *addresses,
                                    struct counters *counters);
/* Closes every connection. Nobody may hold an origin any more but through its connections. */
void connections_free(struct connections *pool);
/* Closes those that wait, and forgets origins that nobody uses. */
void connections_close_idle(struct connections *pool);

/* Finds or makes the origin; every get needs its put. Other files are another origin: nobody uses a
 * connection that was made with them. NULL when out of memory. */
struct origin *origin_get(struct connections *pool, const struct url_parts *url,
                          const struct dial_files *files);
void origin_put(struct origin *origin);

/* A kept-alive connection, the one that was used last; NULL if there is none. */
struct connection *connection_take(struct origin *origin, struct connection_owner *owner);
/* Begins to connect; the owner is told the outcome. A name not looked up yet is waited for without
 * limit: the caller's deadline for the connection ends that too. connect_ms lets libcurl share the
 * time among a host's addresses. Returns 0, XR_EUPSTREAM (*reason: a literal) or -ENOMEM. */
int connection_open(struct origin *origin, int64_t connect_ms, struct connection_owner *owner,
                    struct connection **out, const char **reason);

/* How many bytes, 0 = the end (recv), -EAGAIN, or another -errno when the connection is broken. A
 * send after -EAGAIN must offer the same bytes again (a rule of TLS). */
ssize_t connection_send(struct connection *c, const char *data, size_t len);
ssize_t connection_recv(struct connection *c, char *data, size_t len);
/* Asks for on_io() in the next turn. */
void connection_wake(struct connection *c);

/* The exchange is over: kept for the next one, or closed if there are enough or something came
 * behind the response. */
void connection_keep(struct connection *c);
void connection_close(struct connection *c);

#endif
