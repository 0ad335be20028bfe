/* sse.h - server-sent events, cut anywhere: `data:` lines joined by \n, comments and other fields
 * skipped, LF, CRLF and CR line ends. One event's data is limited.
 *
 * By the standard an event counts once its empty line has come: what a connection's end cuts off is
 * no event. Whoever wants the last one all the same feeds "\n\n". */
#ifndef XROUTER_PROVIDERS_SSE_H
#define XROUTER_PROVIDERS_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

#define SSE_EVENT_MAX (1024 * 1024)

struct event {
    const char *name; /* the event: field, "" = none; NUL-terminated, cut at 63 bytes */
    const char *data;
    size_t len;
};

struct sse {         /* private */
    struct buf data; /* of the event being read */
    char name[64];
    char field[8];           /* the line's field name so far */
    unsigned char field_len; /* more than sizeof(field) = none that we know */
    unsigned char name_len;
    unsigned char value; /* enum in sse.c: what the line's value is for */
    unsigned char bom;   /* bytes of a byte-order mark seen at the beginning; 4 = past it */
    bool has_data;
    bool after_cr;  /* the last byte was CR: a LF right after it belongs to it */
    bool delivered; /* the event was handed out: cleared by the next call */
};

void sse_init(struct sse *s);
void sse_clear(struct sse *s);
/* Uses *used of the len bytes. 1: *out is a whole event (until the next call); 0: more bytes are
 * needed (all were used); -EMSGSIZE: an event over SSE_EVENT_MAX; -ENOMEM. A failure stays. */
int sse_feed(struct sse *s, const char *in, size_t len, size_t *used, struct event *out);

#endif
