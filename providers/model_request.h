/* model_request.h - what a client asks of a model, parsed once: what the router, the metering and
 * the adapters read. Knows OpenAI's contract and no provider. */
#ifndef XROUTER_PROVIDERS_MODEL_REQUEST_H
#define XROUTER_PROVIDERS_MODEL_REQUEST_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "providers/chat_wishes.h"

#define CHAT_STOP_MAX 4
#define CHAT_STOP_BYTES_MAX 512 /* of one stop sequence: what a stream may have to hold back */
#define CHAT_MODEL_BYTES 96

enum operation {
    OPERATION_CHAT,
    OPERATION_COMPLETION, /* asked as a chat, answered in the older shape */
    OPERATION_EMBEDDINGS
};

struct model_request {
    enum operation operation;
    const char
        *text; /* the body as it came; borrowed from the caller until model_request_clear() */
    size_t len;
    char *own_text;               /* owned: text, where it is not the body itself; NULL = it is */
    cJSON *root;                  /* owned */
    char model[CHAT_MODEL_BYTES]; /* "" = none is named */
    struct chat_wishes wishes;
    uint64_t key_id; /* the API key that asks, set by whoever parsed; 0 = not known */

    /* A chat, or a completion. */
    bool stream;
    bool include_usage;    /* stream_options.include_usage */
    bool legacy_functions; /* functions/function_call instead of tools: answer in kind */
    int64_t max_tokens;    /* max_completion_tokens, else max_tokens; 0 = not given */
    const cJSON *messages, *tools, *functions; /* inside root; NULL = absent */
    const char *stop[CHAT_STOP_MAX];           /* inside root */
    size_t stop_count;
    size_t image_count;     /* image_url parts of all messages */
    bool wants_json_schema; /* response_format */

    /* Embeddings. */
    const cJSON *input;   /* a string, strings, token ids, or lists of them; NULL = a chat */
    int64_t input_tokens; /* how many token ids; 0 = it is text */
    bool wants_base64;    /* the vectors as little-endian float32 in base64 */
};

/* For those who parse. open: clears *r, checks the text (common/json.h) and parses it; 0,
 * XR_EINVALID, -ENOMEM. read_route: model and wishes, of fields that have been checked; 0 or
 * XR_EINVALID. */
int model_request_open(struct model_request *r, const char *text, size_t len, struct error *e);
int model_request_read_route(struct model_request *r, struct error *e);
void model_request_clear(struct model_request *r);

#endif
