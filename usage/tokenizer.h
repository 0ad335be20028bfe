/* tokenizer.h - what the option "tokenizer" of a model means. */
#ifndef XROUTER_USAGE_TOKENIZER_H
#define XROUTER_USAGE_TOKENIZER_H

#include <stdbool.h>

#include "common/config.h"
#include "usage/chat_tokens.h"

struct tokenizer {
    const char *name; /* the option's word */
    const struct chat_token_rules *rules;
    bool is_calibrated; /* the rules are another model's: their count times the model's ratio */
};

/* Static; the configuration has checked the word. */
const struct tokenizer *tokenizer_of(const struct model_config *model);

#endif
