/* The exchange with a provider over plain TCP. */
#include "tests/unit/upstream_peer.h"

/* Keep-alive. */

static void given_two_requests_when_kept_alive_then_one_connection(void **state)
{
    struct fixture *f = *state;
    int fd = one_exchange(f);
    struct exchange x;

    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    exchange_init(&x, f);
    start(&x);
    assert_int_equal(value(&f->counters.upstream_connections_idle), 0);
    server_expect(f, fd, REQUEST "ping");
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_false(x.repeated);
    assert_int_equal(value(&f->counters.upstream_connects_total), 1);
    assert_int_equal(value(&f->counters.upstream_retries_total), 0);
    close(fd);
}

static void given_idle_connections_when_used_then_the_last_one_first(void **state)
{
    struct fixture *f = *state;
    struct exchange a, b, c;
    int fd_a, fd_b;

    exchange_init(&a, f);
    exchange_init(&b, f);
    exchange_init(&c, f);
    start(&a);
    fd_a = server_accept(f);
    start(&b);
    fd_b = server_accept(f);
    server_expect(f, fd_a, "ping");
    server_expect(f, fd_b, "ping");
    server_say(fd_b, ANSWER);
    TURN_UNTIL(f, b.ends > 0);
    server_say(fd_a, ANSWER);
    TURN_UNTIL(f, a.ends > 0);
    start(&c);
    server_expect(f, fd_a, "ping");
    server_say(fd_a, ANSWER);
    TURN_UNTIL(f, c.ends > 0);
    assert_ok(&a, "hello");
    assert_ok(&b, "hello");
    assert_ok(&c, "hello");
    assert_int_equal(value(&f->counters.upstream_connections_idle), 2);
    close(fd_a);
    close(fd_b);
}

static void given_an_idle_connection_when_the_server_closes_it_then_it_is_closed(void **state)
{
    struct fixture *f = *state;
    int fd = one_exchange(f);

    shutdown(fd, SHUT_WR);
    TURN_UNTIL(f, is_closed(fd));
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_an_idle_connection_when_bytes_come_then_it_is_closed(void **state)
{
    struct fixture *f = *state;
    int fd = one_exchange(f);

    server_say(fd, "HTTP/1.1 408 Request Timeout\r\n\r\n");
    TURN_UNTIL(f, is_closed(fd));
    assert_int_equal(value(&f->counters.upstream_connections_idle), 0);
    close(fd);
}

static void given_bytes_behind_the_response_when_complete_then_not_kept(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, ANSWER "HTTP/1.1 200 OK\r\n");
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_connection_close_when_complete_then_not_kept(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "");
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_idle_connections_when_told_to_close_them_then_closed(void **state)
{
    struct fixture *f = *state;
    int fd = one_exchange(f);

    upstreams_close_idle(f->pool);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    TURN_UNTIL(f, is_closed(fd));
    close(fd);
    close(one_exchange(f)); /* and the origin is found anew */
}

/* Repeating. */

static void given_a_dead_kept_alive_connection_when_used_then_repeated_once(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd = one_exchange(f);

    close(fd); /* the loop has no turn to see it before the next request */
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, REQUEST "ping");
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_true(x.repeated);
    assert_int_equal(value(&f->counters.upstream_retries_total), 1);
    assert_int_equal(value(&f->counters.upstream_connects_total), 2);
    close(fd);
}

static void given_a_reset_kept_alive_connection_when_used_then_repeated_once(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd = one_exchange(f);

    server_reset(fd);
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_true(x.repeated);
    close(fd);
}

static void given_a_repeated_request_when_cut_again_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    close(one_exchange(f));
    exchange_init(&x, f);
    start(&x);
    close(server_accept(f));
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    assert_int_equal(value(&f->counters.upstream_retries_total), 1);
}

