#define _GNU_SOURCE 1 /* accept4 */
#include "usage/receiver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/container.h"
#include "common/frame.h"
#include "common/log.h"

#define WATCHED (EPOLLIN | EPOLLRDHUP | EPOLLONESHOT)
#define SPARE_CONNECTIONS 16 /* beside two for each slot: the old worker's and its successor's */
#define COMPLAIN_EVERY_MS 1000
#define ACCEPT_AGAIN_MS 100 /* without a free descriptor */

struct sender_connection {
    struct event_source source;
    struct receiver *receiver;
    struct sender_connection *next;
    int fd;
    bool ready; /* the loop is silent about it until it has been drained */
};

struct receiver {
    struct event_source source;
    struct timer accept_timer; /* set: the listener is not watched */
    struct receiver_setup setup;
    int fd;
    struct sender_connection *connections;
    size_t count;
    int64_t ready_ms;    /* -1 = no connection is ready */
    int64_t complain_ms; /* no complaint about peers before this */
    uint8_t packet[OUTBOX_PACKET_MAX];
};

static void complain(struct receiver *r, const char *what)
{
    int64_t now_ms = loop_now_ms(r->setup.loop);

    if (now_ms < r->complain_ms)
        return;
    r->complain_ms = now_ms + COMPLAIN_EVERY_MS;
    log_event(LOG_ERROR, "usage_peer_refused", "", "usage.sock: connection closed: %s", what);
}

static void on_readable(struct event_source *src, uint32_t events)
{
    struct sender_connection *c = (struct sender_connection *)src;
    struct receiver *r = c->receiver;

    c->ready = true;
    if (r->ready_ms == -1)
        r->ready_ms = loop_now_ms(r->setup.loop);
}

static int add_connection(struct receiver *r, int fd)
{
    struct sender_connection *c;
    int rc;

    if (r->count >= 2 * outbox_slot_count(r->setup.outbox) + SPARE_CONNECTIONS)
        return -EMFILE;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return -ENOMEM;
    c->source.on_event = on_readable;
    c->receiver = r;
    c->fd = fd;
    rc = loop_add(r->setup.loop, fd, WATCHED, &c->source);
    if (rc < 0) {
        free(c);
        return rc;
    }
    c->next = r->connections;
    r->connections = c;
    r->count++;
    return 0;
}

