/* gigachat.h - the GigaChat adapter (protocol v1). The table is what others use; the rest is
 * private to the files gigachat*.c. */
#ifndef XROUTER_PROVIDERS_GIGACHAT_H
#define XROUTER_PROVIDERS_GIGACHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "providers/openai_chunk.h"
#include "providers/provider.h"

extern const struct provider_ops gigachat_ops;

/* gigachat_head.c: request line ("{method} {path}{/v1, unless the path has a version}{endpoint}"),
 * Host and User-Agent. endpoint "": the URL is the whole address. 0 or XR_EUPSTREAMAUTH. */
int gigachat_head_begin(struct buf *head, const char *method, const char *base_url,
                        const char *endpoint, struct error *e);
/* A header whose value is a UUID of that version, made of the bytes. */
#define UUID_BYTES 16
void gigachat_put_uuid(struct buf *head, const char *name, const uint8_t bytes[UUID_BYTES],
                       unsigned version);

/* gigachat_auth.c: the provider_ops' functions. Configurations of auth "token" and
 * "certificate" need no token request. */
bool gigachat_needs_token(const struct provider_config *p);
/* Authorization with the token (NULL: the configuration's own); nothing where a certificate has
 * told who we are. */
void gigachat_put_authorization(struct buf *head, const struct provider_config *p,
                                const char *token);
int gigachat_encode_token(const struct provider_config *p, struct upstream_request *out,
                          struct error *e);
int gigachat_decode_token(unsigned status, const char *body, size_t len, int64_t now_at_ms,
                          char **token, int64_t *expires_at_ms, struct error *e);

/* gigachat_session.c: X-Session-ID, the name under which GigaChat keeps a conversation's prompt
 * cache: a hash of the API key's id, the model and the messages up to the first question. So later
 * turns keep it, and no two keys share one. Nothing where the key is not known. Returns 0,
 * XR_ETOOLARGE, -ENOMEM. */
int gigachat_put_session(const char *upstream_model, const struct model_request *req,
                         struct buf *head, struct error *e);

/* gigachat_encode.c: the JSON body of a chat call; files: what was uploaded for it, NULL = nothing.
 * Returns 0, XR_EINVALID, XR_EUNSUPPORTED, XR_ETOOLARGE, -ENOMEM. */
int gigachat_encode_body(const struct provider_config *p, const char *upstream_model,
                         const struct model_request *req, const struct file_ids *files,
                         struct buf *out, struct buf *ignored, struct error *e);

/* Whether the answer's JSON schema travels as a function that must be called, whose arguments are
 * then the answer: by configuration, and behind results of functions, where response_format has
 * been seen to break the JSON. Never where the client has functions of its own. */
bool gigachat_schema_by_function(const struct provider_config *p, const struct model_request *req);

/* gigachat_files.c: images, audio and documents, which GigaChat wants uploaded one by one and named
 * in a user message's attachments. */
bool gigachat_is_file_part(const cJSON *part);
/* Whether the request has a document: the server reads them with a function of its own. */
bool gigachat_has_document(const struct model_request *req);
/* The provider_ops' functions. */
int gigachat_count_uploads(const struct model_request *req, size_t *count, struct error *e);
int gigachat_encode_upload(const struct provider_config *p, const struct model_request *req,
                           size_t index, const struct upstream_call *call,
                           struct upstream_request *out, struct error *e);
int gigachat_decode_upload(const char *body, size_t len, char id[FILE_ID_BYTES], struct error *e);
int gigachat_encode_removal(const struct provider_config *p, const char *id,
                            const struct upstream_call *call, struct upstream_request *out,
                            struct error *e);

/* gigachat_embeddings.c: the JSON body of an embeddings call: model and input. GigaChat takes texts
 * alone, and its vectors have one length. Returns as gigachat_encode_body(). */
int gigachat_encode_embeddings(const char *upstream_model, const struct model_request *req,
                               struct buf *out, struct buf *ignored, struct error *e);

/* gigachat_count.c: the provider_ops' functions. */
int gigachat_encode_count(const struct provider_config *p, const char *upstream_model,
                          const cJSON *input, const struct upstream_call *call,
                          struct upstream_request *out, struct error *e);