static void given_a_reused_connection_when_cut_after_a_byte_then_not_repeated(void **state)
{
    struct fixture *f = *state;
    int fd = one_exchange(f);
    struct exchange x;

    exchange_init(&x, f);
    start(&x);
    server_expect(f, fd, "ping");
    server_say(fd, "H");
    close(fd);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    assert_int_equal(value(&f->counters.upstream_retries_total), 0);
}

/* Failures. */

static void given_nobody_listening_when_started_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    close(f->listener);
    exchange_init(&x, f);
    start(&x);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    assert_int_equal(value(&f->counters.upstream_connects_total), 0);
    f->listener = listen_anywhere(&f->port);
}

static void assert_answer_fails(struct fixture *f, const char *answer, unsigned heads)
{
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, answer);
    close(fd);
    TURN_UNTIL(f, x.ends > 0);
    assert_int_equal(x.heads, heads);
    assert_failed(&x, XR_EUPSTREAM);
    assert_true(strlen(x.e.message) > 0);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
}

static void given_a_cut_or_malformed_answer_when_read_then_failed(void **state)
{
    assert_answer_fails(*state, "", 0);
    assert_answer_fails(*state, "HTTP/1.1 200 OK\r\nContent-Le", 0);
    assert_answer_fails(*state, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 1);
    assert_answer_fails(*state,
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 1);
    assert_answer_fails(*state, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 1);
    assert_answer_fails(*state, "<html>Bad Gateway</html>", 0);
}

static void given_a_reset_inside_the_body_when_read_then_failed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    TURN_UNTIL(f, x.pieces > 0);
    server_reset(fd);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
}

static void given_no_length_when_the_server_closes_then_complete(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, "HTTP/1.1 200 OK\r\n\r\nall of it");
    close(fd);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "all of it");
}

static void given_a_bad_url_when_started_then_refused(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    exchange_init(&x, f);
    f->target.url = "http://user@a/";
    start_with(&x, REQUEST, "ping", 4);
    assert_null(x.u);
    assert_int_equal(x.e.number, XR_EUPSTREAM);
}

/* Cuts and sizes. */

static void given_a_chunked_answer_when_it_comes_byte_by_byte_then_whole(void **state)
{
    static const char answer[] = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
                                 "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n"
                                 "7\r\n, world\r\n0\r\nX: y\r\n\r\n";
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    for (size_t i = 0; i < sizeof(answer) - 1; i++) {
        server_say_bytes(fd, answer + i, 1);
        turn(f, 1);
    }
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello, world");
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    close(fd);
}

static bool sent_more(int fd, const char *data, size_t len, size_t *sent)
{
    size_t left = len - *sent < 262144 ? len - *sent : 262144;
    ssize_t n = send(fd, data + *sent, left, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n > 0)
        *sent += (size_t)n;
    return *sent == len;
}

static void given_a_large_answer_when_read_then_whole_and_in_order(void **state)
{
    struct fixture *f = *state;
    size_t len = 5 << 20, sent = 0;
    uint32_t *words = malloc(len);
    struct exchange x;
    char head[100];
    int fd;

    assert_non_null(words);
    for (size_t i = 0; i < len / 4; i++)
        words[i] = (uint32_t)i;
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, head);
    TURN_UNTIL(f, sent_more(fd, (const char *)words, len, &sent));
    TURN_UNTIL(f, x.ends > 0);
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.body.len, len);
    assert_memory_equal(x.body.data, words, len);
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    buf_clear(&x.body);
    free(words);
    close(fd);
}

static bool received_more(int fd, struct buf *in, size_t len)
{
    char bytes[65536];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n > 0)
        buf_append(in, bytes, (size_t)n);
    return in->len >= len;
}

