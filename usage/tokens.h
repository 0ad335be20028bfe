/* tokens.h - how many tokens a prompt has, as far as can be told before the provider counts. */
#ifndef XROUTER_USAGE_TOKENS_H
#define XROUTER_USAGE_TOKENS_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "common/config.h"

/* The tokens of a chat's messages (an array of OpenAI's message objects) and tools (NULL = none).
 * Exact for the tokenizer "chars3"; for others four bytes of text are one token. */
int64_t tokens_prompt(const struct model_config *model, const cJSON *messages, const cJSON *tools);
/* The same on the safe side, to reserve credits by: a quarter more unless it is exact. */
int64_t tokens_prompt_at_most(const struct model_config *model, const cJSON *messages,
                              const cJSON *tools);

#endif
