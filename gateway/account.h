/* account.h - what the owner of a key may ask: its limits and credits, its usage, one of its
 * requests, how the providers are. The usage-writer knows; the answers are its own JSON. Of keys
 * and requests only the asking key's own are seen. */
#ifndef XROUTER_GATEWAY_ACCOUNT_H
#define XROUTER_GATEWAY_ACCOUNT_H

#include "gateway/httpd.h"

/* Handlers of gateway/endpoints.h. While the usage-writer is away they answer 503. */
void account_handle_key(void *arg, struct http_request *request);        /* GET /v1/key */
void account_handle_usage(void *arg, struct http_request *request);      /* GET /v1/usage */
void account_handle_generation(void *arg, struct http_request *request); /* GET /v1/generation */
void account_handle_providers(void *arg, struct http_request *request);  /* .../providers/status */

#endif
