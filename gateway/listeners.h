/* listeners.h - the listening sockets: made and kept by the master, served by the workers. */
#ifndef XROUTER_GATEWAY_LISTENERS_H
#define XROUTER_GATEWAY_LISTENERS_H

#include "common/buf.h"
#include "common/config.h"

struct listeners {
    int http, https, ops;                                      /* -1 = off */
    char http_address[64], https_address[64], ops_address[64]; /* real ones, "" = off */
};

/* Binds what the config names; sockets are non-blocking. A name instead of an address is looked up,
 * which may take a while: not for a running instance.
 * 0 or -errno with the option, the address and the reason appended to why (nothing is open then).
 */
int listeners_open(struct listeners *l, const struct config *config, struct buf *why);
void listeners_close(struct listeners *l);

#endif
