/* pretokenize.h - cutting text into the pieces that a tokenizer encodes one by one.
 *
 * What the regular expressions of cl100k_base and o200k_base match, by hand: in linear time,
 * without a stack, and by the same Unicode (16.0) as the original on every system. The cut can
 * pause anywhere, also inside a piece, so a long text need not hold up an event loop. */
#ifndef XROUTER_USAGE_PRETOKENIZE_H
#define XROUTER_USAGE_PRETOKENIZE_H

#include <stddef.h>

enum pretokenize_split { PRETOKENIZE_O200K, PRETOKENIZE_CL100K };

struct pretokenizer { /* embedded; the members are private */
    const char *text;
    size_t len;
    size_t begin; /* of the piece that is looked at */
    size_t at;    /* how far it has been looked at */
    size_t mark;  /* where it ends if what follows does not fit, 0 = nowhere yet */
    size_t last;  /* where the character before at begins */
    enum pretokenize_split split;
    unsigned phase;
};

/* Borrows the len bytes at text. text may be NULL if len is 0. */
void pretokenize_init(struct pretokenizer *p, enum pretokenize_split split, const char *text,
                      size_t len);

/* The next piece, in *piece and *piece_len: the pieces put together are the text.
 * Looks at no more than *budget bytes (and a few behind), and takes from *budget what it looked at.
 * Returns 1 (a piece), 0 (the text is at its end), -EAGAIN (*budget is used up in the middle of a
 * piece: go on with a new one), -EILSEQ (not UTF-8, here or in what was looked at ahead). */
int pretokenize_next(struct pretokenizer *p, size_t *budget, const char **piece, size_t *piece_len);

#endif
