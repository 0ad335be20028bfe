/* The check of a request's head, as libmicrohttpd hands it over: real bytes through a real daemon,
 * because what it makes of them is half of the matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/framing.h"

#define RUNS 5 /* of the daemon, for one head */

struct seen {
    struct MHD_Daemon *daemon;
    unsigned calls;
    int rc;
    struct request_headers headers;
    char authorization[64];
    struct error e;
    char target[256];
};

static void *on_target(void *arg, const char *target, struct MHD_Connection *connection)
{
    struct seen *s = arg;

    snprintf(s->target, sizeof(s->target), "%s", target);
    return NULL;
}

static size_t leave_as_it_is(void *arg, struct MHD_Connection *connection, char *text)
{
    return strlen(text);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **context)
{
    struct seen *s = arg;

    s->calls++;
    s->rc = framing_check(connection, method, s->target, version, &s->headers, &s->e);
    if (s->headers.authorization != NULL)
        snprintf(s->authorization, sizeof(s->authorization), "%.*s",
                 (int)s->headers.authorization_len, s->headers.authorization);
    return MHD_NO;
}

static int setup(void **state)
{
    struct seen *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    s->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_request, s,
                         MHD_OPTION_URI_LOG_CALLBACK, on_target, s, MHD_OPTION_UNESCAPE_CALLBACK,
                         leave_as_it_is, NULL, MHD_OPTION_STRICT_FOR_CLIENT, -1, MHD_OPTION_END);
    assert_non_null(s->daemon);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct seen *s = *state;

    MHD_stop_daemon(s->daemon);
    free(s);
    return 0;
}

/* Sends the bytes over a connection of their own; whether the check was asked. */
static bool offer(struct seen *s, const char *bytes)
{
    struct sockaddr_storage nobody = {.ss_family = AF_UNIX};
    int pair[2];

    s->calls = 0;
    s->rc = 0;
    memset(&s->e, 0, sizeof(s->e));
    s->authorization[0] = '\0';
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(send(pair[0], bytes, strlen(bytes), MSG_NOSIGNAL), strlen(bytes));
    assert_int_equal(
        MHD_add_connection(s->daemon, pair[1], (struct sockaddr *)(void *)&nobody, sizeof(nobody)),
        MHD_YES);
    for (int i = 0; i < RUNS && s->calls == 0; i++)
        assert_int_equal(MHD_run(s->daemon), MHD_YES);
    close(pair[0]);
    for (int i = 0; i < RUNS; i++)
        assert_int_equal(MHD_run(s->daemon), MHD_YES);
    return s->calls > 0;
}

#define GET "GET /v1/models HTTP/1.1\r\n"
#define POST "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"

static void given_ordinary_heads_when_checked_then_accepted(void **state)
{
    static const char *const heads[] = {
        GET "Host: x\r\n\r\n",
        GET "host: x\r\nAccept: */*\r\nX-Odd_!#$%&'*+.^`|~9: a\tb \x80\xff\r\n\r\n",
        GET "Host: x\r\nX-Empty:\r\n\r\n",
        GET "Host:\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "BREW /~a?b=%00&c=/../ HTTP/1.1\r\nHost: x\r\n\r\n",
        POST "Content-Length: 0\r\n\r\n",
        POST "Content-Length: 9999999999999999999\r\n\r\n",
        POST "Transfer-Encoding: chunked\r\n\r\n",
        POST "TRANSFER-ENCODING: Chunked\r\n\r\n",
    };
    struct seen *s = *state;

    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        assert_true(offer(s, heads[i]));
        if (s->rc != 0)
            fail_msg("%s: %s", heads[i], s->e.message);
    }
}

static void given_a_body_when_announced_then_its_length_is_told(void **state)
{
    struct seen *s = *state;

    assert_true(offer(s, POST "Content-Length: 1234567890123\r\n\r\n"));
    assert_true(s->headers.has_length && !s->headers.chunked);
    assert_true(s->headers.length == UINT64_C(1234567890123));
    assert_true(offer(s, POST "Transfer-Encoding: chunked\r\n\r\n"));
    assert_true(s->headers.chunked && !s->headers.has_length);
    assert_true(offer(s, GET "Host: x\r\n\r\n"));
    assert_true(!s->headers.chunked && !s->headers.has_length);
}

