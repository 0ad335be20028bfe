#include "tests/sim/chat.h"
#include "tests/sim/dialect.h"
#include "tests/sim/sim.h"

/* Builds the whole body in the scratch buf. */
static struct buf *build_body(struct conn *conn)
{
    struct chat *chat = conn->handler_data;
    struct buf *body = sim_scratch(&conn->sim->body);
    struct buf *text = sim_scratch(&conn->sim->piece);
    struct buf *thinking = sim_scratch(&chat->piece);

    while (
        answer_next(&chat->answer, UINT32_MAX, answer_is_thinking(&chat->answer) ? thinking : text))
        ;
    chat->calls_sent = chat->answer.call_count;
    conn->dialect->put_body(conn, body, text, thinking);
    if (plan_has(&conn->plan, PLAN(MALFORMED)))
        body->len -= 2;
    return body;
}

/* Headers that promise the whole, half of the body, then FIN or RST. */
static void answer_in_half(struct conn *conn, const struct buf *body)
{
    conn->is_cut = true;
    conn->step = plan_has(&conn->plan, PLAN(RESET)) ? STEP_RESET : STEP_CLOSE;
    http_begin(conn, 200, conn->dialect->json_type, "", (int64_t)body->len);
    http_body(conn, body->data, body->len / 2);
}

static enum http_step late_produce(struct conn *conn)
{
    struct chat *chat = conn->handler_data;

    if (!chat->is_started) {
        chat->is_started = true;
        conn->pause_ms = conn->plan.slow_first_ms;
        return STEP_WAIT;
    }
    http_body(conn, chat->body.data, chat->body.len);
    return STEP_END;
}

static void answer_late(struct conn *conn, const struct buf *body)
{
    struct chat *chat = conn->handler_data;

    buf_reset(&chat->body);
    if (buf_append(&chat->body, body->data, body->len) < 0) {
        http_reply_error(conn, 500, http_reason(500));
        return;
    }
    http_begin(conn, 200, conn->dialect->json_type, "", (int64_t)body->len);
    http_produce(conn, late_produce);
}

/* The time that generating takes: what a stream of the same answer would need. */
static int64_t generation_ms(const struct chat *chat)
{
    int64_t ms = chat->pace.first_ms;

    if (chat->answer.is_cyclic && chat->pace.chunk_ms > 0)
        ms += (int64_t)chat->pace.chunk_ms * (chat->pace.words / chat->pace.chunk_words);
    return ms;
}

void plain_answer(struct conn *conn)
{
    const struct plan *plan = &conn->plan;
    struct buf *body = build_body(conn);
    struct chat *chat = conn->handler_data;

    conn->hold_ms = generation_ms(chat);
    if (body->err != 0 || conn->sim->piece.err != 0) {
        http_reply_error(conn, 500, http_reason(500));
    } else if (plan_has(plan, PLAN(CUT) | PLAN(RESET))) {
        answer_in_half(conn, body);
    } else if (plan_has(plan, PLAN(BAD_CHUNK))) {
        conn->is_cut = true;
        conn->step = STEP_CLOSE;
        http_begin(conn, 200, conn->dialect->json_type, "", HTTP_CHUNKED);
        http_broken_chunk(conn, body->data, body->len);
    } else if (plan_has(plan, PLAN(SLOW_FIRST))) {
        answer_late(conn, body);
    } else {
        http_reply(conn, 200, conn->dialect->json_type, "", body->data, body->len);
    }
}
