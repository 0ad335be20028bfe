#include "usage/sender.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/container.h"
#include "common/log.h"

#define PACKET_BYTES (16 * 1024)
#define RECORDS_BYTES (PACKET_BYTES - sizeof(struct outbox_packet))
#define RETRY_FIRST_MS 20
#define RETRY_MS 100
/* A few events wait so long for company: one packet then carries them all, and the writer wakes up
 * once. An event that comes after a silence goes at once. */
#define GATHER_MS 5
#define GATHER_BYTES 8192
#define TIDY_EVERY_MS 50

struct usage_sender {
    struct event_source source;
    struct timer timer; /* wakes the loop for a new try or for what is gathered: flush does it */
    struct loop *loop;
    struct outbox *ob;
    uint16_t slot;
    const uint8_t *start_id;
    struct sockaddr_un address;
    int fd; /* -1 = not connected */
    bool is_full;
    bool was_lost;       /* since the last connection, so that it is logged once */
    int64_t retry_at_ms; /* not before, monotonic */
    int64_t last_sent_ms;
    struct handover *handover; /* NULL = no answers */
    int64_t tidied_ms;
    uint64_t sent; /* ring position after the last record given to the socket */
    uint8_t records[RECORDS_BYTES];
};

/* Without memory for the timer the next turn, whatever causes it, finds the time by itself. */
static void wake_in(struct usage_sender *s, int64_t ms)
{
    if (!timer_is_set(&s->timer))
        (void)loop_timer_set(s->loop, &s->timer, ms);
}

static void on_timer(struct timer *t)
{
    (void)t; /* usage_sender_flush() follows in this turn */
}

static void disconnect(struct usage_sender *s, int error)
{
    int64_t wait_ms;

    if (s->fd != -1) {
        loop_remove(s->loop, s->fd, &s->source);
        close(s->fd);
        s->fd = -1;
    }
    if (!s->was_lost)
        log_event(LOG_WARN, "usage_writer_away", "", "no connection to the usage-writer: %s",
                  strerror(error));
    wait_ms = s->was_lost ? RETRY_MS : RETRY_FIRST_MS;
    s->retry_at_ms = loop_now_ms(s->loop) + wait_ms;
    s->was_lost = true;
    loop_timer_cancel(s->loop, &s->timer); /* it may be a shorter one, for gathering */
    wake_in(s, wait_ms);
}

static void on_event(struct event_source *source, uint32_t events)
{
    struct usage_sender *s = container_of(source, struct usage_sender, source);

    if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) {
        disconnect(s, ECONNRESET);
        return;
    }
    if ((events & EPOLLOUT) != 0 && loop_modify(s->loop, s->fd, EPOLLRDHUP, &s->source) == 0)
        s->is_full = false;
}

static void try_connect(struct usage_sender *s)
{
    int rc;

    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd == -1) {
        disconnect(s, errno);
        return;
    }
    rc =
        connect(s->fd, (const struct sockaddr *)&s->address, sizeof(s->address)) == -1 ? -errno : 0;
    if (rc == 0)
        rc = loop_add(s->loop, s->fd, EPOLLRDHUP, &s->source);
    if (rc < 0) {
        close(s->fd); /* the loop does not know it */
        s->fd = -1;
        disconnect(s, -rc);
        return;
    }
    if (s->was_lost)
        log_event(LOG_INFO, "usage_writer_back", "", "connected to the usage-writer again");
    s->was_lost = false;
    s->is_full = false;
    s->sent = outbox_tail(s->ob); /* what the last connection carried may never have arrived */
    if (s->handover != NULL)
        handover_rewind(s->handover);
}

struct usage_sender *usage_sender_new(struct loop *loop, const char *path, struct outbox *ob,
                                      uint16_t slot, const uint8_t start_id[SHM_START_ID_BYTES])
{
    size_t len = strlen(path);
    struct usage_sender *s;

    if (len >= sizeof(s->address.sun_path)) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->source.on_event = on_event;
    s->timer.on_timer = on_timer;
    s->loop = loop;
    s->ob = ob;
    s->slot = slot;
    s->start_id = start_id;
    s->address.sun_family = AF_UNIX;
    memcpy(s->address.sun_path, path, len + 1);
    s->fd = -1;
    try_connect(s);
    return s;
}

