#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/server_timing.h"

static void assert_encoded(const struct server_timing *t, int64_t total_us, const char *expected)
{
    struct buf out;

    buf_init(&out, 256);
    assert_int_equal(server_timing_encode(&out, t, total_us), 0);
    assert_string_equal(buf_text(&out), expected);
    buf_clear(&out);
}

static void given_phases_when_encoded_then_ms_with_one_place_and_the_rest_is_ours(void **state)
{
    const struct server_timing t = {
        .receive_us = 340, .limit_us = 80, .queue_us = 0, .connect_us = 2000, .upstream_us = 12345};

    assert_encoded(
        &t, 13200,
        "receive;dur=0.3, limit;dur=0.1, queue;dur=0.0, connect;dur=2.0, upstream;dur=10.3, "
        "gateway;dur=0.4");
}

static void given_a_half_tenth_when_encoded_then_rounded_up(void **state)
{
    const struct server_timing t = {.receive_us = 49, .limit_us = 50, .queue_us = 950};

    assert_encoded(
        &t, 1049,
        "receive;dur=0.0, limit;dur=0.1, queue;dur=1.0, connect;dur=0.0, upstream;dur=0.0, "
        "gateway;dur=0.0");
}

/* Two clocks' readings, a moment apart. */
static void given_phases_longer_than_the_whole_when_encoded_then_nothing_is_negative(void **state)
{
    const struct server_timing t = {.receive_us = -5, .upstream_us = 1000};

    assert_encoded(
        &t, 900,
        "receive;dur=0.0, limit;dur=0.0, queue;dur=0.0, connect;dur=0.0, upstream;dur=1.0, "
        "gateway;dur=0.0");
}

static void given_the_longest_phases_when_encoded_then_they_fit_a_header(void **state)
{
    const int64_t day_us = INT64_C(86400) * 1000000;
    const struct server_timing t = {day_us, day_us, day_us, day_us, 2 * day_us};
    struct http_header header;
    char memory[sizeof(header.value)];
    struct buf out;

    buf_init_fixed(&out, memory, sizeof(memory));
    assert_int_equal(server_timing_encode(&out, &t, 6 * day_us), 0);
    assert_true(out.len < sizeof(header.value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_phases_when_encoded_then_ms_with_one_place_and_the_rest_is_ours),
        cmocka_unit_test(given_a_half_tenth_when_encoded_then_rounded_up),
        cmocka_unit_test(given_phases_longer_than_the_whole_when_encoded_then_nothing_is_negative),
        cmocka_unit_test(given_the_longest_phases_when_encoded_then_they_fit_a_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
