/* service.h - what GigaChat offers beside answers: tokens counted, the balance. */
#ifndef XROUTER_SIM_SERVICE_H
#define XROUTER_SIM_SERVICE_H

#include "tests/sim/http.h"

/* POST /v1/tokens/count: a bare array, an element for each text. */
void service_answer_count(struct conn *conn);
/* GET /v1/balance: of clients that have one; 403 for those that pay as they go. */
void service_answer_balance(struct conn *conn);

#endif
