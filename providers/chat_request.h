/* chat_request.h - a client's POST /v1/chat/completions, parsed once and checked by name.
 *
 * Knows OpenAI's contract and no provider: what one provider cannot do is its adapter's to refuse.
 */
#ifndef XROUTER_PROVIDERS_CHAT_REQUEST_H
#define XROUTER_PROVIDERS_CHAT_REQUEST_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "providers/chat_wishes.h"

#define CHAT_STOP_MAX 4
#define CHAT_STOP_BYTES_MAX 512 /* of one stop sequence: what a stream may have to hold back */
#define CHAT_MODEL_BYTES 96

struct chat_request {
    const char *text; /* the body as it came; borrowed from the caller until chat_request_clear() */
    size_t len;
    cJSON *root;                  /* owned */
    char model[CHAT_MODEL_BYTES]; /* "" = none is named */
    struct chat_wishes wishes;
    bool stream;
    bool include_usage;    /* stream_options.include_usage */
    bool legacy_functions; /* functions/function_call instead of tools: answer in kind */
    int64_t max_tokens;    /* max_completion_tokens, else max_tokens; 0 = not given */
    const cJSON *messages, *tools, *functions; /* inside root; NULL = absent */
    const char *stop[CHAT_STOP_MAX];           /* inside root */
    size_t stop_count;
    size_t image_count;     /* image_url parts of all messages */
    bool wants_json_schema; /* response_format */
    uint64_t key_id;        /* the API key that asks, set by whoever parsed; 0 = not known */
};

/* Checks the text (common/json.h), parses it and checks the type and range of every field of
 * OpenAI's chat request, roles and content parts included, tool calls against tool results (a
 * result without a call and a call without a result are refused). Unknown fields are left alone.
 * Returns 0 or XR_EINVALID with e->param ("messages[2].role") and a message that says what was
 * expected and what was found; -ENOMEM. On failure *out needs no clear. */
int chat_request_parse(const char *text, size_t len, struct chat_request *out, struct error *e);
void chat_request_clear(struct chat_request *r);

#endif