static void given_a_large_request_when_the_server_reads_slowly_then_whole(void **state)
{
    struct fixture *f = *state;
    size_t len = 8 << 20;
    char *body = malloc(len);
    struct exchange x;
    struct buf in;
    int fd;

    assert_non_null(body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7 + i / 251);
    buf_init(&in, 64 << 20);
    exchange_init(&x, f);
    start_with(&x, REQUEST, body, len);
    fd = server_accept(f);
    turn(f, 50);
    assert_int_equal(x.ends, 0);
    TURN_UNTIL(f, received_more(fd, &in, strlen(REQUEST) + len));
    assert_memory_equal(in.data, REQUEST, strlen(REQUEST));
    assert_memory_equal(in.data + strlen(REQUEST), body, len);
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    buf_clear(&in);
    free(body);
    close(fd);
}

static void given_an_answer_before_the_request_is_sent_when_read_then_not_kept(void **state)
{
    struct fixture *f = *state;
    size_t len = 16 << 20;
    char *body = calloc(1, len);
    struct exchange x;
    int fd;

    assert_non_null(body);
    exchange_init(&x, f);
    start_with(&x, REQUEST, body, len);
    fd = server_accept(f);
    turn(f, 50);
    server_say(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    TURN_UNTIL(f, x.ends > 0);
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.status, 413);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    buf_clear(&x.body);
    free(body);
    close(fd);
}

/* Deadlines. */

static int64_t time_to_end(struct exchange *x)
{
    int64_t began_ms = clock_monotonic_ms();

    TURN_UNTIL(x->f, x->ends > 0);
    return clock_monotonic_ms() - began_ms;
}

static void given_a_silent_server_when_first_byte_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int64_t took_ms;
    int fd;

    f->target.first_byte_ms = 60;
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"); /* a head is no body */
    took_ms = time_to_end(&x);
    assert_int_equal(x.heads, 1);
    assert_in_range(took_ms, 30, 1000);
    assert_failed(&x, XR_ETIMEOUT);
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_a_stalled_body_when_idle_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int64_t took_ms;
    int fd;

    f->target.idle_ms = 60;
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    TURN_UNTIL(f, x.pieces > 0);
    took_ms = time_to_end(&x);
    assert_in_range(took_ms, 30, 1000);
    assert_failed(&x, XR_ETIMEOUT);
    close(fd);
}

static void given_a_trickling_body_when_total_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int64_t began_ms = clock_monotonic_ms();
    int fd;

    f->target.idle_ms = 50;
    f->target.total_ms = 200;
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n");
    while (x.ends == 0) {
        assert_true(clock_monotonic_ms() - began_ms < BOUND_MS);
        server_say(fd, "x");
        assert_true(loop_turn(f->loop, 10) >= 0);
    }
    assert_in_range(clock_monotonic_ms() - began_ms, 195, 2000);
    assert_failed(&x, XR_ETIMEOUT);
    close(fd);
}

static void given_a_server_that_does_not_read_when_first_byte_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    size_t len = 16 << 20;
    char *body = calloc(1, len);
    struct exchange x;
    int fd;

    assert_non_null(body);
    f->target.first_byte_ms = 80;
    exchange_init(&x, f);
    start_with(&x, REQUEST, body, len);
    fd = server_accept(f);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_ETIMEOUT);
    free(body);
    close(fd);
}

static void given_a_late_first_byte_when_idle_ms_is_shorter_then_no_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int64_t began_ms;
    int fd;

    f->target.idle_ms = 30;
    exchange_init(&x, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    began_ms = clock_monotonic_ms();
    TURN_UNTIL(f, clock_monotonic_ms() - began_ms > 90);
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    close(fd);
}

/* Callbacks that do things. */

static void given_a_cancel_inside_callbacks_when_called_then_closed_and_silent(void **state)
{
    struct fixture *f = *state;

    for (int in_head = 0; in_head < 2; in_head++) {
        struct exchange x;
        int fd;

        exchange_init(&x, f);
        x.cancel_in_head = in_head != 0;
        x.cancel_in_body = in_head == 0;
        start(&x);
        fd = server_accept(f);
        server_expect(f, fd, "ping");
        server_say(fd, ANSWER);
        TURN_UNTIL(f, is_closed(fd));
        assert_int_equal(x.heads, 1);
        assert_int_equal(x.pieces, in_head != 0 ? 0 : 1);
        turn(f, 5);
        assert_int_equal(x.ends, 0);
        assert_int_equal(value(&f->counters.upstream_connections_open), 0);
        buf_clear(&x.body);
        close(fd);
    }
}

