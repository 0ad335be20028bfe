#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

#include "tests/unit/gigachat_kit.h"

#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define WITH(fields) "{\"model\":\"m\",\"messages\":[" USER "]," fields "}"
#define MESSAGES(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define FUNCTION(name)                                                                 \
    "{\"name\":\"" name "\",\"description\":\"\",\"parameters\":{\"type\":\"object\"," \
    "\"properties\":{}}}"
#define CALL(id, name, arguments)                                             \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name \
    "\",\"arguments\":\"" arguments "\"}}"
#define CALLS(list) "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" list "]}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":" text "}"

struct encoded {
    struct upstream_request r;
    struct buf ignored;
    struct error e;
    int rc;
};

static void encode(const char *text, struct encoded *out)
{
    struct provider_config p = kit_provider();
    struct model_request req;

    memset(out, 0, sizeof(*out));
    kit_parse(text, &req);
    upstream_request_init(&out->r);
    buf_init(&out->ignored, 1000);
    out->rc = kit_ops()->encode_chat(&p, "Up", &req,
                                     &(struct upstream_call){.token = "tok", .request_id = "req-1"},
                                     &out->r, &out->ignored, &out->e);
    model_request_clear(&req);
}

static void encoded_clear(struct encoded *x)
{
    upstream_request_clear(&x->r);
    buf_clear(&x->ignored);
}

static void assert_body(const char *text, const char *expected)
{
    struct encoded x;

    encode(text, &x);
    if (x.rc != 0)
        fail_msg("%s: %s", x.e.param, x.e.message);
    assert_string_equal(buf_text(&x.r.body), expected);
    assert_int_equal(json_check(x.r.body.data, x.r.body.len, &JSON_LIMITS_DEFAULT, NULL, NULL), 0);
    encoded_clear(&x);
}

/* The value of "messages" alone. */
static void assert_history(const char *list, const char *expected)
{
    struct encoded x;
    struct buf text;
    const char *value;
    size_t len;

    buf_init(&text, KIT_MAX);
    buf_printf(&text, MESSAGES("%s"), list);
    encode(buf_text(&text), &x);
    if (x.rc != 0)
        fail_msg("%s: %s", x.e.param, x.e.message);
    assert_int_equal(json_slice(x.r.body.data, x.r.body.len, "messages", &value, &len), 0);
    buf_reset(&text);
    buf_append(&text, value, len);
    assert_string_equal(buf_text(&text), expected);
    buf_clear(&text);
    encoded_clear(&x);
}

/* What stands between the messages and the end. */
static void assert_fields(const char *fields, const char *expected)
{
    static const char before[] = "{\"model\":\"Up\",\"messages\":[" USER "]";
    struct encoded x;
    struct buf text;

    buf_init(&text, KIT_MAX);
    buf_printf(&text, WITH("%s"), fields);
    encode(buf_text(&text), &x);
    if (x.rc != 0)
        fail_msg("%s: %s", x.e.param, x.e.message);
    buf_reset(&text);
    buf_printf(&text, "%s%s}", before, expected);
    assert_string_equal(buf_text(&x.r.body), buf_text(&text));
    buf_clear(&text);
    encoded_clear(&x);
}

static void assert_refused(const char *text, int rc, const char *param)
{
    struct encoded x;

    encode(text, &x);
    assert_int_equal(x.rc, rc);
    assert_int_equal(x.e.number, rc);
    assert_string_equal(x.e.param, param);
    encoded_clear(&x);
}

static void given_plain_chat_when_encoded_then_head_is_complete(void **state)
{
    struct encoded x;

    encode(MESSAGES(USER), &x);
    assert_int_equal(x.rc, 0);
    assert_string_equal(buf_text(&x.r.head), "POST /v1/chat/completions HTTP/1.1\r\n"
                                             "Host: api.giga.chat\r\n"
                                             "User-Agent: xrouter/" XROUTER_VERSION "\r\n"
                                             "Authorization: Bearer tok\r\n"
                                             "Content-Type: application/json\r\n"
                                             "Accept: application/json\r\n"
                                             "X-Request-ID: req-1\r\n"
                                             "Content-Length: 58\r\n\r\n");
    assert_string_equal(buf_text(&x.r.body), "{\"model\":\"Up\",\"messages\":[" USER "]}");
    assert_false(x.r.wants_stream);
    assert_int_equal(x.ignored.len, 0);
    encoded_clear(&x);
}

