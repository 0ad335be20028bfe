/* models.h - GET /v1/models, /v1/models/{id} and /v1/parameters/{id}: what a key may ask for, what
 * it costs and what it can do. OpenAI's shape, with OpenRouter's members beside it. */
#ifndef XROUTER_GATEWAY_MODELS_H
#define XROUTER_GATEWAY_MODELS_H

#include "gateway/httpd.h"

/* Endpoint handlers. */
void models_handle_list(void *arg, struct http_request *r);
void models_handle_one(void *arg, struct http_request *r);
void models_handle_parameters(void *arg, struct http_request *r);

#endif
