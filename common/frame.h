/* frame.h - the control protocol of master.sock and writer.sock: one JSON object a frame.
 *
 * On the stream socket a frame is a 4-byte big-endian length and that many bytes of JSON. A client
 * sends one request, {"op":"key.create",...}, and reads one or more answers; the last one has
 * "done":true. Errors are {"done":true,"error":{"code","message"}}. */
#ifndef XROUTER_COMMON_FRAME_H
#define XROUTER_COMMON_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define FRAME_MAX (1024 * 1024)

/* Appends the header and the JSON. -EMSGSIZE over FRAME_MAX. */
int frame_put(struct buf *out, const char *json, size_t len);
/* Whether a whole frame stands at the front of in: 1 with its text (inside in, until it is
 * dropped: frame_drop()), 0 not yet, -EPROTO for a length of 0 or over FRAME_MAX. */
int frame_peek(const struct buf *in, const char **json, size_t *len);
void frame_drop(struct buf *in);

/* For command-line clients, blocking with a deadline. */
int frame_connect(const char *path, int64_t timeout_ms);            /* fd or -errno */
int frame_send(int fd, const struct buf *json, int64_t timeout_ms); /* 0 or -errno */
/* Next frame's JSON into *out (reset first). 0, -ECONNRESET (peer closed), -ETIMEDOUT, -errno. */
int frame_recv(int fd, struct buf *out, int64_t timeout_ms);

/* A listening AF_UNIX socket (type SOCK_STREAM or SOCK_SEQPACKET) at path with mode, non-blocking;
 * a stale file is replaced. Returns fd or -errno (-ENAMETOOLONG when the path does not fit
 * sockaddr_un). */
int unix_listen(const char *path, int type, unsigned mode);
/* Whether the peer's uid is root's or ours. */
int unix_peer_check(int fd); /* 0 or -EACCES */

#endif
