#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

#include "tests/unit/openai_kit.h"

#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define WITH(fields) "{\"model\":\"m\",\"messages\":[" USER "]" fields "}"
#define OUT(fields) "{\"model\":\"up/stream\",\"messages\":[" USER "]" fields "}"
#define MESSAGES(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define OUT_MESSAGES(list) "{\"model\":\"up/stream\",\"messages\":[" list "]}"
#define TOOL "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"
#define CALL(id) \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"

struct encoded {
    struct upstream_request r;
    struct buf ignored;
    struct error e;
    int rc;
};

static void encode_for(const struct provider_config *p, const char *model, const char *text,
                       struct encoded *out)
{
    struct model_request req;

    memset(out, 0, sizeof(*out));
    kit_parse(text, &req);
    upstream_request_init(&out->r);
    buf_init(&out->ignored, 1000);
    out->rc = kit_ops()->encode_chat(p, model, &req, &(struct upstream_call){.request_id = "req-1"},
                                     &out->r, &out->ignored, &out->e);
    model_request_clear(&req);
}

static void encoded_clear(struct encoded *e)
{
    upstream_request_clear(&e->r);
    buf_clear(&e->ignored);
}

static const char *text_of(struct buf *b)
{
    return b->len == 0 ? "" : buf_text(b);
}

struct body_case {
    const char *flavor;
    const char *in;
    const char *out;
    const char *ignored;
};

static void check_bodies(const struct body_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct provider_config p = kit_provider(cases[i].flavor);
        struct encoded e;

        encode_for(&p, "up/stream", cases[i].in, &e);
        if (e.rc != 0)
            fail_msg("%s: %d %s", cases[i].in, e.rc, e.e.message);
        if (strcmp(text_of(&e.r.body), cases[i].out) != 0)
            fail_msg("%s %s:\n%s\nexpected:\n%s", cases[i].flavor, cases[i].in, text_of(&e.r.body),
                     cases[i].out);
        if (strcmp(text_of(&e.ignored), cases[i].ignored) != 0)
            fail_msg("%s %s: ignored \"%s\", expected \"%s\"", cases[i].flavor, cases[i].in,
                     text_of(&e.ignored), cases[i].ignored);
        encoded_clear(&e);
    }
}
#define CHECK_BODIES(cases) check_bodies(cases, sizeof(cases) / sizeof((cases)[0]))

static void given_request_when_encoded_then_all_bytes_but_the_model_are_the_clients(void **state)
{
    static const struct body_case cases[] = {
        {"openai", WITH(""), OUT(""), ""},
        {"openai",
         " {\n  \"seed\" : 9223372036854775807,\"model\" :\"m\" ,\"messages\":[ {\"content\":"
         "\"\\u041f\\/ \\\"x\\\" \xd0\x96\",\"role\":\"user\",\"x\":[1.0e+3,{}]} ],"
         "\"unknown\":{\"n\":12345678901234567890, \"b\" : null}}\n",
         "{\n  \"seed\" : 9223372036854775807,\"model\" :\"up/stream\" ,\"messages\":[ "
         "{\"content\":\"\\u041f\\/ \\\"x\\\" \xd0\x96\",\"role\":\"user\",\"x\":[1.0e+3,{}]} ],"
         "\"unknown\":{\"n\":12345678901234567890, \"b\" : null}}",
         ""},
        {"openai",
         WITH(",\"max_completion_tokens\":5,\"max_tokens\":6,\"functions\":[{\"name\":"
              "\"f\"}],\"function_call\":\"auto\",\"user\":\"u\""),
         OUT(",\"max_completion_tokens\":5,\"max_tokens\":6,\"functions\":[{\"name\":\"f\"}],"
             "\"function_call\":\"auto\",\"user\":\"u\""),
         ""},
        {"openai",
         MESSAGES("{\"role\":\"developer\",\"content\":\"d\",\"name\":\"n\"}," USER
                  ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":"
                  "\"r\"}"),
         OUT_MESSAGES("{\"role\":\"developer\",\"content\":\"d\",\"name\":\"n\"}," USER
                      ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"r\"}"),
         ""},
        /* the gateway's default is meant */
        {"openai", "{\"messages\":[" USER "] }",
         "{\"messages\":[" USER "],\"model\":\"up/stream\" }", ""},
        /* the name spelt with an escape, and twice */
        {"openai", "{\"mod\\u0065l\":\"a\",\"model\":\"m\",\"messages\":[" USER "]}",
         "{\"mod\\u0065l\":\"up/stream\",\"model\":\"up/stream\",\"messages\":[" USER "]}", ""},
    };

    CHECK_BODIES(cases);
}

