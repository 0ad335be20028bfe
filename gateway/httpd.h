/* httpd.h - a worker's HTTP server: libmicrohttpd without threads of its own, driven by the
 * worker's loop.
 *
 * The worker accepts by itself and spreads connections over several listener-less daemons, because
 * libmicrohttpd walks a daemon's whole list of suspended connections after each resume; TLS
 * connections have daemons of their own, because an open handshake makes their timeout a constant
 * 0. Deadlines are the worker's timers, and they end a connection with shutdown(): a suspended
 * connection is never timed out by the library. A client that leaves is seen by our own EPOLLRDHUP.
 *
 * A request is handled in notes: a handler answers at once or later, the turn moves the bytes. */
#ifndef XROUTER_GATEWAY_HTTPD_H
#define XROUTER_GATEWAY_HTTPD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/counters.h"
#include "common/error.h"
#include "common/loop.h"
#include "usage/event.h"
#include "usage/keytable.h"
#include "usage/limits.h"

struct httpd;  /* opaque */
struct client; /* one connection; opaque */

enum listener { LISTENER_HTTP, LISTENER_HTTPS, LISTENER_OPS, LISTENER_COUNT };

#define REQUEST_ID_BYTES (USAGE_ID_TEXT_BYTES + 4) /* "req_" and the usage id */
#define HTTP_HEADERS_MAX 8                         /* a handler's own response headers */
#define HTTP_TARGET_MAX 2048

struct http_request;

/* One address: what a listener serves. The table ends with path NULL. */
struct endpoint {
    const char *method;
    const char *path; /* exact, or a prefix when it ends in '/': the rest is request->rest */
    bool needs_key;
    bool is_public; /* served on HTTP and HTTPS; else on the ops listener only */
    /* Called once the body is there. Answers with http_answer...() now, or keeps the request and
     * answers later, having set request->ops. */
    void (*handle)(void *arg, struct http_request *request);
};

/* For handlers that answer later or stream. All are called from the worker's turn. */
struct http_request_ops {
    /* The client left while the request waits; the connection is ended after this returns. */
    void (*on_gone)(struct http_request *request);
    /* Next bytes of a stream: > 0 copied to dst; 0 nothing yet (http_wake() when there is);
     * HTTP_STREAM_END; HTTP_STREAM_ABORT (the connection is cut so that the client can tell). */
    ssize_t (*read)(struct http_request *request, char *dst, size_t max);
    /* Exactly once, last: the answer went out whole (delivered) or not. state is to be freed. */
    void (*on_completed)(struct http_request *request, bool delivered);
};
#define HTTP_STREAM_END (-1)
#define HTTP_STREAM_ABORT (-2)

struct http_header {
    const char *name; /* a literal */
    char value[144];
};

struct http_request {
    struct usage_id id;
    char id_text[REQUEST_ID_BYTES];
    enum listener listener;
    const struct endpoint *endpoint; /* NULL: none matched */
    const char *method;              /* valid until completed */
    char *target;                /* as sent, with the query; at most HTTP_TARGET_MAX bytes kept */
    const char *rest;            /* behind a prefix endpoint's path, unescaped by nobody */
    struct key key;              /* id 0 = none was needed or given */
    const char *idempotency_key; /* the header's value as sent, NULL = absent */
    size_t idempotency_key_len;
    int64_t deadline_ms; /* monotonic: the client's own, 0 = none */
    struct buf body;
    struct config *config; /* the one it began with; referenced */
    int64_t started_us;    /* monotonic: its first bytes were seen */
    int64_t first_byte_us; /* of the answer, 0 = none yet */
    unsigned status;       /* of the answer, 0 = none */
    uint64_t bytes_sent;   /* of the answer's body */
    struct error error;    /* what was answered, for the log */

    const struct http_request_ops *ops; /* NULL: answered at once */
    void *state;                        /* the handler's own */
    /* For the access log, filled by the handler: its own JSON members, beginning with a comma. */
    void (*log_fields)(const struct http_request *request, struct buf *out);

    /* private to httpd.c */
    struct client *client;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;
    const char *content_type;
    struct buf answer;
    bool is_quiet;    /* not for the access log */
    bool is_hopeless; /* an error that no repeat mends, whatever its kind says */
    bool headers_seen, answered, queued, streaming, suspended, aborted, gone_told, close_after;
};

struct httpd_setup { /* borrowed */
    struct loop *loop;
    struct counters *counters;
    const struct keytable_region *keys;
    const struct limits_region *limits; /* of the keys, for the headers of answers */
    struct usage_id_state *ids;
    size_t slot;
    struct config *config; /* referenced by the server; httpd_set_config() replaces it */
    const struct endpoint *endpoints;
    void *arg;                      /* for the endpoints' handlers */
    int listen_fds[LISTENER_COUNT]; /* -1 = off */
};

int httpd_new(const struct httpd_setup *setup, struct httpd **out); /* 0 or -errno, logged */
void httpd_free(struct httpd *h); /* cuts what is still open. NULL is fine */
/* One turn's work: resumed connections, readable daemons, due timeouts. */
void httpd_run(struct httpd *h);
int64_t httpd_next_ms(const struct httpd *h); /* how long the loop may sleep, -1 = no limit */
/* Takes the new limits and certificate over (existing TLS connections keep theirs). 0 or -errno:
 * the old ones stay. */
int httpd_set_config(struct httpd *h, struct config *config);
/* Closes the public listeners and idle connections; answers say that theirs is closed, too. */
void httpd_drain(struct httpd *h);
size_t httpd_open_requests(const struct httpd *h); /* public ones, not completed */

/* Adds a header to the coming answer; the value is cut to fit. name is a literal. */
void http_add_header(struct http_request *r, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void http_add_header_text(struct http_request *r, const char *name, const char *text, size_t len);
/* Answers with the body's bytes (moved out). content_type is a literal. */
void http_answer(struct http_request *r, unsigned status, const char *content_type,
                 struct buf *body);
/* Answers with OpenAI's error object and its status and headers. */
void http_answer_error(struct http_request *r, const struct error *e);
/* Starts a stream: from now on ops->read gives the bytes. */
void http_answer_stream(struct http_request *r, unsigned status, const char *content_type);
/* There is something to read, or the stream ended. */
void http_wake(struct http_request *r);
/* Ends the connection now; on_completed follows. */
void http_abort(struct http_request *r);
/* The client's numeric address. */
const char *http_peer(const struct http_request *r);

#endif
