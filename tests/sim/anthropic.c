#include <string.h>

#include "common/json.h"
#include "tests/sim/anthropic_rules.h"
#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/ids.h"
#include "tests/sim/sim.h"

#define ID_CHARACTERS 22
#define SIGNATURE "bGxtLXNpbSB0aG91Z2h0IHRoaXM="

enum phase { PHASE_START, PHASE_BLOCK, PHASE_PING, PHASE_DELTA, PHASE_BLOCK_END, PHASE_FINISH };
enum block { BLOCK_THINKING, BLOCK_TEXT, BLOCK_TOOL };

static const struct {
    int status;
    const char *type;
} error_types[] = {
    {401, "authentication_error"}, {402, "billing_error"},    {403, "permission_error"},
    {404, "not_found_error"},      {408, "timeout_error"},    {409, "conflict_error"},
    {413, "request_too_large"},    {429, "rate_limit_error"}, {504, "timeout_error"},
    {529, "overloaded_error"},
};

/* --- headers and errors --- */

static void put_ids(struct conn *conn, struct buf *out)
{
    buf_str(out, "request-id: ");
    buf_str(out, http_answer_id(conn));
    buf_str(out, "\r\n");
}

static const char *error_type_of(int status)
{
    for (size_t i = 0; i < sizeof(error_types) / sizeof(error_types[0]); i++) {
        if (error_types[i].status == status)
            return error_types[i].type;
    }
    return status >= 500 ? "api_error" : "invalid_request_error";
}

static void put_error(struct conn *conn, struct buf *out, const struct verdict *verdict)
{
    buf_str(out, "{\"type\":\"error\",\"error\":{");
    json_put_field_text(out, "type", error_type_of(verdict->status));
    json_put_field_text(out, "message", verdict->message);
    buf_byte(out, '}');
    json_put_field_text(out, "request_id", http_answer_id(conn));
    buf_byte(out, '}');
}

/* --- who calls --- */

static void identify(const struct conn *conn, struct caller *caller)
{
    struct span key = conn->request.api_key;

    caller->has_version = conn->request.anthropic_version.len > 0;
    if (key.len > 0)
        caller->client = sim_config_api_key(&conn->sim->config, key.data, key.len);
    caller->token = caller->client == NULL ? TOKEN_UNKNOWN : TOKEN_VALID;
}

void anthropic_answer_models(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    const struct sim_config *config = &conn->sim->config;
    struct caller caller = {0};

    identify(conn, &caller);
    if (caller.token != TOKEN_VALID) {
        http_reply_error(conn, 401, "invalid x-api-key");
        return;
    }
    buf_str(body, "{\"data\":[");
    for (size_t i = 0; i < config->model_count; i++) {
        if (!sim_model_speaks(&config->models[i], DIALECT_ANTHROPIC))
            continue;
        if (body->data[body->len - 1] != '[')
            buf_byte(body, ',');
        buf_byte(body, '{');
        json_put_field_text(body, "type", "model");
        json_put_field_text(body, "id", config->models[i].id);
        json_put_field_text(body, "display_name", config->models[i].id);
        json_put_field_text(body, "created_at", "2025-01-01T00:00:00Z");
        buf_byte(body, '}');
    }
    buf_str(body, "],\"has_more\":false}");
    http_reply(conn, 200, conn->dialect->json_type, "", body->data, body->len);
}

void anthropic_answer_other(struct conn *conn)
{
    http_reply_error(conn, 404, "Not found");
}

/* --- the answer --- */

static void put_new_id(struct conn *conn, struct buf *out, const char *prefix)
{
    char text[ID_CHARACTERS];

    random_alnum(&conn->sim->random, text, sizeof(text));
    json_put_key(out, "id");
    buf_byte(out, '"');
    buf_str(out, prefix);
    buf_append(out, text, sizeof(text));
    buf_byte(out, '"');
}

/* The message up to its content. */
static void begin(struct conn *conn, const struct sim_request *request, bool streams)
{
    struct chat *chat = conn->handler_data;
    struct buf *head = &chat->envelope;

    chat->phase = PHASE_START;
    buf_byte(head, '{');
    put_new_id(conn, head, "msg_01");
    json_put_field_text(head, "type", "message");
    json_put_field_text(head, "role", "assistant");
    json_put_field_text(head, "model", request->model);
    buf_str(head, ",\"content\":[");
}

/* The prompt's tokens in three numbers, which sum up to it. */
static void put_usage(struct conn *conn, struct buf *out, uint64_t completion)
{
    const struct chat *chat = conn->handler_data;

    json_put_key(out, "usage");
    buf_byte(out, '{');
    chat_put_number(conn, out, "input_tokens", chat->prompt_tokens - chat->cached_tokens);
    chat_put_number(conn, out, "cache_creation_input_tokens", 0);
    chat_put_number(conn, out, "cache_read_input_tokens", chat->cached_tokens);
    chat_put_number(conn, out, "output_tokens", completion);
    buf_byte(out, '}');
}

