#include "providers/openai_chunk.h"

#include <string.h>

#include "common/json.h"

#define HEAD_MAX 4096 /* an id and a model's name, both short */

static const char tail[] = ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char tail_usage[] = ",\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";

static void put_literal(struct buf *out, const char *text, size_t size)
{
    buf_append(out, text, size - 1);
}
#define PUT(out, text) put_literal(out, text, sizeof(text))

void openai_chunks_init(struct openai_chunks *c, const struct answer_identity *identity,
                        bool include_usage, bool legacy)
{
    memset(c, 0, sizeof(*c));
    buf_init(&c->head, HEAD_MAX);
    c->identity = identity;
    c->include_usage = include_usage;
    c->legacy = legacy;
}

void openai_chunks_clear(struct openai_chunks *c)
{
    buf_clear(&c->head);
}

static void put_head(const struct openai_chunks *c, struct buf *out)
{
    buf_append(out, c->head.data, c->head.len);
}

static int put_tail(const struct openai_chunks *c, struct buf *out)
{
    if (c->include_usage)
        return buf_append(out, tail_usage, sizeof(tail_usage) - 1);
    return buf_append(out, tail, sizeof(tail) - 1);
}

static void put_usage(const struct token_usage *usage, struct buf *out)
{
    PUT(out, "{\"prompt_tokens\":");
    buf_i64(out, usage->input);
    PUT(out, ",\"completion_tokens\":");
    buf_i64(out, usage->output);
    PUT(out, ",\"total_tokens\":");
    buf_i64(out, usage->input + usage->output);
    PUT(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    buf_i64(out, usage->cached < 0 ? 0 : usage->cached);
    PUT(out, "}}");
}

static bool is_known(const struct token_usage *usage)
{
    return usage->input >= 0 && usage->output >= 0;
}

static void put_function(const struct openai_call *call, struct buf *out)
{
    PUT(out, "{\"name\":");
    json_put_text(out, call->name);
    PUT(out, ",\"arguments\":");
    json_put_string(out, call->arguments, call->arguments_len);
    PUT(out, "}");
}

static void put_tool_call(const struct openai_call *call, struct buf *out)
{
    PUT(out, "\"id\":");
    json_put_text(out, call->id);
    PUT(out, ",\"type\":\"function\",\"function\":");
    put_function(call, out);
    PUT(out, "}");
}

/* The member that carries the call, in a delta, where calls are numbered. */
static void put_call(const struct openai_call *call, size_t index, bool legacy, struct buf *out)
{
    if (legacy) {
        PUT(out, "\"function_call\":");
        put_function(call, out);
        return;
    }
    PUT(out, "\"tool_calls\":[{\"index\":");
    buf_u64(out, index);
    PUT(out, ",");
    put_tool_call(call, out);
    PUT(out, "]");
}

/* The same in a message; the older form has room for one call. */
static void put_calls(const struct openai_call *calls, size_t count, bool legacy, struct buf *out)
{
    if (legacy) {
        PUT(out, "\"function_call\":");
        put_function(calls, out);
        return;
    }
    PUT(out, "\"tool_calls\":[");
    for (size_t i = 0; i < count; i++) {
        buf_str(out, i > 0 ? ",{" : "{");
        put_tool_call(&calls[i], out);
    }
    PUT(out, "]");
}

static void put_identity(const struct answer_identity *identity, const char *object,
                         int64_t created_at, struct buf *out)
{
    PUT(out, "{\"id\":");
    json_put_text(out, identity->id);
    PUT(out, ",\"object\":\"");
    buf_str(out, object);
    PUT(out, "\",\"created\":");
    buf_i64(out, created_at > 0 ? created_at : identity->created_at);
    PUT(out, ",\"model\":");
    json_put_text(out, identity->model);
}

int openai_chunks_begin(struct openai_chunks *c, int64_t created_at, struct buf *out)
{
    if (c->begun)
        return out->err;
    PUT(&c->head, "data: ");
    put_identity(c->identity, "chat.completion.chunk", created_at, &c->head);
    PUT(&c->head, ",\"choices\":[");
    if (c->head.err < 0)
        return c->head.err;
    c->begun = true;
    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    return put_tail(c, out);
}

int openai_chunks_text(const struct openai_chunks *c, const char *field, const char *text,
                       size_t len, struct buf *out)
{
    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{\"");
    buf_str(out, field);
    PUT(out, "\":");
    json_put_string(out, text, len);
    PUT(out, "}");
    return put_tail(c, out);
}

int openai_chunks_call(const struct openai_chunks *c, const struct openai_call *call,
                       struct buf *out)
{
    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{");
    put_call(call, 0, c->legacy, out);
    PUT(out, "}");
    return put_tail(c, out);
}

int openai_chunks_call_begin(const struct openai_chunks *c, size_t index,
                             const struct openai_call *call, struct buf *out)
{
    const struct openai_call bare = {.id = call->id, .name = call->name};

    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{");
    put_call(&bare, index, c->legacy, out);
    PUT(out, "}");
    return put_tail(c, out);
}

int openai_chunks_arguments(const struct openai_chunks *c, size_t index, const char *text,
                            size_t len, struct buf *out)
{
    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{");
    if (c->legacy) {
        PUT(out, "\"function_call\":{\"arguments\":");
        json_put_string(out, text, len);
        PUT(out, "}}");
        return put_tail(c, out);
    }
    PUT(out, "\"tool_calls\":[{\"index\":");
    buf_u64(out, index);
    PUT(out, ",\"function\":{\"arguments\":");
    json_put_string(out, text, len);
    PUT(out, "}}]}");
    return put_tail(c, out);
}

int openai_chunks_finish(const struct openai_chunks *c, const char *reason, struct buf *out)
{
    put_head(c, out);
    PUT(out, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"");
    buf_str(out, reason);
    PUT(out, "\"}]");
    if (c->include_usage)
        PUT(out, ",\"usage\":null");
    return buf_str(out, "}\n\n");
}

int openai_chunks_end(const struct openai_chunks *c, const struct token_usage *usage,
                      struct buf *out)
{
    if (c->include_usage && is_known(usage)) {
        put_head(c, out);
        PUT(out, "],\"usage\":");
        put_usage(usage, out);
        PUT(out, "}\n\n");
    }
    return buf_str(out, "data: [DONE]\n\n");
}

int openai_put_usage(const struct token_usage *usage, struct buf *out)
{
    put_usage(usage, out);
    return out->err;
}

int openai_put_usage_chunk(const struct answer_identity *identity, int64_t created_at,
                           const char *usage, size_t usage_len, struct buf *out)
{
    PUT(out, "data: ");
    put_identity(identity, "chat.completion.chunk", created_at, out);
    PUT(out, ",\"choices\":[],\"usage\":");
    buf_append(out, usage, usage_len);
    return buf_str(out, "}\n\n");
}

int openai_answer_encode(const struct openai_answer *a, const struct answer_identity *identity,
                         bool legacy, struct buf *out)
{
    put_identity(identity, "chat.completion", a->created_at, out);
    PUT(out, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    if (a->call != NULL && a->content_len == 0)
        PUT(out, "null");
    else
        json_put_string(out, a->content == NULL ? "" : a->content, a->content_len);
    PUT(out, ",\"refusal\":null");
    if (a->reasoning != NULL) {
        PUT(out, ",\"reasoning_content\":");
        json_put_string(out, a->reasoning, a->reasoning_len);
    }
    if (a->call != NULL) {
        PUT(out, ",");
        put_calls(a->call, a->more_calls + 1, legacy, out);
    }
    PUT(out, "},\"logprobs\":null,\"finish_reason\":\"");
    buf_str(out, a->finish_reason);
    PUT(out, "\"}]");
    if (is_known(&a->usage)) {
        PUT(out, ",\"usage\":");
        put_usage(&a->usage, out);
    }
    return buf_str(out, "}");
}
