/* embeddings_request.h - a client's POST /v1/embeddings, checked by name (OpenAI's contract). */
#ifndef XROUTER_PROVIDERS_EMBEDDINGS_REQUEST_H
#define XROUTER_PROVIDERS_EMBEDDINGS_REQUEST_H

#include "common/error.h"
#include "providers/model_request.h"

#define EMBEDDINGS_INPUTS_MAX 2048 /* in one request, OpenAI's own limit */

/* input: a string, a list of strings, of token ids, or of lists of token ids, none of them empty.
 * Unknown fields are left alone. Returns and fails as chat_request_parse(). */
int embeddings_request_parse(const char *text, size_t len, struct model_request *out,
                             struct error *e);

#endif
