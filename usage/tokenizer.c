#include "usage/tokenizer.h"

#include <assert.h>
#include <string.h>

static const struct tokenizer tokenizers[] = {
    {"calibrated", &CHAT_TOKENS_O200K, true},
    {"o200k_base", &CHAT_TOKENS_O200K, false},
    {"cl100k_base", &CHAT_TOKENS_CL100K, false},
    {"chars3", &CHAT_TOKENS_CHARS3, false},
};

#define TOKENIZER_COUNT (sizeof(tokenizers) / sizeof(tokenizers[0]))

const struct tokenizer *tokenizer_of(const struct model_config *model)
{
    size_t at = 0;

    while (at < TOKENIZER_COUNT && strcmp(tokenizers[at].name, model->tokenizer) != 0)
        at++;
    assert(at < TOKENIZER_COUNT);
    return &tokenizers[at];
}