static void given_stream_when_encoded_then_asked_for_in_body_and_head(void **state)
{
    struct encoded x;

    encode(WITH("\"stream\":true"), &x);
    assert_int_equal(x.rc, 0);
    assert_true(x.r.wants_stream);
    assert_non_null(strstr(buf_text(&x.r.head), "\r\nAccept: text/event-stream\r\n"));
    assert_non_null(strstr(buf_text(&x.r.head), "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(buf_text(&x.r.body), ",\"stream\":true}"));
    encoded_clear(&x);
}

static void given_base_urls_when_encoded_then_version_is_there_once(void **state)
{
    static const char *const cases[][2] = {
        {"https://api.giga.chat", "POST /v1/chat/completions HTTP/1.1\r\n"},
        {"https://api.giga.chat/", "POST /v1/chat/completions HTTP/1.1\r\n"},
        {"https://api.giga.chat/v1", "POST /v1/chat/completions HTTP/1.1\r\n"},
        {"https://h/api/v1/", "POST /api/v1/chat/completions HTTP/1.1\r\n"},
        {"https://h/api", "POST /api/v1/chat/completions HTTP/1.1\r\n"},
        {"http://127.0.0.1:8081/v12", "POST /v12/chat/completions HTTP/1.1\r\n"},
        {"https://h/env1", "POST /env1/v1/chat/completions HTTP/1.1\r\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = kit_provider();
        struct upstream_request r;
        struct model_request req;
        struct buf ignored;
        struct error e = {0};
        char url[64];

        snprintf(url, sizeof(url), "%s", cases[i][0]);
        p.base_url = url;
        kit_parse(KIT_WHOLE, &req);
        upstream_request_init(&r);
        buf_init(&ignored, 100);
        assert_int_equal(
            kit_ops()->encode_chat(&p, "Up", &req,
                                   &(struct upstream_call){.token = "tok", .request_id = "req-1"},
                                   &r, &ignored, &e),
            0);
        assert_memory_equal(r.head.data, cases[i][1], strlen(cases[i][1]));
        upstream_request_clear(&r);
        model_request_clear(&req);
    }
}

/* The documentation's own example, reached from OpenAI's form of the same request. */
static void given_documented_request_when_encoded_then_same_json(void **state)
{
    static const char openai[] =
        "{\"model\":\"x\",\"messages\":[{\"role\":\"system\",\"content\":\"You answer "
        "briefly.\"},{\"role\":\"user\",\"content\":\"Weather in Tula?\"}," CALLS(CALL(
            "c1", "get_weather",
            "{\\\"city\\\": \\\"Tula\\\"}")) "," RESULT("c1",
                                                        "\"{\\\"t\\\": 7, \\\"sky\\\": "
                                                        "\\\"rain\\\"}\"") ",{\"role\":\"user\","
                                                                           "\"content\":\"And an "
                                                                           "umbrella?\"}],"
                                                                           "\"tools\":[{\"type\":"
                                                                           "\"function\","
                                                                           "\"function\":{"
                                                                           "\"name\":\"get_"
                                                                           "weather\","
                                                                           "\"description\":"
                                                                           "\"Current "
                                                                           "weather\","
                                                                           "\"parameters\":{"
                                                                           "\"type\":"
                                                                           "\"object\","
                                                                           "\"properties\":{"
                                                                           "\"city\":{\"type\":"
                                                                           "\"string\"}},"
                                                                           "\"required\":[\"city\"]"
                                                                           "}}}],"
                                                                           "\"temperature\":0.7,"
                                                                           "\"max_tokens\":512,"
                                                                           "\"stream\":true}";
    struct buf file;
    struct encoded x;
    cJSON *expected, *found, *content;

    kit_read("request.json", &file);
    encode(openai, &x);
    assert_int_equal(x.rc, 0);
    expected = cJSON_ParseWithLength(file.data, file.len);
    found = cJSON_ParseWithLength(x.r.body.data, x.r.body.len);
    cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(expected, "model"), "Up");
    /* The example's result has spaces; ours goes without. */
    content = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(expected, "messages"), 3), "content");
    cJSON_SetValuestring(content, "{\"t\":7,\"sky\":\"rain\"}");
    assert_true(cJSON_Compare(expected, found, true));
    cJSON_Delete(expected);
    cJSON_Delete(found);
    buf_clear(&file);
    encoded_clear(&x);
}

