#include "usage/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct kept_answer {
    struct kept_answer *next;
    struct handover_answer answer;
    struct buf body;
    bool sent;
};

struct handover {
    struct idempotency_region *table;
    struct counters *counters;
    const uint8_t *start_id;
    uint16_t slot;
    struct kept_answer *first, **last;
    size_t count;
    size_t unsent; /* the last so many of them */
    size_t bytes;
};

struct handover *handover_new(struct idempotency_region *table, struct counters *counters,
                              uint16_t slot, const uint8_t start_id[SHM_START_ID_BYTES])
{
    struct handover *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->table = table;
    h->counters = counters;
    h->slot = slot;
    h->start_id = start_id;
    h->last = &h->first;
    return h;
}

static void forget(struct handover *h, struct kept_answer **link)
{
    struct kept_answer *kept = *link;

    *link = kept->next;
    if (*link == NULL)
        h->last = link;
    h->count--;
    h->unsent -= !kept->sent;
    h->bytes -= kept->body.len;
    buf_clear(&kept->body);
    free(kept);
}

void handover_free(struct handover *h)
{
    if (h == NULL)
        return;
    while (h->first != NULL)
        forget(h, &h->first);
    free(h);
}

static void lose(struct handover *h, const struct handover_answer *answer)
{
    idempotency_lose(h->table, answer->key.key, &answer->id);
    counter_inc(&h->counters->answers_dropped_total);
}

void handover_tidy(struct handover *h)
{
    struct kept_answer **link = &h->first;

    while (*link != NULL) {
        const struct handover_answer *a = &(*link)->answer;

        if (idempotency_is_storing(h->table, a->key.key, &a->id))
            link = &(*link)->next;
        else
            forget(h, link);
    }
}

/* The usage-writer may have the oldest already, and then it stays stored. */
static void make_room(struct handover *h, size_t bytes)
{
    if (h->count < HANDOVER_MAX_ANSWERS && h->bytes + bytes <= HANDOVER_MAX_BYTES)
        return;
    handover_tidy(h);
    while (h->first != NULL &&
           (h->count >= HANDOVER_MAX_ANSWERS || h->bytes + bytes > HANDOVER_MAX_BYTES)) {
        lose(h, &h->first->answer);
        forget(h, &h->first);
    }
}

void handover_add(struct handover *h, const struct handover_answer *answer, struct buf *body)
{
    struct kept_answer *kept = body->err == 0 ? calloc(1, sizeof(*kept)) : NULL;

    if (kept == NULL) {
        buf_clear(body);
        lose(h, answer);
        return;
    }
    make_room(h, body->len);
    kept->answer = *answer;
    kept->body = *body;
    buf_init(body, body->max);
    *h->last = kept;
    h->last = &kept->next;
    h->count++;
    h->unsent++;
    h->bytes += kept->body.len;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* A descriptor or -errno. */
static int make_memfd(const struct buf *body)
{
    int fd = memfd_create("xrouter-answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int rc;

    if (fd == -1)
        return -errno;
    rc = write_all(fd, body->data, body->len);
    if (rc == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == -1)
        rc = -errno;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int send_packet(const struct handover *h, const struct kept_answer *kept, int socket, int fd)
{
    const struct handover_answer *a = &kept->answer;
    struct answer_packet packet = {
        .magic = ANSWER_PACKET_MAGIC,
        .version = ANSWER_PACKET_VERSION,
        .slot = h->slot,
        .key = a->key,
        .id = a->id,
        .ended_at_ms = a->ended_at_ms,
        .length = (uint32_t)kept->body.len,
        .status = (uint16_t)a->status,
        .type = (uint16_t)a->type,
    };
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = &packet, .iov_len = sizeof(packet)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

    memcpy(packet.start_id, h->start_id, sizeof(packet.start_id));
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 ? -errno : 0;
}

static int send_one(const struct handover *h, const struct kept_answer *kept, int socket)
{
    int fd = make_memfd(&kept->body);
    int rc;

    if (fd < 0)
        return -ENOBUFS; /* no memory, no descriptor: later */
    rc = send_packet(h, kept, socket, fd);
    close(fd);
    /* Too many descriptors are on their way, or the kernel has no memory: later too. */
    return rc == -ETOOMANYREFS || rc == -ENOMEM ? -ENOBUFS : rc;
}

int handover_send(struct handover *h, int socket)
{
    for (struct kept_answer *kept = h->first; kept != NULL && h->unsent > 0; kept = kept->next) {
        int rc;

        if (kept->sent)
            continue;
        rc = send_one(h, kept, socket);
        if (rc < 0)
            return rc;
        kept->sent = true;
        h->unsent--;
    }
    return 0;
}

bool handover_has_unsent(const struct handover *h)
{
    return h->unsent > 0;
}

void handover_rewind(struct handover *h)
{
    handover_tidy(h);
    for (struct kept_answer *kept = h->first; kept != NULL; kept = kept->next)
        kept->sent = false;
    h->unsent = h->count;
}

size_t handover_count(const struct handover *h)
{
    return h->count;
}