static void given_a_cancel_at_any_moment_when_called_then_closed_and_silent(void **state)
{
    struct fixture *f = *state;

    for (int turns = 0; turns < 6; turns++) {
        struct exchange x;

        exchange_init(&x, f);
        start(&x);
        turn(f, turns);
        upstream_cancel(x.u);
        turn(f, 3);
        assert_int_equal(x.heads + x.pieces + x.ends, 0);
        assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    }
}

static void given_callbacks_that_refuse_when_called_then_their_error_ends_it(void **state)
{
    struct fixture *f = *state;

    for (int in_head = 0; in_head < 2; in_head++) {
        struct exchange x;
        int fd;

        exchange_init(&x, f);
        x.head_rc = in_head != 0 ? XR_EQUOTA : 0;
        x.body_rc = in_head != 0 ? 0 : XR_EQUOTA;
        start(&x);
        fd = server_accept(f);
        server_say(fd, ANSWER);
        TURN_UNTIL(f, x.ends > 0);
        assert_failed(&x, XR_EQUOTA);
        assert_int_equal(value(&f->counters.upstream_connections_open), 0);
        close(fd);
    }
}

static void given_a_callback_that_has_enough_when_called_then_complete_and_closed(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    x.body_rc = 1;
    start(&x);
    fd = server_accept(f);
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    assert_int_equal(value(&f->counters.upstream_connections_open), 0);
    close(fd);
}

static void given_a_start_inside_on_end_when_kept_alive_then_the_same_connection(void **state)
{
    struct fixture *f = *state;
    struct exchange x, next;
    int fd;

    exchange_init(&x, f);
    exchange_init(&next, f);
    x.start_in_end = &next;
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, ANSWER);
    server_expect(f, fd, "ping");
    server_say(fd, ANSWER);
    TURN_UNTIL(f, next.ends > 0);
    assert_ok(&x, "hello");
    assert_ok(&next, "hello");
    assert_int_equal(value(&f->counters.upstream_connects_total), 1);
    close(fd);
}

static void given_a_start_and_a_cancel_inside_on_body_when_called_then_both_hold(void **state)
{
    struct fixture *f = *state;
    struct exchange x, next;
    int fd, fd_next;

    exchange_init(&x, f);
    exchange_init(&next, f);
    x.start_in_body = &next;
    x.cancel_in_body = true;
    start(&x);
    fd = server_accept(f);
    server_say(fd, ANSWER);
    fd_next = server_accept(f);
    server_say(fd_next, ANSWER);
    TURN_UNTIL(f, next.ends > 0);
    assert_ok(&next, "hello");
    assert_int_equal(x.ends, 0);
    buf_clear(&x.body);
    close(fd);
    close(fd_next);
}

static void given_running_exchanges_when_the_pool_is_freed_then_silent(void **state)
{
    struct fixture *f = *state;
    struct exchange x, y;
    int fd;

    exchange_init(&x, f);
    exchange_init(&y, f);
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    start(&y); /* not connected yet */
    upstreams_free(f->pool);
    f->pool = NULL;
    assert_int_equal(x.ends + y.ends, 0);
    TURN_UNTIL(f, is_closed(fd));
    close(fd);
}

/* Pausing. */

