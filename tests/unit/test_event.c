#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/crc32c.h"
#include "usage/event.h"

static void fill_name(char name[USAGE_NAME_BYTES], char c)
{
    memset(name, c, USAGE_NAME_BYTES - 1);
    name[USAGE_NAME_BYTES - 1] = '\0';
}

static struct usage_event typical_event(void)
{
    struct usage_event e = {.key_id = 0x1122334455667788,
                            .created_at_ms = 1795460000123,
                            .provider = "gigachat",
                            .model = "gigachat/GigaChat-2-Pro",
                            .tokens_input = 1234,
                            .tokens_cached = 34,
                            .tokens_output = 567,
                            .cost_nano = INT64_C(900500000),
                            .price = {1, 500000000000, 0, 500000000000, 7},
                            .http_status = 200,
                            .outcome = USAGE_OK,
                            .source = USAGE_BY_PROVIDER,
                            .streamed = 1,
                            .attempt_count = 1,
                            .duration_ms = 4321,
                            .first_byte_ms = 321};
    struct usage_attempt *a = &e.attempts[0];

    memcpy(e.id.bytes, "0123456789abcdef", USAGE_ID_BYTES);
    strcpy(a->provider, "gigachat");
    strcpy(a->model, "GigaChat-2-Pro");
    a->started_at_ms = e.created_at_ms + 2;
    a->duration_ms = 4300;
    a->http_status = 200;
    a->tokens_input = 1234;
    a->tokens_cached = 34;
    a->tokens_output = 567;
    return e;
}

static struct usage_event largest_event(void)
{
    struct usage_event e = typical_event();

    fill_name(e.provider, 'p');
    fill_name(e.model, 'm');
    e.error = INT32_MIN;
    e.tokens_input = INT64_MAX;
    e.cost_nano = INT64_MIN;
    e.attempt_count = USAGE_ATTEMPTS_MAX;
    memset(e.idempotency_key, 'k', sizeof(e.idempotency_key));
    memset(e.request_digest, 'r', sizeof(e.request_digest));
    for (size_t i = 0; i < USAGE_ATTEMPTS_MAX; i++) {
        e.attempts[i] = e.attempts[0];
        fill_name(e.attempts[i].provider, 'a');
        fill_name(e.attempts[i].model, 'b');
        e.attempts[i].error = -(int32_t)i;
    }
    return e;
}

static void given_known_text_when_checksummed_then_castagnolis_value(void **state)
{
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
}

static void given_typical_event_when_encoded_then_small_and_decodes_to_same(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, record), used;

    assert_true(len < 300);
    assert_int_equal(len % 8, 0);
    assert_int_equal(usage_record_length(record), len);
    assert_int_equal(usage_event_decode(record, len, &back, &used), 0);
    assert_int_equal(used, len);
    assert_memory_equal(&back, &e, sizeof(e));
}

/* Byte 3 is the version: what has no key is still read by whoever knows the first one. */
static void given_event_with_key_when_encoded_then_second_version_and_decodes_to_same(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t plain_len = usage_event_encode(&e, record), len, used;

    assert_int_equal(record[3], 1);
    memcpy(e.idempotency_key, "key digest 16 b.", USAGE_DIGEST_BYTES);
    memcpy(e.request_digest, "request digest 1", USAGE_DIGEST_BYTES);
    assert_true(usage_event_is_remembered(&e));
    len = usage_event_encode(&e, record);
    assert_int_equal(record[3], 2);
    assert_int_equal(len, plain_len + 32);
    assert_int_equal(usage_event_decode(record, len, &back, &used), 0);
    assert_memory_equal(&back, &e, sizeof(e));
}

static void given_event_that_used_nothing_when_encoded_then_its_key_is_left_out(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len, used;

    memcpy(e.idempotency_key, "key digest 16 b.", USAGE_DIGEST_BYTES);
    memcpy(e.request_digest, "request digest 1", USAGE_DIGEST_BYTES);
    e.source = USAGE_BY_NOBODY;
    assert_false(usage_event_is_remembered(&e));
    len = usage_event_encode(&e, record);
    assert_int_equal(record[3], 1);
    assert_int_equal(usage_event_decode(record, len, &back, &used), 0);
    memset(e.idempotency_key, 0, USAGE_DIGEST_BYTES);
    memset(e.request_digest, 0, USAGE_DIGEST_BYTES);
    assert_memory_equal(&back, &e, sizeof(e));
}