static void given_parameters_when_encoded_then_mapped(void **state)
{
    assert_fields("\"temperature\":0.7,\"top_p\":0.25", ",\"temperature\":0.7,\"top_p\":0.25");
    assert_fields("\"temperature\":0,\"top_p\":0.9", ",\"top_p\":0");
    assert_fields("\"temperature\":-0.0", ",\"top_p\":0");
    assert_fields("\"max_tokens\":5", ",\"max_tokens\":5");
    assert_fields("\"max_tokens\":5,\"max_completion_tokens\":9", ",\"max_tokens\":9");
    assert_fields("\"reasoning_effort\":\"minimal\"", ",\"reasoning_effort\":\"low\"");
    assert_fields("\"reasoning_effort\":\"max\"", ",\"reasoning_effort\":\"high\"");
    assert_fields("\"reasoning_effort\":\"none\"", "");
    assert_fields("\"n\":1,\"logprobs\":false,\"top_logprobs\":0,\"modalities\":[\"text\"]", "");
    assert_fields("\"stop\":[\"a\"],\"parallel_tool_calls\":true,\"response_format\":{\"type\":"
                  "\"text\"}",
                  "");
    assert_fields("\"x_unknown\":{\"a\":1},\"Temperature\":0.5", "");
}

static void given_unsupported_parameters_when_encoded_then_refused_by_name(void **state)
{
    assert_refused(WITH("\"n\":2"), XR_EUNSUPPORTED, "n");
    assert_refused(WITH("\"logprobs\":true"), XR_EUNSUPPORTED, "logprobs");
    assert_refused(WITH("\"top_logprobs\":2"), XR_EUNSUPPORTED, "top_logprobs");
    assert_refused(WITH("\"audio\":{\"voice\":\"a\"}"), XR_EUNSUPPORTED, "audio");
    assert_refused(WITH("\"modalities\":[\"text\",\"audio\"]"), XR_EUNSUPPORTED, "modalities");
    assert_refused(WITH("\"web_search_options\":{}"), XR_EUNSUPPORTED, "web_search_options");
    assert_refused(WITH("\"response_format\":{\"type\":\"json_object\"}"), XR_EUNSUPPORTED,
                   "response_format");
    assert_refused(WITH("\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"x\"}}]"),
                   XR_EUNSUPPORTED, "tools");
}

static void given_steering_parameters_when_encoded_then_dropped_and_named(void **state)
{
    struct encoded x;

    encode(
        WITH("\"user\":\"u\",\"seed\":0,\"presence_penalty\":1,\"frequency_penalty\":0,"
             "\"logit_bias\":{\"1\":5},\"metadata\":{},\"store\":false,\"service_tier\":\"auto\","
             "\"prompt_cache_key\":\"k\",\"safety_identifier\":null,\"profanity_check\":false"),
        &x);
    assert_int_equal(x.rc, 0);
    assert_string_equal(buf_text(&x.ignored), "user, seed, presence_penalty, logit_bias, "
                                              "service_tier, prompt_cache_key, profanity_check");
    assert_string_equal(buf_text(&x.r.body), "{\"model\":\"Up\",\"messages\":[" USER "]}");
    encoded_clear(&x);
}

static void given_json_schema_when_encoded_then_native_with_its_own_bytes(void **state)
{
    struct buf file;
    struct encoded x;
    const char *expected, *found;
    size_t expected_len, found_len;
    struct buf mini;

    encode(WITH("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"w\","
                "\"strict\":true,\"schema\":{ \"type\":\"object\", \"properties\":{\"t\":{"
                "\"type\":\"number\",\"maximum\":1.50}},\"required\":[\"t\"]}}}"),
           &x);
    assert_int_equal(x.rc, 0);
    kit_read("response_format.json", &file);
    assert_int_equal(json_slice(file.data, file.len, "response_format", &expected, &expected_len),
                     0);
    assert_int_equal(json_slice(x.r.body.data, x.r.body.len, "response_format", &found, &found_len),
                     0);
    buf_init(&mini, 1000);
    json_minify(&mini, expected, expected_len);
    assert_int_equal(found_len, mini.len);
    assert_memory_equal(found, mini.data, found_len);
    buf_clear(&mini);
    buf_clear(&file);
    encoded_clear(&x);
    assert_refused(WITH("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
                        "\"w\"}}"),
                   XR_EINVALID, "response_format.json_schema.schema");
}

#define FORMAT(members)                                                                           \
    WITH("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"w\"," members \
         "}}")