static void given_a_pause_when_the_server_goes_on_then_nothing_is_read(void **state)
{
    struct fixture *f = *state;
    size_t len = 16 << 20, sent = 0;
    char *body = calloc(1, len);
    struct exchange x;
    char head[100];
    size_t delivered;
    int fd;

    assert_non_null(body);
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    f->target.idle_ms = 150; /* must not count while paused */
    exchange_init(&x, f);
    x.pause_in_body = true;
    start(&x);
    fd = server_accept(f);
    server_say(fd, head);
    for (int i = 0; i < 300; i++) { /* more than 150 ms */
        (void)sent_more(fd, body, len, &sent);
        assert_true(loop_turn(f->loop, 1) >= 0);
    }
    delivered = x.body.len;
    assert_true(delivered > 0 && delivered <= 16384);
    assert_true(sent < len); /* the kernel's windows are full */
    assert_int_equal(x.ends, 0);
    x.pause_in_body = false;
    upstream_resume(x.u);
    assert_int_equal(x.body.len, delivered); /* not from inside */
    TURN_UNTIL(f, sent_more(fd, body, len, &sent));
    TURN_UNTIL(f, x.ends > 0);
    assert_int_equal(x.rc, 0);
    assert_int_equal(x.body.len, len);
    buf_clear(&x.body);
    free(body);
    close(fd);
}

static void given_a_pause_between_chunks_when_resumed_one_by_one_then_all_come(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    exchange_init(&x, f);
    x.pause_in_head = true;
    x.pause_in_body = true;
    start(&x);
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "2\r\nab\r\n2\r\ncd\r\n2\r\nef\r\n0\r\n\r\n");
    TURN_UNTIL(f, x.heads == 1);
    for (unsigned i = 1; i <= 3; i++) {
        turn(f, 3);
        assert_int_equal(x.pieces, i - 1);
        upstream_resume(x.u);
        TURN_UNTIL(f, x.pieces == i);
        assert_int_equal(x.ends, 0);
    }
    turn(f, 3);
    assert_int_equal(x.ends, 0); /* paused: the end waits too */
    upstream_resume(x.u);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "abcdef");
    assert_int_equal(value(&f->counters.upstream_connections_idle), 1);
    close(fd);
}

static void given_a_paused_exchange_when_total_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    f->target.total_ms = 80;
    exchange_init(&x, f);
    x.pause_in_body = true;
    start(&x);
    fd = server_accept(f);
    server_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_ETIMEOUT);
    close(fd);
}

/* Names. */

static void given_a_name_not_looked_up_yet_when_published_then_connected(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    snprintf(f->url, sizeof(f->url), "http://provider.test:%u", f->port);
    assert_int_equal(addresses_register(f->addresses, "provider.test"), 0);
    exchange_init(&x, f);
    start(&x);
    turn(f, 20);
    assert_int_equal(x.ends, 0);
    publish(f, "127.0.0.1");
    fd = server_accept(f);
    server_expect(f, fd, "ping");
    server_say(fd, ANSWER);
    TURN_UNTIL(f, x.ends > 0);
    assert_ok(&x, "hello");
    close(fd);
}

static void given_a_name_whose_address_changes_when_connected_anew_then_the_new_one(void **state)
{
    struct fixture *f = *state;
    struct exchange x;
    int fd;

    snprintf(f->url, sizeof(f->url), "http://provider.test:%u", f->port);
    assert_int_equal(addresses_register(f->addresses, "provider.test"), 0);
    publish(f, "127.0.0.2"); /* nobody listens there */
    exchange_init(&x, f);
    start(&x);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_EUPSTREAM);
    publish(f, "127.0.0.1");
    fd = one_exchange(f);
    close(fd);
}

static void given_a_name_never_looked_up_when_connect_ms_passed_then_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    f->target.url = "http://provider.test";
    f->target.connect_ms = 60;
    assert_int_equal(addresses_register(f->addresses, "provider.test"), 0);
    exchange_init(&x, f);
    start(&x);
    TURN_UNTIL(f, x.ends > 0);
    assert_failed(&x, XR_ETIMEOUT);
}

