/* conn.h - the life of connections: reading, answering under a plan, ending. */
#ifndef XROUTER_SIM_CONN_H
#define XROUTER_SIM_CONN_H

#include "tests/sim/http.h"

/* Takes an accepted, non-blocking socket over; closes it when it cannot. tls: NULL for plain HTTP.
 */
void conn_open(struct sim *sim, int fd, SSL_CTX *tls);
/* Closes the connections that wait for their next request. */
void conn_close_idle(struct sim *sim);
void conn_close_all(struct sim *sim);

#endif
