#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/utf8.h"
#include "providers/stop.h"

#define OUT_MAX 4096

/* Feeds the text in pieces of `step` whole characters, the way deltas come. */
static int feed_in_steps(const char *const *stops, size_t count, const char *text, size_t step,
                         struct buf *out)
{
    struct stop_filter f;
    size_t len = strlen(text);
    int rc = 0;

    stop_init(&f, stops, count);
    for (size_t at = 0; at < len && rc == 0;) {
        size_t piece = 0;

        for (size_t i = 0; i < step && at + piece < len; i++)
            piece += utf8_width(text + at + piece, len - at - piece);
        rc = stop_feed(&f, text + at, piece, out);
        assert_true(f.held.len < f.longest || f.longest == 0);
        at += piece;
    }
    if (rc == 0)
        rc = stop_finish(&f, out);
    stop_clear(&f);
    return rc;
}

static void assert_cut(const char *const *stops, size_t count, const char *text,
                       const char *expected, int expected_rc)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        struct buf out;

        buf_init(&out, OUT_MAX);
        assert_int_equal(feed_in_steps(stops, count, text, step, &out), expected_rc);
        assert_string_equal(buf_text(&out), expected);
        buf_clear(&out);
    }
}

static void given_no_sequences_when_fed_then_all_passes_at_once(void **state)
{
    struct stop_filter f;
    struct buf out;

    buf_init(&out, OUT_MAX);
    stop_init(&f, NULL, 0);
    assert_int_equal(stop_feed(&f, "abc", 3, &out), 0);
    assert_string_equal(buf_text(&out), "abc");
    stop_clear(&f);
    buf_clear(&out);
}

static void given_sequence_in_text_when_fed_in_any_pieces_then_cut_before_it(void **state)
{
    static const char *const stops[] = {"END"};

    assert_cut(stops, 1, "one two END three", "one two ", 1);
    assert_cut(stops, 1, "END", "", 1);
    assert_cut(stops, 1, "xEENEND", "xEEN", 1);
}

static void given_only_a_beginning_when_text_ends_then_all_is_given(void **state)
{
    static const char *const stops[] = {"END"};

    assert_cut(stops, 1, "one two EN", "one two EN", 0);
    assert_cut(stops, 1, "EN ED E", "EN ED E", 0);
}

static void given_several_sequences_when_fed_then_first_complete_one_counts(void **state)
{
    static const char *const stops[] = {"abcX", "bc", "zz"};

    assert_cut(stops, 3, "--abcX", "--a", 1);
    assert_cut(stops, 3, "--abzz", "--ab", 1);
}

static void given_two_ending_together_when_fed_then_longer_one_is_cut(void **state)
{
    static const char *const stops[] = {"c", "abc"};

    assert_cut(stops, 2, "xabcx", "x", 1);
}

static void given_multibyte_text_when_held_back_then_characters_stay_whole(void **state)
{
    static const char *const stops[] = {"конец", "\xd0\xbf\xd0\xbe!"};
    static const char text[] = "поток 😀 коне, конец";
    struct stop_filter f;
    struct buf out;

    assert_cut(stops, 2, text, "поток 😀 коне, ", 1);
    buf_init(&out, OUT_MAX);
    stop_init(&f, stops, 2);
    for (size_t at = 0; text[at] != '\0';) {
        size_t width = utf8_width(text + at, sizeof(text) - 1 - at);

        stop_feed(&f, text + at, width, &out);
        assert_int_equal(utf8_cut(out.data, out.len), out.len);
        at += width;
    }
    stop_clear(&f);
    buf_clear(&out);
}

static void given_text_that_cannot_begin_a_stop_when_fed_then_nothing_is_held(void **state)
{
    static const char *const stops[] = {"\n\nUser:"};
    struct stop_filter f;
    struct buf out;

    buf_init(&out, OUT_MAX);
    stop_init(&f, stops, 1);
    assert_int_equal(stop_feed(&f, "hello", 5, &out), 0);
    assert_string_equal(buf_text(&out), "hello");
    assert_int_equal(stop_feed(&f, "!\n", 2, &out), 0);
    assert_string_equal(buf_text(&out), "hello!");
    stop_clear(&f);
    buf_clear(&out);
}

static void given_hit_when_fed_further_then_nothing_comes(void **state)
{
    static const char *const stops[] = {"."};
    struct stop_filter f;
    struct buf out;

    buf_init(&out, OUT_MAX);
    stop_init(&f, stops, 1);
    assert_int_equal(stop_feed(&f, "a.b", 3, &out), 1);
    assert_int_equal(stop_feed(&f, "cd", 2, &out), 1);
    assert_int_equal(stop_finish(&f, &out), 0);
    assert_string_equal(buf_text(&out), "a");
    stop_clear(&f);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_no_sequences_when_fed_then_all_passes_at_once),
        cmocka_unit_test(given_sequence_in_text_when_fed_in_any_pieces_then_cut_before_it),
        cmocka_unit_test(given_only_a_beginning_when_text_ends_then_all_is_given),
        cmocka_unit_test(given_several_sequences_when_fed_then_first_complete_one_counts),
        cmocka_unit_test(given_two_ending_together_when_fed_then_longer_one_is_cut),
        cmocka_unit_test(given_multibyte_text_when_held_back_then_characters_stay_whole),
        cmocka_unit_test(given_text_that_cannot_begin_a_stop_when_fed_then_nothing_is_held),
        cmocka_unit_test(given_hit_when_fed_further_then_nothing_comes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
