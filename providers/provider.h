/* provider.h - what an adapter is: one table of functions, bytes in and bytes out.
 *
 * An adapter owns no socket and no clock; the engine (providers/upstream.h) moves the bytes. So
 * fixtures test all of it. */
#ifndef XROUTER_PROVIDERS_PROVIDER_H
#define XROUTER_PROVIDERS_PROVIDER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/error.h"
#include "providers/model_request.h"
#include "providers/http1.h"
#include "providers/sse.h"

enum framing { FRAMING_SSE, FRAMING_NDJSON };

/* Tokens as the provider reported them (or as counted so far). -1 = not known. */
struct token_usage {
    int64_t input; /* cached ones included */
    int64_t cached;
    int64_t output;
};

/* What the answer must look like; owned by the caller, outlives the decoder. */
struct answer_identity {
    const char *id;     /* "chatcmpl-..." */
    const char *model;  /* as the client asked for it */
    int64_t created_at; /* Unix seconds, used where the provider sends none */
};

/* Counts here what a provider does not report; one for each request, the caller's. */
struct token_meter {
    /* A piece of what the model has written, as it comes: content, reasoning, names and arguments
     * of calls. UTF-8, cut anywhere. */
    void (*on_text)(struct token_meter *meter, const char *text, size_t len);
    /* Our own count of the prompt and of the text so far: input and output of *usage are set,
     * cached is 0. Takes its time: for the end, and only if the provider has told nothing. */
    void (*count)(struct token_meter *meter, struct token_usage *usage);
    /* Another try begins: what came so far belongs to an answer that nobody gets. */
    void (*reset)(struct token_meter *meter);
};

/* A prompt grows on its way: text is escaped anew, references of schemas are written out. */
#define UPSTREAM_BODY_MAX ((size_t)2 * 1024 * 1024 * 1024)

/* A whole upstream request: URL and bytes (head and body), ready to send. */
struct upstream_request {
    struct buf head; /* request line and headers, with the empty line; wiped when cleared */
    struct buf body;
    bool wants_stream; /* answer expected in the adapter's framing */
};
void upstream_request_init(struct upstream_request *r);
void upstream_request_clear(struct upstream_request *r);

/* Files that are with the provider for one request, in the order in which it names them. */
#define FILES_MAX 16
#define FILE_ID_BYTES 64
struct file_ids {
    char id[FILES_MAX][FILE_ID_BYTES];
    size_t count;
};

/* What a call needs besides the client's request. All borrowed. */
struct upstream_call {
    const char *token;            /* NULL where the provider needs none */
    const char *request_id;       /* goes upstream for the logs */
    const struct file_ids *files; /* what was uploaded for it; NULL = nothing */
};

enum decode_result {
    DECODE_MORE = 0, /* go on */
    DECODE_DONE = 1  /* the answer is complete: what follows is not wanted */
};

/* What is left of an account's prepaid tokens. */
#define BALANCES_MAX 8
struct account_balance {
    char model[56]; /* as the provider names it, or a family of models */
    int64_t tokens;
};
struct account_balances {
    uint64_t count;
    struct account_balance of[BALANCES_MAX];
};

struct provider_ops {
    const char *name;     /* provider type in the config */
    enum framing framing; /* how a stream is cut */
    bool takes_images;    /* image_url parts of messages reach the model */

    /* Whether the field of OpenAI's chat request has its effect there; else it is refused, or left
     * out and told in x-xrouter-ignored. NULL = all of them go through. */
    bool (*supports)(const struct provider_config *p, const char *parameter);

    /* The token request of providers that need one before the API call; NULL = none needed, and
     * needs_token tells which configurations need one (NULL = all).
     * encode: 0, XR_EUPSTREAMAUTH (the configuration cannot work), XR_EINTERNAL, -ENOMEM.
     * decode: *token is malloc'ed (the caller wipes and frees it), *expires_at_ms Unix time;
     * XR_EUPSTREAMAUTH for a final refusal (credentials, scope), XR_EUPSTREAM for a passing one. */
    bool (*needs_token)(const struct provider_config *p);
    int (*encode_token)(const struct provider_config *p, struct upstream_request *out,
                        struct error *e);
    int (*decode_token)(unsigned status, const char *body, size_t len, int64_t now_at_ms,
                        char **token, int64_t *expires_at_ms, struct error *e);

    /* The chat call, into an empty out. ignored collects names of parameters that were dropped
     * ("seed, user"), for x-xrouter-ignored.
     * Returns 0, XR_EINVALID or XR_EUNSUPPORTED (e->param set), XR_ETOOLARGE, XR_EUPSTREAMAUTH (the
     * configuration cannot work), -ENOMEM. */
    int (*encode_chat)(const struct provider_config *p, const char *upstream_model,
                       const struct model_request *req, const struct upstream_call *call,
                       struct upstream_request *out, struct buf *ignored, struct error *e);

