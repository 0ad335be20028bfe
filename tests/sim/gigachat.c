#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/ids.h"
#include "tests/sim/oauth.h"
#include "tests/sim/sim.h"

#define ECHO_BYTES_MAX 128
#define MODEL_VERSION ":2.0.28.2"
#define MODELS_PREFIX "/v1/models/"
#define PROGRESS_EVENTS 2

enum phase { PHASE_PROGRESS, PHASE_TEXT, PHASE_CALL, PHASE_CALL_REST, PHASE_FINISH };

/* --- headers and errors --- */

/* The caller's id back, or a new one: every answer has both. */
static void put_id(struct conn *conn, struct buf *out, const char *name, struct span sent)
{
    char uuid[UUID_BYTES];

    buf_str(out, name);
    if (sent.data != NULL && sent.len > 0) {
        buf_append(out, sent.data, sent.len < ECHO_BYTES_MAX ? sent.len : ECHO_BYTES_MAX);
    } else {
        random_uuid(&conn->sim->random, uuid);
        buf_append(out, uuid, UUID_BYTES - 1);
    }
    buf_append(out, "\r\n", 2);
}

static void put_ids(struct conn *conn, struct buf *out)
{
    put_id(conn, out, "X-Request-Id: ", conn->request.request_id);
    put_id(conn, out, "X-Session-Id: ", conn->request.session_id);
}

static void put_error(struct conn *conn, struct buf *out, const struct verdict *verdict)
{
    buf_byte(out, '{');
    json_put_field_i64(out, "status", verdict->status);
    json_put_field_text(out, "message", verdict->message);
    buf_byte(out, '}');
}

/* --- who calls --- */

static void identify(const struct conn *conn, struct caller *caller)
{
    caller->token = tokens_lookup(conn->sim->tokens, conn->request.authorization, clock_now_at_ms(),
                                  &caller->client);
}

/* Checks 1 and 2 for the endpoints that need no more. False when answered with an error. */
static bool admit(struct conn *conn)
{
    struct caller caller = {.has_user_agent = conn->request.user_agent.len > 0};
    struct verdict verdict;

    identify(conn, &caller);
    if (rules_admit(&conn->sim->config, &caller, &verdict))
        return true;
    http_reply_verdict(conn, &verdict);
    return false;
}

/* --- models, other paths --- */

static void put_model(struct buf *out, const struct sim_model *model)
{
    buf_byte(out, '{');
    json_put_field_text(out, "id", model->id);
    json_put_field_text(out, "object", "model");
    json_put_field_text(out, "owned_by", "salutedevices");
    json_put_field_text(out, "type", sim_model_type_name(model->type));
    buf_byte(out, '}');
}

void gigachat_answer_models(struct conn *conn)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    const struct sim_config *config = &conn->sim->config;
    bool any = false;

    if (!admit(conn))
        return;
    buf_str(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < config->model_count; i++) {
        if (!sim_model_speaks(&config->models[i], DIALECT_GIGACHAT))
            continue;
        if (any)
            buf_byte(body, ',');
        any = true;
        put_model(body, &config->models[i]);
    }
    buf_str(body, "]}");
    http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
}

void gigachat_answer_model(struct conn *conn)
{
    const struct sim_config *config = &conn->sim->config;
    struct span id = conn->request.path;

    if (!admit(conn))
        return;
    id.data += sizeof(MODELS_PREFIX) - 1;
    id.len -= sizeof(MODELS_PREFIX) - 1;
    for (size_t i = 0; i < config->model_count; i++) {
        struct buf *body;

        if (!span_equals(id, config->models[i].id) ||
            !sim_model_speaks(&config->models[i], DIALECT_GIGACHAT))
            continue;
        body = sim_scratch(&conn->sim->body);
        put_model(body, &config->models[i]);
        http_reply(conn, 200, HTTP_TYPE_JSON, "", body->data, body->len);
        return;
    }
    http_reply_error(conn, 404, "No such model");
}

void gigachat_answer_other(struct conn *conn)
{
    if (admit(conn))
        http_reply_html(conn, 403, "");
}

/* --- the answer --- */

