/* The strict response framing: what is accepted, what is refused, and that cuts change nothing. */
#include "providers/http1.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a response amounted to, in a form that can be compared. */
struct outcome {
    int end; /* HTTP1_END, HTTP1_MORE (input used up) or an error */
    unsigned heads;
    unsigned status;
    bool keep_alive;
    struct buf body;
    size_t left; /* bytes behind the end */
};

static bool feed_piece(struct http1 *h, const char *in, size_t len, struct outcome *o)
{
    for (;;) {
        const char *data, *why;
        size_t used, data_len;
        int step = http1_feed(h, in, len, &used, &data, &data_len, &why);

        assert_true(used <= len);
        in += used;
        len -= used;
        o->end = step;
        if (step < 0)
            assert_non_null(why);
        if (step < 0 || step == HTTP1_END || step == HTTP1_MORE) {
            o->left = len;
            return step == HTTP1_MORE;
        }
        if (step == HTTP1_HEAD) {
            o->heads++;
            o->status = http1_get_head(h)->status;
            o->keep_alive = http1_get_head(h)->keep_alive;
        } else {
            assert_true(data_len > 0);
            buf_append(&o->body, data, data_len);
        }
    }
}

/* Feeds the text in two pieces, then the end of the connection if the response is not over. */
static struct outcome feed_cut(const char *text, size_t len, size_t cut)
{
    struct outcome o = {0};
    struct http1 *h = http1_new();
    const char *why;

    assert_non_null(h);
    buf_init(&o.body, 1 << 20);
    if (feed_piece(h, text, cut, &o)) {
        if (feed_piece(h, text + cut, len - cut, &o))
            o.end = http1_eof(h, &why);
    } else {
        o.left += len - cut;
    }
    http1_free(h);
    return o;
}

static struct outcome feed(const char *text)
{
    return feed_cut(text, strlen(text), strlen(text));
}

static void assert_body(struct outcome *o, const char *body)
{
    assert_int_equal(o->body.len, strlen(body));
    if (o->body.len > 0)
        assert_memory_equal(o->body.data, body, o->body.len);
    buf_clear(&o->body);
}

static void assert_refused(const char *text)
{
    struct outcome o = feed(text);

    if (o.end != -EBADMSG)
        fail_msg("accepted: %s", text);
    buf_clear(&o.body);
}

#define OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"

static void given_content_length_when_fed_then_body_and_kept_alive(void **state)
{
    struct outcome o = feed(OK "Content-Type: a\r\nContent-Length: 5\r\n\r\nhello");

    assert_int_equal(o.end, HTTP1_END);
    assert_int_equal(o.status, 200);
    assert_true(o.keep_alive);
    assert_int_equal(o.left, 0);
    assert_body(&o, "hello");
}

static void given_chunks_extensions_and_trailers_when_fed_then_only_the_body(void **state)
{
    struct outcome o = feed(CHUNKED "5;a=\"b\"\r\nhello\r\n1 ;x\r\n \r\n0A\r\n0123456789\r\n"
                                    "000;end\r\nX-Sum: 1\r\nY:\r\n\r\nrest");

    assert_int_equal(o.end, HTTP1_END);
    assert_int_equal(o.left, 4);
    assert_true(o.keep_alive);
    assert_body(&o, "hello 0123456789");
}

static void given_no_length_when_closed_then_complete_and_not_kept_alive(void **state)
{
    struct outcome o = feed(OK "\r\neverything");

    assert_int_equal(o.end, HTTP1_END);
    assert_false(o.keep_alive);
    assert_body(&o, "everything");
}

static void given_status_without_body_when_fed_then_ended_at_the_head(void **state)
{
    static const char *const texts[] = {
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
        OK "content-length: 0\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct outcome o = feed(texts[i]);

        assert_int_equal(o.end, HTTP1_END);
        assert_int_equal(o.heads, 1);
        assert_true(o.keep_alive);
        assert_body(&o, "");
    }
}

static void given_interim_responses_when_fed_then_skipped(void **state)
{
    struct outcome o = feed("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n"
                            "\r\nHTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\nno");

    assert_int_equal(o.end, HTTP1_END);
    assert_int_equal(o.heads, 1);
    assert_int_equal(o.status, 429);
    assert_body(&o, "no");
}

