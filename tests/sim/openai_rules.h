/* openai_rules.h - what a Chat Completions request must be, in OpenAI's order and words. Pure, as
 * rules.h is. */
#ifndef XROUTER_SIM_OPENAI_RULES_H
#define XROUTER_SIM_OPENAI_RULES_H

#include "tests/sim/rules.h"

#define OPENAI_UNAUTHORIZED_TEXT                         \
    "Incorrect API key provided. You can find your API " \
    "key at https://platform.openai.com/account/api-keys."
#define OPENAI_OVERRUN_TEXT "Rate limit reached for requests. Please try again later."

/* All checks, in the order: key, JSON, shapes, model, balance, concurrency, ranges, message rules,
 * context. On true *out is filled and the caller's to clear. */
bool openai_check_chat(const struct sim_config *config, const struct caller *caller,
                       const char *body, size_t len, struct sim_request *out,
                       struct verdict *verdict);

#endif
