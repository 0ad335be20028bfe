#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"
#include "common/json.h"

static void given_table_when_looked_up_then_each_number_finds_its_row(void **state)
{
    for (size_t i = 0; i < error_count(); i++) {
        const struct error_info *row = error_at(i);

        assert_ptr_equal(error_info(row->number), row);
        assert_true(row->number < -133); /* below every errno */
        assert_true(row->http_status >= 400 && row->http_status < 600);
    }
    assert_int_equal(error_count(), XR_ERROR_END - XR_ERROR_BASE - 1);
}

static void given_errno_when_looked_up_then_internal_error(void **state)
{
    assert_int_equal(error_info(-ENOMEM)->number, XR_EINTERNAL);
    assert_int_equal(error_info(XR_ERROR_BASE)->number, XR_EINTERNAL);
    assert_int_equal(error_info(XR_ERROR_END)->number, XR_EINTERNAL);
}

static void given_details_when_encoded_then_openai_error_object(void **state)
{
    struct error e = {0};
    struct buf out;

    buf_init(&out, 4096);
    assert_int_equal(error_set(&e, XR_EINVALID, "messages[2].role", "'%s' is no role", "bot"),
                     XR_EINVALID);
    error_encode(&e, &out);
    assert_string_equal(buf_text(&out),
                        "{\"error\":{\"message\":\"'bot' is no role\",\"type\":"
                        "\"invalid_request_error\",\"param\":\"messages[2].role\",\"code\":"
                        "\"invalid_request\"}}");
    buf_clear(&out);
}

static void given_no_details_when_encoded_then_table_text_and_null_param(void **state)
{
    struct error e = {.number = XR_EAUTH};
    struct buf out;

    buf_init(&out, 4096);
    error_encode(&e, &out);
    assert_string_equal(buf_text(&out),
                        "{\"error\":{\"message\":\"Incorrect API key provided.\",\"type\":"
                        "\"authentication_error\",\"param\":null,\"code\":\"invalid_api_key\"}}");
    buf_clear(&out);
}

static void given_control_bytes_when_set_then_replaced(void **state)
{
    struct error e;

    error_set(&e, XR_EINVALID, "a\nb", "x\x1b[31m\r\n%s", "\x7fy");
    assert_string_equal(e.param, "a?b");
    assert_string_equal(e.message, "x?[31m???y");
}

static void given_text_too_long_when_set_then_cut_between_characters(void **state)
{
    char text[600];
    struct error e;

    for (size_t shift = 0; shift < 2; shift++) {
        memset(text, 'x', sizeof(text));
        for (size_t i = shift; i + 2 < sizeof(text); i += 2)
            memcpy(text + i, "\xd0\x9f", 2);
        text[sizeof(text) - 2] = '\0';
        error_set(&e, XR_EINVALID, text, "%s", text);
        assert_true(strlen(e.message) >= sizeof(e.message) - 2);
        assert_int_equal((unsigned char)e.message[strlen(e.message) - 1], 0x9f);
        assert_int_equal((unsigned char)e.param[strlen(e.param) - 1], 0x9f);
    }
}

static void given_no_struct_when_set_then_number_comes_back(void **state)
{
    assert_int_equal(error_set(NULL, XR_EMODEL, NULL, "x"), XR_EMODEL);
}

static void given_domains_when_named_then_metric_labels(void **state)
{
    assert_string_equal(fault_domain_name(error_info(XR_EAUTH)->domain), "client");
    assert_string_equal(fault_domain_name(error_info(XR_ERATELIMIT)->domain), "policy");
    assert_string_equal(fault_domain_name(error_info(XR_EUPSTREAM)->domain), "provider");
    assert_string_equal(fault_domain_name(error_info(-EIO)->domain), "gateway");
    assert_string_equal(fault_domain_name(error_info(XR_ENOREPLAY)->domain), "other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_table_when_looked_up_then_each_number_finds_its_row),
        cmocka_unit_test(given_errno_when_looked_up_then_internal_error),
        cmocka_unit_test(given_details_when_encoded_then_openai_error_object),
        cmocka_unit_test(given_no_details_when_encoded_then_table_text_and_null_param),
        cmocka_unit_test(given_control_bytes_when_set_then_replaced),
        cmocka_unit_test(given_text_too_long_when_set_then_cut_between_characters),
        cmocka_unit_test(given_no_struct_when_set_then_number_comes_back),
        cmocka_unit_test(given_domains_when_named_then_metric_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