int gigachat_decode_count(const char *body, size_t len, size_t texts, int64_t *tokens,
                          struct error *e);

/* gigachat_facts.c: the provider_ops' functions. A balance is told to prepaid accounts alone. */
int gigachat_encode_models(const struct provider_config *p, const struct upstream_call *call,
                           struct upstream_request *out, struct error *e);
int gigachat_encode_balance(const struct provider_config *p, const struct upstream_call *call,
                            struct upstream_request *out, struct error *e);
int gigachat_decode_balance(const char *body, size_t len, struct account_balances *out,
                            struct error *e);

/* gigachat_parameters.c: the provider_ops' supports. */
bool gigachat_supports(const struct provider_config *p, const char *parameter);

/* gigachat_history.c: the value of "messages". files as in gigachat_encode_body(). Returns 0,
 * XR_EINVALID, XR_EUNSUPPORTED; a failing out keeps its err. */
int gigachat_encode_history(const cJSON *messages, const struct file_ids *files, struct buf *out,
                            struct error *e);

/* gigachat_names.c: function names. GigaChat refuses a leading digit and has tools of its own;
 * such names travel under an alias that tells the real one. */
int gigachat_put_function_name(struct buf *out, const char *name); /* as a JSON string */
const char *gigachat_real_function_name(const char *name);         /* inside name */

/* gigachat_error.c */
/* The provider_ops' map_error. */
int gigachat_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                       struct error *e);
/* The same for an error object inside a 200; text (NULL is fine) is the provider's message. */
int gigachat_set_error(unsigned status, const char *text, struct error *e);

/* gigachat_answer.c: the parts that whole answers and stream events have in common. */

/* The function the model calls, from one piece or several. All zero = none. */
struct gigachat_call {
    char *name;           /* owned, the real name; NULL = no call */
    char *state_id;       /* owned, NULL = not given */
    struct buf arguments; /* as they came so far */
};
void gigachat_call_init(struct gigachat_call *call);
void gigachat_call_clear(struct gigachat_call *call);
/* Reads function_call and functions_state_id of a message or delta. path is where the message is in
 * the checked text ("choices.0.delta"). Returns 0, -EBADMSG (not shaped like a call), -ENOMEM. */
int gigachat_call_read(struct gigachat_call *call, const cJSON *message, const char *text,
                       size_t len, const char *path);
/* The whole call in OpenAI's terms: *out borrows from call and id. Returns 0, XR_EUPSTREAM (the
 * arguments are no JSON object), -ENOMEM. */
#define GIGACHAT_CALL_ID_BYTES 72
int gigachat_call_finish(struct gigachat_call *call, const struct answer_identity *identity,
                         char id[GIGACHAT_CALL_ID_BYTES], struct openai_call *out, struct error *e);

/* Takes the numbers over if they make sense; else leaves *usage alone and returns false. */
bool gigachat_read_usage(const struct provider_config *p, const cJSON *usage,
                         struct token_usage *out);
/* OpenAI's finish reason; NULL for GigaChat's "error". */
const char *gigachat_finish_reason(const char *reason, bool has_call, bool legacy);
/* Whether the object reports an error instead of answering: XR_E... with *e, else 0. */
int gigachat_check_error(const cJSON *root, struct error *e);

/* gigachat_stream.c */
void *gigachat_stream_new(const struct provider_config *p, const struct model_request *req,
                          const struct answer_identity *identity, struct token_meter *meter);
void gigachat_stream_free(void *stream);
int gigachat_decode_event(void *stream, const struct event *ev, struct buf *out,
                          struct token_usage *usage, bool *usage_final, struct error *e);
int gigachat_decode_end(void *stream, struct buf *out, struct error *e);

/* gigachat_decode.c: the whole answer. */
int gigachat_decode_chat(const struct provider_config *p, const struct model_request *req,
                         const struct answer_identity *identity, const char *body, size_t len,
                         struct buf *out, struct token_meter *meter, struct token_usage *usage,
                         bool *usage_final, struct error *e);

#endif
