#define _GNU_SOURCE 1 /* accept4 */
#include "usage/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/frame.h"
#include "common/log.h"
#include "usage/control_ops.h"

#define CLIENTS_MAX 64  /* control programs */
#define WORKERS_MAX 256 /* all slots: twice the most workers a config may ask for */
#define PEERS_MAX (CLIENTS_MAX + WORKERS_MAX * CONTROL_ASKS_MAX)
#define TURN_US 2000 /* then the other peers wait for the next turn */
#define OUT_MAX_BYTES (8 * (size_t)FRAME_MAX)
#define OUT_HIGH_BYTES FRAME_MAX /* a list waits for its reader from here on */
#define READ_CHUNK 16384
#define ACCEPT_AGAIN_MS 100 /* without a free descriptor */

struct peer {
    struct event_source source;
    struct usage_control *control;
    struct peer *next;
    int fd;
    uint32_t events; /* what the loop watches */
    bool gone;       /* to be freed at the end of the turn */
    struct buf in, out;
    struct control_task task;
};

struct usage_control {
    struct event_source source;
    struct timer accept_timer; /* set: the listener is not watched */
    struct loop *loop;
    const char *path;
    const struct control_context *context;
    int fd;
    struct peer *peers;
    size_t peer_count;
};

static void peer_free(struct peer *p)
{
    if (p->fd != -1) {
        loop_remove(p->control->loop, p->fd, &p->source);
        close(p->fd);
    }
    control_task_clear(&p->task);
    buf_wipe(&p->in);
    buf_wipe(&p->out);
    free(p);
}

static void on_peer(struct event_source *src, uint32_t events)
{
    struct peer *p = (struct peer *)src;

    for (;;) {
        char *room = buf_room(&p->in, READ_CHUNK);
        ssize_t n;

        if (room == NULL) { /* out of memory, or more requests at once than anybody needs */
            p->gone = true;
            return;
        }
        n = recv(p->fd, room, READ_CHUNK, MSG_DONTWAIT);
        if (n > 0) {
            buf_commit(&p->in, (size_t)n);
            continue;
        }
        if (n == -1 && errno == EINTR)
            continue;
        if (n == 0 || errno != EAGAIN)
            p->gone = true;
        return;
    }
}

static int add_peer(struct usage_control *c, int fd)
{
    struct peer *p = calloc(1, sizeof(*p));
    int rc;

    if (p == NULL)
        return -ENOMEM;
    p->source.on_event = on_peer;
    p->control = c;
    p->fd = fd;
    p->events = EPOLLIN;
    buf_init_secret(&p->in, FRAME_MAX + READ_CHUNK + 4);
    buf_init_secret(&p->out, OUT_MAX_BYTES);
    rc = loop_add(c->loop, fd, p->events, &p->source);
    if (rc < 0) {
        free(p);
        return rc;
    }
    p->next = c->peers;
    c->peers = p;
    c->peer_count++;
    return 0;
}

