#include <string.h>

#include "common/json.h"
#include "tests/sim/chat.h"
#include "tests/sim/sim.h"

#define PROGRESS_EVENTS 2

static const char *eol(const struct conn *conn)
{
    return plan_has(&conn->plan, PLAN(CRLF)) ? "\r\n" : "\n";
}

static void send_line(struct conn *conn, const char *text)
{
    struct buf *line = sim_scratch(&conn->sim->body);

    buf_str(line, text);
    buf_str(line, eol(conn));
    buf_str(line, eol(conn));
    http_body(conn, line->data, line->len);
}

/* An event in the scratch buf, open inside its delta. The first delta names the role. */
static struct buf *event_begin(struct conn *conn, const char *text, size_t len, const char *role)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = sim_scratch(&conn->sim->body);

    chat->events++;
    if (plan_has(&conn->plan, PLAN(COMMENT))) {
        buf_str(event, ": keep-alive");
        buf_str(event, eol(conn));
        buf_str(event, eol(conn));
    }
    buf_str(event, "data: {\"choices\":[{\"delta\":{");
    if (text != NULL) {
        json_put_key(event, "content");
        json_put_string(event, text, len);
    }
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
        json_put_field_text(event, "finish_reason", answer_finish_name(chat->answer.finish));
    buf_byte(event, '}');
    buf_append(event, chat->tail.data, chat->tail.len);
    if (finish && !plan_has(&conn->plan, PLAN(NO_USAGE)))
        chat_put_usage(conn, event);
    buf_byte(event, '}');
    if (plan_has(&conn->plan, PLAN(MALFORMED)) && conn->plan.malformed_at == chat->events)
        event->len -= 2;
    buf_str(event, eol(conn));
    buf_str(event, eol(conn));
    if (event->err != 0) {
        conn->out.err = event->err; /* ends the connection */
        return;
    }
    if (plan_has(&conn->plan, PLAN(BAD_CHUNK)) && conn->plan.bad_chunk_at == chat->events)
        http_broken_chunk(conn, event->data, event->len);
    else
        http_body(conn, event->data, event->len);
}

/* A second usage, in an event without choices. */
static void send_usage_again(struct conn *conn)
{
    struct buf *event = sim_scratch(&conn->sim->body);
    const struct chat *chat = conn->handler_data;

    buf_str(event, "data: {\"choices\":[");
    buf_append(event, chat->tail.data, chat->tail.len);
    chat_put_usage(conn, event);
    buf_byte(event, '}');
    buf_str(event, eol(conn));
    buf_str(event, eol(conn));
    http_body(conn, event->data, event->len);
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
    const struct buf *arguments = &chat->answer.arguments;
    size_t half = arguments->len / 2;
    struct buf *event = event_begin(conn, "", 0, NULL);

    json_put_key(event, "function_call");
    buf_byte(event, '{');
    if (first) {
        json_put_key(event, "name");
        json_put_string(event, chat->answer.name.data, chat->answer.name.len);
    }
    json_put_key(event, "arguments");
    json_put_string(event, arguments->data + (first ? 0 : half),
                    first ? half : arguments->len - half);
    buf_byte(event, '}');
    event_send(conn, event, false);
}

