#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"

static void given_empty_buf_when_text_asked_then_empty_string(void **state)
{
    struct buf b;

    buf_init(&b, 10);
    assert_string_equal(buf_text(&b), "");
    assert_int_equal(b.len, 0);
    buf_clear(&b);
}

static void given_appends_when_text_asked_then_all_in_order(void **state)
{
    struct buf b;

    buf_init(&b, 1000);
    buf_str(&b, "a=");
    buf_u64(&b, UINT64_MAX);
    buf_byte(&b, ',');
    buf_i64(&b, INT64_MIN);
    buf_append(&b, ",xyz", 3);
    buf_printf(&b, "%s-%d", "p", 0);
    assert_int_equal(b.err, 0);
    assert_string_equal(buf_text(&b), "a=18446744073709551615,-9223372036854775808,xyp-0");
    buf_clear(&b);
}

static void given_max_when_reached_exactly_then_no_error(void **state)
{
    struct buf b;

    buf_init(&b, 5);
    assert_int_equal(buf_str(&b, "12345"), 0);
    assert_string_equal(buf_text(&b), "12345");
    buf_clear(&b);
}

static void given_max_when_passed_then_first_error_stays_and_nothing_is_added(void **state)
{
    struct buf b;

    buf_init(&b, 5);
    buf_str(&b, "123");
    assert_int_equal(buf_str(&b, "456"), -EMSGSIZE);
    assert_int_equal(buf_byte(&b, '4'), -EMSGSIZE);
    assert_int_equal(b.len, 3);
    assert_null(buf_text(&b));
    assert_null(buf_room(&b, 1));
    buf_reset(&b);
    assert_int_equal(b.err, 0);
    assert_int_equal(buf_str(&b, "12345"), 0);
    buf_clear(&b);
}

static void given_printf_when_longer_than_max_then_error(void **state)
{
    struct buf b;

    buf_init(&b, 300);
    assert_int_equal(buf_printf(&b, "%0300d", 7), 0);
    assert_int_equal(b.len, 300);
    assert_int_equal(buf_printf(&b, "%s", "x"), -EMSGSIZE);
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%0301d", 7), -EMSGSIZE);
    buf_clear(&b);
}

static void given_room_when_committed_partly_then_only_that_counts(void **state)
{
    struct buf b;
    char *room;

    buf_init(&b, 100000);
    buf_str(&b, "ab");
    room = buf_room(&b, 50000);
    assert_non_null(room);
    memset(room, 'x', 50000);
    buf_commit(&b, 3);
    assert_string_equal(buf_text(&b), "abxxx");
    buf_clear(&b);
}

static void given_queue_when_fed_and_drained_for_long_then_bytes_keep_order(void **state)
{
    uint8_t in = 0, out = 0;
    struct buf b;

    buf_init(&b, 1000);
    for (int turn = 0; turn < 20000; turn++) {
        size_t want = (size_t)(turn * 7919 % 400);
        char taken[300];
        size_t n;

        if (b.len + want <= b.max)
            for (size_t i = 0; i < want; i++)
                assert_int_equal(buf_byte(&b, (char)in++), 0);
        n = buf_take(&b, taken, (size_t)(turn * 104729 % 300));
        for (size_t i = 0; i < n; i++)
            assert_int_equal((uint8_t)taken[i], out++);
    }
    assert_true(b.cap <= b.max + 1);
    buf_clear(&b);
}

static void given_full_queue_when_one_dropped_then_one_fits_again(void **state)
{
    struct buf b;

    buf_init(&b, 600);
    for (int i = 0; i < 600; i++)
        buf_byte(&b, 'x');
    for (int i = 0; i < 2000; i++) {
        buf_drop(&b, 1);
        assert_int_equal(buf_byte(&b, 'y'), 0);
    }
    assert_int_equal(b.len, 600);
    assert_int_equal(b.data[0], 'y');
    buf_clear(&b);
}

static void given_length_overflow_when_room_asked_then_refused(void **state)
{
    struct buf b;

    buf_init(&b, SIZE_MAX);
    buf_byte(&b, 'x');
    assert_null(buf_room(&b, SIZE_MAX));
    assert_int_equal(b.err, -EMSGSIZE);
    buf_clear(&b);
}

static void given_fixed_memory_when_filled_then_never_past_it(void **state)
{
    char memory[8 + 1];
    struct buf b;

    memory[8] = '#';
    buf_init_fixed(&b, memory, 8);
    assert_int_equal(buf_str(&b, "1234567"), 0);
    assert_ptr_equal(buf_text(&b), memory);
    assert_int_equal(buf_byte(&b, '8'), -EMSGSIZE);
    assert_int_equal(memory[8], '#');
    buf_clear(&b);
    assert_int_equal(buf_byte(&b, '8'), -EMSGSIZE);
}

static void given_secret_when_buf_grows_then_content_is_kept(void **state)
{
    struct buf b;

    buf_init_secret(&b, 100000);
    for (int i = 0; i < 5000; i++)
        buf_byte(&b, (char)('a' + i % 26));
    assert_int_equal(b.len, 5000);
    assert_int_equal(b.data[4999], 'a' + 4999 % 26);
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_str(&b, "again"), 0);
    buf_wipe(&b);
    assert_null(b.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_empty_buf_when_text_asked_then_empty_string),
        cmocka_unit_test(given_appends_when_text_asked_then_all_in_order),
        cmocka_unit_test(given_max_when_reached_exactly_then_no_error),
        cmocka_unit_test(given_max_when_passed_then_first_error_stays_and_nothing_is_added),
        cmocka_unit_test(given_printf_when_longer_than_max_then_error),
        cmocka_unit_test(given_room_when_committed_partly_then_only_that_counts),
        cmocka_unit_test(given_queue_when_fed_and_drained_for_long_then_bytes_keep_order),
        cmocka_unit_test(given_full_queue_when_one_dropped_then_one_fits_again),
        cmocka_unit_test(given_length_overflow_when_room_asked_then_refused),
        cmocka_unit_test(given_fixed_memory_when_filled_then_never_past_it),
        cmocka_unit_test(given_secret_when_buf_grows_then_content_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