static void given_schema_by_a_function_when_encoded_then_it_must_be_called(void **state)
{
    static char function[] = "function";
    const struct upstream_call call = {.token = "tok", .request_id = "req-1"};
    struct provider_config p = kit_provider();
    struct upstream_request out;
    struct model_request req;
    struct error e = {0};
    struct buf ignored;

    p.structured_output = function;
    kit_parse(FORMAT("\"schema\":{\"type\":\"object\",\"properties\":{\"t\":{\"type\":"
                     "\"string\"}}}"),
              &req);
    upstream_request_init(&out);
    buf_init(&ignored, 100);
    assert_int_equal(kit_ops()->encode_chat(&p, "Up", &req, &call, &out, &ignored, &e), 0);
    assert_non_null(strstr(buf_text(&out.body),
                           ",\"functions\":[{\"name\":\"w\",\"description\":\"Gives the answer.\","
                           "\"parameters\":{\"type\":\"object\",\"properties\":{\"t\":{\"type\":"
                           "\"string\"}}}}],\"function_call\":{\"name\":\"w\"}"));
    assert_null(strstr(buf_text(&out.body), "response_format"));
    upstream_request_clear(&out);
    buf_clear(&ignored);
    model_request_clear(&req);
}

static void given_schema_it_cannot_hold_the_answer_to_when_encoded_then_refused(void **state)
{
    assert_refused(FORMAT("\"schema\":{}"), XR_EUNSUPPORTED, "response_format");
    assert_refused(FORMAT("\"strict\":true,\"schema\":{\"type\":\"object\",\"properties\":"
                          "{\"t\":{\"type\":\"string\"}}}"),
                   XR_EUNSUPPORTED, "response_format");
    assert_fields("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"w\","
                  "\"strict\":false,\"schema\":{\"type\":\"object\",\"properties\":{\"t\":{}}}}}",
                  ",\"response_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\","
                  "\"properties\":{\"t\":{}}},\"strict\":false}");
    assert_fields("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"w\","
                  "\"strict\":true,\"schema\":{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{}}}}}",
                  ",\"response_format\":{\"type\":\"json_schema\",\"schema\":{\"$ref\":"
                  "\"#/$defs/a\",\"$defs\":{\"a\":{}}},\"strict\":true}");
    assert_fields("\"response_format\":{\"type\":\"text\"}", "");
}

static void given_system_messages_when_encoded_then_one_first_and_later_ones_user(void **state)
{
    assert_history("{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"developer\",\"content\":"
                   "\"b\"}," USER ",{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":"
                   "\"system\",\"content\":\"d\"}",
                   "[{\"role\":\"system\",\"content\":\"a\\nb\"}," USER
                   ",{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"user\",\"content\":"
                   "\"d\"}]");
    assert_history(USER ",{\"role\":\"developer\",\"content\":\"d\"}",
                   "[{\"role\":\"user\",\"content\":\"hi\\nd\"}]");
}

static void given_contents_when_encoded_then_one_text(void **state)
{
    assert_history("{\"role\":\"user\",\"name\":\"bob\",\"content\":[{\"type\":\"text\",\"text\":"
                   "\"a\"},{\"type\":\"text\",\"text\":\"б\\\"\"}]},{\"role\":\"assistant\","
                   "\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]},{\"role\":"
                   "\"assistant\",\"content\":null,\"refusal\":\"never\"},{\"role\":\"user\","
                   "\"content\":\"\"}",
                   "[{\"role\":\"user\",\"content\":\"a\\nб\\\"\"},{\"role\":\"assistant\","
                   "\"content\":\"no\\nnever\"},{\"role\":\"user\",\"content\":\"\"}]");
}

static void given_one_call_when_encoded_then_object_with_its_own_bytes(void **state)
{
    assert_history(
        USER "," CALLS(CALL("a", "f",
                            "{ \\\"b\\\": 1.50, \\\"a\\\": 12345678901234567890, "
                            "\\\"b\\\": [1, \\\"x y\\\"] }")) "," RESULT("a", "\"ok\""),
        "[" USER ",{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"f\","
        "\"arguments\":{\"b\":1.50,\"a\":12345678901234567890,\"b\":[1,\"x y\"]}}},{\"role\":"
        "\"function\",\"content\":\"{\\\"result\\\":\\\"ok\\\"}\",\"name\":\"f\"}]");
}

