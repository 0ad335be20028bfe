/* anthropic_rules.h - what a Messages request must be, in Anthropic's words. Pure, as rules.h is.
 */
#ifndef XROUTER_SIM_ANTHROPIC_RULES_H
#define XROUTER_SIM_ANTHROPIC_RULES_H

#include "tests/sim/rules.h"

#define ANTHROPIC_UNAUTHORIZED_TEXT "invalid x-api-key"
#define ANTHROPIC_OVERRUN_TEXT "Number of concurrent connections has exceeded your rate limit."

/* All checks, in the order: key, version, JSON, shapes, model, balance, concurrency, ranges,
 * message rules, context. On true *out is filled and the caller's to clear. */
bool anthropic_check_chat(const struct sim_config *config, const struct caller *caller,
                          const char *body, size_t len, struct sim_request *out,
                          struct verdict *verdict);

#endif
