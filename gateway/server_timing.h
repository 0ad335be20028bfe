/* server_timing.h - where a request's time has gone when the head of its answer leaves: the header
 * server-timing, which browsers and proxies show. */
#ifndef XROUTER_GATEWAY_SERVER_TIMING_H
#define XROUTER_GATEWAY_SERVER_TIMING_H

#include <stdint.h>

#include "gateway/httpd.h"

struct server_timing {  /* microseconds */
    int64_t receive_us; /* until the request was there, and its key known */
    int64_t
        limit_us; /* then until it was admitted: parsed, its prompt counted, its cost reserved */
    int64_t queue_us;    /* for a provider's slot */
    int64_t connect_us;  /* for the connection to who answers: name, TCP, TLS */
    int64_t upstream_us; /* for providers, that and those that failed included */
};

/* What is left of the time since the request began is the gateway's own. */
void server_timing_add(struct http_request *r, const struct server_timing *t, int64_t now_us);
/* "limit;dur=0.1, ..., gateway;dur=0.4", in ms, into a buf; what is negative is 0. */
int server_timing_encode(struct buf *out, const struct server_timing *t, int64_t total_us);

#endif
