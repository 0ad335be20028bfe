/* outgoing.h - a request's bytes on their way out: sent in as few pieces as possible, kept as long
 * as they may have to be sent again. */
#ifndef XROUTER_PROVIDERS_OUTGOING_H
#define XROUTER_PROVIDERS_OUTGOING_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

struct outgoing {
    struct buf head, body; /* a small body is in head already */
    size_t sent;           /* of both */
};

/* Moves the bytes out of the bufs, which are empty then, also on failure. 0, -ENOMEM, or what an
 * append to one of them failed with. */
int outgoing_take(struct outgoing *o, struct buf *head, struct buf *body);
/* Wipes (the head carries access tokens) and frees. */
void outgoing_clear(struct outgoing *o);

/* The next piece with its *len > 0; NULL when all is sent. */
const char *outgoing_next(const struct outgoing *o, size_t *len);
void outgoing_advance(struct outgoing *o, size_t n);
void outgoing_rewind(struct outgoing *o);

#endif
