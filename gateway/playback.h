/* playback.h - answers a request with the answer that is stored for its Idempotency-Key: waits
 * until it is, asks the usage-writer for it, sends it. */
#ifndef XROUTER_GATEWAY_PLAYBACK_H
#define XROUTER_GATEWAY_PLAYBACK_H

#include "gateway/worker.h"
#include "usage/idempotency.h"

/* Takes the request over. 1, or XR_EINTERNAL in *e: it is still the caller's. */
int playback_start(struct worker *w, struct http_request *request,
                   const struct idempotency_key *key, struct error *e);

#endif
