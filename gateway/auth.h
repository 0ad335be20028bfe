/* auth.h - who is calling. */
#ifndef XROUTER_GATEWAY_AUTH_H
#define XROUTER_GATEWAY_AUTH_H

#include "common/error.h"
#include "usage/keytable.h"

/* Reads the Authorization header's value ("Bearer sk-xr-..."; NULL = absent) and finds the key.
 * Returns 0, XR_EAUTH or XR_EEXPIRED with a message that never holds the key, -ENOMEM. */
int auth_check(const struct keytable_region *keys, const char *authorization, size_t len,
               int64_t now_at_ms, struct key *out, struct error *e);

#endif