static void given_an_authorization_when_sent_then_it_is_told(void **state)
{
    struct seen *s = *state;

    assert_true(offer(s, GET "Host: x\r\nauthorization:   Bearer abc\r\n\r\n"));
    assert_int_equal(s->rc, 0);
    assert_string_equal(s->authorization, "Bearer abc");
    assert_true(offer(s, GET "Host: x\r\n\r\n"));
    assert_null(s->headers.authorization);
}

static void given_ambiguous_heads_when_checked_then_refused_with_a_reason(void **state)
{
    static const struct {
        const char *head, *reason;
    } cases[] = {
        {POST "Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "more than one Content-Length"},
        {POST "Content-Length: 2\r\ncontent-length: 2\r\n\r\n", "more than one Content-Length"},
        {POST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "exclude each other"},
        {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         "more than one Transfer-Encoding"},
        {POST "Transfer-Encoding: gzip, chunked\r\n\r\n", "only Transfer-Encoding accepted"},
        {POST "Transfer-Encoding: identity\r\n\r\n", "only Transfer-Encoding accepted"},
        {POST "Transfer-Encoding:\r\n\r\n", "only Transfer-Encoding accepted"},
        {POST "Transfer-Encoding: chunked \r\n\r\n", "only Transfer-Encoding accepted"},
        {POST "Content-Length2: 2\r\n\r\n", "begins like a framing header"},
        {POST "Transfer-Encoding-X: 2\r\n\r\n", "begins like a framing header"},
        {POST "Content-Length:\r\n 32\r\n\r\n", "headers are refused"},
        {POST "Transfer-Encoding:\r\n chunked\r\n\r\n", "headers are refused"},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "needs HTTP/1.1"},
        {GET "\r\n", "Host header is missing"},
        {GET "Host: x\r\nHost: x\r\n\r\n", "more than one Host"},
        {GET "Host: x\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
         "more than one Authorization"},
        {GET "Host: x\r\nA B: 1\r\n\r\n", "not allowed"},
        {GET "Host: x\r\nA[B: 1\r\n\r\n", "not allowed"},
        {GET "Host: x\r\nA\x01: 1\r\n\r\n", "not allowed"},
        {GET "Host: x\r\n\xc3\xa9: 1\r\n\r\n", "not allowed"},
        {GET "Host: x\r\nA: b\x07\r\n\r\n", "control character"},
        {GET "Host: x\r\nA: b\x7f\r\n\r\n", "control character"},
        {GET "Host: x\r\nA: b\rc\r\n\r\n", "control character"},
        {"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", "not a token"},
        {"GET v1 HTTP/1.1\r\nHost: x\r\n\r\n", "must begin with '/'"},
        {"GET * HTTP/1.1\r\nHost: x\r\n\r\n", "must begin with '/'"},
        {"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "must begin with '/'"},
        {"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", "printable ASCII"},
        {"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", "printable ASCII"},
        {"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", "printable ASCII"},
    };
    struct seen *s = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!offer(s, cases[i].head))
            continue; /* libmicrohttpd refused it by itself */
        if (s->rc != XR_EINVALID || strstr(s->e.message, cases[i].reason) == NULL)
            fail_msg("%s: %d, %s", cases[i].head, s->rc, s->e.message);
    }
}

static void given_lengths_that_are_no_numbers_when_sent_then_never_accepted(void **state)
{
    static const char *const lengths[] = {
        "",
        "-2",
        "+2",
        "0x2",
        "2 3",
        "2,2",
        "2a",
        "a",
        "2.0",
        "1e3",
        "18446744073709551616",
        "99999999999999999999999",
    };
    struct seen *s = *state;
    char head[200];

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        snprintf(head, sizeof(head), POST "Content-Length: %s\r\n\r\n", lengths[i]);
        if (offer(s, head) && s->rc != XR_EINVALID)
            fail_msg("accepted: %s", lengths[i]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_ordinary_heads_when_checked_then_accepted),
        TEST(given_a_body_when_announced_then_its_length_is_told),
        TEST(given_an_authorization_when_sent_then_it_is_told),
        TEST(given_ambiguous_heads_when_checked_then_refused_with_a_reason),
        TEST(given_lengths_that_are_no_numbers_when_sent_then_never_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
