/* model_request.h - what a client asks of a model, parsed once: what the router, the metering and
 * the adapters read. Knows OpenAI's contract and no provider. */
#ifndef XROUTER_PROVIDERS_MODEL_REQUEST_H
#define XROUTER_PROVIDERS_MODEL_REQUEST_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/chat_wishes.h"

#define CHAT_STOP_MAX 4
#define CHAT_STOP_BYTES_MAX 512 /* of one stop sequence: what a stream may have to hold back */
#define CHAT_MODEL_BYTES 96

struct model_request {
    const char
        *text; /* the body as it came; borrowed from the caller until model_request_clear() */
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

void model_request_clear(struct model_request *r);

#endif