static void given_version_that_does_not_fit_when_decoded_then_refused(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, record), used;

    for (unsigned version = 0; version < 256; version++) {
        record[3] = (uint8_t)version;
        assert_int_equal(usage_event_decode(record, len, &back, &used),
                         version == 1 ? 0 : -EBADMSG);
    }
    memset(e.idempotency_key, 'k', USAGE_DIGEST_BYTES);
    len = usage_event_encode(&e, record);
    record[3] = 1;
    assert_int_equal(usage_event_decode(record, len, &back, &used), -EBADMSG);
}

static void given_largest_event_when_encoded_then_fits_and_decodes_to_same(void **state)
{
    struct usage_event e = largest_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, record), used;

    assert_in_range(len, USAGE_EVENT_MAX - 8, USAGE_EVENT_MAX);
    assert_int_equal(usage_event_decode(record, len, &back, &used), 0);
    assert_memory_equal(&back, &e, sizeof(e));
}

static void given_event_of_a_dead_worker_when_encoded_then_bounded(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len, used;

    memset(e.provider, 'x', sizeof(e.provider)); /* the NUL was not written yet */
    e.attempt_count = 200;
    len = usage_event_encode(&e, record);
    assert_int_equal(usage_event_decode(record, len, &back, &used), 0);
    assert_int_equal(strlen(back.provider), USAGE_NAME_BYTES - 1);
    assert_int_equal(back.attempt_count, USAGE_ATTEMPTS_MAX);
}

static void given_record_when_cut_anywhere_then_more_is_wanted(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, record), used;

    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(usage_event_decode(record, cut, &back, &used), -EAGAIN);
        assert_int_equal(used, 0);
    }
}

