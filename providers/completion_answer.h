/* completion_answer.h - a chat's answer in the shape of POST /v1/completions: "text_completion",
 * whose choices have a text instead of a message. Everything else stays byte for byte. */
#ifndef XROUTER_PROVIDERS_COMPLETION_ANSWER_H
#define XROUTER_PROVIDERS_COMPLETION_ANSWER_H

#include "common/buf.h"

/* One JSON object, an adapter's own: a whole answer or a chunk. Returns out->err. */
int completion_answer_put(const char *chat, size_t len, struct buf *out);
/* Whole SSE events as adapters write them ("data: ...\n\n"), [DONE] included. Returns out->err. */
int completion_answer_put_events(const char *events, size_t len, struct buf *out);

#endif
