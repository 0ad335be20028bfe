#include "tests/sim/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/sim/api.h"
#include "tests/sim/dialect.h"
#include "tests/sim/request.h"
#include "tests/sim/sim.h"
#include "tests/sim/tls.h"

#define IN_BYTES_MAX (80 * 1024 * 1024)
#define OUT_BYTES_MAX (400 * 1024 * 1024)
#define OUT_LOW_WATER (64 * 1024) /* a producer is asked for more below this */
#define KEEP_BYTES (64 * 1024)    /* of a connection's buffers, between requests */
#define LINGER_MS 2000
#define HANG_MS 120000

/* Whether the connection still exists is part of every answer: nobody touches a closed one. */
enum life { LIFE_BUSY, LIFE_IDLE, LIFE_GONE };

static void end_answer(struct conn *conn, enum journal_end end)
{
    http_end_fn on_end = conn->on_end;

    conn->on_end = NULL;
    conn->produce = NULL;
    if (on_end != NULL)
        on_end(conn, end);
}

static enum life conn_close(struct conn *conn)
{
    struct sim *sim = conn->sim;

    if (conn->state == CONN_ANSWERING)
        end_answer(conn, JOURNAL_CUT);
    loop_timer_cancel(sim->loop, &conn->timer);
    loop_remove(sim->loop, conn->fd, &conn->source);
    SSL_free(conn->ssl);
    close(conn->fd);
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        sim->connections = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    if (conn->handler_free != NULL)
        conn->handler_free(conn->handler_data);
    buf_clear(&conn->in);
    buf_clear(&conn->out);
    buf_clear(&conn->chunked_body);
    sim->stats.connections_open--;
    free(conn);
    return LIFE_GONE;
}

static enum life conn_reset(struct conn *conn)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    return conn_close(conn);
}

static enum life conn_abort(struct conn *conn)
{
    struct stats *stats = &conn->sim->stats;

    if (conn->state == CONN_ANSWERING) {
        if (conn->route != ROUTE_SIM) {
            stats->aborted_by_client++;
            stats->last_abort_at_ms = clock_now_at_ms();
        }
        end_answer(conn, JOURNAL_ABORTED);
        conn->state = CONN_LINGERING; /* the end was told */
    }
    return conn_close(conn);
}

static void set_timer(struct conn *conn, int64_t ms)
{
    conn->is_waiting = true;
    if (loop_timer_set(conn->sim->loop, &conn->timer, ms) < 0) {
        fprintf(stderr, "llm-sim: out of memory for a timer\n");
        conn->is_waiting = false;
        conn->step = STEP_RESET;
        buf_reset(&conn->out);
    }
}

/* Sends what it may. False when the client is gone. */
static bool conn_flush(struct conn *conn)
{
    bool drips = plan_has(&conn->plan, PLAN(DRIP));

    while (conn->out.len > 0 && !conn->is_waiting) {
        size_t len = conn->out.len;
        ssize_t n;

        if (drips && len > (size_t)conn->plan.drip_bytes)
            len = (size_t)conn->plan.drip_bytes;
        n = conn->ssl != NULL ? tls_send(conn->ssl, conn->out.data, len)
                              : send(conn->fd, conn->out.data, len, MSG_NOSIGNAL);
        if (n < 0 && conn->ssl == NULL)
            n = -errno;
        if (n == -EAGAIN)
            return true;
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return false;
        conn->sim->stats.bytes_sent += (uint64_t)n;
        buf_drop(&conn->out, (size_t)n);
        if (drips && (conn->out.len > 0 || conn->produce != NULL))
            set_timer(conn, conn->plan.drip_ms);
    }
    return true;
}

static void trim_memory(struct conn *conn)
{
    if (conn->in.len == 0 && conn->in.cap > KEEP_BYTES)
        buf_clear(&conn->in);
    if (conn->out.cap > 4 * KEEP_BYTES)
        buf_clear(&conn->out);
    buf_clear(&conn->chunked_body);
}

/* The answer is out and the connection lives on. */
static enum life next_request(struct conn *conn)
{
    buf_drop(&conn->in, conn->request_bytes);
    conn->state = CONN_READING;
    conn->request_bytes = conn->scanned_bytes = conn->needed_bytes = conn->chunk_at = 0;
    conn->is_continued = false;
    trim_memory(conn);
    return LIFE_IDLE;
}