static void given_an_unknown_or_failed_name_when_started_then_refused(void **state)
{
    struct fixture *f = *state;
    struct exchange x;

    f->target.url = "http://provider.test";
    exchange_init(&x, f);
    start_with(&x, REQUEST, "ping", 4);
    assert_null(x.u);
    assert_int_equal(x.e.number, XR_EUPSTREAM);
    assert_non_null(strstr(x.e.message, "could not be looked up"));
    assert_int_equal(addresses_register(f->addresses, "provider.test"), 0);
    publish(f, NULL);
    exchange_init(&x, f);
    start_with(&x, REQUEST, "ping", 4);
    assert_null(x.u);
    assert_int_equal(x.e.number, XR_EUPSTREAM);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_two_requests_when_kept_alive_then_one_connection),
        TEST(given_idle_connections_when_used_then_the_last_one_first),
        TEST(given_an_idle_connection_when_the_server_closes_it_then_it_is_closed),
        TEST(given_an_idle_connection_when_bytes_come_then_it_is_closed),
        TEST(given_bytes_behind_the_response_when_complete_then_not_kept),
        TEST(given_connection_close_when_complete_then_not_kept),
        TEST(given_idle_connections_when_told_to_close_them_then_closed),
        TEST(given_a_dead_kept_alive_connection_when_used_then_repeated_once),
        TEST(given_a_reset_kept_alive_connection_when_used_then_repeated_once),
        TEST(given_a_repeated_request_when_cut_again_then_failed),
        TEST(given_a_reused_connection_when_cut_after_a_byte_then_not_repeated),
        TEST(given_nobody_listening_when_started_then_failed),
        TEST(given_a_cut_or_malformed_answer_when_read_then_failed),
        TEST(given_a_reset_inside_the_body_when_read_then_failed),
        TEST(given_no_length_when_the_server_closes_then_complete),
        TEST(given_a_bad_url_when_started_then_refused),
        TEST(given_a_chunked_answer_when_it_comes_byte_by_byte_then_whole),
        TEST(given_a_large_answer_when_read_then_whole_and_in_order),
        TEST(given_a_large_request_when_the_server_reads_slowly_then_whole),
        TEST(given_an_answer_before_the_request_is_sent_when_read_then_not_kept),
        TEST(given_a_silent_server_when_first_byte_ms_passed_then_timeout),
        TEST(given_a_stalled_body_when_idle_ms_passed_then_timeout),
        TEST(given_a_trickling_body_when_total_ms_passed_then_timeout),
        TEST(given_a_server_that_does_not_read_when_first_byte_ms_passed_then_timeout),
        TEST(given_a_late_first_byte_when_idle_ms_is_shorter_then_no_timeout),
        TEST(given_a_cancel_inside_callbacks_when_called_then_closed_and_silent),
        TEST(given_a_cancel_at_any_moment_when_called_then_closed_and_silent),
        TEST(given_callbacks_that_refuse_when_called_then_their_error_ends_it),
        TEST(given_a_callback_that_has_enough_when_called_then_complete_and_closed),
        TEST(given_a_start_inside_on_end_when_kept_alive_then_the_same_connection),
        TEST(given_a_start_and_a_cancel_inside_on_body_when_called_then_both_hold),
        TEST(given_running_exchanges_when_the_pool_is_freed_then_silent),
        TEST(given_a_pause_when_the_server_goes_on_then_nothing_is_read),
        TEST(given_a_pause_between_chunks_when_resumed_one_by_one_then_all_come),
        TEST(given_a_paused_exchange_when_total_ms_passed_then_timeout),
        TEST(given_a_name_not_looked_up_yet_when_published_then_connected),
        TEST(given_a_name_whose_address_changes_when_connected_anew_then_the_new_one),
        TEST(given_a_name_never_looked_up_when_connect_ms_passed_then_timeout),
        TEST(given_an_unknown_or_failed_name_when_started_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
