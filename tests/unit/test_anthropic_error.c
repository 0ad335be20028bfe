#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/anthropic_kit.h"

static int map(unsigned status, const char *body, struct error *e)
{
    bool stale = true;
    int rc;

    memset(e, 0, sizeof(*e));
    rc = kit_ops()->map_error(status, body, strlen(body), &stale, e);
    assert_int_equal(e->number, rc);
    assert_false(stale); /* a key does not change by itself */
    return rc;
}

static int map_file(unsigned status, const char *name, struct error *e)
{
    struct buf in;
    int rc;

    kit_read(name, &in);
    rc = map(status, buf_text(&in), e);
    buf_clear(&in);
    return rc;
}

static void given_status_without_a_body_when_mapped_then_its_meaning(void **state)
{
    static const struct {
        unsigned status;
        int number;
    } cases[] = {
        {400, XR_EINVALID},  {401, XR_EUPSTREAMAUTH}, {402, XR_EQUOTA},    {403, XR_EUPSTREAMAUTH},
        {404, XR_EMODEL},    {408, XR_ETIMEOUT},      {409, XR_EUPSTREAM}, {413, XR_ECONTEXT},
        {422, XR_EINVALID},  {429, XR_EBUSY},         {500, XR_EUPSTREAM}, {502, XR_EUPSTREAM},
        {503, XR_EUPSTREAM}, {504, XR_ETIMEOUT},      {529, XR_EUPSTREAM}, {302, XR_EUPSTREAM},
    };
    struct error e;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(map(cases[i].status, "", &e), cases[i].number);
        assert_int_equal(map(cases[i].status, "<html>502 Bad Gateway</html>", &e), cases[i].number);
        assert_null(strstr(e.message, "html"));
    }
}

static void given_type_when_mapped_then_it_counts_more_than_the_status(void **state)
{
    struct error e;

    assert_int_equal(map(400, "{\"error\":{\"type\":\"billing_error\"}}", &e), XR_EQUOTA);
    assert_int_equal(map(500, "{\"error\":{\"type\":\"overloaded_error\"}}", &e), XR_EUPSTREAM);
    assert_string_equal(e.message, "The provider is overloaded.");
    assert_int_equal(map(429, "{\"error\":{\"type\":\"something_new\"}}", &e), XR_EBUSY);
    assert_int_equal(map(500, "{\"error\":{\"type\":\"timeout_error\"}}", &e), XR_ETIMEOUT);
}

static void given_the_clients_fault_when_mapped_then_it_is_told_what_was_said(void **state)
{
    struct error e;

    assert_int_equal(map_file(400, "error_400.json", &e), XR_EINVALID);
    assert_non_null(strstr(e.message, "`tool_use` ids were found without"));
    assert_int_equal(map_file(404, "error_404.json", &e), XR_EMODEL);
    assert_string_equal(e.param, "model");
    assert_non_null(strstr(e.message, "model: claude-none"));
    assert_int_equal(map_file(400, "error_400_long.json", &e), XR_ECONTEXT);
    assert_string_equal(e.param, "messages");
    assert_non_null(strstr(e.message, "208310 tokens > 200000 maximum"));
}

static void given_key_in_the_message_when_mapped_then_it_is_wiped(void **state)
{
    struct error e;

    assert_int_equal(map_file(400, "error_400_key.json", &e), XR_EINVALID);
    assert_null(strstr(e.message, "sk-ant"));
    assert_non_null(strstr(e.message, "*** is not allowed here"));
}

static void given_the_gateways_account_at_fault_when_mapped_then_nothing_of_the_body(void **state)
{
    struct error e;

    assert_int_equal(map_file(400, "error_400_credit.json", &e), XR_EQUOTA);
    assert_null(strstr(e.message, "credit balance"));
    assert_int_equal(
        map(401, "{\"error\":{\"type\":\"authentication_error\",\"message\":\"bad key x\"}}", &e),
        XR_EUPSTREAMAUTH);
    assert_null(strstr(e.message, "bad key"));
    assert_int_equal(
        map(429, "{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"org-7 is over\"}}", &e),
        XR_EBUSY);
    assert_null(strstr(e.message, "org-7"));
    assert_int_equal(map_file(529, "error_529.json", &e), XR_EUPSTREAM);
    assert_int_equal(error_info(e.number)->retry, true);
}

static void given_odd_bodies_when_mapped_then_the_status_counts(void **state)
{
    static const char *const bodies[] = {
        "[]",  "{\"error\":\"x\"}", "{\"error\":[]}", "{\"error\":{\"type\":1,\"message\":2}}",
        "nul",
    };
    struct error e;

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        assert_int_equal(map(429, bodies[i], &e), XR_EBUSY);
}

static void given_error_event_when_decoded_then_the_same_meaning(void **state)
{
    static const struct {
        const char *type;
        int number;
    } cases[] = {
        {"invalid_request_error", XR_EINVALID}, {"rate_limit_error", XR_EBUSY},
        {"overloaded_error", XR_EUPSTREAM},     {"api_error", XR_EUPSTREAM},
        {"billing_error", XR_EQUOTA},           {"new_error", XR_EUPSTREAM},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_request req;
        struct kit_answer a;
        struct buf in;

        kit_parse(KIT_STREAM, &req);
        buf_init(&in, 1000);
        buf_printf(&in,
                   "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"%s\","
                   "\"message\":\"m\"}}\n\n",
                   cases[i].type);
        kit_stream(&req, &in, in.len, &a);
        assert_int_equal(a.rc, cases[i].number);
        assert_int_equal(a.e.number, a.rc);
        assert_int_equal(a.out.len, 0); /* another candidate may still answer */
        kit_answer_clear(&a);
        buf_clear(&in);
        model_request_clear(&req);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_status_without_a_body_when_mapped_then_its_meaning),
        cmocka_unit_test(given_type_when_mapped_then_it_counts_more_than_the_status),
        cmocka_unit_test(given_the_clients_fault_when_mapped_then_it_is_told_what_was_said),
        cmocka_unit_test(given_key_in_the_message_when_mapped_then_it_is_wiped),
        cmocka_unit_test(given_the_gateways_account_at_fault_when_mapped_then_nothing_of_the_body),
        cmocka_unit_test(given_odd_bodies_when_mapped_then_the_status_counts),
        cmocka_unit_test(given_error_event_when_decoded_then_the_same_meaning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
