#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "providers/provider.h"

static void given_known_type_when_looked_up_then_complete_table(void **state)
{
    const struct provider_ops *ops = provider_ops_find("gigachat");

    assert_non_null(ops);
    assert_string_equal(ops->name, "gigachat");
    assert_int_equal(ops->framing, FRAMING_SSE);
    assert_true(ops->encode_token != NULL && ops->decode_token != NULL && ops->encode_chat != NULL);
    assert_true(ops->stream_new != NULL && ops->stream_free != NULL && ops->decode_event != NULL);
    assert_true(ops->decode_end != NULL && ops->decode_chat != NULL && ops->map_error != NULL);
}

static void given_unknown_type_when_looked_up_then_null(void **state)
{
    assert_null(provider_ops_find("GigaChat"));
    assert_null(provider_ops_find(""));
}

static void given_request_when_cleared_then_empty_and_usable_again(void **state)
{
    struct upstream_request r;

    upstream_request_init(&r);
    assert_int_equal(buf_str(&r.head, "secret"), 0);
    assert_int_equal(buf_str(&r.body, "body"), 0);
    r.wants_stream = true;
    upstream_request_clear(&r);
    assert_int_equal(r.head.len, 0);
    assert_int_equal(r.body.len, 0);
    assert_false(r.wants_stream);
    assert_int_equal(buf_str(&r.body, "again"), 0);
    upstream_request_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_known_type_when_looked_up_then_complete_table),
        cmocka_unit_test(given_unknown_type_when_looked_up_then_null),
        cmocka_unit_test(given_request_when_cleared_then_empty_and_usable_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