static void given_several_calls_when_encoded_then_pairs_in_order_of_calls(void **state)
{
    assert_history(
        "{\"role\":\"assistant\",\"content\":\"look\",\"tool_calls\":[" CALL(
            "a", "f", "{}") "," CALL("b", "g",
                                     "") "]}," RESULT("b", "\"2\"") "," RESULT("a",
                                                                               "\"1\"") "," USER,
        "[{\"role\":\"assistant\",\"content\":\"look\",\"function_call\":{\"name\":"
        "\"f\",\"arguments\":{}}},{\"role\":\"function\",\"content\":\"{\\\"result\\\":"
        "1}\",\"name\":\"f\"},{\"role\":\"assistant\",\"content\":\"\","
        "\"function_call\":{\"name\":\"g\",\"arguments\":{}}},{\"role\":\"function\","
        "\"content\":\"{\\\"result\\\":2}\",\"name\":\"g\"}," USER "]");
}

static void given_calls_with_equal_ids_when_encoded_then_results_in_order(void **state)
{
    assert_history(CALLS(CALL("a", "f", "{}") "," CALL("a", "g", "{}")) "," RESULT(
                       "a", "\"1\"") "," RESULT("a", "\"2\""),
                   "[{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"f\","
                   "\"arguments\":{}}},{\"role\":\"function\",\"content\":\"{\\\"result\\\":1}\","
                   "\"name\":\"f\"},{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{"
                   "\"name\":\"g\",\"arguments\":{}}},{\"role\":\"function\",\"content\":"
                   "\"{\\\"result\\\":2}\",\"name\":\"g\"}]");
}

static void assert_result(const char *content, const char *expected)
{
    struct buf list, all;

    buf_init(&list, 4096);
    buf_init(&all, 4096);
    buf_printf(&list, "%s,{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":%s}",
               CALLS(CALL("a", "f", "{}")), content);
    buf_str(&all, "[{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"f\","
                  "\"arguments\":{}}},{\"role\":\"function\",\"content\":");
    json_put_text(&all, expected);
    buf_str(&all, ",\"name\":\"f\"}]");
    assert_history(buf_text(&list), buf_text(&all));
    buf_clear(&list);
    buf_clear(&all);
}

static void given_results_of_any_kind_when_encoded_then_json_objects(void **state)
{
    assert_result("\"7 degrees, rain\"", "{\"result\":\"7 degrees, rain\"}");
    assert_result("\"{ \\\"t\\\": 7.0 }\"", "{\"t\":7.0}");
    assert_result("\"[1, 2]\"", "{\"result\":[1,2]}");
    assert_result("\"true\"", "{\"result\":true}");
    assert_result("\"\"", "{}");
    assert_result("\"{broken\"", "{\"result\":\"{broken\"}");
    assert_result("\"дождь\"", "{\"result\":\"дождь\"}");
    assert_result("[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]",
                  "{\"result\":\"a\\nb\"}");
}

static void given_arguments_that_are_no_object_when_encoded_then_refused(void **state)
{
    static const char *const bad[] = {"[1]", "5", "{", "nonsense", "\\\"x\\\"", "{} {}"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct buf text;

        buf_init(&text, 4096);
        buf_printf(&text, MESSAGES(USER "," CALLS(CALL("a", "f", "%s")) "," RESULT("a", "\"1\"")),
                   bad[i]);
        assert_refused(buf_text(&text), XR_EINVALID,
                       "messages[1].tool_calls[0].function.arguments");
        buf_clear(&text);
    }
}

static void given_legacy_call_when_encoded_then_same_form(void **state)
{
    assert_history(USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                        "\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"role\":\"function\",\"name\":"
                        "\"f\",\"content\":\"x\"}",
                   "[" USER ",{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":"
                   "\"f\",\"arguments\":{\"a\":1}}},{\"role\":\"function\",\"content\":\"{"
                   "\\\"result\\\":\\\"x\\\"}\",\"name\":\"f\"}]");
}

