/* count_request.h - a client's POST /v1/tokens/count, parsed and checked by name: the model, and
 * either a chat request's messages and tools or plain text. */
#ifndef XROUTER_PROVIDERS_COUNT_REQUEST_H
#define XROUTER_PROVIDERS_COUNT_REQUEST_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

struct count_request {
    cJSON *root;           /* owned; all that follows is inside */
    const char *model;     /* as the client named it, "" = it did not */
    const cJSON *messages; /* NULL if input is given */
    const cJSON *tools;    /* or the older functions; NULL = absent */
    const cJSON *input;    /* a string or a non-empty array of strings; NULL if messages are */
    bool by_provider;      /* method "provider", of input alone */
};

/* With messages the same text as a chat request is accepted, and refused with the same words
 * (providers/chat_request.h). null is as good as absent, unknown members are left alone. The text
 * may go once it is parsed.
 * Returns 0 or XR_EINVALID with e->param ("input[2]"); -ENOMEM. On failure *out needs no clear. */
int count_request_parse(const char *text, size_t len, struct count_request *out, struct error *e);
void count_request_clear(struct count_request *r); /* all zero is fine */

#endif
