#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

static int check(const char *text)
{
    return json_check(text, strlen(text), &JSON_LIMITS_DEFAULT, NULL, NULL);
}

static void given_valid_texts_when_checked_then_accepted(void **state)
{
    static const char *const good[] = {
        "0",
        "-0",
        "-0.0e-10",
        "1E+2",
        "12.5",
        "true",
        " false\r\n",
        "\tnull ",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "{ }",
        "[1,2,[3,{}]]",
        "{\"a\":1,\"a\":[{\"b\":null}],\"\":{}}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\\uD83D\\uDE00\"",
        "\"\x7f\"",
        "\"\xd0\x9f\xd1\x80 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf \xed\x9f\xbf\"",
        "\"long enough for the eight at a time \xc3\xa9 and behind it too\"",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(check(good[i]), 0);
}

static void given_invalid_texts_when_checked_then_refused_at_the_place(void **state)
{
    static const struct {
        const char *text;
        size_t offset;
    } bad[] = {
        {"", 0},
        {"  ", 2},
        {"[1,]", 3},
        {"[,1]", 1},
        {"[1 2]", 3},
        {"{\"a\"}", 4},
        {"{\"a\" 1}", 5},
        {"{\"a\":}", 5},
        {"{\"a\":1,}", 7},
        {"{a:1}", 1},
        {"{1:1}", 1},
        {"[1}", 2},
        {"{\"a\":1]", 6},
        {"]", 0},
        {"1]", 1},
        {"1 1", 2},
        {"{} {}", 3},
        {"[", 1},
        {"{\"a\":[", 6},
        {"tru", 0},
        {"True", 0},
        {"nul", 0},
        {"NaN", 0},
        {"Infinity", 0},
        {"'a'", 0},
        {"01", 2},
        {"-01", 3},
        {"-", 1},
        {"+1", 0},
        {".5", 0},
        {"1.", 2},
        {"1.e5", 2},
        {"1e", 2},
        {"1e+", 3},
        {"0x10", 1},
        {"\"a", 2},
        {"\"a\\", 2},
        {"\"\\x\"", 1},
        {"\"\\u12g4\"", 3},
        {"\"\\u0000\"", 3},
        {"\"a\tb\"", 2},
        {"\"01234567\x1f\"", 9},
        {"\"\\ud800\"", 3},
        {"\"\\ud800\\u0041\"", 3},
        {"\"\\ud800\\ud800\"", 3},
        {"\"\\udc00\"", 3},
        {"\"\\ud83d\\ude0", 3},
        {"\"\x80\"", 1},
        {"\"\xc0\x80\"", 1},
        {"\"\xc1\xbf\"", 1},
        {"\"\xe0\x80\x80\"", 1},
        {"\"\xed\xa0\x80\"", 1},
        {"\"\xf0\x80\x80\x80\"", 1},
        {"\"\xf4\x90\x80\x80\"", 1},
        {"\"\xf5\x80\x80\x80\"", 1},
        {"\"\xe2\x82\"", 1},
        {"\"\xe2\x82", 1},
        {"\"\xff\"", 1},
        {"\xef\xbb\xbf{}", 0}, /* a byte order mark */
        {"// x\n1", 0},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        size_t offset = 999;

        assert_int_equal(
            json_check(bad[i].text, strlen(bad[i].text), &JSON_LIMITS_DEFAULT, &offset, &why),
            -EINVAL);
        assert_int_equal(offset, bad[i].offset);
        assert_non_null(why);
    }
}

static void given_nul_byte_anywhere_when_checked_then_refused(void **state)
{
    static const char text[] = "{\"name\":[1,\"value\"]} ";
    char copy[sizeof(text) + 1];

    for (size_t at = 0; at < sizeof(text); at++) {
        memcpy(copy, text, at);
        copy[at] = '\0';
        memcpy(copy + at + 1, text + at, sizeof(text) - 1 - at);
        assert_int_equal(json_check(copy, sizeof(text), &JSON_LIMITS_DEFAULT, NULL, NULL), -EINVAL);
    }
}

static void given_valid_text_when_cut_anywhere_then_refused(void **state)
{
    static const char text[] = "{\"a\":[1.5e3,\"\xd0\x9f\\ud83d\\ude00\",true,null,{}]}";

    for (size_t len = 0; len < sizeof(text) - 1; len++) {
        char *copy = malloc(len + 1); /* exactly sized: a sanitizer sees any byte read too far */
        int rc;

        assert_non_null(copy);
        memcpy(copy, text, len);
        rc = json_check(copy, len, &JSON_LIMITS_DEFAULT, NULL, NULL);
        free(copy);
        assert_int_equal(rc, -EINVAL);
    }
    assert_int_equal(json_check(text, sizeof(text) - 1, &JSON_LIMITS_DEFAULT, NULL, NULL), 0);
}

static void given_nesting_when_over_the_limit_then_too_big(void **state)
{
    char text[2001];

    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_int_equal(json_check(text, 128, &JSON_LIMITS_DEFAULT, NULL, NULL), 0);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_int_equal(json_check(text, 130, &JSON_LIMITS_DEFAULT, NULL, NULL), -E2BIG);
    memset(text, '[', 2000);
    assert_int_equal(json_check(text, 2000, &JSON_LIMITS_DEFAULT, NULL, NULL), -E2BIG);
    /* However much a caller allows, the scanner's own memory has an end. */
    assert_int_equal(json_check(text, 2000, &(struct json_limits){5000, 5000}, NULL, NULL), -E2BIG);
}

static void given_many_values_when_over_the_limit_then_too_big(void **state)
{
    const struct json_limits limits = {.depth = 4, .elements = 5};
    const char *four = "[1,{\"a\":2},3]", *six = "[1,{\"a\":2},3,4]";

    assert_int_equal(json_check(four, strlen(four), &limits, NULL, NULL), 0);
    assert_int_equal(json_check(six, strlen(six), &limits, NULL, NULL), -E2BIG);
}

static void given_number_cjson_cannot_hold_when_checked_then_too_big(void **state)
{
    char text[80];

    memset(text, '1', sizeof(text));
    assert_int_equal(json_check(text, 63, &JSON_LIMITS_DEFAULT, NULL, NULL), 0);
    assert_int_equal(json_check(text, 64, &JSON_LIMITS_DEFAULT, NULL, NULL), -E2BIG);
}

static void given_tree_when_read_then_case_counts_and_last_duplicate_wins(void **state)
{
    static const char text[] =
        "{\"N\":1,\"n\":2,\"n\":3,\"s\":\"x\",\"b\":true,\"z\":null,\"f\":1.5,"
        "\"big\":9007199254740992,\"over\":1e300,\"neg\":-7}";
    cJSON *tree = json_parse(text, sizeof(text) - 1, &JSON_LIMITS_DEFAULT, NULL, NULL);
    int64_t value = 99;
    bool flag = false;

    assert_non_null(tree);
    assert_int_equal(json_get_i64(tree, "n", &value), 0);
    assert_int_equal(value, 3);
    assert_int_equal(json_get_i64(tree, "N", &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(json_get_i64(tree, "neg", &value), 0);
    assert_int_equal(value, -7);
    assert_int_equal(json_get_i64(tree, "big", &value), 0);
    assert_true(value == INT64_C(9007199254740992));
    assert_int_equal(json_get_i64(tree, "z", &value), -ENOENT);
    assert_int_equal(json_get_i64(tree, "absent", &value), -ENOENT);
    assert_int_equal(json_get_i64(tree, "f", &value), -EINVAL);
    assert_int_equal(json_get_i64(tree, "over", &value), -EINVAL);
    assert_int_equal(json_get_i64(tree, "s", &value), -EINVAL);
    assert_int_equal(json_get_bool(tree, "b", &flag), 0);
    assert_true(flag);
    assert_int_equal(json_get_bool(tree, "n", &flag), -EINVAL);
    assert_string_equal(json_string(tree, "s"), "x");
    assert_null(json_string(tree, "n"));
    assert_null(json_get(NULL, "n"));
    cJSON_Delete(tree);
}

static void given_bad_text_when_parsed_then_no_tree_but_a_reason(void **state)
{
    const char *why = NULL;
    size_t offset = 0;

    assert_null(json_parse("[1,2", 4, &JSON_LIMITS_DEFAULT, &offset, &why));
    assert_int_equal(offset, 4);
    assert_string_equal(why, "unexpected end");
}

static void assert_slice(const char *text, const char *path, const char *expected)
{
    const char *value = NULL;
    size_t len = 0;

    assert_int_equal(check(text), 0);
    if (expected == NULL) {
        assert_int_equal(json_slice(text, strlen(text), path, &value, &len), -ENOENT);
        return;
    }
    assert_int_equal(json_slice(text, strlen(text), path, &value, &len), 0);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(value, expected, len);
}

static void given_paths_when_sliced_then_source_bytes(void **state)
{
    static const char text[] =
        " { \"n\" : 1.50 , \"o\":{\"z\":1, \"a\" : [ ] }, \"s\":\"a\\\"}]\", \"e\":{},"
        "\"choices\":[{\"delta\":{\"content\":\"x\"}},[7,[8]],-3e2 ] , \"t\":true}";

    assert_slice(text, "n", "1.50");
    assert_slice(text, "o", "{\"z\":1, \"a\" : [ ] }");
    assert_slice(text, "o.a", "[ ]");
    assert_slice(text, "s", "\"a\\\"}]\"");
    assert_slice(text, "choices.0.delta.content", "\"x\"");
    assert_slice(text, "choices.1.1.0", "8");
    assert_slice(text, "choices.2", "-3e2");
    assert_slice(text, "t", "true");
    assert_slice(text, "choices.3", NULL);
    assert_slice(text, "choices.x", NULL);
    assert_slice(text, "choices.99999999999999999999", NULL);
    assert_slice(text, "e.x", NULL);
    assert_slice(text, "n.x", NULL);
    assert_slice(text, "N", NULL);
    assert_slice(text, "", NULL);
    assert_slice(text, "o.", NULL);
    assert_slice("[]", "0", NULL);
    assert_slice("5", "a", NULL);
}

static void given_duplicates_and_escaped_names_when_sliced_then_last_wins(void **state)
{
    assert_slice("{\"a\":1,\"a\":{\"b\":2},\"c\":3}", "a.b", "2");
    assert_slice("{\"model\":1,\"mod\\u0065l\":2}", "model", "2");
    assert_slice("{\"\\ud83d\\ude00\\n\\/\":5}", "\xf0\x9f\x98\x80\n/", "5");
    assert_slice("{\"\\u041f\":5}", "\xd0\x9f", "5");
    assert_slice("{\"mode\":1,\"modell\":2}", "model", NULL);
}

static void given_white_space_when_minified_then_only_tokens_left(void **state)
{
    static const char text[] = " { \"a b\" : [ 1.50 ,\t\"x \\\" y\" , { } ] ,\r\n\"c\":null } ";
    struct buf out;

    buf_init(&out, 1000);
    assert_int_equal(json_minify(&out, text, sizeof(text) - 1), 0);
    assert_string_equal(buf_text(&out), "{\"a b\":[1.50,\"x \\\" y\",{}],\"c\":null}");
    buf_clear(&out);
}

static void given_fields_when_written_then_valid_object(void **state)
{
    struct buf out;

    buf_init(&out, 1000);
    buf_byte(&out, '{');
    json_put_field_text(&out, "t", "a\"\\\n\t\x01z");
    json_put_field_text(&out, "none", NULL);
    json_put_field_i64(&out, "i", INT64_MIN);
    json_put_field_u64(&out, "u", UINT64_MAX);
    json_put_field_bool(&out, "b", false);
    json_put_field_time(&out, "never", 0);
    json_put_field_time(&out, "at", 1);
    json_put_key(&out, "o");
    buf_byte(&out, '{');
    json_put_field_i64(&out, "x", 1);
    assert_int_equal(buf_str(&out, "}}"), 0);
    assert_string_equal(buf_text(&out),
                        "{\"t\":\"a\\\"\\\\\\n\\t\\u0001z\",\"none\":null,"
                        "\"i\":-9223372036854775808,\"u\":18446744073709551615,\"b\":false,"
                        "\"never\":null,\"at\":\"1970-01-01T00:00:00.001Z\",\"o\":{\"x\":1}}");
    assert_int_equal(check(buf_text(&out)), 0);
    buf_clear(&out);
}

static void given_any_bytes_when_put_as_string_then_valid_json(void **state)
{
    struct buf out;

    buf_init(&out, 10000);
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 1; b < 256; b += 7) {
            const char bytes[] = {'x', (char)a, (char)b, (char)(a ^ b), 'y'};

            buf_reset(&out);
            json_put_string(&out, bytes, sizeof(bytes));
            for (size_t i = 0; i < out.len; i++)
                assert_int_not_equal(out.data[i], '\0');
            /* NUL bytes are written as escapes, which is all that a checker may mind */
            if (memchr(bytes, '\0', sizeof(bytes)) == NULL)
                assert_int_equal(json_check(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL),
                                 0);
        }
    }
    buf_reset(&out);
    json_put_string(&out, NULL, 0);
    assert_string_equal(buf_text(&out), "\"\"");
    buf_reset(&out);
    json_put_string(&out, "a\xff\xe2\x82", 4);
    assert_string_equal(buf_text(&out), "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    buf_clear(&out);
}

static void given_tree_when_put_then_compact_text(void **state)
{
    cJSON *tree = json_parse("{ \"a\" : [ 1 , true ] }", 22, &JSON_LIMITS_DEFAULT, NULL, NULL);
    struct buf out;

    buf_init(&out, 1000);
    assert_int_equal(json_put_tree(&out, tree), 0);
    assert_string_equal(buf_text(&out), "{\"a\":[1,true]}");
    buf_clear(&out);
    cJSON_Delete(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_valid_texts_when_checked_then_accepted),
        cmocka_unit_test(given_invalid_texts_when_checked_then_refused_at_the_place),
        cmocka_unit_test(given_nul_byte_anywhere_when_checked_then_refused),
        cmocka_unit_test(given_valid_text_when_cut_anywhere_then_refused),
        cmocka_unit_test(given_nesting_when_over_the_limit_then_too_big),
        cmocka_unit_test(given_many_values_when_over_the_limit_then_too_big),
        cmocka_unit_test(given_number_cjson_cannot_hold_when_checked_then_too_big),
        cmocka_unit_test(given_tree_when_read_then_case_counts_and_last_duplicate_wins),
        cmocka_unit_test(given_bad_text_when_parsed_then_no_tree_but_a_reason),
        cmocka_unit_test(given_paths_when_sliced_then_source_bytes),
        cmocka_unit_test(given_duplicates_and_escaped_names_when_sliced_then_last_wins),
        cmocka_unit_test(given_white_space_when_minified_then_only_tokens_left),
        cmocka_unit_test(given_fields_when_written_then_valid_object),
        cmocka_unit_test(given_any_bytes_when_put_as_string_then_valid_json),
        cmocka_unit_test(given_tree_when_put_then_compact_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
