/* anthropic.h - the adapter for Anthropic's Messages API (version 2023-06-01). The table is what
 * others use; the rest is private to the files anthropic*.c. */
#ifndef XROUTER_PROVIDERS_ANTHROPIC_H
#define XROUTER_PROVIDERS_ANTHROPIC_H

#include <stdbool.h>

#include "common/json.h"
#include "providers/openai_chunk.h"
#include "providers/provider.h"

extern const struct provider_ops anthropic_ops;

/* anthropic_models.c: what a model takes, as far as its name tells. */
struct anthropic_model {
    const char *part;    /* of the name */
    bool has_format;     /* output_config.format */
    bool has_sampling;   /* temperature, top_p, top_k */
    const char *efforts; /* the words of output_config.effort, "" = it has none */
};
const struct anthropic_model *anthropic_model_find(const char *name); /* never NULL */
/* The model's word for OpenAI's reasoning_effort; NULL = it has none. */
const char *anthropic_model_effort(const struct anthropic_model *model, const char *effort);

/* anthropic_parameters.c */
/* The provider_ops' supports. */
bool anthropic_supports(const struct provider_config *p, const char *parameter);
/* What would change the answer's meaning is refused: XR_EUNSUPPORTED with *e, else 0. */
int anthropic_refuse_parameters(const cJSON *root, struct error *e);
/* Names what the API has no place for. */
void anthropic_note_dropped(const cJSON *root, struct buf *ignored);
void anthropic_note_ignored(struct buf *ignored, const char *name);
int anthropic_unsupported(struct error *e, const char *param, const char *why);

/* anthropic_names.c: names of functions and ids of calls, where the API is stricter. */
int anthropic_put_function_name(struct buf *out, const char *name); /* as a JSON string */
/* The client's name for what the model calls; inside req, or name itself. */
const char *anthropic_real_function_name(const struct model_request *req, const char *name);

/* The message's tool_calls, which only an assistant's has; NULL = none. */
const cJSON *anthropic_calls(const cJSON *message);
/* The ids of all calls in a conversation. */
struct anthropic_ids {
    const char **sorted; /* owned */
    size_t count;
};
int anthropic_ids_init(struct anthropic_ids *ids, const cJSON *messages); /* 0 or -ENOMEM */
void anthropic_ids_clear(struct anthropic_ids *ids);
/* As a JSON string. id is NULL where the client's form has none; message and call are the call's
 * place. */
int anthropic_put_call_id(const struct anthropic_ids *ids, struct buf *out, const char *id,
                          size_t message, size_t call);

/* anthropic_history.c: ,"system":[...],"messages":[...]. Returns 0, XR_EINVALID, XR_EUNSUPPORTED,
 * -ENOMEM; a failing out keeps its err. */
int anthropic_encode_history(const cJSON *messages, struct buf *out, struct error *e);
/* Whether text has nothing but white space: the API refuses such blocks. */
bool anthropic_is_blank(const char *text);

/* anthropic_media.c: the block of an image_url or file part. param is the part's place. Returns 0,
 * XR_EINVALID, XR_EUNSUPPORTED. */
int anthropic_put_media(const cJSON *part, const char *param, struct buf *out, struct error *e);

/* anthropic_tools.c: ,"tools":[...],"tool_choice":{...}. Returns 0, XR_EINVALID, XR_EUNSUPPORTED.
 */
int anthropic_encode_tools(const struct anthropic_model *model, const struct model_request *req,
                           struct buf *out, struct buf *ignored, struct error *e);
/* The schema of an object, as the client wrote it but for a type that it may lack. */
int anthropic_put_schema(struct json_span schema, const char *param, struct buf *out,
                         struct error *e);
/* The span of the client's json_schema; XR_EINVALID if there is none. */
int anthropic_find_schema(const struct model_request *req, struct json_span *out, struct error *e);
/* The function by which a model without output_config.format gives an answer that has a schema: its
 * arguments are the answer. */
#define ANTHROPIC_ANSWER_FUNCTION "xrouter_answer"
bool anthropic_is_answer_function(const struct model_request *req, const char *name);

/* anthropic_encode.c: the JSON body of a call. Returns 0, XR_EINVALID, XR_EUNSUPPORTED,
 * XR_ETOOLARGE, -ENOMEM. */
int anthropic_encode_body(const struct provider_config *p, const char *upstream_model,
                          const struct model_request *req, struct buf *out, struct buf *ignored,
                          struct error *e);

/* anthropic_error.c */
/* The provider_ops' map_error. */
int anthropic_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                        struct error *e);
/* The same for {"type","message"} inside a 200. */
int anthropic_set_error(const cJSON *error, struct error *e);

/* anthropic_answer.c: the parts that whole answers and stream events have in common. */

/* The stop sequences that the API refuses and we play; returns how many. */
size_t anthropic_own_stops(const struct model_request *req, const char *out[CHAT_STOP_MAX]);
/* OpenAI's finish reason. */
const char *anthropic_finish_reason(const char *reason, bool has_calls, bool legacy);
/* An answer that was cut: its last call cannot be trusted. */
bool anthropic_is_cut(const char *finish_reason);

/* The API's four numbers as told so far, -1 = not told. */
struct anthropic_counts {
    int64_t input; /* neither written to the cache nor read from it */
    int64_t written, cached;
    int64_t output;
};
#define ANTHROPIC_COUNTS_NONE ((struct anthropic_counts){-1, -1, -1, -1})
/* Each number that is there and makes sense counts instead of the one before. */
void anthropic_counts_read(struct anthropic_counts *counts, const cJSON *usage);
/* False, with *out as it was, unless input and output have been told. */
bool anthropic_counts_usage(const struct anthropic_counts *counts, struct token_usage *out);

/* anthropic_stream.c */
void *anthropic_stream_new(const struct provider_config *p, const struct model_request *req,
                           const struct answer_identity *identity, struct token_meter *meter);
void anthropic_stream_free(void *stream);
int anthropic_decode_event(void *stream, const struct event *ev, struct buf *out,
                           struct token_usage *usage, bool *usage_final, struct error *e);
int anthropic_decode_end(void *stream, struct buf *out, struct error *e);

/* anthropic_decode.c: the whole answer. */
int anthropic_decode_chat(const struct provider_config *p, const struct model_request *req,
                          const struct answer_identity *identity, const char *body, size_t len,
                          struct buf *out, struct token_meter *meter, struct token_usage *usage,
                          bool *usage_final, struct error *e);

#endif