static void given_tools_and_choices_when_encoded_then_functions_and_call(void **state)
{
    static const char one[] = ",\"functions\":[" FUNCTION("f") "],\"function_call\":";

#define ONE "\"tools\":[" TOOL("f") "]"
#define TWO "\"tools\":[" TOOL("f") "," TOOL("g") "]"
#define BOTH ",\"functions\":[" FUNCTION("f") "," FUNCTION("g") "],\"function_call\":"
    struct buf expected;

    buf_init(&expected, 4096);
    buf_printf(&expected, "%s\"auto\"", one);
    assert_fields(ONE, buf_text(&expected));
    assert_fields(ONE ",\"tool_choice\":\"auto\"", buf_text(&expected));
    assert_fields("\"functions\":[{\"name\":\"f\"}]", buf_text(&expected));
    assert_fields("\"functions\":[{\"name\":\"f\"}],\"function_call\":\"auto\"",
                  buf_text(&expected));
    buf_reset(&expected);
    buf_printf(&expected, "%s{\"name\":\"f\"}", one);
    assert_fields(ONE ",\"tool_choice\":\"required\"", buf_text(&expected));
    assert_fields(ONE ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}",
                  buf_text(&expected));
    assert_fields("\"functions\":[{\"name\":\"f\"}],\"function_call\":{\"name\":\"f\"}",
                  buf_text(&expected));
    buf_clear(&expected);
    assert_fields(TWO ",\"tool_choice\":\"required\"", BOTH "\"auto\"");
    assert_fields(TWO ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}",
                  BOTH "{\"name\":\"g\"}");
    assert_fields(TWO ",\"tool_choice\":\"none\"", "");
    assert_fields("\"functions\":[{\"name\":\"f\"}],\"function_call\":\"none\"", "");
    assert_fields("\"tools\":[]", "");
#undef ONE
#undef TWO
#undef BOTH
}

/* The documented example of functions, without what OpenAI has no place for. */
static void given_documented_functions_when_encoded_then_same(void **state)
{
    struct buf file, text;
    struct encoded x;
    cJSON *root, *function, *found;

    kit_read("functions.json", &file);
    root = cJSON_ParseWithLength(file.data, file.len);
    function = cJSON_GetObjectItemCaseSensitive(root, "functions")->child;
    cJSON_DeleteItemFromObjectCaseSensitive(function, "return_parameters");
    cJSON_DeleteItemFromObjectCaseSensitive(function, "few_shot_examples");
    buf_init(&text, 4096);
    buf_str(&text, "{\"model\":\"m\",\"messages\":[" USER "],\"tools\":[{\"type\":\"function\","
                   "\"function\":");
    json_put_tree(&text, function);
    buf_str(&text, "}]}");
    encode(buf_text(&text), &x);
    assert_int_equal(x.rc, 0);
    found = cJSON_ParseWithLength(x.r.body.data, x.r.body.len);
    assert_true(cJSON_Compare(cJSON_GetObjectItemCaseSensitive(found, "functions"),
                              cJSON_GetObjectItemCaseSensitive(root, "functions"), true));
    assert_string_equal(json_string(found, "function_call"), "auto");
    cJSON_Delete(found);
    cJSON_Delete(root);
    buf_clear(&text);
    buf_clear(&file);
    encoded_clear(&x);
}

static void given_names_the_server_would_take_for_its_own_when_encoded_then_aliased(void **state)
{
    assert_fields(
        "\"tools\":[" TOOL("web_search") "," TOOL("2fast") "," TOOL("xr_user_x") "," TOOL(
            "a.b-c_1") "],\"tool_choice\":{\"type\":\"function\",\"function\":{"
                       "\"name\":\"2fast\"}}",
        ",\"functions\":[" FUNCTION("xr_user_web_search") "," FUNCTION(
            "xr_user_2fast") "," FUNCTION("xr_user_xr_user_x") "," FUNCTION("a.b-c_1") "],"
                                                                                       "\"function_"
                                                                                       "call\":{"
                                                                                       "\"name\":"
                                                                                       "\"xr_user_"
                                                                                       "2fast\"}");
    assert_history(CALLS(CALL("a", "text2image", "{}")) "," RESULT("a", "\"{}\""),
                   "[{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":"
                   "\"xr_user_text2image\",\"arguments\":{}}},{\"role\":\"function\",\"content\":"
                   "\"{}\",\"name\":\"xr_user_text2image\"}]");
}

static void given_schema_with_references_when_encoded_then_written_out(void **state)
{
    assert_fields("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,"
                  "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":"
                  "\"#/$defs/A\"},\"b\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"integer\"}]}},"
                  "\"$defs\":{\"A\":{\"type\":\"string\"}}}}}]",
                  ",\"functions\":[{\"name\":\"f\",\"description\":\"\",\"parameters\":{\"type\":"
                  "\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":"
                  "\"integer\"}}}}],\"function_call\":\"auto\"");
    assert_refused(WITH("\"tools\":[" TOOL("f") ",{\"type\":\"function\",\"function\":{\"name\":"
                                                "\"g\",\"parameters\":{\"$ref\":\"#/x\"}}}]"),
                   XR_EINVALID, "tools[1].function.parameters");
}

