#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/sim.h"

static const char *eol(const struct conn *conn)
{
    return plan_has(&conn->plan, PLAN(CRLF)) ? "\r\n" : "\n";
}

static void open_event(const struct conn *conn, struct buf *event, const char *name)
{
    if (name != NULL) {
        buf_str(event, "event: ");
        buf_str(event, name);
        buf_str(event, eol(conn));
    }
    buf_str(event, "data: ");
}

struct buf *stream_extra(struct conn *conn, const char *name)
{
    struct buf *event = sim_scratch(&conn->sim->body);

    open_event(conn, event, name);
    return event;
}

void stream_send_extra(struct conn *conn, struct buf *event)
{
    buf_str(event, eol(conn));
    buf_str(event, eol(conn));
    http_body(conn, event->data, event->len);
}

static void send_fixed(struct conn *conn, const struct fixed_event *fixed)
{
    struct buf *event = stream_extra(conn, fixed->name);

    buf_str(event, fixed->data);
    stream_send_extra(conn, event);
}

struct buf *stream_event(struct conn *conn, const char *name)
{
    struct chat *chat = conn->handler_data;
    struct buf *event = sim_scratch(&conn->sim->body);

    chat->events++;
    if (plan_has(&conn->plan, PLAN(COMMENT))) {
        buf_str(event, ": keep-alive");
        buf_str(event, eol(conn));
        buf_str(event, eol(conn));
    }
    open_event(conn, event, name);
    return event;
}

void stream_send(struct conn *conn, struct buf *event)
{
    const struct chat *chat = conn->handler_data;

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

static enum http_step send_end(struct conn *conn)
{
    const struct plan *plan = &conn->plan;
    const struct dialect *dialect = conn->dialect;
    struct chat *chat = conn->handler_data;

    if (plan_has(plan, PLAN(BAD_USAGE)) && plan->bad_usage == USAGE_TWICE)
        dialect->send_usage_again(conn);
    if (!plan_has(plan, PLAN(NO_DONE)))
        send_fixed(conn, &dialect->done);
    if (plan_has(plan, PLAN(DOUBLE_DONE)))
        send_fixed(conn, &dialect->done);
    if (plan_has(plan, PLAN(AFTER_DONE))) {
        dialect->send_late(conn);
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
        send_fixed(conn, &conn->dialect->failure);
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
    if (chat->is_finished && plan_has(&conn->plan, PLAN(CUT_AFTER_FINISH)))
        return STEP_CLOSE;
    if (chat->is_over)
        return send_end(conn);
    if (chat->events > 0 && chat->pace.chunk_ms > 0 && !chat->is_paced) {
        chat->is_paced = true;
        return pause(conn, chat->pace.chunk_ms);
    }
    chat->is_paced = false;
    conn->dialect->send_next(conn);
    return STEP_MORE;
}