static enum life finish(struct conn *conn)
{
    end_answer(conn, conn->is_cut ? JOURNAL_CUT : JOURNAL_COMPLETE);
    if (conn->step == STEP_END && conn->request.keep_alive)
        return next_request(conn);
    if (conn->step == STEP_HANG) {
        conn->state = CONN_HANGING;
        set_timer(conn, HANG_MS);
        return LIFE_BUSY;
    }
    conn->state = CONN_LINGERING;
    return conn->step == STEP_RESET ? conn_reset(conn) : conn_close(conn);
}

static void produce(struct conn *conn)
{
    while (conn->step == STEP_MORE && conn->out.len < OUT_LOW_WATER)
        conn->step = conn->produce(conn);
    if (conn->out.err != 0) {
        fprintf(stderr, "llm-sim: no memory for an answer\n");
        buf_reset(&conn->out);
        conn->is_cut = true;
        conn->step = STEP_RESET;
    }
    if (conn->step != STEP_MORE && conn->step != STEP_WAIT)
        conn->produce = NULL;
}

static enum life conn_answer(struct conn *conn)
{
    for (;;) {
        if (conn->hold_ms > 0) {
            set_timer(conn, conn->hold_ms);
            conn->hold_ms = 0;
        }
        /* Before the flush, so that a small stream leaves in one write with its headers. */
        if (conn->produce != NULL && conn->step == STEP_MORE && !conn->is_waiting)
            produce(conn);
        if (!conn_flush(conn))
            return conn_abort(conn);
        if (conn->is_waiting || conn->out.len > 0)
            return LIFE_BUSY;
        if (conn->produce == NULL)
            return finish(conn);
        if (conn->step == STEP_WAIT) {
            conn->step = STEP_MORE;
            set_timer(conn, conn->pause_ms);
        }
    }
}

static void refuse_request(struct conn *conn, int status)
{
    conn->plan = (struct plan){0};
    conn->request = (struct http_request){0};
    conn->route = ROUTE_OTHER;
    conn->dialect = &dialect_gigachat;
    http_reply_error(conn, status, http_reason(status));
    (void)conn_flush(conn);
    (void)shutdown(conn->fd, SHUT_WR);
    conn->state = CONN_LINGERING;
    conn->is_waiting = false;
    set_timer(conn, LINGER_MS);
}

static void begin_answer(struct conn *conn)
{
    conn->state = CONN_ANSWERING;
    conn->plan = (struct plan){0};
    conn->produce = NULL;
    conn->on_end = NULL;
    conn->step = STEP_END;
    conn->status = 0;
    conn->answer_id[0] = '\0';
    conn->hold_ms = conn->pause_ms = 0;
    conn->is_waiting = conn->is_cut = conn->is_chunked = false;
    api_dispatch(conn);
    if (plan_has(&conn->plan, PLAN(SLOW_HEADERS)))
        conn->hold_ms += conn->plan.slow_headers_ms;
    if (conn->out.err != 0) {
        fprintf(stderr, "llm-sim: no memory for an answer\n");
        buf_reset(&conn->out);
        conn->produce = NULL;
        conn->is_cut = true;
        conn->step = STEP_RESET;
    }
}

/* Goes on as far as possible: answers, then the next request that has already come. */
static enum life conn_advance(struct conn *conn)
{
    for (;;) {
        bool wants_continue = false;
        enum life life;
        int rc;

        if (conn->state == CONN_HANGING || conn->state == CONN_LINGERING)
            return LIFE_BUSY;
        if (conn->state == CONN_ANSWERING) {
            life = conn_answer(conn);
            if (life != LIFE_IDLE)
                return life;
        }
        rc = request_parse(conn, &wants_continue);
        if (rc < 0) {
            refuse_request(conn, -rc);
            return LIFE_BUSY;
        }
        if (rc == 0 && wants_continue && !conn->is_continued) {
            conn->is_continued = true;
            buf_str(&conn->out, "HTTP/1.1 100 Continue\r\n\r\n");
            if (!conn_flush(conn))
                return conn_close(conn);
        }
        if (rc == 0)
            return LIFE_IDLE;
        begin_answer(conn);
    }
}

