/* bpe.h - text to tokens, as tiktoken does it: cl100k_base and o200k_base by byte pair encoding.
 *
 * The vocabularies are part of the binary. Text is always ordinary text: "<|endoftext|>" in it is
 * spelled out in several tokens and never becomes the special one. The time is linear in the text,
 * whatever it holds, and nothing is allocated.
 *
 * Pieces of up to BPE_WINDOW bytes are encoded at once. Longer ones (a megabyte of one letter) go
 * through a window that moves from token to token; that a token starts there in the whole piece too
 * is proved by the window before it, which ended in the same token. Should that fail again and
 * again (no text is known where it does), the piece is cut there, and the count may differ by a few
 * tokens. */
#ifndef XROUTER_USAGE_BPE_H
#define XROUTER_USAGE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "usage/pretokenize.h"

#define BPE_WINDOW 2048

enum bpe_encoding { BPE_O200K, BPE_CL100K };

struct vocabulary;

/* "o200k_base", "cl100k_base" */
const char *bpe_encoding_name(enum bpe_encoding encoding);
/* Returns 0 or -ENOENT. */
int bpe_encoding_lookup(const char *name, enum bpe_encoding *encoding);

/* How many tokens the len bytes at text are (text may be NULL if len is 0).
 * Returns 0 or -EILSEQ: it is not UTF-8. */
int bpe_count(enum bpe_encoding encoding, const char *text, size_t len, size_t *tokens);

/* The same with their numbers, at most max of them; len are always enough. *tokens is how many.
 * Returns 0, -EILSEQ, -ENOSPC. */
int bpe_encode(enum bpe_encoding encoding, const char *text, size_t len, uint32_t *ids, size_t max,
               size_t *tokens);

/* The number of the token that is these len bytes, -ENOENT if there is none. */
int bpe_token_lookup(enum bpe_encoding encoding, const char *bytes, size_t len, uint32_t *id);

/* Counting in slices, for an event loop: the result is the same. */
struct bpe_counter {
    size_t tokens; /* so far; all the others are private */
    struct pretokenizer split;
    const struct vocabulary *vocabulary;
    uint32_t *ids;
    size_t max;
    const char *begin; /* of the window in a long piece, NULL = in none */
    const char *end;   /* of the piece */
    const char *previous;
    size_t previous_tokens;
    size_t expected; /* bytes of the token that must come first, 0 = any */
    unsigned retries;
};

/* Borrows the text until the count is done. */
void bpe_counter_init(struct bpe_counter *c, enum bpe_encoding encoding, const char *text,
                      size_t len);
/* Counts on for about budget (> 0) bytes, at most some windows more. Returns 1 (there is more to
 * do), 0 (done: c->tokens), -EILSEQ. */
int bpe_counter_step(struct bpe_counter *c, size_t budget);

#endif
