/* completion_request.h - a client's POST /v1/completions, checked by name (OpenAI's older contract)
 * and turned into the chat that asks the same: its prompt is the only message, of the user. */
#ifndef XROUTER_PROVIDERS_COMPLETION_REQUEST_H
#define XROUTER_PROVIDERS_COMPLETION_REQUEST_H

#include "common/error.h"
#include "providers/model_request.h"

#define COMPLETION_TOKENS 16 /* max_tokens where the client says nothing: OpenAI's default */

/* prompt: a string, or a list with one. What no chat can do (several prompts, token ids, echo,
 * suffix, best_of, logprobs) is XR_EUNSUPPORTED. Else returns and fails as chat_request_parse(). */
int completion_request_parse(const char *text, size_t len, struct model_request *out,
                             struct error *e);

#endif
