#define _GNU_SOURCE 1 /* struct ucred */
#include "common/frame.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define HEADER_BYTES 4
#define LISTEN_BACKLOG 128
#define CONNECT_RETRY_NS 10000000 /* 10 ms */

static void encode_length(size_t len, uint8_t out[HEADER_BYTES])
{
    out[0] = (uint8_t)(len >> 24);
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
}

/* The text's length, 0 if it is none. */
static size_t decode_length(const char *header)
{
    const uint8_t *h = (const uint8_t *)header;
    size_t len = (size_t)h[0] << 24 | (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];

    return len <= FRAME_MAX ? len : 0;
}

static int unix_address(const char *path, struct sockaddr_un *addr)
{
    size_t len = strlen(path);

    if (len >= sizeof(addr->sun_path))
        return -ENAMETOOLONG;
    memset(addr, 0, sizeof(*addr));
    addr->sun_family = AF_UNIX;
    memcpy(addr->sun_path, path, len);
    return 0;
}

/* 0, -ETIMEDOUT or -errno. A peer that hung up counts as ready: the call that follows says so. */
static int wait_for(int fd, short events, int64_t deadline_ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left = deadline_ms - clock_monotonic_ms();
        int n;

        if (left <= 0)
            return -ETIMEDOUT;
        n = poll(&p, 1, left > INT32_MAX ? INT32_MAX : (int)left);
        if (n > 0)
            return 0;
        if (n == -1 && errno != EINTR)
            return -errno;
    }
}

static int send_all(int fd, const void *data, size_t len, int64_t deadline_ms)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        int rc;

        if (n >= 0) {
            at += n;
            len -= (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        rc = wait_for(fd, POLLOUT, deadline_ms);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int recv_all(int fd, char *data, size_t len, int64_t deadline_ms)
{
    while (len > 0) {
        ssize_t n = recv(fd, data, len, MSG_DONTWAIT);
        int rc;

        if (n == 0)
            return -ECONNRESET;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        rc = wait_for(fd, POLLIN, deadline_ms);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int frame_put(struct buf *out, const char *json, size_t len)
{
    uint8_t header[HEADER_BYTES];

    if (len == 0 || len > FRAME_MAX)
        return -EMSGSIZE;
    encode_length(len, header);
    /* Both or nothing: half a frame would garble all that follow. */
    if (buf_room(out, HEADER_BYTES + len) == NULL)
        return out->err;
    buf_append(out, header, sizeof(header));
    return buf_append(out, json, len);
}

int frame_peek(const struct buf *in, const char **json, size_t *len)
{
    size_t n;

    if (in->len < HEADER_BYTES)
        return 0;
    n = decode_length(in->data);
    if (n == 0)
        return -EPROTO;
    if (in->len - HEADER_BYTES < n)
        return 0;
    *json = in->data + HEADER_BYTES;
    *len = n;
    return 1;
}

void frame_drop(struct buf *in)
{
    const char *json;
    size_t len;
    int whole = frame_peek(in, &json, &len);

    assert(whole == 1);
    if (whole == 1)
        buf_drop(in, HEADER_BYTES + len);
}

int frame_connect(const char *path, int64_t timeout_ms)
{
    int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    struct sockaddr_un addr;
    int rc = unix_address(path, &addr);
    int fd;

    if (rc < 0)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return -errno;
    while (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == -1) {
        const struct timespec pause = {.tv_nsec = CONNECT_RETRY_NS};

        rc = -errno;
        /* A full backlog says EAGAIN at once, and poll() does not tell when there is room. */
        if (rc == -EAGAIN && clock_monotonic_ms() < deadline_ms) {
            nanosleep(&pause, NULL);
            continue;
        }
        if (rc == -EINTR)
            continue;
        close(fd);
        return rc == -EAGAIN ? -ETIMEDOUT : rc;
    }
    return fd;
}

int frame_send(int fd, const struct buf *json, int64_t timeout_ms)
{
    int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    uint8_t header[HEADER_BYTES];
    int rc;

    if (json->err != 0)
        return json->err;
    if (json->len == 0 || json->len > FRAME_MAX)
        return -EMSGSIZE;
    encode_length(json->len, header);
    rc = send_all(fd, header, sizeof(header), deadline_ms);
    return rc < 0 ? rc : send_all(fd, json->data, json->len, deadline_ms);
}

int frame_recv(int fd, struct buf *out, int64_t timeout_ms)
{
    int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    char header[HEADER_BYTES];
    size_t len;
    char *room;
    int rc;

    buf_reset(out);
    rc = recv_all(fd, header, sizeof(header), deadline_ms);
    if (rc < 0)
        return rc;
    len = decode_length(header);
    if (len == 0)
        return -EPROTO;
    room = buf_room(out, len);
    if (room == NULL)
        return out->err;
    rc = recv_all(fd, room, len, deadline_ms);
    if (rc < 0)
        return rc;
    buf_commit(out, len);
    return 0;
}

/* Takes away the socket of a process that is gone; anything else at that path is not ours. */
static void remove_stale(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
}

int unix_listen(const char *path, int type, unsigned mode)
{
    struct sockaddr_un addr;
    bool is_bound = false;
    int rc = unix_address(path, &addr);
    int fd;

    if (rc < 0)
        return rc;
    fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return -errno;
    remove_stale(path);
    /* fchmod() before bind(), so that the file is never open to more than mode allows; chmod()
     * after it, because the umask may have taken too much. */
    if (fchmod(fd, mode) == 0 && bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
        is_bound = true;
    if (is_bound && chmod(path, mode) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    rc = -errno;
    if (is_bound)
        unlink(path);
    close(fd);
    return rc;
}

int unix_peer_check(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1)
        return -errno;
    return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EACCES;
}
