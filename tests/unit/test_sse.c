/* Server-sent events: fields, line ends, limits, and that cuts change nothing. */
#include "providers/sse.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Events as text: "name|data" each, with a line of dashes behind. */
static void feed_piece(struct sse *s, const char *in, size_t len, struct buf *out)
{
    while (len > 0) {
        struct event event;
        size_t used;
        int rc = sse_feed(s, in, len, &used, &event);

        assert_true(rc >= 0 && used <= len);
        if (rc == 0)
            assert_int_equal(used, len);
        in += used;
        len -= used;
        if (rc == 1) {
            buf_str(out, event.name);
            buf_byte(out, '|');
            buf_append(out, event.data, event.len);
            buf_str(out, "\n--\n");
        }
    }
}

static void feed_cut(const char *text, size_t len, size_t cut, struct buf *out)
{
    struct sse s;

    sse_init(&s);
    buf_init(out, 1 << 16);
    feed_piece(&s, text, cut, out);
    feed_piece(&s, text + cut, len - cut, out);
    sse_clear(&s);
}

static void assert_events(const char *text, const char *expected)
{
    size_t len = strlen(text);

    for (size_t cut = 0; cut <= len; cut++) {
        struct buf got;

        feed_cut(text, len, cut, &got);
        assert_string_equal(buf_text(&got), expected);
        buf_clear(&got);
    }
}

static void given_sse_stream_when_cut_at_any_byte_then_same_events(void **state)
{
    assert_events("data: one\n\nevent: functions\ndata: two\nid: 7\n\ndata: [DONE]\n\n",
                  "|one\n--\nfunctions|two\n--\n|[DONE]\n--\n");
}

static void given_every_line_end_when_fed_then_the_same_events(void **state)
{
    assert_events("data: a\r\n\r\ndata: b\r\rdata: c\n\ndata: d\r\n\ndata: e\n\r\n",
                  "|a\n--\n|b\n--\n|c\n--\n|d\n--\n|e\n--\n");
}

static void given_several_data_lines_when_fed_then_joined_by_newlines(void **state)
{
    assert_events("data: a\ndata:b\ndata:  c\ndata\ndata:\n\n", "|a\nb\n c\n\n\n--\n");
}

static void given_comments_and_unknown_fields_when_fed_then_skipped(void **state)
{
    assert_events(": ping\n\n:\nretry: 5\nxdata: no\ndatax: no\ndata x: no\nDATA: no\n"
                  "averyveryverylongname: no\ndata: yes\n\n",
                  "|yes\n--\n");
}

static void given_an_event_without_data_when_fed_then_none(void **state)
{
    assert_events("event: ping\n\ndata: x\n\n", "|x\n--\n");
    assert_events("data\n\n", "|\n--\n");
    assert_events("data: cut off\n", "");
}

static void given_a_byte_order_mark_when_fed_then_skipped_at_the_beginning_only(void **state)
{
    assert_events("\xef\xbb\xbf"
                  "data: a\n\n\xef\xbb\xbf"
                  "data: b\n\n",
                  "|a\n--\n");
    assert_events("\xef\xbb"
                  "data: a\n\ndata: b\n\n",
                  "|b\n--\n");
}

static void given_a_long_name_when_fed_then_cut_at_63_bytes(void **state)
{
    assert_events(
        "event: a\nevent: 0123456789012345678901234567890123456789012345678901234567890123"
        "45\ndata: x\n\n",
        "012345678901234567890123456789012345678901234567890123456789012|x\n--\n");
}

static void given_nul_in_data_when_fed_then_kept(void **state)
{
    static const char text[] = "data: a\0b\n\n";
    struct sse s;
    struct event event;
    size_t used;

    sse_init(&s);
    assert_int_equal(sse_feed(&s, text, sizeof(text) - 1, &used, &event), 1);
    assert_int_equal(event.len, 3);
    assert_memory_equal(event.data, "a\0b", 3);
    sse_clear(&s);
}

static void given_an_event_over_the_limit_when_fed_then_refused_and_it_stays_so(void **state)
{
    static const char filler[4096] = {'x'};
    struct sse s;
    struct event event;
    size_t used, sent = 0;
    int rc = 0;

    sse_init(&s);
    assert_int_equal(sse_feed(&s, "data:", 5, &used, &event), 0);
    while (rc == 0 && sent <= 2 * (size_t)SSE_EVENT_MAX) {
        rc = sse_feed(&s, filler, sizeof(filler), &used, &event);
        sent += sizeof(filler);
    }
    assert_int_equal(rc, -EMSGSIZE);
    assert_int_equal(sent, SSE_EVENT_MAX + sizeof(filler));
    assert_int_equal(sse_feed(&s, "\n\n", 2, &used, &event), -EMSGSIZE);
    sse_clear(&s);
}

static void given_an_endless_comment_when_fed_then_no_memory_is_taken(void **state)
{
    static const char filler[4096] = {'x'};
    struct sse s;
    struct event event;
    size_t used;

    sse_init(&s);
    assert_int_equal(sse_feed(&s, ":", 1, &used, &event), 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(sse_feed(&s, filler, sizeof(filler), &used, &event), 0);
    assert_int_equal(s.data.cap, 0);
    assert_int_equal(sse_feed(&s, "\ndata: x\n\n", 10, &used, &event), 1);
    sse_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_sse_stream_when_cut_at_any_byte_then_same_events),
        cmocka_unit_test(given_every_line_end_when_fed_then_the_same_events),
        cmocka_unit_test(given_several_data_lines_when_fed_then_joined_by_newlines),
        cmocka_unit_test(given_comments_and_unknown_fields_when_fed_then_skipped),
        cmocka_unit_test(given_an_event_without_data_when_fed_then_none),
        cmocka_unit_test(given_a_byte_order_mark_when_fed_then_skipped_at_the_beginning_only),
        cmocka_unit_test(given_a_long_name_when_fed_then_cut_at_63_bytes),
        cmocka_unit_test(given_nul_in_data_when_fed_then_kept),
        cmocka_unit_test(given_an_event_over_the_limit_when_fed_then_refused_and_it_stays_so),
        cmocka_unit_test(given_an_endless_comment_when_fed_then_no_memory_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
