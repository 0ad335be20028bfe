#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/ids.h"
#include "tests/sim/openai_rules.h"
#include "tests/sim/sim.h"

#define ID_CHARACTERS 24

enum phase { PHASE_ROLE, PHASE_TEXT, PHASE_CALL, PHASE_FINISH, PHASE_USAGE };

/* What an error is by its code, else by its status; the last rows stand for all others. */
static const struct error_row {
    int status; /* this one, or from this one on */
    const char *type;
    const char *code;
} error_rows[] = {
    {401, "invalid_request_error", "invalid_api_key"},
    {402, "insufficient_quota", "insufficient_quota"},
    {403, "permission_error", NULL},
    {404, "invalid_request_error", "model_not_found"},
    {408, "timeout", NULL},
    {429, "rate_limit_error", "rate_limit_exceeded"},
    {503, "service_unavailable_error", "server_is_overloaded"},
    {504, "timeout", NULL},
};

/* --- headers and errors --- */

static void put_ids(struct conn *conn, struct buf *out)
{
    buf_str(out, "x-request-id: ");
    buf_str(out, http_answer_id(conn));
    buf_str(out, "\r\n");
}

static struct error_row error_row_of(const struct verdict *verdict)
{
    struct error_row row = {verdict->status,
                            verdict->status >= 500 ? "server_error" : "invalid_request_error",
                            verdict->code};

    for (size_t i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++) {
        const char *code = error_rows[i].code;

        if (verdict->code == NULL ? error_rows[i].status == verdict->status
                                  : code != NULL && strcmp(code, verdict->code) == 0)
            return error_rows[i];
    }
    return row;
}

static void put_error(struct conn *conn, struct buf *out, const struct verdict *verdict)
{
    struct error_row row = error_row_of(verdict);

    buf_str(out, "{\"error\":{");
    json_put_field_text(out, "message", verdict->message);
    json_put_field_text(out, "type", row.type);
    json_put_field_text(out, "param", verdict->param[0] == '\0' ? NULL : verdict->param);
    json_put_field_text(out, "code", row.code);
    buf_str(out, "}}");
}

/* --- who calls --- */

static void identify(const struct conn *conn, struct caller *caller)
{
    static const char bearer[] = "Bearer ";
    const size_t n = sizeof(bearer) - 1;
    struct span value = conn->request.authorization;

    if (value.len <= n || strncasecmp(value.data, bearer, n) != 0)
        return;
    caller->client = sim_config_api_key(&conn->sim->config, value.data + n, value.len - n);
    caller->token = caller->client == NULL ? TOKEN_UNKNOWN : TOKEN_VALID;
}

/* --- models, other paths --- */

void openai_answer_models(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    const struct sim_config *config = &conn->sim->config;
    struct caller caller = {0};

    identify(conn, &caller);
    if (caller.token != TOKEN_VALID) {
        http_reply_error(conn, 401, OPENAI_UNAUTHORIZED_TEXT);
        return;
    }
    buf_str(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < config->model_count; i++) {
        if (!sim_model_speaks(&config->models[i], DIALECT_OPENAI))
            continue;
        if (body->data[body->len - 1] != '[')
            buf_byte(body, ',');
        buf_byte(body, '{');
        json_put_field_text(body, "id", config->models[i].id);
        json_put_field_text(body, "object", "model");
        json_put_field_i64(body, "created", sim_created_at_s(conn->sim));
        json_put_field_text(body, "owned_by", "llm-sim");
        buf_byte(body, '}');
    }
    buf_str(body, "]}");
    http_reply(conn, 200, conn->dialect->json_type, "", body->data, body->len);
}