static void put_final_usage(struct conn *conn, struct buf *out)
{
    struct chat *chat = conn->handler_data;

    chat->has_usage = true;
    put_usage(conn, out, chat_completion_tokens(chat));
}

static void put_stop(struct buf *out, const struct answer *answer)
{
    json_put_field_text(out, "stop_reason", dialect_anthropic.finish_names[answer->finish]);
    json_put_key(out, "stop_sequence");
    if (answer->finish == FINISH_STOP_SEQUENCE)
        json_put_string(out, answer->stop.data, answer->stop.len);
    else
        buf_str(out, "null");
}

/* A tool_use block, open behind its name. */
static void put_tool(struct conn *conn, struct buf *out, const struct call *call)
{
    json_put_field_text(out, "type", "tool_use");
    put_new_id(conn, out, "toolu_01");
    json_put_key(out, "name");
    json_put_string(out, call->name.data, call->name.len);
    json_put_key(out, "input");
}

static void put_blocks(struct conn *conn, struct buf *out, const struct buf *text,
                       const struct buf *thinking)
{
    const struct answer *answer = &((const struct chat *)conn->handler_data)->answer;

    if (thinking->len > 0) {
        buf_str(out, "{\"type\":\"thinking\",\"thinking\":");
        json_put_string(out, thinking->data, thinking->len);
        json_put_field_text(out, "signature", SIGNATURE);
        buf_byte(out, '}');
    }
    if (text->len > 0) {
        buf_str(out, thinking->len > 0 ? ",{" : "{");
        json_put_field_text(out, "type", "text");
        json_put_key(out, "text");
        json_put_string(out, text->data, text->len);
        buf_byte(out, '}');
    }
    for (size_t i = 0; i < answer->call_count; i++) {
        const struct call *call = &answer->calls[i];

        buf_str(out, i + text->len + thinking->len > 0 ? ",{" : "{");
        put_tool(conn, out, call);
        /* Broken arguments cannot be an object: nothing of them came to be. */
        if (answer->finish == FINISH_ERROR)
            buf_str(out, "{}");
        else
            buf_append(out, call->arguments.data, call->arguments.len);
        buf_byte(out, '}');
    }
}

static void put_body(struct conn *conn, struct buf *out, const struct buf *text,
                     const struct buf *thinking)
{
    const struct chat *chat = conn->handler_data;

    buf_append(out, chat->envelope.data, chat->envelope.len);
    put_blocks(conn, out, text, thinking);
    buf_byte(out, ']');
    put_stop(out, &chat->answer);
    if (!plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_final_usage(conn, out);
    buf_byte(out, '}');
}

/* An event whose data begins with its type. */
static struct buf *event_begin(struct conn *conn, const char *type)
{
    struct buf *event = stream_event(conn, type);

    buf_byte(event, '{');
    json_put_field_text(event, "type", type);
    return event;
}

static void event_send(struct conn *conn, struct buf *event)
{
    buf_byte(event, '}');
    stream_send(conn, event);
}

static void send_start(struct conn *conn)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = event_begin(conn, "message_start");

    json_put_key(event, "message");
    buf_append(event, chat->envelope.data, chat->envelope.len);
    buf_byte(event, ']');
    json_put_field_text(event, "stop_reason", NULL);
    json_put_field_text(event, "stop_sequence", NULL);
    if (!plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_usage(conn, event, 1);
    buf_byte(event, '}');
    event_send(conn, event);
}

/* False when there is no further block. */
static bool choose_block(struct chat *chat)
{
    if (answer_is_thinking(&chat->answer))
        chat->block_kind = BLOCK_THINKING;
    else if (!answer_is_over(&chat->answer))
        chat->block_kind = BLOCK_TEXT;
    else if (chat->calls_sent < chat->answer.call_count)
        chat->block_kind = BLOCK_TOOL;
    else
        return false;
    return true;
}

static void send_block_start(struct conn *conn)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = event_begin(conn, "content_block_start");

    json_put_field_u64(event, "index", chat->block);
    json_put_key(event, "content_block");
    buf_byte(event, '{');
    switch ((enum block)chat->block_kind) {
    case BLOCK_THINKING:
        buf_str(event, "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"");
        break;
    case BLOCK_TEXT:
        buf_str(event, "\"type\":\"text\",\"text\":\"\"");
        break;
    case BLOCK_TOOL:
        put_tool(conn, event, &chat->answer.calls[chat->calls_sent]);
        buf_str(event, "{}");
        break;
    }
    buf_byte(event, '}');
    event_send(conn, event);
}

static void send_delta(struct conn *conn, const char *type, const char *member, const char *text,
                       size_t len)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = event_begin(conn, "content_block_delta");

    json_put_field_u64(event, "index", chat->block);
    json_put_key(event, "delta");
    buf_byte(event, '{');
    json_put_field_text(event, "type", type);
    json_put_key(event, member);
    json_put_string(event, text, len);
    buf_byte(event, '}');
    event_send(conn, event);
}