void usage_sender_free(struct usage_sender *s)
{
    if (s == NULL)
        return;
    loop_timer_cancel(s->loop, &s->timer);
    if (s->fd != -1) {
        loop_remove(s->loop, s->fd, &s->source);
        close(s->fd);
    }
    free(s);
}

static bool should_gather(struct usage_sender *s, uint64_t bytes)
{
    int64_t since_ms = loop_now_ms(s->loop) - s->last_sent_ms;

    if (bytes >= GATHER_BYTES || since_ms >= GATHER_MS)
        return false;
    wake_in(s, GATHER_MS - since_ms);
    return timer_is_set(&s->timer);
}

/* One packet. 0 or -errno. */
static int send_records(struct usage_sender *s, size_t bytes, uint64_t next)
{
    struct outbox_packet packet = {.magic = OUTBOX_PACKET_MAGIC,
                                   .version = OUTBOX_PACKET_VERSION,
                                   .slot = s->slot,
                                   .next = next};
    struct iovec parts[] = {{.iov_base = &packet, .iov_len = sizeof(packet)},
                            {.iov_base = s->records, .iov_len = bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    memcpy(packet.start_id, s->start_id, sizeof(packet.start_id));
    return sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 ? -errno : 0;
}

static void on_send_error(struct usage_sender *s, int rc)
{
    if (rc == -EAGAIN) {
        s->is_full = true;
        rc = loop_modify(s->loop, s->fd, EPOLLRDHUP | EPOLLOUT, &s->source);
        if (rc == 0)
            return;
    }
    disconnect(s, -rc);
}

/* Returns whether there may be more to send. */
static bool send_some(struct usage_sender *s)
{
    uint64_t next;
    ssize_t n = outbox_read(s->ob, s->sent, s->records, sizeof(s->records), &next);
    int rc;

    if (n == -EBADMSG) {
        /* The writer moves on over what nobody can read: else the ring would be full for ever. */
        log_event(LOG_ERROR, "outbox_damaged", "",
                  "usage events in the ring cannot be read and are lost: bytes %llu to %llu",
                  (unsigned long long)s->sent, (unsigned long long)next);
        n = 0;
    }
    if (n == 0 && next <= s->sent)
        return false;
    rc = send_records(s, (size_t)n, next);
    if (rc < 0) {
        on_send_error(s, rc);
        return false;
    }
    s->sent = next;
    s->last_sent_ms = loop_now_ms(s->loop);
    return true;
}

void usage_sender_set_handover(struct usage_sender *s, struct handover *handover)
{
    s->handover = handover;
}

static void send_answers(struct usage_sender *s)
{
    int64_t now_ms = loop_now_ms(s->loop);
    int rc;

    if (handover_has_unsent(s->handover)) {
        rc = handover_send(s->handover, s->fd);
        if (rc == -ENOBUFS)
            wake_in(s, RETRY_MS);
        else if (rc < 0)
            on_send_error(s, rc);
    }
    if (handover_count(s->handover) > 0 && now_ms >= s->tidied_ms + TIDY_EVERY_MS) {
        s->tidied_ms = now_ms;
        handover_tidy(s->handover);
    }
}

void usage_sender_flush(struct usage_sender *s)
{
    uint64_t head = outbox_head(s->ob);

    if (s->fd == -1) {
        int64_t wait_ms = s->retry_at_ms - loop_now_ms(s->loop);

        if (wait_ms > 0) {
            wake_in(s, wait_ms);
            return;
        }
        try_connect(s);
    }
    if (s->fd != -1 && !s->is_full && s->handover != NULL)
        send_answers(s);
    if (s->fd == -1 || s->is_full || s->sent >= head || should_gather(s, head - s->sent))
        return;
    while (s->sent < head && send_some(s))
        ;
}

bool usage_sender_is_drained(const struct usage_sender *s)
{
    return outbox_tail(s->ob) == outbox_head(s->ob);
}
