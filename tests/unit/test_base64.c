#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base64.h"

static void given_texts_of_the_rfc_when_put_and_decoded_then_as_it_says(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    struct buf b;

    buf_init(&b, 64);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        buf_reset(&b);
        assert_int_equal(base64_put(&b, pairs[i][0], strlen(pairs[i][0])), 0);
        assert_string_equal(buf_text(&b), pairs[i][1]);
        buf_reset(&b);
        assert_int_equal(base64_decode(&b, pairs[i][1], strlen(pairs[i][1])), 0);
        assert_string_equal(buf_text(&b), pairs[i][0]);
    }
    buf_clear(&b);
}

static void given_bytes_of_any_length_when_put_then_decoded_to_the_same(void **state)
{
    uint8_t bytes[7000];
    struct buf text, back;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    buf_init(&text, 16384);
    buf_init(&back, sizeof(bytes));
    for (size_t len = 0; len <= sizeof(bytes); len += len < 20 ? 1 : 331) {
        buf_reset(&text);
        buf_reset(&back);
        assert_int_equal(base64_put(&text, bytes, len), 0);
        assert_int_equal(text.len, (len + 2) / 3 * 4);
        assert_int_equal(base64_decode(&back, text.data, text.len), 0);
        assert_int_equal(back.len, len);
        if (len > 0)
            assert_memory_equal(back.data, bytes, len);
    }
    buf_clear(&text);
    buf_clear(&back);
}

static void given_text_that_is_no_base64_when_decoded_then_refused(void **state)
{
    static const char *const texts[] = {"A",    "AA",    "AAA",  "====", "A===",     "AA=A",
                                        "AA A", "AA\nA", " AAA", "AA-_", "AA==AAAA", "\377AAA"};
    struct buf b;

    buf_init(&b, 64);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(base64_decode(&b, texts[i], strlen(texts[i])), -EINVAL);
    buf_clear(&b);
}

static void given_too_little_room_when_put_or_decoded_then_told(void **state)
{
    struct buf b;

    buf_init(&b, 2);
    assert_int_equal(base64_put(&b, "foo", 3), -EMSGSIZE);
    buf_reset(&b);
    assert_int_equal(base64_decode(&b, "Zm9v", 4), -EMSGSIZE);
    buf_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_texts_of_the_rfc_when_put_and_decoded_then_as_it_says),
        cmocka_unit_test(given_bytes_of_any_length_when_put_then_decoded_to_the_same),
        cmocka_unit_test(given_text_that_is_no_base64_when_decoded_then_refused),
        cmocka_unit_test(given_too_little_room_when_put_or_decoded_then_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