    /* For providers that take no images and files inside a request: each is uploaded before the
     * call, and removed after it. NULL = they are sent inside.
     * count: how many the request has, at most FILES_MAX; 0, XR_EINVALID or XR_EUNSUPPORTED.
     * encode_upload: the index-th of them; also XR_ETOOLARGE, XR_EUPSTREAMAUTH, -ENOMEM.
     * decode_upload: of the body of a 200; 0 or XR_EUPSTREAM.
     * encode_removal: 0, XR_EUPSTREAMAUTH, -ENOMEM; whatever a 200 says is fine. */
    int (*count_uploads)(const struct model_request *req, size_t *count, struct error *e);
    int (*encode_upload)(const struct provider_config *p, const struct model_request *req,
                         size_t index, const struct upstream_call *call,
                         struct upstream_request *out, struct error *e);
    int (*decode_upload)(const char *body, size_t len, char id[FILE_ID_BYTES], struct error *e);
    int (*encode_removal)(const struct provider_config *p, const char *id,
                          const struct upstream_call *call, struct upstream_request *out,
                          struct error *e);

    /* How many tokens texts are for one of the provider's models: input is a string or strings,
     * texts how many. NULL = it does not count for others. decode: of the body of a 200; 0 with
     * their sum, or XR_EUPSTREAM. */
    int (*encode_count)(const struct provider_config *p, const char *upstream_model,
                        const cJSON *input, const struct upstream_call *call,
                        struct upstream_request *out, struct error *e);
    int (*decode_count)(const char *body, size_t len, size_t texts, int64_t *tokens,
                        struct error *e);

    /* The request for the list of models (providers/models_list.h reads the answer); NULL = there
     * is none. */
    int (*encode_models)(const struct provider_config *p, const struct upstream_call *call,
                         struct upstream_request *out, struct error *e);
    /* What an account has left; NULL = the provider does not tell. decode: 0 or XR_EUPSTREAM. */
    int (*encode_balance)(const struct provider_config *p, const struct upstream_call *call,
                          struct upstream_request *out, struct error *e);
    int (*decode_balance)(const char *body, size_t len, struct account_balances *out,
                          struct error *e);

    /* One stream's decoder: bytes of OpenAI-shaped SSE are appended to out (whole events only).
     * new: NULL when out of memory; all arguments are borrowed. */
    void *(*stream_new)(const struct provider_config *p, const struct model_request *req,
                        const struct answer_identity *identity, struct token_meter *meter);
    void (*stream_free)(void *stream); /* NULL is fine */
    /* Returns enum decode_result, or XR_E... or -ENOMEM (with e) when the provider reported an
     * error or sent garbage; what was appended before is still whole events.
     * *usage is the caller's, the same at each call, and is set when the provider tells;
     * *usage_final = it is the provider's own word. The text goes to the meter. */
    int (*decode_event)(void *stream, const struct event *ev, struct buf *out,
                        struct token_usage *usage, bool *usage_final, struct error *e);
    /* The connection's answer ended: appends what is still owed (the usage chunk, if the client
     * asked for it, with the meter's count where the provider told none; [DONE]) and returns 0, or
     * XR_EUPSTREAM when the answer was not complete. Also to be called after DECODE_DONE, once. */
    int (*decode_end)(void *stream, struct buf *out, struct error *e);

    /* A whole answer (HTTP 200, not the adapter's framing): OpenAI's JSON appended to out; for a
     * request that asked for a stream, the same answer as the chunks of one, [DONE] included.
     * Usage and text as in decode_event and decode_end; OpenAI's JSON always has a usage object,
     * with the meter's count where the provider told none. 0, XR_E... or -ENOMEM (with e). */
    int (*decode_chat)(const struct provider_config *p, const struct model_request *req,
                       const struct answer_identity *identity, const char *body, size_t len,
                       struct buf *out, struct token_meter *meter, struct token_usage *usage,
                       bool *usage_final, struct error *e);

    /* The same two steps of embeddings; NULL = the provider makes none. An answer's usage is of the
     * input alone. */
    int (*encode_embeddings)(const struct provider_config *p, const char *upstream_model,
                             const struct model_request *req, const struct upstream_call *call,
                             struct upstream_request *out, struct buf *ignored, struct error *e);
    int (*decode_embeddings)(const struct provider_config *p, const struct model_request *req,
                             const struct answer_identity *identity, const char *body, size_t len,
                             struct buf *out, struct token_meter *meter, struct token_usage *usage,
                             bool *usage_final, struct error *e);

    /* A status other than 200: which error it means (e filled; nothing of the provider's raw body
     * but a cleaned message where the client is at fault). XR_EUPSTREAMAUTH with *token_stale when
     * a fresh token may help. */
    int (*map_error)(unsigned status, const char *body, size_t len, bool *token_stale,
                     struct error *e);
};

/* By the config's type, NULL if there is none. */
const struct provider_ops *provider_ops_find(const char *type);

#endif
