/* api.h - which handler answers a request. */
#ifndef XROUTER_SIM_API_H
#define XROUTER_SIM_API_H

#include "tests/sim/http.h"

/* Answers conn->request: the output is begun, or a producer or an end is set. */
void api_dispatch(struct conn *conn);

/* Plays the faults that replace an answer as a whole (status, fail, auth, reset before headers,
 * refuse); key tells repeated attempts. False when the plan has none for this attempt. */
bool api_play_fault(struct conn *conn, uint64_t key);

#endif