/* False when the call has nothing left to be sent; empty arguments need no delta at all. */
static bool send_fragment(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct call *call = &chat->answer.calls[chat->calls_sent];
    size_t n = chat_fragment_bytes(conn, call);

    if (n == 0 || (call->arguments.len == 2 && memcmp(call->arguments.data, "{}", 2) == 0)) {
        chat->calls_sent++;
        return false;
    }
    send_delta(conn, "input_json_delta", "partial_json", call->arguments.data + call->sent_bytes,
               n);
    call->sent_bytes += n;
    return true;
}

/* The next delta of the block; false when it has no more. */
static bool send_content(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *piece = sim_scratch(&conn->sim->piece);
    uint32_t words = chat->pace.chunk_words;

    switch ((enum block)chat->block_kind) {
    case BLOCK_THINKING:
        if (!answer_is_thinking(&chat->answer)) {
            if (chat->progress++ > 0)
                return false;
            send_delta(conn, "signature_delta", "signature", SIGNATURE, sizeof(SIGNATURE) - 1);
            return true;
        }
        if (!answer_next(&chat->answer, words, piece))
            return send_content(conn); /* cut by a limit */
        send_delta(conn, "thinking_delta", "thinking", piece->data, piece->len);
        return true;
    case BLOCK_TEXT:
        if (!answer_next(&chat->answer, words, piece))
            return false;
        send_delta(conn, "text_delta", "text", piece->data, piece->len);
        return true;
    case BLOCK_TOOL:
        return send_fragment(conn);
    }
    return false;
}

static void send_block_end(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = event_begin(conn, "content_block_stop");

    json_put_field_u64(event, "index", chat->block++);
    event_send(conn, event);
}

static void put_message_delta(struct conn *conn, struct buf *event)
{
    const struct chat *chat = conn->handler_data;

    json_put_key(event, "delta");
    buf_byte(event, '{');
    put_stop(event, &chat->answer);
    buf_byte(event, '}');
    if (!plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_final_usage(conn, event);
}

static void send_finish(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = event_begin(conn, "message_delta");

    put_message_delta(conn, event);
    event_send(conn, event);
    chat->is_finished = chat->is_over = true;
}

static void send_usage_again(struct conn *conn)
{
    struct buf *event = stream_extra(conn, "message_delta");

    buf_str(event, "{\"type\":\"message_delta\"");
    put_message_delta(conn, event);
    buf_byte(event, '}');
    stream_send_extra(conn, event);
}

static void send_late(struct conn *conn)
{
    send_delta(conn, "text_delta", "text", "late", 4);
}

static void send_next(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    switch ((enum phase)chat->phase) {
    case PHASE_START:
        send_start(conn);
        chat->phase = PHASE_BLOCK;
        break;
    case PHASE_BLOCK:
        if (!choose_block(chat)) {
            chat->phase = PHASE_FINISH;
            send_next(conn);
            return;
        }
        send_block_start(conn);
        chat->phase = chat->block == 0 ? PHASE_PING : PHASE_DELTA;
        break;
    case PHASE_PING:
        event_send(conn, event_begin(conn, "ping"));
        chat->phase = PHASE_DELTA;
        break;
    case PHASE_DELTA:
        if (send_content(conn))
            return;
        chat->phase = PHASE_BLOCK_END;
        send_next(conn);
        return;
    case PHASE_BLOCK_END:
        send_block_end(conn);
        chat->phase = PHASE_BLOCK;
        break;
    case PHASE_FINISH:
        send_finish(conn);
        break;
    }
    chat->is_paced = true; /* only what is generated takes time */
}

const struct dialect dialect_anthropic = {
    .name = "anthropic",
    .id = DIALECT_ANTHROPIC,
    .has_parallel_calls = true,
    .json_type = "application/json",
    .sse_type = "text/event-stream; charset=utf-8",
    .headers = "Server: llm-sim\r\n"
               "anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n",
    .unauthorized_text = ANTHROPIC_UNAUTHORIZED_TEXT,
    .overrun_text = ANTHROPIC_OVERRUN_TEXT,
    .done = {"message_stop", "{\"type\":\"message_stop\"}"},
    .failure = {"error", "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                         "\"message\":\"Overloaded\"}}"},
    .finish_names = {[FINISH_STOP] = "end_turn",
                     [FINISH_STOP_SEQUENCE] = "stop_sequence",
                     [FINISH_LENGTH] = "max_tokens",
                     [FINISH_CALL] = "tool_use",
                     [FINISH_BLACKLIST] = "refusal",
                     [FINISH_ERROR] = "max_tokens"},
    .put_ids = put_ids,
    .put_error = put_error,
    .identify = identify,
    .check_chat = anthropic_check_chat,
    .begin = begin,
    .put_body = put_body,
    .send_next = send_next,
    .send_late = send_late,
    .send_usage_again = send_usage_again,
};
