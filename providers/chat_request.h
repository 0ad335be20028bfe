/* chat_request.h - a client's POST /v1/chat/completions, checked by name.
 *
 * Knows OpenAI's contract and no provider: what one provider cannot do is its adapter's to refuse.
 */
#ifndef XROUTER_PROVIDERS_CHAT_REQUEST_H
#define XROUTER_PROVIDERS_CHAT_REQUEST_H

#include "common/error.h"
#include "providers/model_request.h"

/* Checks the text (common/json.h), parses it and checks the type and range of every field of
 * OpenAI's chat request, roles and content parts included, tool calls against tool results (a
 * result without a call and a call without a result are refused). Unknown fields are left alone.
 * Returns 0 or XR_EINVALID with e->param ("messages[2].role") and a message that says what was
 * expected and what was found; -ENOMEM. On failure *out needs no clear. */
int chat_request_parse(const char *text, size_t len, struct model_request *out, struct error *e);

#endif
