#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

#include "tests/unit/anthropic_kit.h"

#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define MESSAGES(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define HI "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}"
#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define TOOL_OUT(name) \
    "{\"name\":\"" name "\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}"
#define CALL(id, name, arguments)                                             \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name \
    "\",\"arguments\":\"" arguments "\"}}"
#define CALLS(text, list) "{\"role\":\"assistant\",\"content\":" text ",\"tool_calls\":[" list "]}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":" text "}"
#define TEXT_OUT(text) "{\"type\":\"text\",\"text\":\"" text "\"}"
#define CALL_OUT(id, name, input) \
    "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":" input "}"
#define RESULT_OUT(id, text) \
    "{\"type\":\"tool_result\",\"tool_use_id\":\"" id "\",\"content\":\"" text "\"}"
#define USER_OUT(blocks) "{\"role\":\"user\",\"content\":[" blocks "]}"
#define ASSISTANT_OUT(blocks) "{\"role\":\"assistant\",\"content\":[" blocks "]}"

struct encoded {
    struct upstream_request r;
    struct buf ignored;
    struct error e;
    int rc;
};

static void encode_for(const char *model, const char *text, struct encoded *out)
{
    struct provider_config p = kit_provider();
    struct model_request req;

    memset(out, 0, sizeof(*out));
    kit_parse(text, &req);
    upstream_request_init(&out->r);
    buf_init(&out->ignored, 1000);
    out->rc =
        kit_ops()->encode_chat(&p, model, &req, &(struct upstream_call){.request_id = "req-1"},
                               &out->r, &out->ignored, &out->e);
    model_request_clear(&req);
}

static void encoded_clear(struct encoded *x)
{
    upstream_request_clear(&x->r);
    buf_clear(&x->ignored);
}

static const char *ignored(struct encoded *x)
{
    return x->ignored.len == 0 ? "" : buf_text(&x->ignored);
}

static void assert_good(struct encoded *x)
{
    if (x->rc != 0)
        fail_msg("%s: %s", x->e.param, x->e.message);
    assert_int_equal(json_check(x->r.body.data, x->r.body.len, &JSON_LIMITS_DEFAULT, NULL, NULL),
                     0);
}

/* What of the body is between its model and limit and the end. */
static void assert_history(const char *list, const char *expected)
{
    static const char before[] = "{\"model\":\"claude-x\",\"max_tokens\":4096,";
    struct encoded x;
    struct buf text;

    buf_init(&text, KIT_MAX);
    buf_printf(&text, MESSAGES("%s"), list);
    encode_for("claude-x", buf_text(&text), &x);
    assert_good(&x);
    buf_reset(&text);
    buf_printf(&text, "%s%s}", before, expected);
    assert_string_equal(buf_text(&x.r.body), buf_text(&text));
    buf_clear(&text);
    encoded_clear(&x);
}

/* What comes behind the messages. */
static void assert_fields_for(const char *model, const char *fields, const char *expected,
                              const char *names)
{
    struct encoded x;
    struct buf text;

    buf_init(&text, KIT_MAX);
    buf_printf(&text, "{\"model\":\"m\",\"messages\":[" USER "],%s}", fields);
    encode_for(model, buf_text(&text), &x);
    assert_good(&x);
    buf_reset(&text);
    buf_printf(&text, "{\"model\":\"%s\",\"max_tokens\":4096,\"messages\":[" HI "]%s}", model,
               expected);
    assert_string_equal(buf_text(&x.r.body), buf_text(&text));
    assert_string_equal(ignored(&x), names);
    buf_clear(&text);
    encoded_clear(&x);
}

static void assert_fields(const char *fields, const char *expected, const char *names)
{
    assert_fields_for("claude-x", fields, expected, names);
}

static void assert_refused(const char *text, int rc, const char *param)
{
    struct encoded x;

    encode_for("claude-x", text, &x);
    assert_int_equal(x.rc, rc);
    assert_int_equal(x.e.number, rc);
    assert_string_equal(x.e.param, param);
    encoded_clear(&x);
}

static void assert_field_refused(const char *fields, int rc, const char *param)
{
    char text[1024];

    snprintf(text, sizeof(text), "{\"model\":\"m\",\"messages\":[" USER "],%s}", fields);
    assert_refused(text, rc, param);
}

/* ---- the head ---- */

static void given_plain_chat_when_encoded_then_head_is_complete(void **state)
{
    struct encoded x;

    encode_for("claude-x", MESSAGES(USER), &x);
    assert_good(&x);
    assert_string_equal(buf_text(&x.r.head), "POST /v1/messages HTTP/1.1\r\n"
                                             "Host: api.anthropic.com\r\n"
                                             "User-Agent: xrouter/" XROUTER_VERSION "\r\n"
                                             "x-api-key: sk-ant-secret\r\n"
                                             "anthropic-version: 2023-06-01\r\n"
                                             "Content-Type: application/json\r\n"
                                             "Accept: application/json\r\n"
                                             "X-Request-ID: req-1\r\n"
                                             "Content-Length: 107\r\n\r\n");
    assert_int_equal(x.r.body.len, 107);
    assert_false(x.r.wants_stream);
    encoded_clear(&x);
}

