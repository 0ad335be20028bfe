/* openai_chunk.h - OpenAI's answers as bytes: the chunks of a stream and the whole object. */
#ifndef XROUTER_PROVIDERS_OPENAI_CHUNK_H
#define XROUTER_PROVIDERS_OPENAI_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "providers/provider.h"

/* A function the model calls; all borrowed. */
struct openai_call {
    const char *id;
    const char *name;
    const char *arguments; /* JSON text of an object */
    size_t arguments_len;
};

/* A stream being written. What is the same in all of its chunks is written once and copied. */
struct openai_chunks { /* private */
    const struct answer_identity *identity;
    struct buf head;    /* up to the delta */
    bool include_usage; /* the client asked for it: the other chunks say "usage":null */
    bool legacy;        /* calls as function_call, not tool_calls */
    bool begun;
};

/* identity is borrowed. */
void openai_chunks_init(struct openai_chunks *c, const struct answer_identity *identity,
                        bool include_usage, bool legacy);
void openai_chunks_clear(struct openai_chunks *c);
/* The chunk with the role, once, before any other; further calls do nothing. created_at is in
 * seconds, 0 = the identity's. All of these return out->err, or -ENOMEM. */
int openai_chunks_begin(struct openai_chunks *c, int64_t created_at, struct buf *out);
/* field is "content" or "reasoning_content". */
int openai_chunks_text(const struct openai_chunks *c, const char *field, const char *text,
                       size_t len, struct buf *out);
int openai_chunks_call(const struct openai_chunks *c, const struct openai_call *call,
                       struct buf *out);
/* A call whose arguments come in pieces: first its id and name, then the pieces. index counts the
 * calls of the answer. */
int openai_chunks_call_begin(const struct openai_chunks *c, size_t index,
                             const struct openai_call *call, struct buf *out);
int openai_chunks_arguments(const struct openai_chunks *c, size_t index, const char *text,
                            size_t len, struct buf *out);
int openai_chunks_finish(const struct openai_chunks *c, const char *reason, struct buf *out);
/* The usage chunk, if the client asked for one and the numbers are known, and [DONE]. */
int openai_chunks_end(const struct openai_chunks *c, const struct token_usage *usage,
                      struct buf *out);

/* OpenAI's usage object; input and output are known. */
int openai_put_usage(const struct token_usage *usage, struct buf *out);
/* A chunk with nothing but usage, which is JSON text of an object. */
int openai_put_usage_chunk(const struct answer_identity *identity, int64_t created_at,
                           const char *usage, size_t usage_len, struct buf *out);

/* The whole answer. */
struct openai_answer {
    int64_t created_at; /* seconds, 0 = the identity's */
    const char *content;
    size_t content_len;
    const char *reasoning; /* NULL = none */
    size_t reasoning_len;
    const struct openai_call *call; /* NULL = none */
    size_t more_calls;              /* that follow it in its array */
    const char *finish_reason;
    struct token_usage usage; /* left out unless input and output are known */
};
int openai_answer_encode(const struct openai_answer *a, const struct answer_identity *identity,
                         bool legacy, struct buf *out);

#endif