static void on_connect(struct event_source *src, uint32_t events)
{
    struct receiver *r = (struct receiver *)src;
    int fd;

    while ((fd = accept4(r->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        int rc = unix_peer_check(fd);

        if (rc == 0)
            rc = add_connection(r, fd);
        if (rc < 0) {
            complain(r, strerror(-rc));
            close(fd);
        }
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    /* Its peer stays in the queue and would be reported again in each turn. */
    complain(r, strerror(errno));
    if (loop_timer_set(r->setup.loop, &r->accept_timer, ACCEPT_AGAIN_MS) == 0)
        (void)loop_modify(r->setup.loop, r->fd, 0, &r->source); /* failing costs turns, no peer */
}

static void on_accept_timer(struct timer *t)
{
    struct receiver *r = container_of(t, struct receiver, accept_timer);

    if (loop_modify(r->setup.loop, r->fd, EPOLLIN, &r->source) < 0)
        log_event(LOG_ERROR, "usage_socket_failed", "", "usage.sock cannot be watched any more");
}

int receiver_open(const struct receiver_setup *setup, struct receiver **out)
{
    struct receiver *r = calloc(1, sizeof(*r));
    int rc;

    *out = NULL;
    if (r == NULL)
        return -ENOMEM;
    r->source.on_event = on_connect;
    r->accept_timer.on_timer = on_accept_timer;
    r->setup = *setup;
    r->ready_ms = -1;
    r->fd = unix_listen(setup->path, SOCK_SEQPACKET, 0600);
    if (r->fd < 0) {
        rc = r->fd;
        free(r);
        return rc;
    }
    rc = loop_add(setup->loop, r->fd, EPOLLIN, &r->source);
    if (rc < 0) {
        receiver_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void receiver_stop(struct receiver *r)
{
    if (r->fd == -1)
        return;
    loop_timer_cancel(r->setup.loop, &r->accept_timer);
    loop_remove(r->setup.loop, r->fd, &r->source);
    close(r->fd);
    unlink(r->setup.path);
    r->fd = -1;
}

static void connection_free(struct sender_connection *c)
{
    loop_remove(c->receiver->setup.loop, c->fd, &c->source);
    close(c->fd);
    c->receiver->count--;
    free(c);
}

void receiver_close(struct receiver *r)
{
    if (r == NULL)
        return;
    receiver_stop(r);
    while (r->connections != NULL) {
        struct sender_connection *c = r->connections;

        r->connections = c->next;
        connection_free(c);
    }
    free(r);
}

int64_t receiver_ready_ms(const struct receiver *r)
{
    return r->ready_ms;
}

/* What is wrong with the packet, NULL = nothing. */
static const char *check_packet(const struct receiver *r, const struct outbox_packet *p, size_t len)
{
    const struct outbox *ob;

    if (len < sizeof(*p) || p->magic != OUTBOX_PACKET_MAGIC)
        return "not a usage packet";
    if (p->version != OUTBOX_PACKET_VERSION)
        return "a packet of another version";
    if (memcmp(p->start_id, r->setup.start_id, SHM_START_ID_BYTES) != 0)
        return "a packet about other shared memory";
    if (p->slot >= outbox_slot_count(r->setup.outbox))
        return "a packet for a slot that does not exist";
    ob = outbox_slot(r->setup.outbox, p->slot);
    if (p->next > outbox_head(ob))
        return "a packet from beyond the ring's end";
    return NULL;
}

static int refuse(struct receiver *r, const char *wrong)
{
    complain(r, wrong);
    return -EPROTO;
}

static int take_records(struct receiver *r, size_t len)
{
    struct outbox_packet p = {0};
    const char *wrong;
    int rc;

    memcpy(&p, r->packet, len < sizeof(p) ? len : sizeof(p));
    wrong = check_packet(r, &p, len);
    if (wrong != NULL)
        return refuse(r, wrong);
    rc = group_add(r->setup.group, p.slot, p.next, r->packet + sizeof(p), len - sizeof(p));
    if (rc < 0)
        complain(r, strerror(-rc));
    return rc;
}

static int take_answer(struct receiver *r, size_t len, int fd)
{
    struct answer_packet p;

    if (r->setup.answers == NULL || len != sizeof(p))
        return refuse(r, "not an answer");
    memcpy(&p, r->packet, sizeof(p));
    if (p.magic != ANSWER_PACKET_MAGIC || p.version != ANSWER_PACKET_VERSION)
        return refuse(r, "an answer of another version");
    if (memcmp(p.start_id, r->setup.start_id, SHM_START_ID_BYTES) != 0 ||
        p.slot >= outbox_slot_count(r->setup.outbox))
        return refuse(r, "an answer about other shared memory");
    if (answers_take(r->setup.answers, &p, fd, loop_now_ms(r->setup.loop)) < 0)
        return refuse(r, "an answer that is not sealed, or too long");
    return 0;
}

/* The packet's own length, even if the buffer was too short for it; 0 at the end, -errno. *fd is
 * the descriptor that came along, also on failure, -1 = none; more than one is an error. */
static ssize_t receive(struct sender_connection *c, int *fd)
{
    struct receiver *r = c->receiver;
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = r->packet, .iov_len = sizeof(r->packet)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             /* Not CMSG_SPACE: a second descriptor would fit into its padding. */
                             .msg_controllen = CMSG_LEN(sizeof(int))};
    const struct cmsghdr *cmsg;
    ssize_t n;

    *fd = -1;
    do {
        n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
    } while (n == -1 && errno == EINTR);
    if (n == -1)
        return -errno;
    cmsg = CMSG_FIRSTHDR(&message);
    if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
        cmsg->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(cmsg), sizeof(*fd));
    /* The others were not taken over: the kernel closed them; or we have no descriptor left. */
    return (message.msg_flags & MSG_CTRUNC) != 0 ? -EMFILE : n;
}

/* 0, or -errno: the connection must end, and its sender starts again at the ring's tail. */
static int take_packet(struct receiver *r, size_t len, int fd)
{
    int rc;

    if (len > sizeof(r->packet))
        rc = refuse(r, "a packet that is too long");
    else if (fd != -1)
        rc = take_answer(r, len, fd);
    else
        rc = take_records(r, len);
    if (fd != -1)
        close(fd);
    return rc;
}

/* 0 = empty for now, 1 = the group is full, -errno = at its end. */
static int drain_connection(struct sender_connection *c)
{
    struct receiver *r = c->receiver;

    while (!group_is_full(r->setup.group)) {
        int fd, rc;
        ssize_t n = receive(c, &fd);

        if (n == -EAGAIN)
            return 0;
        if (n <= 0) {
            if (fd != -1)
                close(fd);
            return n == 0 ? -ECONNRESET : (int)n;
        }
        rc = take_packet(r, (size_t)n, fd);
        if (rc < 0)
            return rc;
    }
    return 1;
}

void receiver_drain(struct receiver *r)
{
    struct sender_connection **link = &r->connections;
    bool is_left = false;

    while (*link != NULL) {
        struct sender_connection *c = *link;
        int rc = c->ready ? drain_connection(c) : 0;

        if (rc == 1)
            is_left = true;
        if (rc == 0 && c->ready) {
            c->ready = false;
            rc = loop_modify(r->setup.loop, c->fd, WATCHED, &c->source);
        }
        if (rc < 0) {
            *link = c->next;
            connection_free(c);
            continue;
        }
        link = &c->next;
    }
    if (!is_left)
        r->ready_ms = -1;
}