static void given_record_when_any_bit_flips_then_refused(void **state)
{
    struct usage_event e = typical_event(), back;
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, record), used;

    for (size_t bit = 0; bit < len * 8; bit++) {
        int rc;

        record[bit / 8] ^= (uint8_t)(1u << bit % 8);
        rc = usage_event_decode(record, len, &back, &used);
        if (bit / 8 >= 4 && bit / 8 < 8) /* a longer length may be meant: more is wanted */
            assert_true(rc == -EBADMSG || rc == -EAGAIN);
        else
            assert_int_equal(rc, -EBADMSG);
        if (bit / 8 >= 8)
            assert_int_equal(used, len); /* the next record can be found */
        record[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Offset 8 holds the CRC of everything from 12. */
static int decode_forged(uint8_t *record, size_t len)
{
    struct usage_event back;
    size_t used;
    uint32_t crc = crc32c(0, record + 12, len - 12);

    memcpy(record + 8, &crc, sizeof(crc));
    return usage_event_decode(record, len, &back, &used);
}

static void given_right_crc_when_contents_are_impossible_then_refused(void **state)
{
    struct usage_event e = typical_event();
    uint8_t good[USAGE_EVENT_MAX], record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(&e, good);
    const size_t outcome_at = 16 + 16 + 8 + 8 + 4 * 8 + 5 * 8 + 4 + 2;
    static const struct {
        size_t offset;
        uint8_t value;
    } cases[] = {{outcome_at, 4},       {outcome_at + 1, 4},
                 {outcome_at + 2, 2},   {outcome_at + 3, 9},
                 {outcome_at + 3, 2},   {outcome_at + 3, 0},
                 {outcome_at + 12, 96}, {outcome_at + 12, 0},
                 {outcome_at + 13, 0},  {12, 1}};

    memcpy(record, good, len);
    assert_int_equal(decode_forged(record, len), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(record, good, len);
        record[cases[i].offset] = cases[i].value;
        assert_int_equal(decode_forged(record, len), -EBADMSG);
    }
}

static void given_same_millisecond_when_ids_are_made_then_they_grow(void **state)
{
    struct usage_id_state s = {.node = 0xdeadbeef};
    struct usage_id a, b;

    usage_id_next(&s, 3, 1000, &a);
    for (int i = 0; i < 1000; i++) {
        usage_id_next(&s, 3, 1000, &b);
        assert_true(memcmp(a.bytes, b.bytes, USAGE_ID_BYTES) < 0);
        a = b;
    }
}

static void given_clock_that_goes_back_when_ids_are_made_then_they_still_grow(void **state)
{
    struct usage_id_state s = {.node = 1};
    struct usage_id a, b;
    static const int64_t times[] = {5000, 4000, -1, INT64_MIN, 5001, 0, INT64_MAX, 7};

    usage_id_next(&s, 0, 4999, &a);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        usage_id_next(&s, 0, times[i], &b);
        assert_true(memcmp(a.bytes, b.bytes, USAGE_ID_BYTES) < 0);
        a = b;
    }
}

static void given_sequence_at_its_end_when_ids_are_made_then_they_still_grow(void **state)
{
    struct usage_id_state s = {.last_ms = 5000, .sequence = UINT32_MAX - 1, .node = 1};
    struct usage_id a, b;

    usage_id_next(&s, 0, 5000, &a);
    for (int i = 0; i < 3; i++) {
        usage_id_next(&s, 0, 5000, &b);
        assert_true(memcmp(a.bytes, b.bytes, USAGE_ID_BYTES) < 0);
        a = b;
    }
}

static void given_id_when_written_as_text_then_its_parts_stand_in_order(void **state)
{
    struct usage_id_state s = {.sequence = 0x01020303, .node = 0xa1b2c3d4};
    struct usage_id id, back;
    char text[USAGE_ID_TEXT_BYTES];

    usage_id_next(&s, 0x0506, 0x0a0b0c0d0e0f, &id);
    usage_id_format(&id, text);
    assert_string_equal(text, "0a0b0c0d0e0fa1b2c3d4050601020304");
    assert_int_equal(usage_id_parse(text, 32, &back), 0);
    assert_memory_equal(&back, &id, sizeof(id));
}

static void given_text_that_is_no_id_when_parsed_then_refused(void **state)
{
    struct usage_id id;

    assert_int_equal(usage_id_parse("", 0, &id), -EINVAL);
    assert_int_equal(usage_id_parse("0a0b0c0d0e0fa1b2c3d405060102030", 31, &id), -EINVAL);
    assert_int_equal(usage_id_parse("0a0b0c0d0e0fa1b2c3d40506010203045", 33, &id), -EINVAL);
    assert_int_equal(usage_id_parse("0a0b0c0d0e0fa1b2c3d405060102030g", 32, &id), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_known_text_when_checksummed_then_castagnolis_value),
        cmocka_unit_test(given_typical_event_when_encoded_then_small_and_decodes_to_same),
        cmocka_unit_test(given_event_with_key_when_encoded_then_second_version_and_decodes_to_same),
        cmocka_unit_test(given_event_that_used_nothing_when_encoded_then_its_key_is_left_out),
        cmocka_unit_test(given_version_that_does_not_fit_when_decoded_then_refused),
        cmocka_unit_test(given_largest_event_when_encoded_then_fits_and_decodes_to_same),
        cmocka_unit_test(given_event_of_a_dead_worker_when_encoded_then_bounded),
        cmocka_unit_test(given_record_when_cut_anywhere_then_more_is_wanted),
        cmocka_unit_test(given_record_when_any_bit_flips_then_refused),
        cmocka_unit_test(given_right_crc_when_contents_are_impossible_then_refused),
        cmocka_unit_test(given_same_millisecond_when_ids_are_made_then_they_grow),
        cmocka_unit_test(given_clock_that_goes_back_when_ids_are_made_then_they_still_grow),
        cmocka_unit_test(given_sequence_at_its_end_when_ids_are_made_then_they_still_grow),
        cmocka_unit_test(given_id_when_written_as_text_then_its_parts_stand_in_order),
        cmocka_unit_test(given_text_that_is_no_id_when_parsed_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