static void begin(struct conn *conn, const struct sim_request *request, bool streams)
{
    struct chat *chat = conn->handler_data;
    struct buf *tail = &chat->envelope;
    bool plural = plan_has(&conn->plan, PLAN(OBJECT_PLURAL));

    if (conn->sim->config.cached_tokens == CACHED_EXCLUDED)
        chat->prompt_tokens -= chat->cached_tokens;
    chat->phase = plan_has(&conn->plan, PLAN(CALL_IN_PROGRESS)) ? PHASE_PROGRESS : PHASE_TEXT;
    buf_str(tail, "],\"created\":");
    buf_i64(tail, sim_created_at_s(conn->sim));
    buf_str(tail, ",\"model\":");
    json_put_text(tail, request->model);
    tail->len--; /* the version goes inside the quotes */
    buf_str(tail, MODEL_VERSION "\",\"object\":\"chat.completion");
    buf_str(tail, plural ? "s\"" : "\"");
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
    chat_put_number(conn, out, "precached_prompt_tokens", chat->cached_tokens);
    buf_byte(out, '}');
}

/* "function_call":{...},"functions_state_id":"..." */
static void put_call(struct conn *conn, struct buf *out)
{
    struct chat *chat = conn->handler_data;
    const struct call *call = &chat->answer.calls[0];
    char state_id[UUID_BYTES];
    bool as_text = plan_has(&conn->plan, PLAN(CALL_STRING_ARGS) | PLAN(CALL_ERROR));

    random_uuid(&conn->sim->random, state_id);
    json_put_key(out, "function_call");
    buf_byte(out, '{');
    json_put_key(out, "name");
    json_put_string(out, call->name.data, call->name.len);
    json_put_key(out, "arguments");
    if (as_text)
        json_put_string(out, call->arguments.data, call->arguments.len);
    else
        buf_append(out, call->arguments.data, call->arguments.len);
    buf_byte(out, '}');
    json_put_field_text(out, "functions_state_id", state_id);
    chat->calls_sent = 1;
}

static const char *finish_name(const struct chat *chat)
{
    return dialect_gigachat.finish_names[chat->answer.finish];
}

static void put_body(struct conn *conn, struct buf *body, const struct buf *text,
                     const struct buf *thinking)
{
    const struct chat *chat = conn->handler_data;

    buf_str(body, "{\"choices\":[{\"message\":{");
    json_put_key(body, "content");
    json_put_string(body, text->data, text->len);
    json_put_field_text(body, "role", "assistant");
    if (answer_has_call(&chat->answer))
        put_call(conn, body);
    buf_str(body, "},\"index\":0");
    json_put_field_text(body, "finish_reason", finish_name(chat));
    buf_byte(body, '}');
    buf_append(body, chat->envelope.data, chat->envelope.len);
    if (!plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_usage(conn, body);
    buf_byte(body, '}');
}

/* An event, open inside its delta. The first delta names the role. */
static struct buf *event_begin(struct conn *conn, const char *text, size_t len, const char *role)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = stream_event(conn, NULL);

    buf_str(event, "{\"choices\":[{\"delta\":{");
    json_put_key(event, "content");
    json_put_string(event, text, len);
    if (role != NULL || chat->events == 1)
        json_put_field_text(event, "role", role != NULL ? role : "assistant");
    return event;
}

/* Closes the delta and sends the event. finish: it is the one with the finish reason and usage. */
static void event_send(struct conn *conn, struct buf *event, bool finish)
{
    struct chat *chat = conn->handler_data;

    buf_str(event, "},\"index\":0");
    if (finish)
        json_put_field_text(event, "finish_reason", finish_name(chat));
    buf_byte(event, '}');
    buf_append(event, chat->envelope.data, chat->envelope.len);
    if (finish && !plan_has(&conn->plan, PLAN(NO_USAGE)))
        put_usage(conn, event);
    buf_byte(event, '}');
    if (finish)
        chat->is_finished = chat->is_over = true;
    stream_send(conn, event);
}

