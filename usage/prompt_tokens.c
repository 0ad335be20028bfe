#include "usage/prompt_tokens.h"

#include <errno.h>
#include <stdlib.h>

#include "usage/calibration.h"
#include "usage/tokenizer.h"

#define BYTES_PER_TOKEN 4 /* a guess */

const char *const TOKEN_METHOD_NAMES[] = {
    [TOKENS_EXACT] = "exact",
    [TOKENS_CALIBRATED] = "calibrated",
};

struct prompt_tokens {
    const struct tokenizer *tokenizer;
    struct chat_tokens *chat;
};

static struct prompt_tokens *new_empty(const struct model_config *model)
{
    struct prompt_tokens *p = calloc(1, sizeof(*p));

    if (p != NULL)
        p->tokenizer = tokenizer_of(model);
    return p;
}

/* Hands over what could be begun. */
static int finish_new(struct prompt_tokens *p, int rc, struct prompt_tokens **out)
{
    if (rc < 0)
        prompt_tokens_free(p);
    else
        *out = p;
    return rc;
}

int prompt_tokens_new(const struct model_config *model, const cJSON *messages, const cJSON *tools,
                      struct prompt_tokens **out)
{
    struct prompt_tokens *p = new_empty(model);

    *out = NULL;
    if (p == NULL)
        return -ENOMEM;
    return finish_new(p, chat_tokens_new(p->tokenizer->rules, messages, tools, &p->chat), out);
}

int prompt_tokens_new_text(const struct model_config *model, const cJSON *input,
                           struct prompt_tokens **out)
{
    struct prompt_tokens *p = new_empty(model);

    *out = NULL;
    if (p == NULL)
        return -ENOMEM;
    return finish_new(p, chat_tokens_new_text(p->tokenizer->rules, input, &p->chat), out);
}

void prompt_tokens_free(struct prompt_tokens *p)
{
    if (p == NULL)
        return;
    chat_tokens_free(p->chat);
    free(p);
}

int prompt_tokens_step(struct prompt_tokens *p, size_t budget)
{
    return chat_tokens_step(p->chat, budget);
}

static int64_t a_quarter_more(int64_t tokens)
{
    int64_t sum;

    return __builtin_add_overflow(tokens, tokens / 4 + (tokens % 4 != 0), &sum) ? INT64_MAX : sum;
}

static int64_t a_fifth_less(int64_t tokens)
{
    return tokens - tokens / 5 - (tokens % 5 != 0);
}

static int64_t apply_ratio(const struct tokenizer *tokenizer, uint32_t ratio, int64_t tokens)
{
    return tokenizer->is_calibrated ? calibration_apply(ratio, tokens) : tokens;
}

void prompt_tokens_result(const struct prompt_tokens *p, uint32_t ratio, struct token_estimate *out)
{
    const struct tokenizer *tokenizer = p->tokenizer;
    int64_t counted = (int64_t)chat_tokens_total(p->chat);
    int64_t images = (int64_t)chat_tokens_images(p->chat);

    out->tokens = apply_ratio(tokenizer, ratio, counted);
    out->counted = 0;
    if (!tokenizer->is_calibrated && !chat_tokens_has_unknown(p->chat)) {
        out->method = TOKENS_EXACT;
        out->at_most = out->at_least = out->tokens;
        return;
    }
    out->method = TOKENS_CALIBRATED;
    out->at_most = a_quarter_more(out->tokens);
    out->at_least = a_fifth_less(apply_ratio(tokenizer, ratio, counted - images));
    if (tokenizer->is_calibrated && chat_tokens_is_plain(p->chat))
        out->counted = counted;
}

int64_t prompt_tokens_characters(const struct prompt_tokens *p)
{
    return chat_tokens_characters(p->chat);
}

int64_t prompt_tokens_guess(size_t body_bytes)
{
    size_t tokens = body_bytes / BYTES_PER_TOKEN + (body_bytes % BYTES_PER_TOKEN != 0);

    return (int64_t)tokens; /* a quarter of SIZE_MAX fits */
}

int64_t prompt_tokens_bound(const struct model_config *model, uint32_t ratio, size_t body_bytes,
                            size_t images)
{
    const struct tokenizer *tokenizer = tokenizer_of(model);

    return apply_ratio(tokenizer, ratio, chat_tokens_bound(tokenizer->rules, body_bytes, images));
}