void openai_answer_other(struct conn *conn)
{
    struct verdict verdict;

    verdict_refuse(&verdict, 404, "Invalid URL (%.*s %.*s)", (int)conn->request.method.len,
                   conn->request.method.data, (int)conn->request.path.len, conn->request.path.data);
    verdict.code = "unknown_url";
    http_reply_verdict(conn, &verdict);
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

static void begin(struct conn *conn, const struct sim_request *request, bool streams)
{
    struct chat *chat = conn->handler_data;
    struct buf *head = &chat->envelope;

    chat->phase = PHASE_ROLE;
    buf_byte(head, '{');
    put_new_id(conn, head, "chatcmpl-");
    json_put_field_text(head, "object", streams ? "chat.completion.chunk" : "chat.completion");
    json_put_field_i64(head, "created", sim_created_at_s(conn->sim));
    json_put_field_text(head, "model", request->model);
    json_put_field_text(head, "service_tier", "default");
    json_put_field_text(head, "system_fingerprint", "fp_llm_sim");
    buf_str(head, ",\"choices\":[");
}

static void put_usage(struct conn *conn, struct buf *out)
{
    struct chat *chat = conn->handler_data;
    uint64_t completion = chat_completion_tokens(chat);

    chat->has_usage = true;
    json_put_key(out, "usage");
    buf_byte(out, '{');
    chat_put_number(conn, out, "prompt_tokens", chat->prompt_tokens);
    chat_put_number(conn, out, "completion_tokens", completion);
    chat_put_number(conn, out, "total_tokens", chat->prompt_tokens + completion);
    json_put_key(out, "prompt_tokens_details");
    buf_byte(out, '{');
    chat_put_number(conn, out, "cached_tokens", chat->cached_tokens);
    json_put_field_u64(out, "audio_tokens", 0);
    buf_byte(out, '}');
    json_put_key(out, "completion_tokens_details");
    buf_byte(out, '{');
    chat_put_number(conn, out, "reasoning_tokens",
                    chat->choices * answer_thinking_tokens(&chat->answer));
    json_put_field_u64(out, "audio_tokens", 0);
    json_put_field_u64(out, "accepted_prediction_tokens", 0);
    json_put_field_u64(out, "rejected_prediction_tokens", 0);
    buf_str(out, "}}");
}

/* The call's name, with an id of its own in every choice; left open behind the name. */
static void put_call_head(struct conn *conn, struct buf *out, const struct call *call)
{
    put_new_id(conn, out, "call_");
    json_put_field_text(out, "type", "function");
    json_put_key(out, "function");
    buf_byte(out, '{');
    json_put_key(out, "name");
    json_put_string(out, call->name.data, call->name.len);
}

static const char *finish_name(const struct chat *chat)
{
    return dialect_openai.finish_names[chat->answer.finish];
}

static void put_message(struct conn *conn, struct buf *out, const struct buf *text,
                        const struct buf *thinking)
{
    const struct answer *answer = &((const struct chat *)conn->handler_data)->answer;

    json_put_field_text(out, "role", "assistant");
    json_put_key(out, "content");
    if (text->len == 0 && answer_has_call(answer))
        buf_str(out, "null");
    else
        json_put_string(out, text->data, text->len);
    json_put_field_text(out, "refusal", NULL);
    if (thinking->len > 0) {
        json_put_key(out, "reasoning_content");
        json_put_string(out, thinking->data, thinking->len);
    }
    if (!answer_has_call(answer))
        return;
    json_put_key(out, "tool_calls");
    buf_byte(out, '[');
    for (size_t i = 0; i < answer->call_count; i++) {
        const struct call *call = &answer->calls[i];

        buf_str(out, i > 0 ? ",{" : "{");
        put_call_head(conn, out, call);
        json_put_key(out, "arguments");
        json_put_string(out, call->arguments.data, call->arguments.len);
        buf_str(out, "}}");
    }
    buf_byte(out, ']');
}

static void put_body(struct conn *conn, struct buf *out, const struct buf *text,
                     const struct buf *thinking)
{
    const struct chat *chat = conn->handler_data;

    buf_append(out, chat->envelope.data, chat->envelope.len);
    for (uint32_t i = 0; i < chat->choices; i++) {
        buf_str(out, i > 0 ? ",{" : "{");
        json_put_field_u64(out, "index", i);
        json_put_key(out, "message");
        buf_byte(out, '{');
        put_message(conn, out, text, thinking);
        buf_byte(out, '}');
        json_put_field_text(out, "logprobs", NULL);
        json_put_field_text(out, "finish_reason", finish_name(chat));
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
    if (!plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_usage(conn, out);
    buf_byte(out, '}');
}

/* A chunk, open inside the delta of the choice whose turn it is. */
static struct buf *chunk_begin(struct conn *conn)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = stream_event(conn, NULL);

    buf_append(event, chat->envelope.data, chat->envelope.len);
    buf_byte(event, '{');
    json_put_field_u64(event, "index", chat->choice);
    json_put_key(event, "delta");
    buf_byte(event, '{');
    return event;
}

/* Ends and sends it. True when every choice has had its turn; the others follow at once. */
static bool chunk_send(struct conn *conn, struct buf *event, const char *finish)
{
    struct chat *chat = conn->handler_data;

    buf_byte(event, '}');
    json_put_field_text(event, "logprobs", NULL);
    json_put_field_text(event, "finish_reason", finish);
    buf_str(event, "}]");
    if (chat->includes_usage)
        json_put_field_text(event, "usage", NULL);
    buf_byte(event, '}');
    stream_send(conn, event);
    if (++chat->choice < chat->choices) {
        chat->is_paced = true;
        return false;
    }
    chat->choice = 0;
    return true;
}

static void send_text(struct conn *conn, const char *name, const struct buf *text)
{
    struct buf *event = chunk_begin(conn);

    json_put_key(event, name);
    json_put_string(event, text->data, text->len);
    chunk_send(conn, event, NULL);
}

static void send_role(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = chunk_begin(conn);

    json_put_field_text(event, "role", "assistant");
    json_put_field_text(event, "content", answer_is_over(&chat->answer) ? NULL : "");
    json_put_field_text(event, "refusal", NULL);
    if (chunk_send(conn, event, NULL))
        chat->phase = PHASE_TEXT;
    chat->is_paced = true;
}

/* The call whose turn it is: one after the other, or round and round with call_split. */
static struct call *next_call(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    size_t count = chat->answer.call_count;

    for (size_t i = 0; i < count; i++) {
        size_t at = plan_has(&conn->plan, PLAN(CALL_SPLIT)) ? (chat->call + i) % count : i;
        struct call *call = &chat->answer.calls[at];

        if (!call->is_begun || call->sent_bytes < call->arguments.len) {
            chat->call = at;
            return call;
        }
    }
    return NULL;
}

/* A call's first event has all but the arguments; the others have only these. */
static void send_call(struct conn *conn, struct call *call)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = chunk_begin(conn);
    size_t n = call->is_begun ? chat_fragment_bytes(conn, call) : 0;

    buf_str(event, "\"tool_calls\":[{");
    json_put_field_u64(event, "index", chat->call);
    if (call->is_begun)
        buf_str(event, ",\"function\":{");
    else
        put_call_head(conn, event, call);
    json_put_key(event, "arguments");
    json_put_string(event, call->arguments.data + call->sent_bytes, n);
    buf_str(event, "}}]");
    if (!chunk_send(conn, event, NULL))
        return;
    call->is_begun = true;
    call->sent_bytes += n;
    if (call->sent_bytes == call->arguments.len)
        chat->calls_sent++;
    chat->call++;
}

static void send_finish(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    if (!chunk_send(conn, chunk_begin(conn), finish_name(chat)))
        return;
    chat->is_finished = true;
    chat->is_over = !chat->includes_usage || plan_has(&conn->plan, PLAN(NO_USAGE));
    chat->phase = PHASE_USAGE;
    chat->is_paced = true;
}

static void put_usage_chunk(struct conn *conn, struct buf *event)
{
    const struct chat *chat = conn->handler_data;

    buf_append(event, chat->envelope.data, chat->envelope.len);
    buf_byte(event, ']');
    put_usage(conn, event);
    buf_byte(event, '}');
}

static void send_usage_again(struct conn *conn)
{
    struct buf *event = stream_extra(conn, NULL);

    put_usage_chunk(conn, event);
    stream_send_extra(conn, event);
}

static void send_late(struct conn *conn)
{
    struct buf *event = chunk_begin(conn);

    json_put_field_text(event, "content", "late");
    chunk_send(conn, event, NULL);
}

static void send_next(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct call *call;
    struct buf *event;

    switch ((enum phase)chat->phase) {
    case PHASE_ROLE:
        send_role(conn);
        break;
    case PHASE_TEXT:
        if (chat->choice == 0) {
            chat->block_kind = answer_is_thinking(&chat->answer);
            buf_reset(&chat->piece);
            if (!answer_next(&chat->answer, chat->pace.chunk_words, &chat->piece)) {
                chat->phase = PHASE_CALL;
                send_next(conn);
                break;
            }
        }
        send_text(conn, chat->block_kind ? "reasoning_content" : "content", &chat->piece);
        break;
    case PHASE_CALL:
        call = next_call(conn);
        if (call != NULL) {
            send_call(conn, call);
            break;
        }
        chat->phase = PHASE_FINISH;
        send_next(conn);
        break;
    case PHASE_FINISH:
        send_finish(conn);
        break;
    case PHASE_USAGE:
        event = stream_event(conn, NULL);
        put_usage_chunk(conn, event);
        stream_send(conn, event);
        chat->is_over = true;
        break;
    }
}

const struct dialect dialect_openai = {
    .name = "openai",
    .id = DIALECT_OPENAI,
    .has_parallel_calls = true,
    .json_type = "application/json",
    .sse_type = "text/event-stream; charset=utf-8",
    .headers = "Server: llm-sim\r\n"
               "access-control-expose-headers: X-Request-ID\r\n"
               "openai-organization: llm-sim\r\n"
               "openai-processing-ms: 1\r\n"
               "openai-version: 2020-10-01\r\n",
    .unauthorized_text = OPENAI_UNAUTHORIZED_TEXT,
    .overrun_text = OPENAI_OVERRUN_TEXT,
    .done = {NULL, "[DONE]"},
    .failure = {NULL, "{\"error\":{\"message\":\"The server had an error while processing your "
                      "request. Sorry about that!\",\"type\":\"server_error\",\"param\":null,"
                      "\"code\":null}}"},
    .finish_names = {[FINISH_STOP] = "stop",
                     [FINISH_STOP_SEQUENCE] = "stop",
                     [FINISH_LENGTH] = "length",
                     [FINISH_CALL] = "tool_calls",
                     [FINISH_BLACKLIST] = "content_filter",
                     [FINISH_ERROR] = "length"},
    .put_ids = put_ids,
    .put_error = put_error,
    .identify = identify,
    .check_chat = openai_check_chat,
    .begin = begin,
    .put_body = put_body,
    .send_next = send_next,
    .send_late = send_late,
    .send_usage_again = send_usage_again,
};
