#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "providers/json_schema.h"

static int simplify(const char *text, struct buf *out, const char **why)
{
    cJSON *schema = cJSON_Parse(text);
    int rc;

    assert_non_null(schema);
    buf_init(out, 1 << 20);
    rc = json_schema_simplify(schema, out, why);
    cJSON_Delete(schema);
    return rc;
}

static void assert_becomes(const char *text, const char *expected)
{
    struct buf out;
    const char *why;

    assert_int_equal(simplify(text, &out, &why), 0);
    assert_string_equal(buf_text(&out), expected);
    buf_clear(&out);
}

static void assert_refused(const char *text, int expected)
{
    struct buf out;
    const char *why;

    assert_int_equal(simplify(text, &out, &why), expected);
    assert_true(why[0] != '\0');
    assert_int_equal(out.len, 0);
    buf_clear(&out);
}

static void given_no_parameters_when_simplified_then_empty_object(void **state)
{
    struct buf out;
    const char *why;

    buf_init(&out, 1000);
    assert_int_equal(json_schema_simplify(NULL, &out, &why), 0);
    assert_string_equal(buf_text(&out), "{\"type\":\"object\",\"properties\":{}}");
    buf_clear(&out);
    assert_becomes("{}", "{\"type\":\"object\",\"properties\":{}}");
    assert_becomes("{\"type\":\"object\"}", "{\"type\":\"object\",\"properties\":{}}");
}

static void given_plain_schema_when_simplified_then_kept_in_order(void **state)
{
    assert_becomes("{\"type\":\"object\",\"additionalProperties\":false,\"$schema\":\"x\","
                   "\"properties\":{\"b\":{\"type\":\"string\",\"description\":\"B\",\"enum\":"
                   "[\"x\",\"y\"]},\"a\":{\"type\":\"integer\",\"minimum\":0,\"default\":3}},"
                   "\"required\":[\"b\"]}",
                   "{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"string\","
                   "\"description\":\"B\",\"enum\":[\"x\",\"y\"]},\"a\":{\"type\":\"integer\","
                   "\"default\":3,\"minimum\":0}},\"required\":[\"b\"]}");
}

static void given_reference_when_simplified_then_written_out(void **state)
{
    assert_becomes("{\"type\":\"object\",\"properties\":{\"to\":{\"$ref\":\"#/$defs/Place\","
                   "\"description\":\"where\"}},\"$defs\":{\"Place\":{\"type\":\"object\","
                   "\"description\":\"a place\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}",
                   "{\"type\":\"object\",\"properties\":{\"to\":{\"type\":\"object\","
                   "\"description\":\"where\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}");
    assert_becomes("{\"properties\":{\"a\":{\"$ref\":\"#/definitions/x~1y/anyOf/1\"}},"
                   "\"definitions\":{\"x/y\":{\"anyOf\":[1,{\"type\":\"number\"}]}}}",
                   "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"}}}");
}

static void given_recursive_reference_when_simplified_then_cut(void **state)
{
    assert_becomes("{\"$ref\":\"#/$defs/Node\",\"$defs\":{\"Node\":{\"type\":\"object\","
                   "\"properties\":{\"next\":{\"$ref\":\"#/$defs/Node\"}}}}}",
                   "{\"type\":\"object\",\"properties\":{\"next\":{\"type\":\"object\","
                   "\"properties\":{}}}}");
    assert_becomes("{\"properties\":{\"a\":{\"$ref\":\"#\"}}}",
                   "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"object\","
                   "\"properties\":{}}}}");
    assert_becomes("{\"$ref\":\"#\"}", "{\"type\":\"object\",\"properties\":{}}");
}

static void given_union_when_simplified_then_first_that_is_not_null(void **state)
{
    assert_becomes("{\"properties\":{\"a\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"string\"},"
                   "{\"type\":\"integer\"}],\"default\":null,\"title\":\"A\"},"
                   "\"b\":{\"type\":[\"null\",\"integer\"]},"
                   "\"c\":{\"allOf\":[{\"$ref\":\"#/$defs/C\"}]},"
                   "\"d\":{\"type\":\"object\",\"oneOf\":[{\"properties\":{\"x\":{\"type\":"
                   "\"boolean\"}}}]}},\"$defs\":{\"C\":{\"enum\":[\"p\",\"q\"]}}}",
                   "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"title\":"
                   "\"A\"},\"b\":{\"type\":\"integer\"},\"c\":{\"type\":\"string\",\"enum\":"
                   "[\"p\",\"q\"]},\"d\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":"
                   "\"boolean\"}}}}}");
}

