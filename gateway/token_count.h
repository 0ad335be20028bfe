/* token_count.h - POST /v1/tokens/count: how many tokens a prompt is for a model, before it is
 * sent. Costs nothing and leaves no row. The worker counts, in slices (gateway/counting.h); with
 * "method": "provider" the model's provider does, and the worker where it cannot. */
#ifndef XROUTER_GATEWAY_TOKEN_COUNT_H
#define XROUTER_GATEWAY_TOKEN_COUNT_H

#include "gateway/httpd.h"

/* Endpoint handler; arg is the struct worker. */
void token_count_handle(void *arg, struct http_request *request);

#endif