/* The X-Session-ID of a request; "" = it has none. */
struct session {
    char id[64];
};

static struct session session_of(uint64_t key_id, const char *upstream_model, const char *text)
{
    struct provider_config p = kit_provider();
    static const char name[] = "\r\nX-Session-ID: ";
    struct session session = {""};
    struct upstream_request r;
    struct model_request req;
    struct buf ignored;
    struct error e = {0};
    const char *found;

    kit_parse(text, &req);
    req.key_id = key_id;
    upstream_request_init(&r);
    buf_init(&ignored, 100);
    assert_int_equal(
        kit_ops()->encode_chat(&p, upstream_model, &req,
                               &(struct upstream_call){.token = "tok", .request_id = "req-1"}, &r,
                               &ignored, &e),
        0);
    found = strstr(buf_text(&r.head), name);
    if (found != NULL) {
        assert_int_equal(strcspn(found + strlen(name), "\r"), 36);
        snprintf(session.id, sizeof(session.id), "%.36s", found + strlen(name));
    }
    upstream_request_clear(&r);
    model_request_clear(&req);
    return session;
}

#define SYSTEM "{\"role\":\"system\",\"content\":\"Be brief.\"}"
#define FIRST_TURN MESSAGES(SYSTEM ",{\"role\":\"user\",\"content\":\"One?\"}")

static void given_later_turn_when_encoded_then_same_session(void **state)
{
    struct session first = session_of(7, "Up", FIRST_TURN);
    struct session second =
        session_of(7, "Up",
                   MESSAGES(SYSTEM ", {\"content\" : \"One?\", \"role\":\"user\"},"
                                   "{\"role\":\"assistant\",\"content\":\"1\"},"
                                   "{\"role\":\"user\",\"content\":\"Two?\"}"));

    assert_int_equal(strlen(first.id), 36);
    assert_int_equal(strspn(first.id, "0123456789abcdef-"), 36);
    assert_int_equal(first.id[14], '8');
    assert_non_null(strchr("89ab", first.id[19]));
    assert_string_equal(first.id, second.id);
}

static void given_other_key_model_or_beginning_when_encoded_then_other_session(void **state)
{
    struct session sessions[] = {
        session_of(7, "Up", FIRST_TURN),
        session_of(8, "Up", FIRST_TURN),
        session_of(7, "Up2", FIRST_TURN),
        session_of(7, "Up", MESSAGES(SYSTEM ",{\"role\":\"user\",\"content\":\"One!\"}")),
        session_of(7, "Up", MESSAGES("{\"role\":\"user\",\"content\":\"One?\"}")),
        session_of(7, "Up",
                   MESSAGES("{\"role\":\"user\",\"content\":\"Be brief.\"},"
                            "{\"role\":\"user\",\"content\":\"One?\"}")),
    };
    size_t count = sizeof(sessions) / sizeof(sessions[0]);

    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++)
            assert_string_not_equal(sessions[i].id, sessions[j].id);
}

static void given_unknown_key_when_encoded_then_no_session(void **state)
{
    assert_string_equal(session_of(0, "Up", FIRST_TURN).id, "");
}

static void given_certificate_when_encoded_then_no_authorization(void **state)
{
    struct provider_config p = kit_provider();
    char kind[] = "certificate", empty[] = "";
    struct upstream_request r;
    struct model_request req;
    struct buf ignored;
    struct error e = {0};

    p.auth = kind;
    p.credentials = empty;
    kit_parse(KIT_WHOLE, &req);
    upstream_request_init(&r);
    buf_init(&ignored, 100);
    assert_false(kit_ops()->needs_token(&p));
    assert_int_equal(kit_ops()->encode_chat(&p, "Up", &req,
                                            &(struct upstream_call){.request_id = "req-1"}, &r,
                                            &ignored, &e),
                     0);
    assert_null(strstr(buf_text(&r.head), "Authorization"));
    upstream_request_clear(&r);
    model_request_clear(&req);
}

