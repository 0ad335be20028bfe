/* endpoints.h - every address the gateway serves, in one table. */
#ifndef XROUTER_GATEWAY_ENDPOINTS_H
#define XROUTER_GATEWAY_ENDPOINTS_H

#include "gateway/httpd.h"

/* Ends with path NULL; handlers take the struct worker as arg. */
extern const struct endpoint ENDPOINTS[];

#endif
