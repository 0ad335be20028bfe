/* text_tokens.h - a list of texts that are counted one by one, in slices, by a vocabulary or by
 * chars3.
 *
 * By a vocabulary each text is encoded alone. By chars3 the texts of a group are one. */
#ifndef XROUTER_USAGE_TEXT_TOKENS_H
#define XROUTER_USAGE_TEXT_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "usage/bpe.h"

struct text_tokens { /* embedded; private */
    enum bpe_encoding encoding;
    bool is_chars3;
    struct listed_text *texts;
    size_t count, capacity;
    size_t group;
    struct buf composed;
    int rc; /* the first failure while listing */

    size_t next;        /* the text that is counted */
    size_t at;          /* how many of its bytes have been looked at for their characters */
    size_t now_group;   /* its group */
    int64_t in_group;   /* characters */
    int64_t characters; /* of all content */
    int64_t done;       /* tokens of the texts before next (chars3: of the groups before) */
    struct bpe_counter counter;
    bool is_counting; /* counter is at work on next */
};

/* An empty list. encoding has no meaning with chars3. */
void text_tokens_init(struct text_tokens *t, enum bpe_encoding encoding, bool is_chars3);
void text_tokens_clear(struct text_tokens *t);

/* Listing. The first failure is kept for text_tokens_error(), and nothing is added after it. The
 * characters of content are counted too. Texts are borrowed until the clear; NULL adds nothing. */
void text_tokens_add(struct text_tokens *t, const char *text, bool is_content);
/* Texts that are put together from others: append to the buf, then add what was appended since its
 * len was from. */
struct buf *text_tokens_compose(struct text_tokens *t);
void text_tokens_add_composed(struct text_tokens *t, size_t from);
void text_tokens_begin_group(struct text_tokens *t);
/* 0 or -ENOMEM */
int text_tokens_error(const struct text_tokens *t);

/* Counts on for about budget (> 0) bytes; a text costs a little beside its bytes. Returns 1 (there
 * is more to do), 0 (done), -EILSEQ (not UTF-8; chars3 does not mind). */
int text_tokens_step(struct text_tokens *t, size_t budget);
/* So far. */
int64_t text_tokens_total(const struct text_tokens *t);
int64_t text_tokens_characters(const struct text_tokens *t); /* code points of all content */

#endif
