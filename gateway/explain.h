/* explain.h - POST /v1/chat/completions?explain=1: what the gateway would do with the request, and
 * what it may cost, without asking any provider. Costs nothing and leaves no row. */
#ifndef XROUTER_GATEWAY_EXPLAIN_H
#define XROUTER_GATEWAY_EXPLAIN_H

#include "gateway/worker.h"

/* True: the query asks for it (or asks wrongly), and the request is not the caller's any more: it
 * is answered, or will be. Other parameters of the query are left alone. */
bool explain_take(struct worker *w, struct http_request *request);

#endif
