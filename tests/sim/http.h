/* http.h - the simulator's HTTP/1.1 server: connections, requests in, answers out.
 *
 * It is written here because it must be able to misbehave: every byte, pause, FIN and RST of an
 * answer is under the plan's control. A connection has one request at a time. The handler either
 * queues a whole answer (http_reply) or begins one and leaves a producer (http_produce) that is
 * called whenever the output has drained and no pause is running. */
#ifndef XROUTER_SIM_HTTP_H
#define XROUTER_SIM_HTTP_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/loop.h"
#include "tests/sim/journal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/stats.h"

#define HTTP_CHUNKED (-1)     /* body lengths for http_begin() */
#define HTTP_UNTIL_CLOSE (-2) /* neither length nor chunks: the end is the FIN */

#define HTTP_TYPE_JSON "application/json; charset=utf-8"
#define HTTP_TYPE_HTML "text/html"

#define ANSWER_ID_BYTES 29 /* "req_", 24 characters and the NUL */

struct sim;
struct http_server;
struct conn;
struct dialect;
struct verdict;

struct span {
    const char *data; /* NULL: absent */
    size_t len;
};

/* Points into the connection's input; valid until the answer has ended. */
struct http_request {
    struct span method;
    struct span path; /* without the query and without a leading /api before /v1 */
    struct span query;
    struct span user_agent;
    struct span authorization;
    struct span api_key; /* x-api-key */
    struct span anthropic_version;
    struct span content_type;
    struct span request_id;
    struct span client_request_id;
    struct span session_id;
    struct span rquid;
    struct span head; /* request line and headers as they came */
    struct span body;
    bool keep_alive;
};

enum http_step {
    STEP_MORE,  /* call again when the output has drained */
    STEP_WAIT,  /* after conn.pause_ms */
    STEP_END,   /* answered */
    STEP_CLOSE, /* answered as far as it goes: FIN */
    STEP_RESET, /* RST */
    STEP_HANG,  /* answered, but the connection stays silent and open until the client closes it */
};

enum conn_state { CONN_READING, CONN_ANSWERING, CONN_HANGING, CONN_LINGERING };

typedef enum http_step (*http_produce_fn)(struct conn *conn);
typedef void (*http_end_fn)(struct conn *conn, enum journal_end end);

struct conn {
    struct event_source source;
    struct timer timer;
    struct sim *sim;
    struct conn *prev;
    struct conn *next;
    int fd;
    SSL *ssl; /* NULL: plain */
    enum conn_state state;
    struct buf in;
    struct buf out;

    /* the request */
    struct http_request request;
    enum route route;
    const struct dialect *dialect; /* of the route */
    struct plan plan;
    size_t request_bytes; /* of in */
    size_t scanned_bytes; /* of in, for the end of the head */
    size_t needed_bytes;  /* of in, before another look makes sense */
    struct buf chunked_body;
    size_t chunk_at;   /* of in: where the next chunk begins; 0: the body is not chunked */
    bool is_continued; /* 100 Continue was sent */
    bool is_readable;  /* more has come while an answer was under way */

    /* the answer */
    http_produce_fn produce; /* NULL: everything is in out */
    http_end_fn on_end;      /* called once, whatever the end; NULL is fine */
    enum http_step step;     /* once it is final: how the answer ends */
    int64_t hold_ms;         /* silence before the first byte */
    int64_t pause_ms;        /* with STEP_WAIT */
    bool is_waiting;         /* the timer decides when to go on */
    bool is_cut;             /* the answer ends before its end: for the journal */
    bool is_chunked;
    int status;                      /* as sent; 0: nothing was */
    int64_t cursor;                  /* for producers that need one number */
    char answer_id[ANSWER_ID_BYTES]; /* see http_answer_id() */

    /* what a handler keeps with the connection, reused by its next request */
    void *handler_data;
    void (*handler_free)(void *data);
};

/* Listens; address is "ADDR:PORT" or "[ADDR]:PORT". tls (NULL: plain HTTP) is borrowed.
 * Returns 0 or -errno. */
int http_server_open(struct sim *sim, const char *address, SSL_CTX *tls, struct http_server **out);
void http_server_close(struct http_server *server); /* and all its connections; NULL is fine */
/* "ADDR:PORT" as bound. Owned by the server. */
const char *http_server_address(const struct http_server *server);
/* Closes the listening socket and every idle connection; comes back after ms. */
void http_server_refuse(struct http_server *server, int64_t ms);

bool span_equals(struct span span, const char *text);

/* Status line and headers of the answer. extra is header lines, each with its CRLF, or "". */
void http_begin(struct conn *conn, int status, const char *type, const char *extra, int64_t length);
/* Body bytes, as one chunk where the body is chunked. */
void http_body(struct conn *conn, const void *data, size_t len);
void http_body_end(struct conn *conn);
/* The rest of the answer comes from produce. */
void http_produce(struct conn *conn, http_produce_fn produce);
/* A chunk whose size line is no number. */
void http_broken_chunk(struct conn *conn, const void *data, size_t len);
/* A whole answer. */
void http_reply(struct conn *conn, int status, const char *type, const char *extra,
                const void *body, size_t len);
/* An error in the body that the route's dialect has for it. */
void http_reply_verdict(struct conn *conn, const struct verdict *verdict);
void http_reply_error(struct conn *conn, int status, const char *message);
/* nginx's page, as wrong addresses get. */
void http_reply_html(struct conn *conn, int status, const char *extra);
const char *http_reason(int status);
/* The id of this answer, "req_...", for dialects that give one. */
const char *http_answer_id(struct conn *conn);

#endif
