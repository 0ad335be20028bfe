/* ops.h - the ops listener: is it alive, may it get traffic, what does it count. */
#ifndef XROUTER_GATEWAY_OPS_H
#define XROUTER_GATEWAY_OPS_H

#include "gateway/httpd.h"

/* Endpoint handlers; arg is the struct worker. */
void ops_handle_health(void *arg, struct http_request *r); /* 200 while a worker answers */
void ops_handle_ready(void *arg, struct http_request *r);  /* 503 with the reason in "status" */
void ops_handle_metrics(void *arg,
                        struct http_request *r); /* the whole instance, Prometheus text */

#endif