static enum http_step send_next(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *piece = sim_scratch(&conn->sim->piece);
    struct buf *event;

    switch (chat->phase) {
    case PHASE_PROGRESS:
        send_progress(conn);
        if (++chat->progress == PROGRESS_EVENTS)
            chat->phase = PHASE_TEXT;
        return STEP_MORE;
    case PHASE_TEXT:
        if (answer_next(&chat->answer,
                        plan_has(&conn->plan, PLAN(ONE_CHUNK)) ? UINT32_MAX
                                                               : chat->pace.chunk_words,
                        piece)) {
            event_send(conn, event_begin(conn, piece->data, piece->len, NULL), false);
            return STEP_MORE;
        }
        chat->phase = answer_has_call(&chat->answer) ? PHASE_CALL : PHASE_FINISH;
        return send_next(conn);
    case PHASE_CALL:
        if (plan_has(&conn->plan, PLAN(CALL_SPLIT))) {
            send_call_part(conn, true);
            chat->phase = PHASE_CALL_REST;
            return STEP_MORE;
        }
        event = event_begin(conn, "", 0, NULL);
        chat_put_call(conn, event);
        event_send(conn, event, true);
        chat->phase = PHASE_DONE;
        return STEP_MORE;
    case PHASE_CALL_REST:
        send_call_part(conn, false);
        chat->is_call_sent = true;
        chat->phase = PHASE_FINISH;
        return STEP_MORE;
    case PHASE_FINISH:
        event_send(conn, event_begin(conn, "", 0, NULL), true);
        chat->phase = PHASE_DONE;
        return STEP_MORE;
    case PHASE_DONE:
        break;
    }
    return STEP_END;
}

static enum http_step send_end(struct conn *conn)
{
    const struct plan *plan = &conn->plan;
    struct chat *chat = conn->handler_data;

    if (plan_has(plan, PLAN(CUT_AFTER_FINISH)))
        return STEP_CLOSE;
    if (plan_has(plan, PLAN(BAD_USAGE)) && plan->bad_usage == USAGE_TWICE)
        send_usage_again(conn);
    if (!plan_has(plan, PLAN(NO_DONE)))
        send_line(conn, "data: [DONE]");
    if (plan_has(plan, PLAN(DOUBLE_DONE)))
        send_line(conn, "data: [DONE]");
    if (plan_has(plan, PLAN(AFTER_DONE))) {
        event_send(conn, event_begin(conn, "late", 4, NULL), false);
        chat->events--; /* behind the end: not an event of the answer */
    }
    if (plan_has(plan, PLAN(HANG_AFTER_FINISH)))
        return STEP_HANG;
    http_body_end(conn);
    return STEP_END;
}

/* Whether the plan ends the stream before its next event, and how. */
static enum http_step end_by_plan(struct conn *conn)
{
    const struct plan *plan = &conn->plan;
    const struct chat *chat = conn->handler_data;

    if (plan_has(plan, PLAN(CUT)) && chat->events >= plan->cut_after)
        return STEP_CLOSE;
    if (plan_has(plan, PLAN(RESET)) && chat->events >= plan->reset_after)
        return STEP_RESET;
    if (plan_has(plan, PLAN(BAD_CHUNK)) && chat->events >= plan->bad_chunk_at)
        return STEP_CLOSE;
    if (plan_has(plan, PLAN(STREAM_ERROR)) && chat->events >= plan->stream_error_after) {
        send_line(conn, "data: {\"status\":500,\"message\":\"Internal Server Error\"}");
        http_body_end(conn);
        return STEP_END;
    }
    return STEP_MORE;
}

static enum http_step pause(struct conn *conn, int64_t ms)
{
    conn->pause_ms = ms;
    return STEP_WAIT;
}

enum http_step stream_produce(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    int64_t first_ms = chat->pace.first_ms;
    enum http_step step;

    if (plan_has(&conn->plan, PLAN(SLOW_FIRST)))
        first_ms += conn->plan.slow_first_ms;
    if (!chat->is_started) {
        chat->is_started = true;
        if (first_ms > 0)
            return pause(conn, first_ms);
    }
    step = end_by_plan(conn);
    if (step != STEP_MORE) {
        conn->is_cut = true;
        return step;
    }
    if (chat->phase == PHASE_DONE)
        return send_end(conn);
    if (chat->events > 0 && chat->pace.chunk_ms > 0 && !chat->is_paced) {
        chat->is_paced = true;
        return pause(conn, chat->pace.chunk_ms);
    }
    chat->is_paced = false;
    return send_next(conn);
}