static void given_ready_token_when_encoded_then_sent_as_it_is(void **state)
{
    struct provider_config p = kit_provider();
    char kind[] = "token", token[] = "eyJ.ready";
    struct upstream_request r;
    struct model_request req;
    struct buf ignored;
    struct error e = {0};

    p.auth = kind;
    p.credentials = token;
    kit_parse(KIT_WHOLE, &req);
    upstream_request_init(&r);
    buf_init(&ignored, 100);
    assert_false(kit_ops()->needs_token(&p));
    assert_int_equal(kit_ops()->encode_chat(&p, "Up", &req,
                                            &(struct upstream_call){.request_id = "req-1"}, &r,
                                            &ignored, &e),
                     0);
    assert_non_null(strstr(buf_text(&r.head), "\r\nAuthorization: Bearer eyJ.ready\r\n"));
    upstream_request_clear(&r);
    model_request_clear(&req);
}

static void given_line_breaks_in_header_values_when_encoded_then_refused(void **state)
{
    struct provider_config p = kit_provider();
    struct upstream_request r;
    struct model_request req;
    struct buf ignored;
    struct error e = {0};

    kit_parse(KIT_WHOLE, &req);
    upstream_request_init(&r);
    buf_init(&ignored, 100);
    assert_int_equal(kit_ops()->encode_chat(
                         &p, "Up", &req,
                         &(struct upstream_call){.token = "s3cr3t\r\nX: 1", .request_id = "req-1"},
                         &r, &ignored, &e),
                     XR_EUPSTREAMAUTH);
    assert_null(strstr(e.message, "s3cr3t"));
    upstream_request_clear(&r);
    model_request_clear(&req);
}

static void given_model_with_quotes_when_encoded_then_escaped(void **state)
{
    assert_body(
        "{\"model\":\"a\\\"b\",\"messages\":[{\"role\":\"user\",\"content\":\"q\\\"\\n\"}]}",
        "{\"model\":\"Up\",\"messages\":[{\"role\":\"user\",\"content\":\"q\\\"\\n\"}]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_plain_chat_when_encoded_then_head_is_complete),
        cmocka_unit_test(given_stream_when_encoded_then_asked_for_in_body_and_head),
        cmocka_unit_test(given_base_urls_when_encoded_then_version_is_there_once),
        cmocka_unit_test(given_documented_request_when_encoded_then_same_json),
        cmocka_unit_test(given_parameters_when_encoded_then_mapped),
        cmocka_unit_test(given_unsupported_parameters_when_encoded_then_refused_by_name),
        cmocka_unit_test(given_steering_parameters_when_encoded_then_dropped_and_named),
        cmocka_unit_test(given_json_schema_when_encoded_then_native_with_its_own_bytes),
        cmocka_unit_test(given_schema_by_a_function_when_encoded_then_it_must_be_called),
        cmocka_unit_test(given_schema_it_cannot_hold_the_answer_to_when_encoded_then_refused),
        cmocka_unit_test(given_system_messages_when_encoded_then_one_first_and_later_ones_user),
        cmocka_unit_test(given_contents_when_encoded_then_one_text),
        cmocka_unit_test(given_one_call_when_encoded_then_object_with_its_own_bytes),
        cmocka_unit_test(given_several_calls_when_encoded_then_pairs_in_order_of_calls),
        cmocka_unit_test(given_calls_with_equal_ids_when_encoded_then_results_in_order),
        cmocka_unit_test(given_results_of_any_kind_when_encoded_then_json_objects),
        cmocka_unit_test(given_arguments_that_are_no_object_when_encoded_then_refused),
        cmocka_unit_test(given_legacy_call_when_encoded_then_same_form),
        cmocka_unit_test(given_tools_and_choices_when_encoded_then_functions_and_call),
        cmocka_unit_test(given_documented_functions_when_encoded_then_same),
        cmocka_unit_test(given_names_the_server_would_take_for_its_own_when_encoded_then_aliased),
        cmocka_unit_test(given_schema_with_references_when_encoded_then_written_out),
        cmocka_unit_test(given_later_turn_when_encoded_then_same_session),
        cmocka_unit_test(given_other_key_model_or_beginning_when_encoded_then_other_session),
        cmocka_unit_test(given_unknown_key_when_encoded_then_no_session),
        cmocka_unit_test(given_certificate_when_encoded_then_no_authorization),
        cmocka_unit_test(given_ready_token_when_encoded_then_sent_as_it_is),
        cmocka_unit_test(given_line_breaks_in_header_values_when_encoded_then_refused),
        cmocka_unit_test(given_model_with_quotes_when_encoded_then_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
