#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json_copy.h"

/* Copies with these rules: "x..." is left out, "v" gets the value 0, "r" becomes "renamed". */
static void copy(const char *text, const char *added, struct buf *out)
{
    struct json_copy c;
    struct json_member m;

    json_copy_open(&c, (struct json_span){text, strlen(text)}, out);
    while (json_copy_next(&c, &m)) {
        if (json_name_is(m.name, "v"))
            buf_str(json_copy_value(&c, &m), "0");
        else if (json_name_is(m.name, "r"))
            buf_append(json_copy_renamed(&c, &m, "renamed"), m.value.at, m.value.len);
        else if (m.name.len == 0 || m.name.at[0] != 'x')
            json_copy_keep(&c, &m);
    }
    if (added != NULL)
        buf_str(json_copy_add(&c, added), "[]");
    assert_int_equal(json_copy_close(&c), 0);
    assert_non_null(buf_text(out));
}

struct copy_case {
    const char *in, *added, *out;
};

static void given_objects_when_copied_then_only_what_must_has_changed(void **state)
{
    static const struct copy_case cases[] = {
        {"{}", NULL, "{}"},
        {" \n{ } ", NULL, "{ }"},
        {"{}", "a", "{\"a\":[]}"},
        {"{ }", "a", "{ \"a\":[]}"},
        {"{\"a\" : 1.50 ,\n\"b\":[ \"\\u0041\" ]}", NULL,
         "{\"a\" : 1.50 ,\n\"b\":[ \"\\u0041\" ]}"},
        {"{ \"a\":1 }", "b", "{ \"a\":1,\"b\":[] }"},
        {"{\"v\":1}", NULL, "{\"v\":0}"},
        {"{\"v\" : {\"v\":1} , \"b\":2}", NULL, "{\"v\" : 0 , \"b\":2}"},
        {"{\"\\u0076\":1,\"v\":2}", NULL, "{\"\\u0076\":0,\"v\":0}"},
        {"{\"x\":1}", NULL, "{}"},
        {"{ \"x\":1 }", NULL, "{  }"},
        {"{\"x\":1}", "a", "{\"a\":[]}"},
        {"{\"x\":1, \"a\":2}", NULL, "{\"a\":2}"},
        {"{\"a\":2, \"x\":1}", NULL, "{\"a\":2}"},
        {"{\"a\":2, \"x\":1 }", "b", "{\"a\":2,\"b\":[] }"},
        {"{\"a\":1,\"x\":2,\"x2\":3, \"b\":4}", NULL, "{\"a\":1, \"b\":4}"},
        {"{\"x\":1,\"a\":2,\"x2\":3,\"b\":4,\"x3\":5}", NULL, "{\"a\":2,\"b\":4}"},
        {"{\"x\":1,\"v\":2,\"x2\":3,\"v\":4,\"x3\":5}", NULL, "{\"v\":0,\"v\":0}"},
        {"{\"r\" :\"}\", \"b\":1}", NULL, "{\"renamed\" :\"}\", \"b\":1}"},
        {"{\"x\":1,\"r\":1,\"x\":[{},{}]}", "c", "{\"renamed\":1,\"c\":[]}"},
        {"{\"a\":\"\\\\\",\"x\":\"\\\"}\",\"b\":\"12345678\\\"9\"}", NULL,
         "{\"a\":\"\\\\\",\"b\":\"12345678\\\"9\"}"},
        {"[1, {\"x\":1},\"y\" ]", NULL, "[1, {\"x\":1},\"y\" ]"},
        {"[ ]", NULL, "[ ]"},
        {"12", NULL, "12"},
        {"\"text\"", NULL, "\"text\""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;

        buf_init(&out, 1000);
        copy(cases[i].in, cases[i].added, &out);
        if (strcmp(buf_text(&out), cases[i].out) != 0)
            fail_msg("%s: %s, expected %s", cases[i].in, buf_text(&out), cases[i].out);
        buf_clear(&out);
    }
}

static void given_object_in_object_when_copied_then_inner_copy_goes_to_the_same_place(void **state)
{
    static const char text[] = "{\"a\":{\"x\":1,\"v\":2 } ,\"b\":[{\"v\":1}, 5]}";
    struct json_copy outer, inner;
    struct json_member m, n;
    struct buf out;

    buf_init(&out, 1000);
    json_copy_open(&outer, (struct json_span){text, strlen(text)}, &out);
    while (json_copy_next(&outer, &m)) {
        json_copy_open(&inner, m.value, json_copy_value(&outer, &m));
        while (json_copy_next(&inner, &n))
            if (!json_name_is(n.name, "x"))
                json_copy_keep(&inner, &n);
        json_copy_close(&inner);
    }
    json_copy_close(&outer);
    assert_string_equal(buf_text(&out), "{\"a\":{\"v\":2 } ,\"b\":[{\"v\":1}, 5]}");
    buf_clear(&out);
}

static void given_no_room_when_copied_then_error(void **state)
{
    static const char text[] = "{\"a\":123456}";
    struct json_copy c;
    struct json_member m;
    struct buf out;

    buf_init(&out, 5);
    json_copy_open(&c, (struct json_span){text, strlen(text)}, &out);
    while (json_copy_next(&c, &m))
        json_copy_keep(&c, &m);
    assert_true(json_copy_close(&c) < 0);
    buf_clear(&out);
}

static void given_strings_when_unescaped_then_what_they_stand_for(void **state)
{
    static const char text[] = "a\\n\\u0416\\ud83d\\ude00\\/\\\\ z";
    struct buf out;

    buf_init(&out, 1000);
    assert_int_equal(json_unescape(&out, text, strlen(text)), 0);
    assert_string_equal(buf_text(&out), "a\n\xd0\x96\xf0\x9f\x98\x80/\\ z");
    buf_clear(&out);
}

static void given_bytes_when_scanned_for_a_strings_end_then_as_strict_as_the_check(void **state)
{
    static const char *const bad[] = {"abc",    "a\tb\"",    "\\x\"", "\\u12\"", "\\ud800\"",
                                      "\xff\"", "\\u0000\"", "a\\",   ""};
    static const char good[] = "\"a\\\"\\u0041\xd0\x96\" rest\"";
    bool escaped = false;
    char quoted[32];

    assert_ptr_equal(json_string_end(good + 1, good + strlen(good), &escaped), good + 12);
    assert_true(escaped);
    assert_ptr_equal(json_string_end(good + 13, good + strlen(good), &escaped), good + 18);
    assert_false(escaped);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(quoted, sizeof(quoted), "\"%s", bad[i]);
        assert_null(json_string_end(quoted + 1, quoted + strlen(quoted), &escaped));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_objects_when_copied_then_only_what_must_has_changed),
        cmocka_unit_test(given_object_in_object_when_copied_then_inner_copy_goes_to_the_same_place),
        cmocka_unit_test(given_no_room_when_copied_then_error),
        cmocka_unit_test(given_strings_when_unescaped_then_what_they_stand_for),
        cmocka_unit_test(given_bytes_when_scanned_for_a_strings_end_then_as_strict_as_the_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
