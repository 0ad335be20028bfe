/* prompt_tokens.h - how many tokens a prompt is for a model, before its provider counts.
 *
 * By the model's "tokenizer": o200k_base and cl100k_base by OpenAI's formulas
 * (usage/chat_tokens.h); chars3 by its rule, ceil(code points of the content / 3) for each message;
 * calibrated by o200k_base and the model's ratio (usage/calibration.h). Images by OpenAI's tiles
 * everywhere. Counts in slices: an event loop never waits for a long prompt. */
#ifndef XROUTER_USAGE_PROMPT_TOKENS_H
#define XROUTER_USAGE_PROMPT_TOKENS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum token_method { TOKENS_EXACT, TOKENS_CALIBRATED };
extern const char *const TOKEN_METHOD_NAMES[]; /* "exact", "calibrated" */

/* What a count amounts to. */
struct token_estimate {
    enum token_method method;
    int64_t tokens;  /* most likely */
    int64_t at_most; /* on the safe side for who pays: the same if exact, else a quarter more */
    /* On the safe side for who refuses: the same if exact, else a fifth less and no images. */
    int64_t at_least;
    /* Before the ratio, for calibration_learn(); 0 = nothing to learn from. Only calibrated plain
     * text teaches: what an image, a tool or a call costs is each provider's own, and would spoil
     * the ratio for all prompts without. */
    int64_t counted;
};

struct prompt_tokens; /* opaque: a count in progress */

/* A chat request's messages and tools (NULL = none). All are borrowed until the free; tools may be
 * the older "functions". 0 or -ENOMEM. */
int prompt_tokens_new(const struct model_config *model, const cJSON *messages, const cJSON *tools,
                      struct prompt_tokens **out);
/* Plain text: a string, or an array whose strings are counted one by one. */
int prompt_tokens_new_text(const struct model_config *model, const cJSON *input,
                           struct prompt_tokens **out);
void prompt_tokens_free(struct prompt_tokens *p); /* NULL is fine */

/* Counts on for about budget (> 0) bytes. 1 (there is more to do), 0 (done), -EILSEQ (not UTF-8:
 * json_check() lets none through). */
int prompt_tokens_step(struct prompt_tokens *p, size_t budget);
/* Of a count that is done. ratio: of the model's calibration; only used by "calibrated". What the
 * rules do not know (audio, files, tools of another kind, which add nothing; images of unknown
 * size, which add the most that one can; for chars3 any image) makes a count inexact. */
void prompt_tokens_result(const struct prompt_tokens *p, uint32_t ratio,
                          struct token_estimate *out);
/* Code points, whatever the tokenizer: of the messages' contents, their parts of type text and
 * refusal included, or of the input's strings. Roles, names, calls and tools are not among them. */
int64_t prompt_tokens_characters(const struct prompt_tokens *p);

/* Without counting. What a prompt is taken for until somebody counts: four bytes are a token. */
int64_t prompt_tokens_guess(size_t body_bytes);
/* No request whose JSON text is so long, with so many images, comes to more tokens than this, which
 * is some two a byte (a third for chars3), times the ratio if calibrated. Saturates. */
int64_t prompt_tokens_bound(const struct model_config *model, uint32_t ratio, size_t body_bytes,
                            size_t images);

#endif