static void given_array_when_simplified_then_items_are_typed(void **state)
{
    assert_becomes("{\"properties\":{\"a\":{\"type\":\"array\"},\"b\":{\"items\":{\"type\":"
                   "\"number\"}},\"c\":{\"type\":\"array\",\"items\":[{\"type\":\"boolean\"},5]},"
                   "\"d\":{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":"
                   "false}}}",
                   "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"items\":"
                   "{\"type\":\"string\"}},\"b\":{\"type\":\"array\",\"items\":{\"type\":"
                   "\"number\"}},\"c\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}},"
                   "\"d\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}}}");
}

static void given_enum_and_format_when_simplified_then_only_what_is_understood(void **state)
{
    assert_becomes("{\"properties\":{\"a\":{\"enum\":[\"x\",null]},\"b\":{\"enum\":[1,2]},"
                   "\"c\":{\"const\":\"k\"},\"d\":{\"type\":\"string\",\"format\":\"date\"},"
                   "\"e\":{\"type\":\"string\",\"format\":\"uuid\"},\"f\":true,\"g\":{\"const\":"
                   "1.5}}}",
                   "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"enum\":"
                   "[\"x\"]},\"b\":{\"type\":\"integer\"},\"c\":{\"type\":\"string\",\"enum\":"
                   "[\"k\"]},\"d\":{\"type\":\"string\",\"format\":\"date\"},\"e\":{\"type\":"
                   "\"string\"},\"f\":{\"type\":\"string\"},\"g\":{\"type\":\"number\"}}}");
}

static void given_reference_to_nowhere_when_simplified_then_refused(void **state)
{
    assert_refused("{\"properties\":{\"a\":{\"$ref\":\"#/$defs/X\"}}}", -EINVAL);
    assert_refused("{\"properties\":{\"a\":{\"$ref\":\"http://example.com/x.json\"}}}", -EINVAL);
    assert_refused("{\"properties\":{\"a\":{\"$ref\":\"\"}}}", -EINVAL);
    assert_refused("{\"properties\":{\"a\":{\"$ref\":\"#x\"}}}", -EINVAL);
}

/* Each definition uses the one before ten times: a billion copies when written out. */
static void given_multiplying_references_when_simplified_then_refused_soon(void **state)
{
    struct buf text;

    buf_init(&text, 1 << 16);
    buf_str(&text, "{\"$ref\":\"#/$defs/d9\",\"$defs\":{\"d0\":{\"type\":\"string\"}");
    for (unsigned level = 1; level < 10; level++) {
        buf_printf(&text, ",\"d%u\":{\"properties\":{\"x\":true", level);
        for (unsigned i = 0; i < 10; i++)
            buf_printf(&text, ",\"p%u\":{\"$ref\":\"#/$defs/d%u\"}", i, level - 1);
        buf_str(&text, "}}");
    }
    buf_str(&text, "}}");
    assert_refused(buf_text(&text), -E2BIG);
    buf_clear(&text);
}

/* Little to write, much to read: 700 references to one definition with 700 members. */
static void given_wide_definition_when_used_often_then_refused_soon(void **state)
{
    struct buf text;

    buf_init(&text, 1 << 17);
    buf_str(&text, "{\"$defs\":{\"d\":{\"type\":\"string\"");
    for (unsigned i = 0; i < 700; i++)
        buf_printf(&text, ",\"x%u\":1", i);
    buf_str(&text, "}},\"properties\":{\"p\":{}");
    for (unsigned i = 0; i < 700; i++)
        buf_printf(&text, ",\"p%u\":{\"$ref\":\"#/$defs/d\"}", i);
    buf_str(&text, "}}");
    assert_refused(buf_text(&text), -E2BIG);
    buf_clear(&text);
}

static void given_chain_of_references_when_too_long_then_refused(void **state)
{
    struct buf text;

    buf_init(&text, 1 << 16);
    buf_str(&text, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}");
    for (unsigned i = 0; i < 200; i++)
        buf_printf(&text, ",\"d%u\":{\"$ref\":\"#/$defs/d%u\"}", i, i + 1);
    buf_str(&text, "}}");
    assert_refused(buf_text(&text), -E2BIG);
    buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_no_parameters_when_simplified_then_empty_object),
        cmocka_unit_test(given_plain_schema_when_simplified_then_kept_in_order),
        cmocka_unit_test(given_reference_when_simplified_then_written_out),
        cmocka_unit_test(given_recursive_reference_when_simplified_then_cut),
        cmocka_unit_test(given_union_when_simplified_then_first_that_is_not_null),
        cmocka_unit_test(given_array_when_simplified_then_items_are_typed),
        cmocka_unit_test(given_enum_and_format_when_simplified_then_only_what_is_understood),
        cmocka_unit_test(given_reference_to_nowhere_when_simplified_then_refused),
        cmocka_unit_test(given_multiplying_references_when_simplified_then_refused_soon),
        cmocka_unit_test(given_wide_definition_when_used_often_then_refused_soon),
        cmocka_unit_test(given_chain_of_references_when_too_long_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