static enum life conn_read(struct conn *conn)
{
    char *data = conn->sim->read_buffer;

    for (;;) {
        ssize_t n = conn->ssl != NULL ? tls_recv(conn->ssl, data, SIM_READ_BYTES)
                                      : recv(conn->fd, data, SIM_READ_BYTES, 0);
        enum life life;

        if (n < 0 && conn->ssl == NULL)
            n = -errno;
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN)
            return LIFE_IDLE;
        if (n <= 0)
            return conn_close(conn);
        if (conn->state == CONN_LINGERING)
            continue; /* thrown away, so that the close is a FIN and the answer is read */
        if (buf_append(&conn->in, data, (size_t)n) < 0)
            return conn_close(conn);
        life = conn_advance(conn);
        if (life == LIFE_GONE)
            return life;
        if (conn->state == CONN_ANSWERING) {
            /* What follows stays in the socket until this answer has ended. */
            conn->is_readable = n == SIM_READ_BYTES || conn->ssl != NULL;
            return LIFE_BUSY;
        }
        /* A short read has emptied the socket; TLS may hold more than the socket shows. */
        if (n < SIM_READ_BYTES && conn->ssl == NULL)
            return life;
    }
}

/* After an answer: the edge of what came meanwhile is gone, so look by hand. */
static void read_on(struct conn *conn)
{
    if (conn->state != CONN_READING || !conn->is_readable)
        return;
    conn->is_readable = false;
    (void)conn_read(conn);
}

static void on_conn_event(struct event_source *source, uint32_t events)
{
    struct conn *conn = (struct conn *)source;
    enum life life = LIFE_IDLE;

    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        (void)conn_abort(conn);
        return;
    }
    if ((events & EPOLLIN) != 0) {
        if (conn->state == CONN_ANSWERING)
            conn->is_readable = true;
        else
            life = conn_read(conn);
        if (life == LIFE_GONE)
            return;
    }
    if ((events & EPOLLOUT) != 0 && conn->state == CONN_ANSWERING && !conn->is_waiting &&
        conn->out.len > 0) {
        if (conn_advance(conn) == LIFE_GONE)
            return;
    }
    /* A half-closed connection counts as left: no client of ours does that and waits on. */
    if ((events & EPOLLRDHUP) != 0) {
        (void)conn_abort(conn);
        return;
    }
    read_on(conn);
}

static void on_conn_timer(struct timer *timer)
{
    struct conn *conn = (struct conn *)((char *)timer - offsetof(struct conn, timer));

    conn->is_waiting = false;
    if (conn->state != CONN_ANSWERING) {
        (void)conn_close(conn); /* lingered or hung long enough */
        return;
    }
    if (conn_advance(conn) != LIFE_GONE)
        read_on(conn);
}

void conn_open(struct sim *sim, int fd, SSL_CTX *tls)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    const int on = 1;

    if (conn == NULL) {
        close(fd);
        return;
    }
    *conn = (struct conn){.source = {.on_event = on_conn_event},
                          .timer = {.on_timer = on_conn_timer},
                          .sim = sim,
                          .next = sim->connections,
                          .fd = fd};
    buf_init(&conn->in, IN_BYTES_MAX);
    buf_init(&conn->out, OUT_BYTES_MAX);
    buf_init(&conn->chunked_body, IN_BYTES_MAX);
    if (sim->connections != NULL)
        sim->connections->prev = conn;
    sim->connections = conn;
    sim->stats.connections_opened++;
    sim->stats.connections_open++;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (tls != NULL) {
        conn->ssl = tls_session_new(tls, fd);
        if (conn->ssl == NULL) {
            (void)conn_close(conn);
            return;
        }
    }
    /* Edge-triggered and complete from the start: no epoll_ctl for the rest of its life. */
    if (loop_add(sim->loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &conn->source) < 0)
        (void)conn_close(conn);
}

void conn_close_idle(struct sim *sim)
{
    struct conn *next;

    for (struct conn *conn = sim->connections; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == CONN_READING && conn->in.len == 0)
            (void)conn_close(conn);
    }
}

void conn_close_all(struct sim *sim)
{
    struct conn *next;

    for (struct conn *conn = sim->connections; conn != NULL; conn = next) {
        next = conn->next;
        (void)conn_close(conn);
    }
}
