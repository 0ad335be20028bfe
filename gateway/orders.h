/* orders.h - what xrouterctl may ask of the master through master.sock:
 *
 *   {"op":"reload"}                       {"generation":2,"restart_needed":"workers"}
 *   {"op":"drain","timeout_ms":60000}     {"state":"draining"}, without timeout_ms no deadline
 *   {"op":"stop"}                         {"state":"draining"}, within timeouts.stop_timeout_ms
 *   {"op":"log-level","level":"debug"}    {"level":"debug"}, until the next reload
 *   {"op":"kill","id":"req_<32 hex>"}     {"id":"req_...","worker":0}
 *   {"op":"provider.switch","provider":"NAME","switch":"disabled"}
 *                                         {"provider":"NAME","switch":"disabled","in_flight":3}
 *       "enabled", "disabled" or "draining"; until it is switched again or the instance ends
 *
 * Errors: unknown_op, bad_request, config_invalid, not_found. */
#ifndef XROUTER_GATEWAY_ORDERS_H
#define XROUTER_GATEWAY_ORDERS_H

#include "gateway/control_socket.h"

/* A control_request_fn; arg is the struct master. */
const char *orders_carry_out(void *arg, const cJSON *request, struct buf *result,
                             struct buf *message);

#endif
