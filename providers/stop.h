/* stop.h - ends an answer's text at a stop sequence, for providers that have none.
 *
 * Text comes in pieces of whole characters. What may be the beginning of a sequence is held back,
 * at most the longest sequence less one byte, so that nobody sees half of one; pieces therefore
 * come out in whole characters too. */
#ifndef XROUTER_PROVIDERS_STOP_H
#define XROUTER_PROVIDERS_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "providers/model_request.h"

struct stop_filter { /* private */
    const char *const *sequences;
    size_t lens[CHAT_STOP_MAX];
    size_t count;
    size_t longest;
    struct buf held;
    bool hit;
};

/* count <= CHAT_STOP_MAX; the sequences are borrowed and not empty. */
void stop_init(struct stop_filter *f, const char *const *sequences, size_t count);
void stop_clear(struct stop_filter *f);
/* Appends to out what is certainly part of the answer. Returns 1 once a sequence has been met (what
 * comes from its first byte on is never given out), 0 before, -ENOMEM. The sequence that is
 * complete first counts. */
int stop_feed(struct stop_filter *f, const char *text, size_t len, struct buf *out);
/* The text has ended: what was held back belongs to it after all. 0 or -ENOMEM. */
int stop_finish(struct stop_filter *f, struct buf *out);

#endif