static void given_stream_when_encoded_then_asked_for_in_head_and_body(void **state)
{
    struct encoded x;

    encode_for("claude-x", KIT_STREAM_USAGE, &x);
    assert_good(&x);
    assert_true(x.r.wants_stream);
    assert_non_null(strstr(buf_text(&x.r.head), "\r\nAccept: text/event-stream\r\n"));
    assert_non_null(strstr(buf_text(&x.r.body), ",\"stream\":true}"));
    assert_null(strstr(buf_text(&x.r.body), "stream_options"));
    encoded_clear(&x);
}

static void given_base_urls_when_encoded_then_the_version_is_there_once(void **state)
{
    static const struct {
        const char *base, *line;
    } cases[] = {
        {"https://h", "POST /v1/messages HTTP/1.1\r\n"},
        {"https://h/", "POST /v1/messages HTTP/1.1\r\n"},
        {"https://h/v1", "POST /v1/messages HTTP/1.1\r\n"},
        {"https://h/v1/", "POST /v1/messages HTTP/1.1\r\n"},
        {"https://h/anthropic", "POST /anthropic/v1/messages HTTP/1.1\r\n"},
        {"https://h/a/v1", "POST /a/v1/messages HTTP/1.1\r\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = kit_provider();
        struct upstream_request r;
        struct model_request req;
        struct error e = {0};
        struct buf names;
        char base[64];

        snprintf(base, sizeof(base), "%s", cases[i].base);
        p.base_url = base;
        kit_parse(MESSAGES(USER), &req);
        upstream_request_init(&r);
        buf_init(&names, 100);
        assert_int_equal(kit_ops()->encode_chat(&p, "m", &req,
                                                &(struct upstream_call){.request_id = "r"}, &r,
                                                &names, &e),
                         0);
        assert_memory_equal(buf_text(&r.head), cases[i].line, strlen(cases[i].line));
        buf_clear(&names);
        upstream_request_clear(&r);
        model_request_clear(&req);
    }
}

static void given_key_that_no_header_can_hold_when_encoded_then_refused(void **state)
{
    struct provider_config p = kit_provider();
    char key[] = "sk-ant\r\nx: y";
    struct upstream_request r;
    struct model_request req;
    struct error e = {0};
    struct buf names;

    p.credentials = key;
    kit_parse(MESSAGES(USER), &req);
    upstream_request_init(&r);
    buf_init(&names, 100);
    assert_int_equal(kit_ops()->encode_chat(
                         &p, "m", &req, &(struct upstream_call){.request_id = "r"}, &r, &names, &e),
                     XR_EUPSTREAMAUTH);
    assert_null(strstr(e.message, "sk-ant"));
    upstream_request_clear(&r);
    model_request_clear(&req);
}

/* ---- messages ---- */

static void given_leading_system_messages_when_encoded_then_system_blocks(void **state)
{
    assert_history(
        "{\"role\":\"system\",\"content\":\"A\"},{\"role\":\"developer\",\"content\":["
        "{\"type\":\"text\",\"text\":\"B\"},{\"type\":\"text\",\"text\":\"C\"}]}," USER,
        "\"system\":[" TEXT_OUT("A") "," TEXT_OUT("B") "," TEXT_OUT("C") "],\"messages\":[" HI "]");
    assert_history("{\"role\":\"system\",\"content\":\" \"}," USER, "\"messages\":[" HI "]");
}

static void given_later_system_message_when_encoded_then_the_users_text(void **state)
{
    assert_history(USER ",{\"role\":\"system\",\"content\":\"B\"}",
                   "\"messages\":[" USER_OUT(TEXT_OUT("hi") "," TEXT_OUT("B")) "]");
}

static void given_only_system_messages_when_encoded_then_the_users_text(void **state)
{
    assert_history("{\"role\":\"system\",\"content\":\"A\"}",
                   "\"messages\":[" USER_OUT(TEXT_OUT("A")) "]");
}

static void given_neighbours_of_one_role_when_encoded_then_one_message(void **state)
{
    assert_history(USER "," USER ",{\"role\":\"assistant\",\"content\":\"A\"},"
                        "{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":"
                        "\"B\"}]}," USER,
                   "\"messages\":[" USER_OUT(TEXT_OUT("hi") "," TEXT_OUT("hi")) "," ASSISTANT_OUT(
                       TEXT_OUT("A") "," TEXT_OUT("B")) "," HI "]");
}

static void given_texts_of_white_space_when_encoded_then_left_out(void **state)
{
    assert_history(USER ",{\"role\":\"assistant\",\"content\":\"\"},{\"role\":\"user\",\"content\":"
                        "[{\"type\":\"text\",\"text\":\" \\n\"},{\"type\":\"text\",\"text\":\"a\"}]"
                        "}",
                   "\"messages\":[" USER_OUT(TEXT_OUT("hi") "," TEXT_OUT("a")) "]");
    assert_refused(MESSAGES("{\"role\":\"user\",\"content\":\" \"}"), XR_EINVALID, "messages");
}

static void
given_last_words_of_the_assistant_when_encoded_then_nothing_blank_at_their_end(void **state)
{
    assert_history(USER ",{\"role\":\"assistant\",\"content\":\" A \\n\"}",
                   "\"messages\":[" HI "," ASSISTANT_OUT(TEXT_OUT(" A")) "]");
    assert_history(USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"A \"}"
                        ",{\"type\":\"text\",\"text\":\"B \"},{\"type\":\"text\",\"text\":\" \"}]}",
                   "\"messages\":[" HI "," ASSISTANT_OUT(TEXT_OUT("A ") "," TEXT_OUT("B")) "]");
    assert_history(USER ",{\"role\":\"assistant\",\"content\":\" \"}", "\"messages\":[" HI "]");
    assert_history(USER ",{\"role\":\"assistant\",\"refusal\":\"No. \"}",
                   "\"messages\":[" HI "," ASSISTANT_OUT(TEXT_OUT("No.")) "]");
}

#define PLACEHOLDER(name)                                                          \
    ",\"tools\":[{\"name\":\"" name "\",\"input_schema\":{\"type\":\"object\"}}]," \
    "\"tool_choice\":{\"type\":\"none\"}"

static void given_tool_loop_when_encoded_then_results_open_the_next_message(void **state)
{
    assert_history(
        USER "," CALLS(
            "\"I look.\"",
            CALL("toolu_01A", "get", "{ \\\"n\\\": 12345678901234567890 }") "," CALL(
                "call_b", "get",
                "")) "," RESULT("call_b",
                                "\"B\"") "," RESULT("toolu_01A",
                                                    "[{\"type\":\"text\",\"text\":\"A\"},"
                                                    "{\"type\":\"text\",\"text\":\"\"}]") "," USER,
        "\"messages\":[" HI "," ASSISTANT_OUT(
            TEXT_OUT("I look.") "," CALL_OUT("toolu_01A", "get", "{\"n\":12345678901234567890}") "," CALL_OUT(
                "call_b", "get",
                "{}")) "," USER_OUT(RESULT_OUT("call_b", "B") ",{\"type\":\"tool_result\",\"tool_"
                                                              "use_id\":"
                                                              "\"toolu_01A\",\"content\":"
                                                              "[" TEXT_OUT("A") "]}," TEXT_OUT(
                                                                  "hi")) "]" PLACEHOLDER("get"));
}

static void given_empty_result_when_encoded_then_no_content(void **state)
{
    assert_history(USER "," CALLS("null", CALL("a", "f", "{}")) "," RESULT("a", "\"\""),
                   "\"messages\":[" HI "," ASSISTANT_OUT(CALL_OUT("a", "f", "{}")) "," USER_OUT(
                       "{\"type\":\"tool_result\",\"tool_use_id\":\"a\"}") "]" PLACEHOLDER("f"));
}

static void given_function_call_when_encoded_then_call_and_result(void **state)
{
    assert_history(USER ",{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                        "\"f\",\"arguments\":\"{}\"}},{\"role\":\"function\",\"name\":\"f\","
                        "\"content\":\"R\"}",
                   "\"messages\":[" HI
                   "," ASSISTANT_OUT(CALL_OUT("xrouter_1_0", "f", "{}")) "," USER_OUT(
                       RESULT_OUT("xrouter_1_0", "R")) "]" PLACEHOLDER("f"));
}

static void given_ids_that_the_api_refuses_when_encoded_then_places_instead(void **state)
{
    assert_history(
        USER
        "," CALLS("null", CALL("functions.f:0", "f", "{}") "," CALL("x", "f", "{}")) "," RESULT(
            "functions.f:0",
            "\"A\"") "," RESULT("x",
                                "\"B\"") "," CALLS("null",
                                                   CALL("x", "f", "{}") "," CALL(
                                                       "x", "f",
                                                       "{}")) "," RESULT("x",
                                                                         "\"C\"") "," RESULT("x",
                                                                                             "\"D"
                                                                                             "\""),
        "\"messages\":[" HI
        "," ASSISTANT_OUT(CALL_OUT("xrouter_1_0", "f", "{}") "," CALL_OUT("xrouter_1_1", "f", "{}")) "," USER_OUT(
            RESULT_OUT("xrouter_1_0", "A") "," RESULT_OUT(
                "xrouter_1_1",
                "B")) "," ASSISTANT_OUT(CALL_OUT("xrouter_4_0", "f",
                                                 "{}") "," CALL_OUT("xrouter_4_1", "f",
                                                                    "{}")) "," USER_OUT(RESULT_OUT("xrouter_4_0",
                                                                                                   "C") "," RESULT_OUT("xrouter_4_1",
                                                                                                                       "D")) "]" PLACEHOLDER("f"));
}

static void given_arguments_that_are_no_object_when_encoded_then_refused(void **state)
{
    assert_refused(
        MESSAGES(USER "," CALLS("null", CALL("a", "f", "{}") "," CALL("b", "f", "[1]")) "," RESULT(
            "a", "\"\"") "," RESULT("b", "\"\"")),
        XR_EINVALID, "messages[1].tool_calls[1].function.arguments");
    assert_refused(MESSAGES(USER "," CALLS("null", CALL("a", "f", "{")) "," RESULT("a", "\"\"")),
                   XR_EINVALID, "messages[1].tool_calls[0].function.arguments");
    assert_refused(
        MESSAGES(USER
                 ",{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"type\":"
                 "\"custom\",\"custom\":{\"name\":\"x\",\"input\":\"y\"}}]}," RESULT("a", "\"\"")),
        XR_EUNSUPPORTED, "messages");
}

#define PART(part) "{\"role\":\"user\",\"content\":[" part "]}"
#define IMAGE(url) "{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\",\"detail\":\"low\"}}"
#define IMAGE_PARAM "messages[0].content[0].image_url.url"

static void given_images_when_encoded_then_their_blocks(void **state)
{
    assert_history(PART(IMAGE("data:image/PNG;base64,iVBO/w==") "," IMAGE(
                       "data:image/jpg;x=y;base64,AA") "," IMAGE("https://h/i.png?a=\\\"")),
                   "\"messages\":[" USER_OUT(
                       "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
                       "\"image/png\",\"data\":\"iVBO/w==\"}},{\"type\":\"image\",\"source\":{"
                       "\"type\":\"base64\",\"media_type\":\"image/jpeg\",\"data\":\"AA\"}},"
                       "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":"
                       "\"https://h/i.png?a=\\\"\"}}") "]");
}

static void given_images_that_cannot_be_when_encoded_then_refused_by_place(void **state)
{
    static const char *const urls[] = {
        "http://h/i.png",
        "ftp://h",
        "data:image/png,AA",
        "data:image/tiff;base64,AA",
        "data:image/png;base64,",
        "data:;base64,AA",
        "data:text/plain;base64,AA",
        "data:",
        "x",
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        char text[256];

        snprintf(text, sizeof(text), MESSAGES(PART(IMAGE("%s"))), urls[i]);
        assert_refused(text, XR_EINVALID, IMAGE_PARAM);
    }
}

static void given_files_and_sounds_when_encoded_then_pdf_alone_goes(void **state)
{
    assert_history(PART("{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":"
                        "\"data:application/pdf;base64,JVBE\"}}"),
                   "\"messages\":[" USER_OUT(
                       "{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":"
                       "\"application/pdf\",\"data\":\"JVBE\"},\"title\":\"a.pdf\"}") "]");
    assert_refused(MESSAGES(PART("{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}")),
                   XR_EUNSUPPORTED, "messages[0].content[0]");
    assert_refused(
        MESSAGES(PART("{\"type\":\"file\",\"file\":{\"file_data\":\"data:x;base64,A\"}}")),
        XR_EINVALID, "messages[0].content[0].file.file_data");
    assert_refused(MESSAGES(PART("{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"A\","
                                 "\"format\":\"wav\"}}")),
                   XR_EUNSUPPORTED, "messages[0].content[0]");
}

static void given_cache_marks_when_encoded_then_carried_over(void **state)
{
    assert_history(PART("{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":"
                        "\"ephemeral\"}}"),
                   "\"messages\":[" USER_OUT("{\"type\":\"text\",\"text\":\"a\",\"cache_control\":"
                                             "{\"type\":\"ephemeral\"}}") "]");
}

/* ---- tools ---- */

#define ONE_TOOL "\"tools\":[" TOOL("f") "]"
#define ONE_TOOL_OUT ",\"tools\":[" TOOL_OUT("f") "]"

static void given_tools_when_encoded_then_input_schema_as_the_client_wrote_it(void **state)
{
    assert_fields(
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a.b\",\"description\""
        ":\"d\",\"parameters\":{\"type\":\"object\", \"properties\":{\"x\":{\"enum\":["
        "1.50]}}}}}," TOOL("g") "]",
        ",\"tools\":[{\"name\":\"a_dot_b\",\"description\":\"d\",\"input_schema\":"
        "{\"type\":\"object\", \"properties\":{\"x\":{\"enum\":[1.50]}}}}," TOOL_OUT("g") "]",
        "");
}

static void given_schema_without_type_when_encoded_then_it_gets_one(void **state)
{
    assert_fields("\"functions\":[{\"name\":\"f\",\"parameters\":{}},{\"name\":\"g\",\"parameters\""
                  ":{\"type\":[\"object\",\"null\"],\"required\":[]}}]",
                  ",\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}},"
                  "{\"name\":\"g\",\"input_schema\":{\"required\":[],\"type\":\"object\"}}],"
                  "\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}",
                  "");
    assert_field_refused("\"tools\":[" TOOL("f") ",{\"type\":\"function\",\"function\":{\"name\":"
                                                 "\"g\",\"parameters\":{\"type\":\"string\"}}}]",
                         XR_EINVALID, "tools[1].function.parameters");
}

static void given_tool_choices_when_encoded_then_their_words(void **state)
{
    static const char *const cases[][2] = {
        {"\"auto\"", ""},
        {"\"none\"", ",\"tool_choice\":{\"type\":\"none\"}"},
        {"\"required\"", ",\"tool_choice\":{\"type\":\"any\"}"},
        {TOOL("f"), ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char fields[256], expected[256];

        snprintf(fields, sizeof(fields), ONE_TOOL ",\"tool_choice\":%s", cases[i][0]);
        snprintf(expected, sizeof(expected), ONE_TOOL_OUT "%s", cases[i][1]);
        assert_fields(fields, expected, "");
    }
    assert_field_refused(ONE_TOOL ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":"
                                  "{\"mode\":\"auto\",\"tools\":[]}}",
                         XR_EUNSUPPORTED, "tool_choice");
    assert_field_refused("\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"x\"}}]",
                         XR_EUNSUPPORTED, "tools");
}

static void given_no_parallel_calls_when_encoded_then_said_with_the_choice(void **state)
{
    assert_fields(
        ONE_TOOL ",\"parallel_tool_calls\":false",
        ONE_TOOL_OUT ",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}", "");
    assert_fields(ONE_TOOL ",\"parallel_tool_calls\":false,\"tool_choice\":\"none\"",
                  ONE_TOOL_OUT ",\"tool_choice\":{\"type\":\"none\"}", "");
    assert_fields(ONE_TOOL ",\"parallel_tool_calls\":true", ONE_TOOL_OUT, "");
    assert_fields("\"parallel_tool_calls\":false", "", "");
    assert_fields("\"functions\":[{\"name\":\"f\"}],\"function_call\":{\"name\":\"f\"}",
                  ONE_TOOL_OUT ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\","
                               "\"disable_parallel_tool_use\":true}",
                  "");
}

static void given_strict_function_when_encoded_then_named_as_ignored(void **state)
{
    assert_fields("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true}}"
                  "]",
                  ONE_TOOL_OUT, "tools[].function.strict");
}

/* ---- the other fields ---- */

static void given_limits_when_encoded_then_max_tokens(void **state)
{
    struct encoded x;

    encode_for("claude-x", KIT_WHOLE_WITH("\"max_tokens\":7,"), &x);
    assert_non_null(strstr(buf_text(&x.r.body), "\"max_tokens\":7,"));
    encoded_clear(&x);
    encode_for("claude-x", KIT_WHOLE_WITH("\"max_tokens\":7,\"max_completion_tokens\":9,"), &x);
    assert_non_null(strstr(buf_text(&x.r.body), "\"max_tokens\":9,"));
    encoded_clear(&x);
}

static void given_sampling_when_encoded_then_clamped_and_one_of_two(void **state)
{
    assert_fields("\"temperature\":0.7", ",\"temperature\":0.7", "");
    assert_fields("\"temperature\":0", ",\"temperature\":0", "");
    assert_fields("\"temperature\":1.6,\"top_p\":1", ",\"temperature\":1", "");
    assert_fields("\"temperature\":0.5,\"top_p\":0.9", ",\"temperature\":0.5", "top_p");
    assert_fields("\"top_p\":0.9,\"top_k\":40", ",\"top_p\":0.9,\"top_k\":40", "");
    assert_fields("\"temperature\":null,\"top_p\":null", "", "");
}

static void given_models_without_sampling_when_encoded_then_named_as_ignored(void **state)
{
    static const char *const without[] = {"claude-opus-4-7", "claude-opus-5",
                                          "anthropic/claude-sonnet-5", "claude-fable-5"};
    static const char *const with[] = {"claude-3-5-sonnet-20241022", "claude-sonnet-4-20250514",
                                       "claude-opus-4-6", "claude-haiku-4-5", "deepseek-chat"};
    static const char fields[] = "\"temperature\":0.5,\"top_p\":0.5,\"top_k\":1";

    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        assert_fields_for(without[i], fields, "", "temperature, top_p, top_k");
    for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++)
        assert_fields_for(with[i], fields, ",\"temperature\":0.5,\"top_k\":1", "top_p");
}

static void given_stops_when_encoded_then_those_with_more_than_white_space(void **state)
{
    assert_fields("\"stop\":\"END\"", ",\"stop_sequences\":[\"END\"]", "");
    assert_fields("\"stop\":[\"\\n\\n\",\"a\\\"b\",\" \",\"c\"]",
                  ",\"stop_sequences\":[\"a\\\"b\",\"c\"]", "");
    assert_fields("\"stop\":\"\\n\"", "", "");
}

static void given_user_when_encoded_then_metadata(void **state)
{
    char fields[400], long_name[300];

    assert_fields("\"user\":\"u-1\"", ",\"metadata\":{\"user_id\":\"u-1\"}", "");
    memset(long_name, 'x', 257);
    long_name[257] = '\0';
    snprintf(fields, sizeof(fields), "\"user\":\"%s\"", long_name);
    assert_fields(fields, "", "user");
}

static void given_effort_when_encoded_then_the_models_own_words(void **state)
{
    static const struct {
        const char *model, *effort, *expected, *names;
    } cases[] = {
        {"claude-opus-5", "minimal", "low", ""},
        {"claude-opus-5", "xhigh", "xhigh", ""},
        {"claude-opus-5", "max", "max", ""},
        {"claude-opus-4-6", "xhigh", "high", ""},
        {"claude-opus-4-6", "max", "max", ""},
        {"claude-opus-4-5-20251101", "max", "high", ""},
        {"claude-opus-4-5-20251101", "medium", "medium", ""},
        {"claude-opus-5", "none", NULL, ""},
        {"claude-sonnet-4-5", "low", NULL, "reasoning_effort"},
        {"claude-3-haiku-20240307", "low", NULL, "reasoning_effort"},
        {"kimi-k2", "low", NULL, "reasoning_effort"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char fields[64], expected[64] = "";

        snprintf(fields, sizeof(fields), "\"reasoning_effort\":\"%s\"", cases[i].effort);
        if (cases[i].expected != NULL)
            snprintf(expected, sizeof(expected), ",\"output_config\":{\"effort\":\"%s\"}",
                     cases[i].expected);
        assert_fields_for(cases[i].model, fields, expected, cases[i].names);
    }
}

#define SCHEMA(schema)                                                               \
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"," \
    "\"description\""                                                                \
    ":\"d\",\"strict\":true,\"schema\":" schema "}}"
#define ANSWER_TOOL                                                                             \
    "{\"name\":\"xrouter_answer\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"," \
    "\"a\":1.0}}"
#define ANSWER_CHOICE                                                  \
    ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"xrouter_answer\"," \
    "\"disable_parallel_tool_use\":true}"

static void given_schema_when_the_model_has_formats_then_output_config(void **state)
{
    assert_fields(SCHEMA("{\"type\":\"object\",\"a\":1.0}") ",\"reasoning_effort\":\"low\"",
                  ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":"
                  "\"object\",\"a\":1.0}},\"effort\":\"low\"}",
                  "");
}

static void given_schema_when_the_model_has_no_formats_then_a_forced_function(void **state)
{
    static const char schema[] = SCHEMA("{\"type\":\"object\",\"a\":1.0}");
    char fields[512];

    assert_fields_for("claude-3-5-haiku", schema, ",\"tools\":[" ANSWER_TOOL "]" ANSWER_CHOICE, "");
    snprintf(fields, sizeof(fields), "%s," ONE_TOOL, schema);
    assert_fields_for(
        "claude-3-5-haiku", fields,
        ",\"tools\":[" TOOL_OUT(
            "f") "," ANSWER_TOOL
                 "],\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}",
        "");
    snprintf(fields, sizeof(fields), "%s," ONE_TOOL ",\"tool_choice\":\"none\"", schema);
    assert_fields_for("claude-3-5-haiku", fields,
                      ",\"tools\":[" TOOL_OUT("f") "," ANSWER_TOOL "]" ANSWER_CHOICE, "");
    snprintf(fields, sizeof(fields), "%s," ONE_TOOL ",\"tool_choice\":\"required\"", schema);
    assert_fields_for("claude-3-5-haiku", fields,
                      ONE_TOOL_OUT ",\"tool_choice\":{\"type\":\"any\"}", "");
}

static void given_formats_without_schema_when_encoded_then_refused(void **state)
{
    assert_field_refused("\"response_format\":{\"type\":\"json_object\"}", XR_EUNSUPPORTED,
                         "response_format");
    assert_field_refused("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
                         "\"n\"}}",
                         XR_EINVALID, "response_format.json_schema.schema");
    assert_fields("\"response_format\":{\"type\":\"text\"}", "", "");
}

static void given_what_changes_the_meaning_when_encoded_then_refused_by_name(void **state)
{
    static const char *const cases[][2] = {
        {"\"n\":2", "n"},
        {"\"logprobs\":true", "logprobs"},
        {"\"top_logprobs\":3", "top_logprobs"},
        {"\"audio\":{\"voice\":\"x\",\"format\":\"wav\"}", "audio"},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
        {"\"web_search_options\":{}", "web_search_options"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_field_refused(cases[i][0], XR_EUNSUPPORTED, cases[i][1]);
    assert_fields("\"n\":1,\"logprobs\":false,\"top_logprobs\":0,\"audio\":null,\"modalities\":"
                  "[\"text\"]",
                  "", "");
}

static void given_what_only_steers_when_encoded_then_named_as_ignored(void **state)
{
    assert_fields("\"seed\":0,\"presence_penalty\":0.5,\"frequency_penalty\":0,\"logit_bias\":{},"
                  "\"metadata\":{\"a\":\"b\"},\"store\":false,\"service_tier\":\"flex\","
                  "\"verbosity\":\"low\",\"unknown\":1",
                  "", "seed, presence_penalty, metadata, service_tier, verbosity");
}

static void given_thinking_when_asked_for_by_its_own_name_then_carried_over(void **state)
{
    assert_fields("\"thinking\":{\"type\": \"enabled\",\"budget_tokens\":1024}",
                  ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}", "");
    assert_fields("\"thinking\":true", "", "");
}

static void given_parameters_when_asked_then_supported_are_those_that_are_carried(void **state)
{
    struct provider_config p = kit_provider();

    assert_true(kit_ops()->supports(&p, "tools"));
    assert_true(kit_ops()->supports(&p, "parallel_tool_calls"));
    assert_false(kit_ops()->supports(&p, "seed"));
    assert_false(kit_ops()->supports(&p, "n"));
    assert_false(kit_ops()->supports(&p, "anything"));
    assert_true(kit_ops()->takes_images);
}

/* ---- any conversation ---- */

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

static void put_turn(struct buf *out, uint32_t *seed)
{
    static const char *const plain[] = {
        USER,
        "{\"role\":\"user\",\"content\":\" \"}",
        "{\"role\":\"assistant\",\"content\":\"A \"}",
        "{\"role\":\"assistant\",\"content\":\"\"}",
        "{\"role\":\"system\",\"content\":\"S\"}",
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"}]}",
    };
    static const char *const ids[] = {"a", "b", "call.c", "a"};
    size_t count = next_random(seed) % 4;
    size_t first = next_random(seed) % 4;

    if (next_random(seed) % 2 == 0 || count == 0) {
        buf_str(out, plain[next_random(seed) % (sizeof(plain) / sizeof(plain[0]))]);
        return;
    }
    buf_printf(out, "{\"role\":\"assistant\",\"content\":%s,\"tool_calls\":[",
               next_random(seed) % 2 ? "null" : "\"text\"");
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s" CALL("%s", "f", "{\\\"n\\\":%zu}"), i > 0 ? "," : "",
                   ids[(first + i) % 4], i);
    buf_str(out, "]}");
    for (size_t i = count; i-- > 0;) /* their results in another order */
        buf_printf(out, "," RESULT("%s", "\"r\""), ids[(first + i) % 4]);
}

static bool is_type(const cJSON *block, const char *type)
{
    return strcmp(json_string(block, "type"), type) == 0;
}

static const cJSON *first_block(const cJSON *message)
{
    return message == NULL ? NULL : json_get(message, "content")->child;
}

static size_t count_id(const cJSON *message, const char *type, const char *member, const char *id)
{
    size_t count = 0;

    for (const cJSON *b = first_block(message); b != NULL; b = b->next)
        count += is_type(b, type) && strcmp(json_string(b, member), id) == 0;
    return count;
}

/* The rules that the API checks. */
static void assert_message_is_right(const cJSON *message)
{
    const cJSON *block = first_block(message);
    bool past_results = false;

    assert_non_null(block);
    if (message->next != NULL)
        assert_string_not_equal(json_string(message, "role"), json_string(message->next, "role"));
    for (; block != NULL; block = block->next) {
        const char *call = json_string(block, "id");
        const char *result = json_string(block, "tool_use_id");

        if (is_type(block, "text"))
            assert_true(strspn(json_string(block, "text"), " \n") <
                        strlen(json_string(block, "text")));
        if (call != NULL) {
            assert_int_equal(count_id(message, "tool_use", "id", call), 1);
            assert_non_null(message->next);
            assert_int_equal(count_id(message->next, "tool_result", "tool_use_id", call), 1);
        }
        if (result != NULL) {
            assert_false(past_results);
            assert_non_null(message->prev);
            assert_int_equal(count_id(message->prev, "tool_use", "id", result), 1);
        }
        past_results = past_results || result == NULL;
    }
}

static void given_any_conversation_when_encoded_then_the_apis_rules_hold(void **state)
{
    uint32_t seed = 20261124;

    for (int round = 0; round < 3000; round++) {
        size_t turns = 1 + next_random(&seed) % 8;
        struct encoded x;
        struct buf text;
        cJSON *root;
        const cJSON *message;

        buf_init(&text, KIT_MAX);
        buf_str(&text, "{\"model\":\"m\",\"messages\":[" USER);
        for (size_t i = 0; i < turns; i++) {
            buf_byte(&text, ',');
            put_turn(&text, &seed);
        }
        buf_str(&text, "]}");
        encode_for("claude-x", buf_text(&text), &x);
        assert_good(&x);
        root = cJSON_ParseWithLength(x.r.body.data, x.r.body.len);
        assert_non_null(root);
        cJSON_ArrayForEach(message, json_get(root, "messages")) assert_message_is_right(message);
        cJSON_Delete(root);
        encoded_clear(&x);
        buf_clear(&text);
    }
}

/* The answer's calls go to the client, come back with their results, and are what they were. */
static void given_answer_with_calls_when_it_comes_back_then_the_same_blocks(void **state)
{
    struct kit_answer a;
    struct encoded x;
    struct buf text;
    const char *message;
    size_t len;

    kit_whole_file(KIT_WHOLE, "answer_tools.json", &a);
    assert_int_equal(a.rc, 0);
    assert_int_equal(json_slice(a.out.data, a.out.len, "choices.0.message", &message, &len), 0);
    buf_init(&text, KIT_MAX);
    buf_str(&text, "{\"model\":\"m\",\"messages\":[" USER ",");
    buf_append(&text, message, len);
    buf_str(&text,
            "," RESULT("toolu_01A", "\"7 degrees\"") "," RESULT("toolu_01B", "\"9:00\"") "]}");
    encode_for("claude-x", buf_text(&text), &x);
    assert_good(&x);
    assert_non_null(strstr(
        buf_text(&x.r.body),
        "\"messages\":[" HI "," ASSISTANT_OUT(
            TEXT_OUT("I look.") "," CALL_OUT("toolu_01A", "get_weather", "{\"n\":12345678901234567890,\"city\":\"Тула\",\"a\":[1.50]}") "," CALL_OUT(
                "toolu_01B", "get_time",
                "{}")) "," USER_OUT(RESULT_OUT("toolu_01A",
                                               "7 degrees") "," RESULT_OUT("toolu_01B",
                                                                           "9:00")) "]"));
    encoded_clear(&x);
    buf_clear(&text);
    kit_answer_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_plain_chat_when_encoded_then_head_is_complete),
        cmocka_unit_test(given_stream_when_encoded_then_asked_for_in_head_and_body),
        cmocka_unit_test(given_base_urls_when_encoded_then_the_version_is_there_once),
        cmocka_unit_test(given_key_that_no_header_can_hold_when_encoded_then_refused),
        cmocka_unit_test(given_leading_system_messages_when_encoded_then_system_blocks),
        cmocka_unit_test(given_later_system_message_when_encoded_then_the_users_text),
        cmocka_unit_test(given_only_system_messages_when_encoded_then_the_users_text),
        cmocka_unit_test(given_neighbours_of_one_role_when_encoded_then_one_message),
        cmocka_unit_test(given_texts_of_white_space_when_encoded_then_left_out),
        cmocka_unit_test(
            given_last_words_of_the_assistant_when_encoded_then_nothing_blank_at_their_end),
        cmocka_unit_test(given_tool_loop_when_encoded_then_results_open_the_next_message),
        cmocka_unit_test(given_empty_result_when_encoded_then_no_content),
        cmocka_unit_test(given_function_call_when_encoded_then_call_and_result),
        cmocka_unit_test(given_ids_that_the_api_refuses_when_encoded_then_places_instead),
        cmocka_unit_test(given_arguments_that_are_no_object_when_encoded_then_refused),
        cmocka_unit_test(given_images_when_encoded_then_their_blocks),
        cmocka_unit_test(given_images_that_cannot_be_when_encoded_then_refused_by_place),
        cmocka_unit_test(given_files_and_sounds_when_encoded_then_pdf_alone_goes),
        cmocka_unit_test(given_cache_marks_when_encoded_then_carried_over),
        cmocka_unit_test(given_tools_when_encoded_then_input_schema_as_the_client_wrote_it),
        cmocka_unit_test(given_schema_without_type_when_encoded_then_it_gets_one),
        cmocka_unit_test(given_tool_choices_when_encoded_then_their_words),
        cmocka_unit_test(given_no_parallel_calls_when_encoded_then_said_with_the_choice),
        cmocka_unit_test(given_strict_function_when_encoded_then_named_as_ignored),
        cmocka_unit_test(given_limits_when_encoded_then_max_tokens),
        cmocka_unit_test(given_sampling_when_encoded_then_clamped_and_one_of_two),
        cmocka_unit_test(given_models_without_sampling_when_encoded_then_named_as_ignored),
        cmocka_unit_test(given_stops_when_encoded_then_those_with_more_than_white_space),
        cmocka_unit_test(given_user_when_encoded_then_metadata),
        cmocka_unit_test(given_effort_when_encoded_then_the_models_own_words),
        cmocka_unit_test(given_schema_when_the_model_has_formats_then_output_config),
        cmocka_unit_test(given_schema_when_the_model_has_no_formats_then_a_forced_function),
        cmocka_unit_test(given_formats_without_schema_when_encoded_then_refused),
        cmocka_unit_test(given_what_changes_the_meaning_when_encoded_then_refused_by_name),
        cmocka_unit_test(given_what_only_steers_when_encoded_then_named_as_ignored),
        cmocka_unit_test(given_thinking_when_asked_for_by_its_own_name_then_carried_over),
        cmocka_unit_test(given_parameters_when_asked_then_supported_are_those_that_are_carried),
        cmocka_unit_test(given_any_conversation_when_encoded_then_the_apis_rules_hold),
        cmocka_unit_test(given_answer_with_calls_when_it_comes_back_then_the_same_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
