#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/openai_kit.h"

#define ERROR(message, type, code)                                                                \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"" type "\",\"param\":null,\"code\":" code \
    "}}"

struct error_case {
    unsigned status;
    const char *body;
    int rc;
    const char *param;
    const char *part; /* of the message */
};

static void check_errors(const struct error_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct error e = {0};
        struct buf text;
        bool stale = true;
        int rc =
            kit_ops()->map_error(cases[i].status, cases[i].body, strlen(cases[i].body), &stale, &e);

        buf_init(&text, 4096);
        error_encode(&e, &text);
        if (rc != cases[i].rc || e.number != rc || strcmp(e.param, cases[i].param) != 0 ||
            strstr(buf_text(&text), cases[i].part) == NULL)
            fail_msg("%u %s: %d %s", cases[i].status, cases[i].body, rc, buf_text(&text));
        assert_false(stale);
        buf_clear(&text);
    }
}
#define CHECK_ERRORS(cases) check_errors(cases, sizeof(cases) / sizeof((cases)[0]))

static void given_each_status_when_mapped_then_the_gateways_error(void **state)
{
    static const struct error_case cases[] = {
        {400, ERROR("bad value", "invalid_request_error", "null"), XR_EINVALID, "", "bad value"},
        {400, "", XR_EINVALID, "", "The request is not valid."},
        {400, "<html>", XR_EINVALID, "", "The request is not valid."},
        {401,
         ERROR("Incorrect API key provided: sk-abc", "invalid_request_error",
               "\"invalid_api_key\""),
         XR_EUPSTREAMAUTH, "", "status was 401"},
        {402, ERROR("Insufficient Balance", "x", "null"), XR_EQUOTA, "", "status was 402"},
        {403, ERROR("region", "x", "null"), XR_EUPSTREAMAUTH, "", "status was 403"},
        {404, ERROR("no such model", "x", "\"model_not_found\""), XR_EMODEL, "model",
         "does not exist"},
        {404, ERROR("model 'x' not found", "not_found_error", "null"), XR_EMODEL, "model",
         "model 'x' not found"},
        {408, "", XR_ETIMEOUT, "", "status was 408"},
        {409, "", XR_EUPSTREAM, "", "status was 409"},
        {413, ERROR("too large", "x", "null"), XR_ECONTEXT, "messages", "too large"},
        {422, "{\"detail\":[{\"loc\":[\"body\",\"x\"],\"msg\":\"Extra inputs\",\"type\":\"e\"}]}",
         XR_EINVALID, "", "Extra inputs"},
        {424, "", XR_EUPSTREAM, "", "status was 424"},
        {429, ERROR("slow down", "rate_limit_error", "\"rate_limit_exceeded\""), XR_EBUSY, "", ""},
        {498, "", XR_EBUSY, "", ""},
        {500, ERROR("x", "server_error", "null"), XR_EUPSTREAM, "", "status was 500"},
        {501, ERROR("no vision", "not_supported_error", "501"), XR_EUNSUPPORTED, "", "no vision"},
        {502, "", XR_EUPSTREAM, "", "status was 502"},
        {503, ERROR("Loading model", "unavailable_error", "503"), XR_EUPSTREAM, "",
         "status was 503"},
        {504, "", XR_ETIMEOUT, "", "status was 504"},
        {302, "", XR_EUPSTREAM, "", "status was 302"},
    };

    CHECK_ERRORS(cases);
}

static void given_words_that_say_more_than_the_status_when_mapped_then_they_count(void **state)
{
    static const struct error_case cases[] = {
        {429, ERROR("You exceeded your quota", "insufficient_quota", "\"insufficient_quota\""),
         XR_EQUOTA, "", "status was 429"},
        {429, ERROR("x", "insufficient_quota", "null"), XR_EQUOTA, "", ""},
        {400, ERROR("too many tokens", "invalid_request_error", "\"context_length_exceeded\""),
         XR_ECONTEXT, "messages", "too many tokens"},
        {400,
         "{\"error\":{\"code\":400,\"message\":\"request (9 tokens) exceeds\",\"type\":"
         "\"exceed_context_size_error\",\"n_prompt_tokens\":9,\"n_ctx\":8}}",
         XR_ECONTEXT, "messages", "exceeds"},
        {400,
         "{\"object\":\"error\",\"message\":\"This model's maximum context length is 8 tokens.\","
         "\"type\":\"BadRequestError\",\"param\":null,\"code\":400}",
         XR_ECONTEXT, "messages", "maximum context length"},
        {400, ERROR("Failed to call a function", "invalid_request_error", "\"tool_use_failed\""),
         XR_EUPSTREAM, "", "status was 400"},
        {403, ERROR("Project `proj_1` does not have access", "x", "\"model_not_found\""), XR_EMODEL,
         "model", "does not exist"},
        {403,
         "{\"error\":{\"code\":403,\"message\":\"flagged\",\"metadata\":{\"reasons\":[\"x\"]}}}",
         XR_EINVALID, "messages", "flagged"},
        {400,
         "[{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API "
         "key.\",\"status\":\"INVALID_ARGUMENT\"}}]",
         XR_EUPSTREAMAUTH, "", "status was 400"},
        /* words of a client's fault do not excuse a server's failure */
        {500, ERROR("x", "insufficient_quota", "null"), XR_EUPSTREAM, "", ""},
    };

    CHECK_ERRORS(cases);
}

static void given_each_providers_shape_when_mapped_then_its_message_is_found(void **state)
{
    static const struct error_case cases[] = {
        {400, "{\"error\":\"plain text\"}", XR_EINVALID, "", "plain text"},
        {400, "{\"message\":\"flat\",\"object\":\"error\"}", XR_EINVALID, "", "flat"},
        {400, "{\"detail\":\"detail text\"}", XR_EINVALID, "", "detail text"},
        {422,
         "{\"object\":\"error\",\"message\":{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":["
         "\"body\"],\"msg\":\"not permitted\"}]},\"type\":\"invalid_request_error\"}",
         XR_EINVALID, "", "not permitted"},
        {400, "[{\"error\":{\"code\":400,\"message\":\"google\",\"status\":\"INVALID_ARGUMENT\"}}]",
         XR_EINVALID, "", "google"},
        {400,
         "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"param\":\"messages[1].role\",\"code\":"
         "null}}",
         XR_EINVALID, "messages[1].role", "m"},
        {400, "[]", XR_EINVALID, "", "not valid"},
        {400, "{\"error\":null}", XR_EINVALID, "", "not valid"},
        {400, "{\"error\":{\"message\":5}}", XR_EINVALID, "", "not valid"},
    };

    CHECK_ERRORS(cases);
}

static void given_message_with_a_credential_when_mapped_then_it_is_masked(void **state)
{
    static const struct error_case cases[] = {
        {400, ERROR("key sk-proj-abcdefghijklmn is odd", "x", "null"), XR_EINVALID, "",
         "key *** is odd"},
        {400, ERROR("Bearer abc was sent", "x", "null"), XR_EINVALID, "", "Bearer *** was sent"},
        {400, ERROR("a\\nb\\u001bc", "x", "null"), XR_EINVALID, "", "a?b?c"},
    };

    CHECK_ERRORS(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_each_status_when_mapped_then_the_gateways_error),
        cmocka_unit_test(given_words_that_say_more_than_the_status_when_mapped_then_they_count),
        cmocka_unit_test(given_each_providers_shape_when_mapped_then_its_message_is_found),
        cmocka_unit_test(given_message_with_a_credential_when_mapped_then_it_is_masked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
