/* think.h - parts the reasoning from the answer where a model writes both into one text:
 * "<think>reasoning</think>answer". The tag counts only at the text's very beginning. */
#ifndef XROUTER_PROVIDERS_THINK_H
#define XROUTER_PROVIDERS_THINK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

struct think_splitter { /* private; all zero = at the text's beginning */
    enum { THINK_BEGINNING, THINK_INSIDE, THINK_AFTER } state;
    size_t matched; /* bytes of the awaited tag seen so far, held back */
};

/* Appends each byte of the text, less the tags, to one of the two. 0 or -ENOMEM. */
int think_feed(struct think_splitter *t, const char *text, size_t len, struct buf *reasoning,
               struct buf *answer);
/* The text has ended: half a tag was none. 0 or -ENOMEM. */
int think_finish(struct think_splitter *t, struct buf *reasoning, struct buf *answer);
/* Whether all that follows is answer: it need not be fed. */
bool think_is_over(const struct think_splitter *t);

#endif
