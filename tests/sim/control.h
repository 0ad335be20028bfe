/* control.h - /__sim/...: how tests steer the simulator and ask what it saw. */
#ifndef XROUTER_SIM_CONTROL_H
#define XROUTER_SIM_CONTROL_H

#include "tests/sim/http.h"

/* Answers a request whose path begins with /__sim/. */
void control_answer(struct conn *conn);

#endif
