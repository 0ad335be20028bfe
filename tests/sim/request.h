/* request.h - HTTP/1.1 requests out of a connection's input. Strict: what is ambiguous is refused.
 */
#ifndef XROUTER_SIM_REQUEST_H
#define XROUTER_SIM_REQUEST_H

#include "tests/sim/http.h"

/* Looks for one whole request at the front of conn->in. Returns 1 with conn->request filled and
 * conn->request_bytes set, 0 when more input is needed (wants_continue: the client waits for a
 * 100), or the negative HTTP status with which to refuse. */
int request_parse(struct conn *conn, bool *wants_continue);

#endif