static void send_usage_again(struct conn *conn)
{
    const struct chat *chat = conn->handler_data;
    struct buf *event = stream_extra(conn, NULL);

    buf_str(event, "{\"choices\":[");
    buf_append(event, chat->envelope.data, chat->envelope.len);
    put_usage(conn, event);
    buf_byte(event, '}');
    stream_send_extra(conn, event);
}

static void send_late(struct conn *conn)
{
    event_send(conn, event_begin(conn, "late", 4, NULL), false);
}

static void send_progress(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    char seconds[2] = {(char)('5' - 2 * (int)chat->progress), '\0'};
    struct buf *event = event_begin(conn, seconds, 1, "function_in_progress");

    json_put_field_text(event, "name", "text2image");
    json_put_field_i64(event, "created", sim_created_at_s(conn->sim));
    event_send(conn, event, false);
}

/* The call in fragments: the name with half of the arguments' text, later the other half. */
static void send_call_part(struct conn *conn, bool first)
{
    const struct chat *chat = conn->handler_data;
    const struct call *call = &chat->answer.calls[0];
    size_t half = call->arguments.len / 2;
    struct buf *event = event_begin(conn, "", 0, NULL);

    json_put_key(event, "function_call");
    buf_byte(event, '{');
    if (first) {
        json_put_key(event, "name");
        json_put_string(event, call->name.data, call->name.len);
    }
    json_put_key(event, "arguments");
    json_put_string(event, call->arguments.data + (first ? 0 : half),
                    first ? half : call->arguments.len - half);
    buf_byte(event, '}');
    event_send(conn, event, false);
}

static void send_next(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *piece = sim_scratch(&conn->sim->piece);
    struct buf *event;

    switch ((enum phase)chat->phase) {
    case PHASE_PROGRESS:
        send_progress(conn);
        if (++chat->progress == PROGRESS_EVENTS)
            chat->phase = PHASE_TEXT;
        break;
    case PHASE_TEXT:
        if (answer_next(&chat->answer, chat->pace.chunk_words, piece)) {
            event_send(conn, event_begin(conn, piece->data, piece->len, NULL), false);
            break;
        }
        chat->phase = answer_has_call(&chat->answer) ? PHASE_CALL : PHASE_FINISH;
        send_next(conn);
        break;
    case PHASE_CALL:
        if (plan_has(&conn->plan, PLAN(CALL_SPLIT))) {
            send_call_part(conn, true);
            chat->phase = PHASE_CALL_REST;
            break;
        }
        event = event_begin(conn, "", 0, NULL);
        put_call(conn, event);
        event_send(conn, event, true);
        break;
    case PHASE_CALL_REST:
        send_call_part(conn, false);
        chat->calls_sent = 1;
        chat->phase = PHASE_FINISH;
        break;
    case PHASE_FINISH:
        event_send(conn, event_begin(conn, "", 0, NULL), true);
        break;
    }
}

const struct dialect dialect_gigachat = {
    .name = "gigachat",
    .id = DIALECT_GIGACHAT,
    .json_type = HTTP_TYPE_JSON,
    .sse_type = "text/event-stream",
    /* As recorded from the public host. */
    .headers = "Server: SynGX\r\n"
               "Allow: GET, POST\r\n"
               "Access-Control-Allow-Origin: *\r\n"
               "Strict-Transport-Security: max-age=31536000\r\n"
               "X-Frame-Options: DENY\r\n",
    .unauthorized_text = "Token has expired",
    .overrun_text = "Too many requests",
    .done = {NULL, "[DONE]"},
    .failure = {NULL, "{\"status\":500,\"message\":\"Internal Server Error\"}"},
    .finish_names = {[FINISH_STOP] = "stop",
                     [FINISH_STOP_SEQUENCE] = "stop",
                     [FINISH_LENGTH] = "length",
                     [FINISH_CALL] = "function_call",
                     [FINISH_BLACKLIST] = "blacklist",
                     [FINISH_ERROR] = "error"},
    .put_ids = put_ids,
    .put_error = put_error,
    .identify = identify,
    .check_chat = rules_check_chat,
    .begin = begin,
    .put_body = put_body,
    .send_next = send_next,
    .send_late = send_late,
    .send_usage_again = send_usage_again,
};
