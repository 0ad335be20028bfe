/* openai.h - the adapter for OpenAI's Chat Completions and for what is compatible with it. Bytes
 * pass as they are wherever they can: request and answer are spliced, not printed anew. The table
 * is what others use; the rest is private to the files openai*.c. */
#ifndef XROUTER_PROVIDERS_OPENAI_H
#define XROUTER_PROVIDERS_OPENAI_H

#include <stdbool.h>

#include "common/json.h"
#include "providers/openai_flavor.h"
#include "providers/provider.h"

extern const struct provider_ops openai_ops;

/* openai_encode.c: the client's body with the members changed that must be. ignored as in
 * encode_chat. Returns 0, XR_EUNSUPPORTED, XR_ETOOLARGE, -ENOMEM. */
int openai_encode_body(const struct openai_flavor *flavor, const char *upstream_model,
                       const struct model_request *req, struct buf *out, struct buf *ignored,
                       struct error *e);

/* The JSON body of an embeddings call: the client's bytes with the provider's name of the model.
 * Returns 0, XR_ETOOLARGE, -ENOMEM. */
int openai_encode_embeddings(const char *upstream_model, const struct model_request *req,
                             struct buf *out, struct error *e);
/* The provider_ops' supports. */
bool openai_supports(const struct provider_config *p, const char *parameter);
/* For telling ids of calls apart. */
uint64_t openai_hash(const char *text, size_t len);

/* openai_error.c */
/* The provider_ops' map_error. */
int openai_map_error(unsigned status, const char *body, size_t len, bool *token_stale,
                     struct error *e);
/* Whether an object of a 200 reports an error instead of answering: XR_E... with *e, else 0. */
int openai_check_error(const cJSON *root, struct error *e);

/* openai_read.c: what an answer says, told to whoever has to know; nothing is written. */

#define OPENAI_CHOICES_MAX 128 /* as many as a client may ask for */
#define OPENAI_CALLS_MAX 128   /* calls that came without their index */

/* What is known of the answer's choices so far. All zero = nothing has come. */
struct openai_choices {
    struct openai_choice {
        bool seen, finished;
        bool has_tool_call, has_function_call;
    } all[OPENAI_CHOICES_MAX];
    size_t seen_count, finished_count;
    struct openai_slot { /* calls that we number, in order of arrival */
        size_t choice;
        uint64_t id; /* its hash, 0 = came without */
    } slots[OPENAI_CALLS_MAX];
    size_t slot_count;
};

/* One answer or chunk, after reading. */
struct openai_reading {
    size_t text_count;     /* pieces of text in it that are not empty */
    bool has_plain_effect; /* nothing but the text: no finish, usage, error */
    bool needs_edit;       /* the "choices" cannot go to the client as they are */
    bool chunk_needs_edit; /* nor can they in a stream */
    bool has_choices;      /* at least one */
    const cJSON *usage;    /* NULL = none */
};
/* Texts go to the meter (NULL = nobody wants them). Returns 0, -EBADMSG (no answer's shape),
 * XR_E... with *e (an error instead of an answer). */
int openai_read_answer(const struct openai_flavor *flavor, const cJSON *root,
                       struct openai_choices *choices, struct token_meter *meter,
                       struct openai_reading *out, struct error *e);
/* Takes the numbers over if they make sense; else leaves *out alone and returns false. */
bool openai_read_usage(const struct provider_config *p, const cJSON *usage,
                       struct token_usage *out);
/* The index a choice has in openai_choices; -1 = none that can be. */
int openai_choice_index(const cJSON *choice);
/* What the client is told for a provider's finish reason; NULL: the provider has failed. */
const char *openai_finish_reason(const char *reason, const struct openai_choice *choice);

/* openai_write.c: the answer's bytes for the client. */

struct openai_writing {
    const struct openai_flavor *flavor;
    const struct answer_identity *identity;
    struct openai_choices *choices;
    enum openai_usage { USAGE_AS_IS, USAGE_NULL, USAGE_OUT } usage; /* the member's fate */
    bool is_chunk;   /* for a stream: a whole message becomes a delta */
    bool needs_edit; /* openai_reading's: the choices */
};
/* text has been checked and read. Returns out->err. */
int openai_write_answer(const struct openai_writing *w, struct json_span text, struct buf *out);

/* openai_stream.c */
void *openai_stream_new(const struct provider_config *p, const struct model_request *req,
                        const struct answer_identity *identity, struct token_meter *meter);
void openai_stream_free(void *stream);
int openai_decode_event(void *stream, const struct event *ev, struct buf *out,
                        struct token_usage *usage, bool *usage_final, struct error *e);
int openai_decode_end(void *stream, struct buf *out, struct error *e);

/* openai_decode.c: the whole answer. */
int openai_decode_chat(const struct provider_config *p, const struct model_request *req,
                       const struct answer_identity *identity, const char *body, size_t len,
                       struct buf *out, struct token_meter *meter, struct token_usage *usage,
                       bool *usage_final, struct error *e);

#endif