static void given_a_flood_of_interim_responses_when_fed_then_refused(void **state)
{
    struct buf text;
    struct outcome o;

    buf_init(&text, 4096);
    for (int i = 0; i < HTTP1_INTERIM_MAX + 1; i++)
        buf_str(&text, "HTTP/1.1 100 Continue\r\n\r\n");
    o = feed(buf_text(&text));
    assert_int_equal(o.end, -EBADMSG);
    buf_clear(&text);
    buf_clear(&o.body);
}

static void given_connection_headers_when_fed_then_keep_alive_follows_them(void **state)
{
    static const struct {
        const char *text;
        bool keep_alive;
    } rows[] = {
        {OK "Content-Length: 0\r\nConnection: close\r\n\r\n", false},
        {OK "Content-Length: 0\r\nCONNECTION: foo , Close\r\n\r\n", false},
        {OK "Content-Length: 0\r\nConnection: keep-alive\r\n\r\n", true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", false},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", true},
        {OK "Content-Length: 0\r\nContent-Length: 00\r\n\r\n", true},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome o = feed(rows[i].text);

        assert_int_equal(o.end, HTTP1_END);
        assert_int_equal(o.keep_alive, rows[i].keep_alive);
        buf_clear(&o.body);
    }
}

static void given_ambiguous_framing_when_fed_then_refused(void **state)
{
    static const char *const texts[] = {
        OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK "Content-Length: 1, 1\r\n\r\na",
        OK "Content-Length: +1\r\n\r\na",
        OK "Content-Length: -1\r\n\r\na",
        OK "Content-Length: 0x1\r\n\r\na",
        OK "Content-Length:\r\n\r\na",
        OK "Content-Length: 1 1\r\n\r\na",
        OK "Content-Length: 18446744073709551616\r\n\r\na",
        OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK "Transfer-Encoding: identity\r\n\r\n",
        OK "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_refused(texts[i]);
}

static void given_malformed_heads_when_fed_then_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "H",
        "SSH-2.0-x\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        OK "Content-Length: 0\n\r\n",
        OK "A: b\rc\r\n\r\n",
        OK "A: b\r\r\n\r\n",
        OK "A: b\x7f\r\n\r\n",
        OK "A : b\r\n\r\n",
        OK " A: b\r\n\r\n",
        OK "A: b\r\n c\r\n\r\n",
        OK "A: b\r\n\tc\r\n\r\n",
        OK ": b\r\n\r\n",
        OK "A\r\n\r\n",
        OK "A(: b\r\n\r\n",
        OK "Content-Length : 1\r\n\r\na",
        OK "Content-Length: 3\r\n\r\nab",
        OK "Content-Length: 3\r\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_refused(texts[i]);
}

static void given_nul_in_a_header_when_fed_then_refused(void **state)
{
    static const char text[] = OK "A: b\0c\r\nContent-Length: 0\r\n\r\n";
    struct outcome o = feed_cut(text, sizeof(text) - 1, sizeof(text) - 1);

    assert_int_equal(o.end, -EBADMSG);
    buf_clear(&o.body);
}

