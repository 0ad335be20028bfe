/* answer_tokens.h - how many tokens the text of an answer is, which comes in pieces.
 *
 * Whether somebody will ask is known only at the end (most providers report it themselves), so the
 * pieces are kept, and counted when they are many or when somebody asks. Memory is bounded: nothing
 * before the first piece, then twice the text, ANSWER_TOKENS_WINDOW at most.
 *
 * The count is that of the whole text in one, however it was cut. Only a window without a space
 * behind a word and without a line's end (16 KB of Chinese in one paragraph, of base64) is cut
 * between two characters, which may cost a token. Bytes that are no UTF-8 count as a token each. */
#ifndef XROUTER_USAGE_ANSWER_TOKENS_H
#define XROUTER_USAGE_ANSWER_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"

#define ANSWER_TOKENS_WINDOW 16384 /* bytes kept uncounted at most */

struct tokenizer;

struct answer_tokens { /* embedded; private */
    const struct tokenizer *tokenizer;
    struct buf text;    /* not counted yet */
    int64_t counted;    /* tokens of the text before it, before the ratio */
    int64_t characters; /* code points of everything */
    int64_t lost;       /* of these, in pieces for which there was no memory */
};

/* Allocates nothing, and keeps nothing of the model. */
void answer_tokens_init(struct answer_tokens *a, const struct model_config *model);
void answer_tokens_clear(struct answer_tokens *a);
/* A piece of UTF-8 text, cut anywhere. Costs a copy of it, and a window's count (some 0.2 ms) when
 * one is full. Without memory for it the piece counts as answer_tokens_guess() would have it. */
void answer_tokens_add(struct answer_tokens *a, const char *text, size_t len);
/* The next answer: nothing has come. Keeps the memory. */
void answer_tokens_reset(struct answer_tokens *a);
/* Cheap, at any time: a third of the code points for chars3 (exact), a quarter for others. */
int64_t answer_tokens_guess(const struct answer_tokens *a);
/* The count of all that has come. ratio: as for prompt_tokens_result(). May be asked again, and
 * counts what is kept each time. */
int64_t answer_tokens_count(const struct answer_tokens *a, uint32_t ratio);

#endif
