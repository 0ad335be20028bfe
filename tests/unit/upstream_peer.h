/* upstream_peer.h - both sides of the tests of the upstream engine: a caller that notes what it was
 * told, and a server played by the test itself. Between the loop's turns it accepts, reads and
 * writes on sockets of its own. Nothing sleeps; what is waited for is a condition, with a bound. */
#ifndef XROUTER_TESTS_UPSTREAM_PEER_H
#define XROUTER_TESTS_UPSTREAM_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "providers/upstream.h"

#define BOUND_MS 10000
#define REQUEST "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

struct fixture {
    struct loop *loop;
    struct upstreams *pool;
    struct addresses_region *addresses;
    struct counters counters;
    int listener;
    uint16_t port;
    char url[64];
    struct upstream_target target;
};

/* One exchange as its caller sees it. */
struct exchange {
    struct fixture *f;
    struct upstream *u;
    unsigned heads, pieces, ends;
    unsigned status;
    int rc;
    bool repeated;
    struct error e;
    struct buf body;
    /* what to do inside callbacks */
    int head_rc, body_rc;
    bool cancel_in_head, cancel_in_body, pause_in_body, pause_in_head;
    struct exchange *start_in_body, *start_in_end;
};

#define TURN_UNTIL(f, condition)                            \
    do {                                                    \
        int64_t bound_ms = clock_monotonic_ms() + BOUND_MS; \
        while (!(condition)) {                              \
            assert_true(clock_monotonic_ms() < bound_ms);   \
            assert_true(loop_turn((f)->loop, 1) >= 0);      \
        }                                                   \
    } while (0)

static inline void turn(struct fixture *f, int times)
{
    for (int i = 0; i < times; i++)
        assert_true(loop_turn(f->loop, 0) >= 0);
}

/* The client's side. */

static inline void start(struct exchange *x);

static inline int on_head(void *arg, const struct http1_head *head)
{
    struct exchange *x = arg;

    x->heads++;
    x->status = head->status;
    x->repeated = upstream_was_repeated(x->u);
    if (x->pause_in_head)
        upstream_pause(x->u);
    if (x->cancel_in_head) {
        upstream_cancel(x->u);
        x->u = NULL;
    }
    return x->head_rc;
}

static inline int on_body(void *arg, const char *data, size_t len)
{
    struct exchange *x = arg;
    struct exchange *other = x->start_in_body;

    assert_true(len > 0);
    x->pieces++;
    buf_append(&x->body, data, len);
    x->start_in_body = NULL;
    if (other != NULL)
        start(other);
    if (x->pause_in_body)
        upstream_pause(x->u);
    if (x->cancel_in_body) {
        upstream_cancel(x->u);
        x->u = NULL;
    }
    return x->body_rc;
}

static inline void on_end(void *arg, int rc, const struct error *e)
{
    struct exchange *x = arg;

    x->ends++;
    x->rc = rc;
    x->e = *e;
    x->u = NULL;
    if (x->start_in_end != NULL)
        start(x->start_in_end);
}

static const struct upstream_callbacks callbacks = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end};

static inline void exchange_init(struct exchange *x, struct fixture *f)
{
    memset(x, 0, sizeof(*x));
    x->f = f;
    buf_init(&x->body, 64 << 20);
}

static inline void start_with(struct exchange *x, const char *head_text, const char *body_text,
                              size_t body_len)
{
    struct buf head, body;

    buf_init(&head, 1 << 16);
    buf_init(&body, 64 << 20);
    buf_str(&head, head_text);
    buf_append(&body, body_text, body_len);
    x->u = upstream_start(x->f->pool, &x->f->target, &head, &body, &callbacks, x, &x->e);
    assert_int_equal(head.len + body.len, 0);
    assert_int_equal(x->heads + x->pieces + x->ends, 0); /* never from inside */
    buf_clear(&head);
    buf_clear(&body);
}

static inline void start(struct exchange *x)
{
    start_with(x, REQUEST, "ping", 4);
    assert_non_null(x->u);
}

static inline void assert_ok(struct exchange *x, const char *body)
{
    assert_int_equal(x->ends, 1);
    assert_int_equal(x->rc, 0);
    assert_int_equal(x->e.number, 0);
    assert_int_equal(x->status, 200);
    assert_int_equal(x->body.len, strlen(body));
    if (x->body.len > 0)
        assert_memory_equal(x->body.data, body, x->body.len);
    buf_clear(&x->body);
}

static inline void assert_failed(struct exchange *x, int rc)
{
    assert_int_equal(x->ends, 1);
    assert_int_equal(x->rc, rc);
    assert_int_equal(x->e.number, rc);
    buf_clear(&x->body);
}

/* The server's side. */

static inline int try_accept(struct fixture *f, int *fd)
{
    *fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return *fd;
}

static inline int server_accept(struct fixture *f)
{
    int fd = -1;

    TURN_UNTIL(f, try_accept(f, &fd) != -1);
    return fd;
}

static inline bool got_text(int fd, struct buf *in, const char *end)
{
    char bytes[4096];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n > 0)
        buf_append(in, bytes, (size_t)n);
    return in->len >= strlen(end) &&
           memcmp(in->data + in->len - strlen(end), end, strlen(end)) == 0;
}

/* Reads until what came ends with the text. */
static inline void server_expect(struct fixture *f, int fd, const char *end)
{
    struct buf in;

    buf_init(&in, 1 << 20);
    TURN_UNTIL(f, got_text(fd, &in, end));
    buf_clear(&in);
}

static inline void server_say_bytes(int fd, const char *text, size_t len)
{
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

static inline void server_say(int fd, const char *text)
{
    server_say_bytes(fd, text, strlen(text));
}

static inline void server_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}

static inline bool is_closed(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

    return n == 0 || (n == -1 && errno == ECONNRESET);
}

static inline uint64_t value(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline int listen_anywhere(uint16_t *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd != -1);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

static inline int setup(void **state)
{
    struct fixture *f = aligned_alloc(64, sizeof(*f) + 64 - sizeof(*f) % 64);

    assert_non_null(f);
    memset(f, 0, sizeof(*f));
    f->loop = loop_new();
    f->addresses = calloc(1, addresses_region_spec().bytes);
    assert_non_null(f->addresses);
    addresses_region_init(f->addresses);
    f->pool = upstreams_new(f->loop, f->addresses, &f->counters);
    assert_non_null(f->pool);
    f->listener = listen_anywhere(&f->port);
    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u/base", f->port);
    f->target = (struct upstream_target){.url = f->url,
                                         .ca_bundle_file = "",
                                         .connect_ms = 5000,
                                         .first_byte_ms = 5000,
                                         .idle_ms = 5000,
                                         .total_ms = 9000};
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    upstreams_free(f->pool);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    assert_int_equal(value(&f->counters.upstream_connections_idle), 0);
    loop_free(f->loop);
    free(f->addresses);
    close(f->listener);
    free(f);
    return 0;
}

/* The helper's part: the first registered name has this address now (NULL: the look-up failed). */
static inline void publish(struct fixture *f, const char *address)
{
    struct address_list list = {.looked_up_ms = 1};

    if (address != NULL) {
        list.count = 2;
        strcpy(list.text[0], address);
        strcpy(list.text[1], "::1"); /* nobody listens there */
    } else {
        list.error = -2;
    }
    addresses_publish(f->addresses, 0, &list);
}

/* A whole exchange on a new connection; returns the server's end of it. */
static inline int one_exchange(struct fixture *f)
{
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    return fd;
}

#endif
