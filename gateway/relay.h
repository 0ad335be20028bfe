/* relay.h - a streamed answer on its way to the client: bounded memory, pressure passed upstream.
 *
 * The response starts with the first useful byte, so that a failure before it still has its status.
 * A silent provider makes it start with a comment ping instead (load balancers cut at 60 s); from
 * then on a failure is an error chunk and an aborted connection: never a tidy end, never a false
 * [DONE]. */
#ifndef XROUTER_GATEWAY_RELAY_H
#define XROUTER_GATEWAY_RELAY_H

#include "gateway/httpd.h"
#include "router/dispatch.h"

#define RELAY_HIGH_WATER (64 * 1024)        /* stop reading the provider */
#define RELAY_LOW_WATER (16 * 1024)         /* read on */
#define RELAY_PENDING_MAX (8 * 1024 * 1024) /* one event can be large */

struct relay { /* embedded */
    struct http_request *request;
    struct loop *loop;
    struct dispatch *dispatch; /* NULL once it is over */
    struct buf pending;        /* whole events, not yet taken by the client's connection */
    struct timer ping;
    void (*on_start)(struct relay *r); /* the response is about to begin: its last headers */
    bool started; /* the response's head is on its way: no status can be given any more */
    bool paused;  /* the provider is not read */
    bool ended;
    bool failed;
};

void relay_init(struct relay *r, struct loop *loop, struct http_request *request,
                void (*on_start)(struct relay *r));
/* Begins to ping when the provider is silent; for streams. */
void relay_watch(struct relay *r);
void relay_clear(struct relay *r);
/* New events are in pending. */
void relay_on_output(struct relay *r);
/* The answer is over; e NULL = complete. False: nothing had started, the caller answers with a
 * status. */
bool relay_end(struct relay *r, const struct error *e);
/* http_request_ops.read */
ssize_t relay_read(struct relay *r, char *dst, size_t max);

#endif