static void on_connect(struct event_source *src, uint32_t events)
{
    struct usage_control *c = (struct usage_control *)src;
    int fd;

    while ((fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        int rc = unix_peer_check(fd);

        if (rc == 0)
            rc = c->peer_count < PEERS_MAX ? add_peer(c, fd) : -EMFILE;
        if (rc < 0) {
            log_event(LOG_WARN, "control_peer_refused", "", "writer.sock: %s", strerror(-rc));
            close(fd);
        }
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    /* Its peer stays in the queue and would be reported again in each turn. */
    log_event(LOG_WARN, "control_peer_refused", "", "writer.sock: a peer has to wait: %s",
              strerror(errno));
    if (loop_timer_set(c->loop, &c->accept_timer, ACCEPT_AGAIN_MS) == 0)
        (void)loop_modify(c->loop, c->fd, 0, &c->source); /* failing costs turns, no peer */
}

static void on_accept_timer(struct timer *t)
{
    struct usage_control *c = container_of(t, struct usage_control, accept_timer);

    if (loop_modify(c->loop, c->fd, EPOLLIN, &c->source) < 0)
        log_event(LOG_ERROR, "control_failed", "", "writer.sock cannot be watched any more");
}

int usage_control_open(struct loop *loop, const char *path, const struct control_context *context,
                       struct usage_control **out)
{
    struct usage_control *c = calloc(1, sizeof(*c));
    int rc;

    *out = NULL;
    if (c == NULL)
        return -ENOMEM;
    c->source.on_event = on_connect;
    c->accept_timer.on_timer = on_accept_timer;
    c->loop = loop;
    c->path = path;
    c->context = context;
    c->fd = unix_listen(path, SOCK_STREAM, 0600);
    if (c->fd < 0) {
        rc = c->fd;
        free(c);
        return rc;
    }
    rc = loop_add(loop, c->fd, EPOLLIN, &c->source);
    if (rc < 0) {
        usage_control_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void usage_control_stop(struct usage_control *c)
{
    if (c->fd == -1)
        return;
    loop_timer_cancel(c->loop, &c->accept_timer);
    loop_remove(c->loop, c->fd, &c->source);
    close(c->fd);
    unlink(c->path);
    c->fd = -1;
}

void usage_control_close(struct usage_control *c)
{
    if (c == NULL)
        return;
    usage_control_stop(c);
    while (c->peers != NULL) {
        struct peer *p = c->peers;

        c->peers = p->next;
        peer_free(p);
    }
    free(c);
}

static bool is_due(const struct peer *p)
{
    return control_task_is_open(&p->task) && p->out.len < OUT_HIGH_BYTES &&
           loop_now_ms(p->control->loop) >= p->task.not_before_ms;
}

static void peer_answer(struct peer *p, int64_t now_at_ms)
{
    const struct control_context *context = p->control->context;
    const char *json;
    size_t len;
    int rc = 0;

    if (!control_task_is_open(&p->task))
        rc = frame_peek(&p->in, &json, &len);
    if (rc < 0) {
        p->gone = true;
    } else if (rc == 1) {
        control_ops_start(context, json, len, now_at_ms, &p->task, &p->out);
        frame_drop(&p->in);
    }
    if (is_due(p))
        p->task.step(&p->task, context, now_at_ms, &p->out);
    if (p->out.err != 0)
        p->gone = true;
}

static void peer_send(struct peer *p)
{
    while (p->out.len > 0) {
        ssize_t n = send(p->fd, p->out.data, p->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            buf_drop(&p->out, (size_t)n);
            continue;
        }
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1 && errno == EAGAIN)
            break;
        p->gone = true;
        return;
    }
    if (p->out.len == 0)
        buf_wipe(&p->out); /* a key's text does not stay */
}

static void peer_watch(struct peer *p)
{
    uint32_t events = EPOLLIN | (p->out.len > 0 ? (uint32_t)EPOLLOUT : 0);

    if (events == p->events)
        return;
    p->events = events;
    if (loop_modify(p->control->loop, p->fd, events, &p->source) < 0)
        p->gone = true;
}

/* The next turn begins with the peer at link. */
static void begin_at(struct usage_control *c, struct peer **link)
{
    struct peer *first = *link;
    struct peer *last = first;

    if (link == &c->peers)
        return;
    while (last->next != NULL)
        last = last->next;
    *link = NULL;
    last->next = c->peers;
    c->peers = first;
}

void usage_control_turn(struct usage_control *c)
{
    int64_t until_us = clock_monotonic_us() + TURN_US;
    int64_t now_at_ms = clock_now_at_ms();
    struct peer **link = &c->peers;

    while (*link != NULL) {
        struct peer *p = *link;

        if (clock_monotonic_us() >= until_us) {
            begin_at(c, link);
            return;
        }
        if (!p->gone)
            peer_answer(p, now_at_ms);
        if (!p->gone)
            peer_send(p);
        if (!p->gone)
            peer_watch(p);
        if (!p->gone) {
            link = &p->next;
            continue;
        }
        *link = p->next;
        c->peer_count--;
        peer_free(p);
    }
}

int64_t usage_control_next_ms(const struct usage_control *c)
{
    int64_t next_ms = -1;
    const char *json;
    size_t len;

    for (const struct peer *p = c->peers; p != NULL; p = p->next) {
        if (is_due(p) || (!control_task_is_open(&p->task) && frame_peek(&p->in, &json, &len) != 0))
            return loop_now_ms(c->loop);
        if (control_task_is_open(&p->task) && p->out.len < OUT_HIGH_BYTES &&
            (next_ms == -1 || p->task.not_before_ms < next_ms))
            next_ms = p->task.not_before_ms;
    }
    return next_ms;
}