static void given_stream_when_encoded_then_usage_is_asked_for_by_the_flavors_rule(void **state)
{
    static const struct body_case cases[] = {
        {"openai", WITH(",\"stream\":true"),
         OUT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"), ""},
        {"openai", WITH(",\"stream\":true,\"stream_options\":{ }"),
         OUT(",\"stream\":true,\"stream_options\":{ \"include_usage\":true}"), ""},
        {"openai", WITH(",\"stream\":true,\"stream_options\":null"),
         OUT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"), ""},
        {"openai",
         WITH(",\"stream_options\": {\"include_usage\" : false,\"x\":1} ,\"stream\":true"),
         OUT(",\"stream_options\": {\"include_usage\" : true,\"x\":1} ,\"stream\":true"), ""},
        {"openai", WITH(",\"stream\":true,\"stream_options\":{\"include_obfuscation\":false}"),
         OUT(",\"stream\":true,\"stream_options\":{\"include_obfuscation\":false,"
             "\"include_usage\":true}"),
         ""},
        {"openai", WITH(",\"stream\":true,\"stream_options\":{ \"include_usage\":true }"),
         OUT(",\"stream\":true,\"stream_options\":{ \"include_usage\":true }"), ""},
        {"openai", WITH(",\"stream\":false"), OUT(",\"stream\":false"), ""},
        {"openrouter", WITH(",\"stream\":true"), OUT(",\"stream\":true"), ""},
        {"mistral", WITH(",\"stream\":true"), OUT(",\"stream\":true"), ""},
        {"mistral", WITH(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
         OUT(",\"stream\":true"), ""},
    };

    CHECK_BODIES(cases);
}

static void given_members_for_the_gateway_when_encoded_then_they_stay_here(void **state)
{
#define OURS ",\"models\":[\"a\"],\"provider\":{\"order\":[\"b\"]}"
    static const struct body_case cases[] = {
        {"openai", WITH(OURS ",\"top_p\":1"), OUT(",\"top_p\":1"), ""},
        {"openai", WITH(OURS ",\"route\":\"fallback\",\"transforms\":[]"), OUT(""),
         "route, transforms"},
        {"openrouter", WITH(OURS ",\"route\":\"fallback\",\"transforms\":[]"),
         OUT(",\"route\":\"fallback\",\"transforms\":[]"), ""},
    };

    CHECK_BODIES(cases);
}

static void given_strict_flavor_when_encoded_then_what_it_refuses_is_left_out_and_told(void **state)
{
    static const struct body_case cases[] = {
        {"mistral",
         WITH(",\"user\":\"u\",\"seed\":7,\"logprobs\":false,\"n\":1,\"metadata\":{},"
              "\"service_tier\":\"x\",\"unknown\":1"),
         OUT(",\"random_seed\":7,\"n\":1"), "user, service_tier, unknown"},
        {"mistral", WITH(",\"max_completion_tokens\":5,\"max_tokens\":6"), OUT(",\"max_tokens\":5"),
         ""},
        {"mistral", WITH(",\"tools\":[" TOOL "],\"tool_choice\":\"required\""),
         OUT(",\"tools\":[" TOOL "],\"tool_choice\":\"any\""), ""},
        {"mistral", WITH(",\"tools\":[" TOOL "],\"tool_choice\":\"auto\""),
         OUT(",\"tools\":[" TOOL "],\"tool_choice\":\"auto\""), ""},
        {"mistral",
         MESSAGES(
             "{\"role\":\"developer\",\"content\":\"d\",\"name\":\"n\"},"
             "{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null,\"prefix\":true,"
             "\"reasoning_content\":\"r\"},{\"role\":\"user\",\"name\":\"m\",\"content\":\"x\"}"),
         OUT_MESSAGES("{\"role\":\"system\",\"content\":\"d\"},"
                      "{\"role\":\"assistant\",\"content\":\"a\",\"prefix\":true},"
                      "{\"role\":\"user\",\"content\":\"x\"}"),
         "messages[].name, messages[].reasoning_content"},
        {"groq", WITH(",\"n\":1,\"logprobs\":false,\"logit_bias\":{\"5\":1},\"seed\":3"),
         OUT(",\"seed\":3"), "logit_bias"},
        {"groq", MESSAGES("{\"role\":\"user\",\"name\":\"m\",\"content\":\"x\"}"),
         OUT_MESSAGES("{\"role\":\"user\",\"content\":\"x\"}"), "messages[].name"},
        {"groq",
         MESSAGES(USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                       "\"f\",\"arguments\":\"{}\"}},{\"role\":\"function\",\"name\":\"f\","
                       "\"content\":\"1\"}"),
         OUT_MESSAGES(USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                           "\"f\",\"arguments\":\"{}\"}},{\"role\":\"function\",\"name\":\"f\","
                           "\"content\":\"1\"}"),
         ""},
        {"deepseek",
         "{\"model\":\"m\",\"max_completion_tokens\":5,\"messages\":[{\"role\":\"developer\","
         "\"content\":\"d\"},{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":"
         "\"\"}]}",
         "{\"model\":\"up/stream\",\"max_tokens\":5,\"messages\":[{\"role\":\"system\","
         "\"content\":\"d\"},{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":"
         "\"\"}]}",
         ""},
        {"ollama", WITH(",\"max_completion_tokens\":5"), OUT(",\"max_tokens\":5"), ""},
        {"vllm", WITH(",\"top_k\":5,\"chat_template_kwargs\":{}"),
         OUT(",\"top_k\":5,\"chat_template_kwargs\":{}"), ""},
    };

    CHECK_BODIES(cases);
}

static void
given_ids_of_calls_when_nine_letters_are_wanted_then_same_in_call_and_result(void **state)
{
    struct provider_config p = kit_provider("mistral");
    struct encoded e, again;
    const char *first, *second;

    encode_for(&p, "m",
               MESSAGES(USER ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" CALL(
                   "call_1") ", " CALL("aB3456789") "]},{\"role\":\"tool\",\"tool_call_id\":"
                                                    "\"aB3456789\",\"content\":\"2\"},"
                                                    "{\"role\":\"tool\",\"content\":\"1\","
                                                    "\"tool_call_id\":\"call\\u005f1\"}"),
               &e);
    assert_int_equal(e.rc, 0);
    assert_null(strstr(text_of(&e.r.body), "call_1"));
    assert_null(strstr(text_of(&e.r.body), "u005f"));
    assert_non_null(strstr(text_of(&e.r.body), "{\"id\":\"aB3456789\","));
    assert_non_null(strstr(text_of(&e.r.body), "\"tool_call_id\":\"aB3456789\""));
    first = strstr(text_of(&e.r.body), "{\"id\":\"") + 7;
    second = strstr(text_of(&e.r.body), "\"content\":\"1\",\"tool_call_id\":\"") + 30;
    assert_memory_equal(first, second, 10); /* with the quote */
    assert_int_equal(
        strspn(first, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), 9);
    encode_for(
        &p, "m",
        MESSAGES(USER ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" CALL(
            "call_1") "]},{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"1\"}"),
        &again);
    assert_memory_equal(strstr(text_of(&again.r.body), "{\"id\":\"") + 7, first, 10);
    encoded_clear(&e);
    encoded_clear(&again);
}

static void given_what_the_answer_would_lack_when_the_flavor_refuses_it_then_refused(void **state)
{
    static const struct body_case cases[] = {
        {"groq", WITH(",\"n\":2"), "n", ""},
        {"groq", WITH(",\"logprobs\":true"), "logprobs", ""},
        {"mistral", WITH(",\"logprobs\":true,\"top_logprobs\":2"), "logprobs", ""},
        {"mistral", WITH(",\"functions\":[{\"name\":\"f\"}]"), "functions", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = kit_provider(cases[i].flavor);
        struct encoded e;

        encode_for(&p, "m", cases[i].in, &e);
        assert_int_equal(e.rc, XR_EUNSUPPORTED);
        assert_string_equal(e.e.param, cases[i].out);
        encoded_clear(&e);
    }
}

static void given_parameter_when_asked_whether_it_is_supported_then_by_the_flavor(void **state)
{
    struct provider_config openai = kit_provider("openai"), mistral = kit_provider("mistral");
    struct provider_config groq = kit_provider("groq");

    assert_true(kit_ops()->supports(&openai, "logit_bias"));
    assert_false(kit_ops()->supports(&groq, "logit_bias"));
    assert_true(kit_ops()->supports(&groq, "seed"));
    assert_true(kit_ops()->supports(&mistral, "seed"));
    assert_true(kit_ops()->supports(&mistral, "max_completion_tokens"));
    assert_false(kit_ops()->supports(&mistral, "functions"));
}

static void given_plain_request_when_encoded_then_head_has_nothing_of_the_client(void **state)
{
    struct provider_config p = kit_provider("openai");
    struct encoded e;

    encode_for(&p, "up/stream", WITH(""), &e);
    assert_int_equal(e.rc, 0);
    assert_string_equal(text_of(&e.r.head), "POST /v1/chat/completions HTTP/1.1\r\n"
                                            "Host: api.example.com\r\n"
                                            "User-Agent: xrouter/" XROUTER_VERSION "\r\n"
                                            "Authorization: Bearer sk-secret\r\n"
                                            "Content-Type: application/json\r\n"
                                            "Accept: application/json\r\n"
                                            "X-Request-ID: req-1\r\n"
                                            "Content-Length: 65\r\n\r\n");
    assert_int_equal(e.r.body.len, 65);
    assert_false(e.r.wants_stream);
    encoded_clear(&e);
}

struct head_case {
    const char *flavor, *base_url, *key, *model;
    const char *part;
};

static void given_flavors_when_encoded_then_address_and_key_as_they_want_them(void **state)
{
    static const struct head_case cases[] = {
        {"vllm", "http://127.0.0.1:8000", "", "m",
         "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: "
         "xrouter/" XROUTER_VERSION "\r\nContent-Type:"},
        {"vllm", "http://127.0.0.1:8000/", "", "m", "POST /v1/chat/completions "},
        {"gemini", "https://g.example.com/v1beta/openai/", "k", "m",
         "POST /v1beta/openai/chat/completions "},
        {"yandex", "https://llm.example.com/v1", "AQVNx", "gpt://b1g/yandexgpt/latest",
         "\r\nOpenAI-Project: b1g\r\nAuthorization: Api-Key AQVNx\r\n"},
        {"yandex", "https://llm.example.com/v1", "t1.x", "gpt://b1g/yandexgpt/latest",
         "\r\nOpenAI-Project: b1g\r\nAuthorization: Bearer t1.x\r\n"},
        {"yandex", "https://llm.example.com/v1", "AQVNx", "yandexgpt",
         "xrouter/" XROUTER_VERSION "\r\nAuthorization: Api-Key AQVNx\r\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = kit_provider(cases[i].flavor);
        char url[64], key[16];
        struct encoded e;

        snprintf(url, sizeof(url), "%s", cases[i].base_url);
        snprintf(key, sizeof(key), "%s", cases[i].key);
        p.base_url = url;
        p.credentials = key;
        encode_for(&p, cases[i].model, WITH(",\"stream\":true"), &e);
        assert_int_equal(e.rc, 0);
        if (strstr(text_of(&e.r.head), cases[i].part) == NULL)
            fail_msg("%s\nlacks\n%s", text_of(&e.r.head), cases[i].part);
        assert_non_null(strstr(text_of(&e.r.head), "\r\nAccept: text/event-stream\r\n"));
        assert_true(e.r.wants_stream);
        encoded_clear(&e);
    }
}

static void given_key_or_address_that_no_header_can_hold_when_encoded_then_auth_error(void **state)
{
    struct provider_config p = kit_provider("openai");
    static char bad_key[] = "a\r\nX: y", bad_url[] = "nowhere";
    struct encoded e;

    p.credentials = bad_key;
    encode_for(&p, "m", WITH(""), &e);
    assert_int_equal(e.rc, XR_EUPSTREAMAUTH);
    assert_null(strstr(e.e.message, "X: y"));
    encoded_clear(&e);
    p = kit_provider("openai");
    p.base_url = bad_url;
    encode_for(&p, "m", WITH(""), &e);
    assert_int_equal(e.rc, XR_EUPSTREAMAUTH);
    encoded_clear(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_request_when_encoded_then_all_bytes_but_the_model_are_the_clients),
        cmocka_unit_test(given_stream_when_encoded_then_usage_is_asked_for_by_the_flavors_rule),
        cmocka_unit_test(given_members_for_the_gateway_when_encoded_then_they_stay_here),
        cmocka_unit_test(
            given_strict_flavor_when_encoded_then_what_it_refuses_is_left_out_and_told),
        cmocka_unit_test(
            given_ids_of_calls_when_nine_letters_are_wanted_then_same_in_call_and_result),
        cmocka_unit_test(given_what_the_answer_would_lack_when_the_flavor_refuses_it_then_refused),
        cmocka_unit_test(given_parameter_when_asked_whether_it_is_supported_then_by_the_flavor),
        cmocka_unit_test(given_plain_request_when_encoded_then_head_has_nothing_of_the_client),
        cmocka_unit_test(given_flavors_when_encoded_then_address_and_key_as_they_want_them),
        cmocka_unit_test(given_key_or_address_that_no_header_can_hold_when_encoded_then_auth_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
