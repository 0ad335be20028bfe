/* framing.h - the headers of a client's request, checked for everything ambiguous.
 *
 * libmicrohttpd's own parser is loose (two lengths, folded names, CL with TE, control bytes in
 * names...). This check runs in its first callback, before a byte of the body is read; what it
 * refuses is answered 400 and the connection is closed. */
#ifndef XROUTER_GATEWAY_FRAMING_H
#define XROUTER_GATEWAY_FRAMING_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct request_headers {
    const char *authorization; /* the value, NULL = absent; valid while the request is */
    size_t authorization_len;
    const char *idempotency_key; /* the same */
    size_t idempotency_key_len;
    uint64_t timeout_ms; /* x-request-timeout-ms, 0 = absent */
    bool has_length;
    uint64_t length;
    bool chunked;
};

/* Checks method, target, version and every header. Returns 0 or XR_EINVALID with a message. */
int framing_check(struct MHD_Connection *connection, const char *method, const char *target,
                  const char *version, struct request_headers *out, struct error *e);

#endif