static void given_bad_chunks_when_fed_then_refused(void **state)
{
    static const char *const texts[] = {
        CHUNKED "\r\n",
        CHUNKED ";a\r\n",
        CHUNKED "g\r\n",
        CHUNKED "-1\r\n",
        CHUNKED "0x1\r\na\r\n",
        CHUNKED " 1\r\na\r\n",
        CHUNKED "1 \r\na\r\n0\r\n\r\n",
        CHUNKED "1\na\r\n0\r\n\r\n",
        CHUNKED "1\r\nab\r\n0\r\n\r\n",
        CHUNKED "1\r\na\n0\r\n\r\n",
        CHUNKED "1\r\na\r0\r\n\r\n",
        CHUNKED "1;a\nb\r\na\r\n0\r\n\r\n",
        CHUNKED "10000000000000000\r\na",
        CHUNKED "ffffffffffffffff\r\na",
        CHUNKED "0\r\n\n",
        CHUNKED "0\r\n: x\r\n\r\n",
        CHUNKED "0\r\n x: y\r\n\r\n",
        CHUNKED "0\r\nx y: z\r\n\r\n",
        CHUNKED "0\r\nx\r\n\r\n",
        CHUNKED "0\r\n",
        CHUNKED "5\r\nhel",
        CHUNKED "",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_refused(texts[i]);
}

static struct outcome feed_long(const char *start, const char *part, size_t times)
{
    struct buf text;
    struct outcome o;

    buf_init(&text, 1 << 20);
    buf_str(&text, start);
    for (size_t i = 0; i < times; i++)
        buf_str(&text, part);
    assert_int_equal(text.err, 0);
    o = feed_cut(text.data, text.len, text.len);
    buf_clear(&text);
    buf_clear(&o.body);
    return o;
}

static void given_endless_input_when_fed_then_stopped_at_the_limits(void **state)
{
    assert_int_equal(feed_long(OK, "A: b\r\n", HTTP1_HEADERS_MAX + 1).end, -EMSGSIZE);
    assert_int_equal(feed_long(OK "A: ", "0123456789", HTTP1_HEAD_MAX / 10).end, -EMSGSIZE);
    assert_int_equal(feed_long("HTTP/1.1 200 ", "0123456789", HTTP1_HEAD_MAX / 10).end, -EMSGSIZE);
    assert_int_equal(feed_long(CHUNKED "0\r\nA: ", "0123456789", 7000).end, -EMSGSIZE);
    assert_int_equal(feed_long(CHUNKED "0\r\n", "A: 9\r\n", 14000).end, -EMSGSIZE);
    assert_int_equal(feed_long(CHUNKED "1;", "0123456789", 200).end, -EBADMSG);
    assert_int_equal(feed_long(CHUNKED "", "0000000000", 200).end, -EBADMSG);
}

static void given_a_failed_parser_when_fed_again_then_it_stays_failed(void **state)
{
    struct http1 *h = http1_new();
    const char *data, *why;
    size_t used, len;

    assert_int_equal(http1_feed(h, "x", 1, &used, &data, &len, &why), -EBADMSG);
    assert_int_equal(http1_feed(h, OK, 5, &used, &data, &len, &why), -EBADMSG);
    assert_non_null(why);
    assert_int_equal(http1_eof(h, &why), -EBADMSG);
    assert_true(http1_has_begun(h));
    http1_reset(h);
    assert_false(http1_has_begun(h));
    assert_int_equal(http1_feed(h, OK, 5, &used, &data, &len, &why), HTTP1_MORE);
    http1_free(h);
}

static void given_a_head_that_came_in_pieces_when_asked_then_headers_are_found(void **state)
{
    struct http1 *h = http1_new();
    struct buf text;
    const char *value;
    size_t len;

    buf_init(&text, 1 << 16);
    buf_str(&text, OK "X-Request-ID:\t abc \t\r\nx-empty:\r\nRetry-After: 1\r\nRETRY-AFTER: 2\r\n");
    for (int i = 0; i < 50; i++) /* so that the head's buffer moves */
        buf_printf(&text, "x-%d: 0123456789012345678901234567890123456789\r\n", i);
    buf_str(&text, "Content-Length: 0\r\n\r\n");
    for (size_t i = 0; i < text.len; i++) {
        struct outcome o = {0};

        feed_piece(h, text.data + i, 1, &o);
        assert_true(o.end >= 0);
    }
    value = http1_header(http1_get_head(h), "x-request-id", &len);
    assert_int_equal(len, 3);
    assert_memory_equal(value, "abc", 3);
    value = http1_header(http1_get_head(h), "retry-after", &len);
    assert_memory_equal(value, "1", 1);
    assert_non_null(http1_header(http1_get_head(h), "X-Empty", &len));
    assert_int_equal(len, 0);
    assert_null(http1_header(http1_get_head(h), "x-absent", &len));
    value = http1_header(http1_get_head(h), "x-49", &len);
    assert_int_equal(len, 40);
    assert_memory_equal(value, "0123456789", 10);
    assert_int_equal(http1_get_head(h)->header_count, 55);
    buf_clear(&text);
    http1_free(h);
}

static void given_any_response_when_cut_at_any_byte_then_same_result(void **state)
{
    static const char *const texts[] = {
        OK "Content-Length: 5\r\n\r\nhelloHTTP/1.1",
        CHUNKED "5;a=\"b\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nuntil the end",
        "HTTP/1.1 204 No\r\n\r\nx",
        OK "A: b\rc\r\n\r\n",
        CHUNKED "5\r\nhello\r\n5\r\nhel",
        CHUNKED "2\r\nabc\r\n",
        "HTTX/1.1 200 OK\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        size_t len = strlen(texts[i]);
        struct outcome whole = feed(texts[i]);

        for (size_t cut = 0; cut <= len; cut++) {
            struct outcome o = feed_cut(texts[i], len, cut);

            assert_int_equal(o.end, whole.end);
            assert_int_equal(o.heads, whole.heads);
            assert_int_equal(o.status, whole.status);
            assert_int_equal(o.keep_alive, whole.keep_alive);
            if (o.end == HTTP1_END)
                assert_int_equal(o.left, whole.left);
            assert_int_equal(o.body.len, whole.body.len);
            if (o.body.len > 0)
                assert_memory_equal(o.body.data, whole.body.data, o.body.len);
            buf_clear(&o.body);
        }
        buf_clear(&whole.body);
    }
}

static void given_clean_parts_when_a_request_is_written_then_the_bytes_are_exact(void **state)
{
    struct buf out;

    buf_init(&out, 1024);
    http1_put_request_line(&out, "POST", "/api/v1/chat?x=%20");
    http1_put_header(&out, "Host", "example.com:8443");
    assert_int_equal(http1_put_header(&out, "X", "a\tb c~"), 0);
    assert_string_equal(buf_text(&out), "POST /api/v1/chat?x=%20 HTTP/1.1\r\nHost: "
                                        "example.com:8443\r\nX: a\tb c~\r\n");
    buf_clear(&out);
}

static void given_bytes_that_could_add_headers_when_written_then_refused(void **state)
{
    static const char *const bad[] = {"a\r\nb", "a\nb", "a\rb", "\x7f", "\x01", "\x80", "\xd0\xb0"};
    static const char *const names[] = {"", "a b", "a:", "a\r\n", "\xc3\xa9"};
    static const char *const targets[] = {"", "x", "/a b", "/a\r\nX: y", "/\x80", "/\t"};
    struct buf out;

    buf_init(&out, 1024);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        buf_reset(&out);
        assert_int_equal(http1_put_header(&out, "X", bad[i]), -EINVAL);
        assert_int_equal(http1_put_header(&out, "X", "good"),
                         -EINVAL); /* the first failure stays */
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        buf_reset(&out);
        assert_int_equal(http1_put_header(&out, names[i], "v"), -EINVAL);
    }
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        buf_reset(&out);
        assert_int_equal(http1_put_request_line(&out, "GET", targets[i]), -EINVAL);
        assert_int_equal(out.len, 0);
    }
    buf_reset(&out);
    assert_int_equal(http1_put_request_line(&out, "GE T", "/"), -EINVAL);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_content_length_when_fed_then_body_and_kept_alive),
        cmocka_unit_test(given_chunks_extensions_and_trailers_when_fed_then_only_the_body),
        cmocka_unit_test(given_no_length_when_closed_then_complete_and_not_kept_alive),
        cmocka_unit_test(given_status_without_body_when_fed_then_ended_at_the_head),
        cmocka_unit_test(given_interim_responses_when_fed_then_skipped),
        cmocka_unit_test(given_a_flood_of_interim_responses_when_fed_then_refused),
        cmocka_unit_test(given_connection_headers_when_fed_then_keep_alive_follows_them),
        cmocka_unit_test(given_ambiguous_framing_when_fed_then_refused),
        cmocka_unit_test(given_malformed_heads_when_fed_then_refused),
        cmocka_unit_test(given_nul_in_a_header_when_fed_then_refused),
        cmocka_unit_test(given_bad_chunks_when_fed_then_refused),
        cmocka_unit_test(given_endless_input_when_fed_then_stopped_at_the_limits),
        cmocka_unit_test(given_a_failed_parser_when_fed_again_then_it_stays_failed),
        cmocka_unit_test(given_a_head_that_came_in_pieces_when_asked_then_headers_are_found),
        cmocka_unit_test(given_any_response_when_cut_at_any_byte_then_same_result),
        cmocka_unit_test(given_clean_parts_when_a_request_is_written_then_the_bytes_are_exact),
        cmocka_unit_test(given_bytes_that_could_add_headers_when_written_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
