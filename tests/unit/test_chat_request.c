#include "providers/chat_request.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define WITH(fields) "{\"model\":\"m\",\"messages\":[" USER "]," fields "}"
#define MESSAGES(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define IMAGE "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,x\"}}"
#define CALL(id) \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"
#define CALLS(list) "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" list "]}"
#define RESULT(id) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"7\"}"

static void assert_accepted(const char *text)
{
    struct model_request r;
    struct error e = {0};
    int rc = chat_request_parse(text, strlen(text), &r, &e);

    if (rc != 0)
        fail_msg("%s\nrefused at '%s': %s", text, e.param, e.message);
    model_request_clear(&r);
}

static void assert_refused(const char *text, const char *param)
{
    struct model_request r;
    struct error e = {0};
    int rc = chat_request_parse(text, strlen(text), &r, &e);

    if (rc == 0)
        fail_msg("accepted: %s", text);
    assert_int_equal(rc, XR_EINVALID);
    assert_int_equal(e.number, XR_EINVALID);
    assert_string_equal(e.param, param);
    assert_true(e.message[0] != '\0');
}

static void assert_message(const char *text, const char *part)
{
    struct model_request r;
    struct error e = {0};

    assert_int_equal(chat_request_parse(text, strlen(text), &r, &e), XR_EINVALID);
    if (strstr(e.message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, e.message);
}

static void given_full_request_when_parsed_then_fields_are_read(void **state)
{
    static const char text[] =
        WITH("\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":5,"
             "\"max_completion_tokens\":7,\"stop\":[\"a\",\"b\"],\"tools\":[{\"type\":\"function\","
             "\"function\":{\"name\":\"f\"}}],\"x_unknown\":[1,{\"y\":null}]");
    struct model_request r;
    struct error e = {0};

    assert_int_equal(chat_request_parse(text, sizeof(text) - 1, &r, &e), 0);
    assert_string_equal(r.model, "m");
    assert_true(r.stream);
    assert_true(r.include_usage);
    assert_false(r.legacy_functions);
    assert_int_equal(r.max_tokens, 7);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stop[1], "b");
    assert_non_null(r.tools);
    assert_null(r.functions);
    assert_non_null(r.messages);
    assert_ptr_equal(r.text, text);
    model_request_clear(&r);
}

static void given_nulls_and_empty_lists_when_parsed_then_as_if_absent(void **state)
{
    static const char text[] =
        WITH("\"stream\":null,\"stream_options\":null,\"temperature\":null,\"stop\":null,"
             "\"max_tokens\":null,\"tools\":[],\"functions\":null,\"tool_choice\":\"auto\","
             "\"response_format\":null,\"logit_bias\":null,\"n\":null");
    struct model_request r;
    struct error e = {0};

    assert_int_equal(chat_request_parse(text, sizeof(text) - 1, &r, &e), 0);
    assert_false(r.stream);
    assert_false(r.include_usage);
    assert_int_equal(r.max_tokens, 0);
    assert_int_equal(r.stop_count, 0);
    assert_null(r.tools);
    model_request_clear(&r);
}

static void given_functions_when_parsed_then_legacy(void **state)
{
    static const char text[] = WITH("\"functions\":[{\"name\":\"f\"}],\"function_call\":"
                                    "{\"name\":\"f\"}");
    struct model_request r;
    struct error e = {0};

    assert_int_equal(chat_request_parse(text, sizeof(text) - 1, &r, &e), 0);
    assert_true(r.legacy_functions);
    assert_null(r.tools);
    model_request_clear(&r);
}

static void given_broken_text_when_parsed_then_refused_with_place(void **state)
{
    assert_refused("", "");
    assert_refused("{\"model\":\"m\"", "");
    assert_refused("[]", "");
    assert_refused("\"x\"", "");
    assert_refused("{\"model\":\"m\\u0000\"}", "");
    assert_refused("{\"model\":\"\xff\"}", "");
    assert_message("{\"model\":\"m\",}", "at byte ");
    assert_message("[1]", "must be a JSON object");
}

static void given_deep_nesting_when_parsed_then_refused(void **state)
{
    char text[5000] = "{\"model\":\"m\",\"x\":";
    size_t len = strlen(text);

    memset(text + len, '[', 2000);
    memset(text + len + 2000, ']', 2000);
    text[len + 4000] = '}';
    assert_message(text, "too complex");
}

/* What each field of the request refuses, by name. */
struct refusal {
    const char *text;
    const char *param;
};

static void given_mistyped_field_when_parsed_then_named(void **state)
{
    static const struct refusal refusals[] = {
        {"{\"model\":5,\"messages\":[" USER "]}", "model"},
        {"{\"model\":\"\",\"messages\":[" USER "]}", "model"},
        {"{\"model\":\"a\\nb\",\"messages\":[" USER "]}", "model"},
        {"{\"model\":\"a\\u0085b\",\"messages\":[" USER "]}", "model"},
        {"{\"model\":\"a\\u007fb\",\"messages\":[" USER "]}", "model"},
        {"{\"model\":\"m\"}", "messages"},
        {"{\"model\":\"m\",\"messages\":[]}", "messages"},
        {"{\"model\":\"m\",\"messages\":{}}", "messages"},
        {"{\"model\":\"m\",\"messages\":null}", "messages"},
        {WITH("\"model\":7"), "model"}, /* the second one of a name counts too */
        {WITH("\"models\":\"a\""), "models"},
        {WITH("\"models\":[\"a\",7]"), "models[1]"},
        {WITH("\"models\":[\"\"]"), "models[0]"},
        {WITH("\"models\":[\"a\\u0001\"]"), "models[0]"},
        {WITH("\"models\":[\"a\",\"b\",\"c\",\"d\"]"), "models"},
        {WITH("\"provider\":\"a\""), "provider"},
        {WITH("\"provider\":{\"order\":\"a\"}"), "provider.order"},
        {WITH("\"provider\":{\"order\":[\"a\",null]}"), "provider.order[1]"},
        {WITH("\"provider\":{\"only\":[\"\"]}"), "provider.only[0]"},
        {WITH("\"provider\":{\"ignore\":{}}"), "provider.ignore"},
        {WITH("\"provider\":{\"allow_fallbacks\":0}"), "provider.allow_fallbacks"},
        {WITH("\"provider\":{\"require_parameters\":\"no\"}"), "provider.require_parameters"},
        {WITH("\"provider\":{\"sort\":\"cheap\"}"), "provider.sort"},
        {WITH("\"provider\":{\"max_price\":1}"), "provider.max_price"},
        {WITH("\"provider\":{\"max_price\":{\"prompt\":[]}}"), "provider.max_price.prompt"},
        {WITH("\"provider\":{\"max_price\":{\"prompt\":-1}}"), "provider.max_price.prompt"},
        {WITH("\"provider\":{\"max_price\":{\"completion\":\"1e3\"}}"),
         "provider.max_price.completion"},
        {WITH("\"provider\":{\"max_price\":{\"request\":0.0000000001}}"),
         "provider.max_price.request"},
        {WITH("\"stream\":1"), "stream"},
        {WITH("\"stream\":\"true\""), "stream"},
        {WITH("\"stream_options\":true"), "stream_options"},
        {WITH("\"stream_options\":{\"include_usage\":1}"), "stream_options.include_usage"},
        {WITH("\"temperature\":\"0.5\""), "temperature"},
        {WITH("\"temperature\":2.01"), "temperature"},
        {WITH("\"temperature\":-0.1"), "temperature"},
        {WITH("\"temperature\":1e300"), "temperature"},
        {WITH("\"top_p\":1.5"), "top_p"},
        {WITH("\"top_p\":[]"), "top_p"},
        {WITH("\"n\":0"), "n"},
        {WITH("\"n\":1.5"), "n"},
        {WITH("\"stop\":5"), "stop"},
        {WITH("\"stop\":\"\""), "stop"},
        {WITH("\"stop\":[\"a\",5]"), "stop[1]"},
        {WITH("\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]"), "stop"},
        {WITH("\"max_tokens\":0"), "max_tokens"},
        {WITH("\"max_tokens\":-1"), "max_tokens"},
        {WITH("\"max_tokens\":\"5\""), "max_tokens"},
        {WITH("\"max_tokens\":1.5"), "max_tokens"},
        {WITH("\"max_tokens\":3000000000"), "max_tokens"},
        {WITH("\"max_completion_tokens\":0"), "max_completion_tokens"},
        {WITH("\"presence_penalty\":3"), "presence_penalty"},
        {WITH("\"frequency_penalty\":-2.5"), "frequency_penalty"},
        {WITH("\"logit_bias\":[]"), "logit_bias"},
        {WITH("\"logit_bias\":{\"50256\":101}"), "logit_bias.50256"},
        {WITH("\"logprobs\":1"), "logprobs"},
        {WITH("\"top_logprobs\":21"), "top_logprobs"},
        {WITH("\"seed\":\"x\""), "seed"},
        {WITH("\"seed\":0.5"), "seed"},
        {WITH("\"user\":5"), "user"},
        {WITH("\"metadata\":[]"), "metadata"},
        {WITH("\"metadata\":{\"a\":1}"), "metadata.a"},
        {WITH("\"store\":\"yes\""), "store"},
        {WITH("\"service_tier\":1"), "service_tier"},
        {WITH("\"prediction\":\"x\""), "prediction"},
        {WITH("\"modalities\":\"text\""), "modalities"},
        {WITH("\"modalities\":[\"smell\"]"), "modalities[0]"},
        {WITH("\"audio\":true"), "audio"},
        {WITH("\"verbosity\":\"loud\""), "verbosity"},
        {WITH("\"reasoning_effort\":\"huge\""), "reasoning_effort"},
        {WITH("\"response_format\":\"json\""), "response_format"},
        {WITH("\"response_format\":{}"), "response_format.type"},
        {WITH("\"response_format\":{\"type\":\"xml\"}"), "response_format.type"},
        {WITH("\"response_format\":{\"type\":\"json_schema\"}"), "response_format.json_schema"},
        {WITH("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{}}}"),
         "response_format.json_schema.name"},
        {WITH("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\","
              "\"schema\":[]}}"),
         "response_format.json_schema.schema"},
        {WITH("\"parallel_tool_calls\":\"no\""), "parallel_tool_calls"},
        {WITH("\"tools\":{}"), "tools"},
        {WITH("\"tools\":[5]"), "tools[0]"},
        {WITH("\"tools\":[{\"function\":{\"name\":\"f\"}}]"), "tools[0].type"},
        {WITH("\"tools\":[{\"type\":\"function\"}]"), "tools[0].function"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{}}]"), "tools[0].function.name"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]"),
         "tools[0].function.name"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":1}}]"),
         "tools[0].function.parameters"},
        {WITH("\"tool_choice\":5"), "tool_choice"},
        {WITH("\"tool_choice\":\"any\""), "tool_choice"},
        {WITH("\"tool_choice\":\"required\""), "tool_choice"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
              "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"),
         "tool_choice"},
        {WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
              "\"tool_choice\":{\"type\":\"function\"}"),
         "tool_choice.function"},
        {WITH("\"functions\":[{}]"), "functions[0].name"},
        {WITH("\"functions\":[{\"name\":\"f\"}],\"tools\":[{\"type\":\"function\",\"function\":"
              "{\"name\":\"f\"}}]"),
         "functions"},
        {WITH("\"function_call\":{\"name\":\"f\"}"), "function_call"},
        {WITH("\"function_call\":\"required\""), "function_call"},
    };

    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        assert_refused(refusals[i].text, refusals[i].param);
}

static void given_mistyped_message_when_parsed_then_named(void **state)
{
    static const struct refusal refusals[] = {
        {MESSAGES("5"), "messages[0]"},
        {MESSAGES(USER ",{}"), "messages[1].role"},
        {MESSAGES("{\"role\":\"robot\",\"content\":\"x\"}"), "messages[0].role"},
        {MESSAGES("{\"role\":7,\"content\":\"x\"}"), "messages[0].role"},
        {MESSAGES("{\"role\":\"user\"}"), "messages[0].content"},
        {MESSAGES("{\"role\":\"user\",\"content\":null}"), "messages[0].content"},
        {MESSAGES("{\"role\":\"user\",\"content\":5}"), "messages[0].content"},
        {MESSAGES("{\"role\":\"user\",\"content\":[]}"), "messages[0].content"},
        {MESSAGES("{\"role\":\"user\",\"content\":[5]}"), "messages[0].content[0]"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}"),
         "messages[0].content[0].type"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"),
         "messages[0].content[0].text"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}"),
         "messages[0].content[0].image_url.url"},
        {MESSAGES("{\"role\":\"system\",\"content\":[{\"type\":\"image_url\"}]}"),
         "messages[0].content[0].type"},
        {MESSAGES("{\"role\":\"user\",\"content\":\"x\",\"name\":5}"), "messages[0].name"},
        {MESSAGES("{\"role\":\"assistant\"}"), "messages[0].content"},
        {MESSAGES("{\"role\":\"assistant\",\"content\":null}"), "messages[0].content"},
        {MESSAGES(CALLS("5")), "messages[0].tool_calls[0]"},
        {MESSAGES(
             CALLS("{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}")),
         "messages[0].tool_calls[0].id"},
        {MESSAGES(CALLS("{\"id\":\"a\",\"type\":\"function\"}")),
         "messages[0].tool_calls[0].function"},
        {MESSAGES(USER "," USER "," CALLS("{\"id\":\"a\",\"type\":\"function\",\"function\":"
                                          "{\"name\":5,\"arguments\":\"\"}}")),
         "messages[2].tool_calls[0].function.name"},
        {MESSAGES(CALLS("{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                        "\"arguments\":{}}}")),
         "messages[0].tool_calls[0].function.arguments"},
        {MESSAGES("{\"role\":\"tool\",\"content\":\"x\"}"), "messages[0].tool_call_id"},
        {MESSAGES("{\"role\":\"function\",\"content\":\"x\"}"), "messages[0].name"},
    };

    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        assert_refused(refusals[i].text, refusals[i].param);
}

static void given_refusal_when_read_then_says_expected_and_found(void **state)
{
    assert_message(WITH("\"temperature\":5"), "'temperature': expected a number from 0 to 2, "
                                              "found the number 5.");
    assert_message("{\"model\":\"m\"}", "'messages': expected a non-empty array, found nothing.");
    assert_message(MESSAGES("{\"role\":\"robot\",\"content\":\"x\"}"), "found \"robot\"");
    assert_message(WITH("\"verbosity\":\"loud\""), "one of low,medium,high");
}

static void given_long_wrong_text_when_refused_then_not_quoted(void **state)
{
    char text[2000];

    snprintf(text, sizeof(text), "{\"model\":\"m\",\"messages\":[{\"role\":\"%0999d\"}]}", 0);
    assert_message(text, "found a string of 999 bytes");
}

static void given_calls_with_results_when_parsed_then_accepted(void **state)
{
    assert_accepted(MESSAGES(USER "," CALLS(CALL("a")) "," RESULT("a")));
    assert_accepted(
        MESSAGES(CALLS(CALL("a") "," CALL("b")) "," RESULT("b") "," RESULT("a") "," USER));
    assert_accepted(MESSAGES(CALLS(CALL("a") "," CALL("a")) "," RESULT("a") "," RESULT("a")));
    assert_accepted(MESSAGES("{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                             "\"f\",\"arguments\":\"{}\"}},{\"role\":\"function\",\"name\":\"f\","
                             "\"content\":null}"));
    assert_accepted(MESSAGES("{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}"));
}

static void given_calls_without_results_when_parsed_then_refused(void **state)
{
    assert_refused(MESSAGES(CALLS(CALL("a"))), "messages[0].tool_calls");
    assert_refused(MESSAGES(CALLS(CALL("a")) "," USER), "messages[0].tool_calls");
    assert_refused(MESSAGES(CALLS(CALL("a")) "," USER "," RESULT("a")), "messages[0].tool_calls");
    assert_refused(MESSAGES(USER "," CALLS(CALL("a") "," CALL("b")) "," RESULT("a")),
                   "messages[1].tool_calls");
    assert_refused(MESSAGES("{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
                            "\"f\",\"arguments\":\"{}\"}}"),
                   "messages[0].function_call");
}

static void given_calls_in_a_users_message_when_parsed_then_they_are_none(void **state)
{
    assert_refused(MESSAGES("{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":["
                            "{\"id\":\"a\"}]}," RESULT("a")),
                   "messages[1].tool_call_id");
}

static void given_results_without_calls_when_parsed_then_refused(void **state)
{
    assert_refused(MESSAGES(RESULT("a")), "messages[0].tool_call_id");
    assert_refused(MESSAGES(CALLS(CALL("a")) "," RESULT("b")), "messages[1].tool_call_id");
    assert_refused(MESSAGES(CALLS(CALL("a")) "," RESULT("a") "," RESULT("a")),
                   "messages[2].tool_call_id");
    assert_refused(MESSAGES(USER ",{\"role\":\"function\",\"name\":\"f\",\"content\":\"1\"}"),
                   "messages[1].role");
    assert_refused(MESSAGES(CALLS(CALL("a")) ",{\"role\":\"function\",\"name\":\"f\","
                                             "\"content\":\"1\"}"),
                   "messages[1].role");
}

static void given_every_form_of_content_when_parsed_then_accepted(void **state)
{
    assert_accepted(MESSAGES(
        "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
        "{\"role\":\"user\",\"name\":\"bob\",\"content\":[{\"type\":\"text\",\"text\":\"\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,x\",\"detail\":\"low\"}},"
        "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"x\",\"format\":\"wav\"}},"
        "{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"}"));
    assert_accepted(WITH("\"seed\":9223372036854775807,\"temperature\":2,\"top_p\":0,\"n\":1,"
                         "\"logit_bias\":{\"1\":-100},\"modalities\":[\"text\"],\"store\":false"));
}

static void given_images_in_several_messages_when_parsed_then_counted(void **state)
{
    static const struct {
        const char *content; /* of a second message */
        size_t images;
    } cases[] = {
        {"\"image_url\"", 0},
        {"[{\"type\":\"text\",\"text\":\"a\"}]", 0},
        {"[" IMAGE "]", 1},
        {"[" IMAGE ",{\"type\":\"text\",\"text\":\"a\"}," IMAGE "]},"
         "{\"role\":\"user\",\"content\":[" IMAGE "]",
         3},
        {"[{\"type\":\"text\",\"text\":\"a\",\"image_url\":{\"url\":\"data:,x\"}}]", 0},
    };
    char text[1024];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_request r;
        struct error e = {0};

        snprintf(text, sizeof(text), MESSAGES(USER ",{\"role\":\"user\",\"content\":%s}"),
                 cases[i].content);
        assert_int_equal(chat_request_parse(text, strlen(text), &r, &e), 0);
        assert_int_equal(r.image_count, cases[i].images);
        model_request_clear(&r);
    }
}

static void given_longest_model_when_parsed_then_kept_and_one_more_refused(void **state)
{
    char text[300];
    char name[CHAT_MODEL_BYTES + 1];
    struct model_request r;
    struct error e = {0};

    memset(name, 'a', sizeof(name));
    name[CHAT_MODEL_BYTES - 1] = '\0';
    snprintf(text, sizeof(text), "{\"model\":\"%s\",\"messages\":[" USER "]}", name);
    assert_int_equal(chat_request_parse(text, strlen(text), &r, &e), 0);
    assert_string_equal(r.model, name);
    model_request_clear(&r);
    snprintf(text, sizeof(text), "{\"model\":\"%sa\",\"messages\":[" USER "]}", name);
    assert_refused(text, "model");
}

static void given_no_model_when_parsed_then_its_name_is_empty(void **state)
{
    static const char *const texts[] = {"{\"messages\":[" USER "]}",
                                        "{\"model\":null,\"messages\":[" USER "]}",
                                        "{\"models\":[\"a\"],\"messages\":[" USER "]}"};

    for (size_t i = 0; i < 3; i++) {
        struct model_request r;
        struct error e = {0};

        assert_int_equal(chat_request_parse(texts[i], strlen(texts[i]), &r, &e), 0);
        assert_string_equal(r.model, "");
        assert_int_equal(cJSON_GetArraySize(r.wishes.models), i == 2);
        model_request_clear(&r);
    }
}

static void given_no_wishes_when_parsed_then_nothing_is_wished(void **state)
{
    static const char *const texts[] = {
        WITH("\"stream\":false"), WITH("\"models\":null,\"provider\":null"),
        WITH("\"models\":[],\"provider\":{\"order\":[],\"only\":null,\"ignore\":[],"
             "\"allow_fallbacks\":true,\"sort\":null,\"max_price\":{\"prompt\":null}}")};

    for (size_t i = 0; i < 3; i++) {
        struct model_request r;
        struct error e = {0};

        assert_int_equal(chat_request_parse(texts[i], strlen(texts[i]), &r, &e), 0);
        assert_null(r.wishes.models);
        assert_null(r.wishes.order);
        assert_null(r.wishes.only);
        assert_null(r.wishes.ignore);
        assert_false(r.wishes.no_fallbacks || r.wishes.require_parameters);
        assert_int_equal(r.wishes.sort, CHAT_SORT_NONE);
        assert_int_equal(r.wishes.max_prompt_nano, -1);
        assert_int_equal(r.wishes.max_completion_nano, -1);
        assert_int_equal(r.wishes.max_request_nano, -1);
        assert_false(r.wants_json_schema);
        model_request_clear(&r);
    }
}

static void given_wishes_when_parsed_then_read(void **state)
{
    static const char text[] =
        WITH("\"models\":[\"a\",\"b\"],\"provider\":{\"order\":[\"x\",\"y\"],\"only\":[\"x\"],"
             "\"ignore\":[\"z\"],\"allow_fallbacks\":false,\"require_parameters\":true,"
             "\"sort\":\"throughput\",\"max_price\":{\"prompt\":9007199.254740993,"
             "\"completion\":\"0.1\",\"request\":0}},"
             "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"}}");
    struct model_request r;
    struct error e = {0};

    assert_int_equal(chat_request_parse(text, sizeof(text) - 1, &r, &e), 0);
    assert_int_equal(cJSON_GetArraySize(r.wishes.models), 2);
    assert_string_equal(r.wishes.order->child->next->valuestring, "y");
    assert_string_equal(r.wishes.only->child->valuestring, "x");
    assert_string_equal(r.wishes.ignore->child->valuestring, "z");
    assert_true(r.wishes.no_fallbacks);
    assert_true(r.wishes.require_parameters);
    assert_int_equal(r.wishes.sort, CHAT_SORT_THROUGHPUT);
    assert_int_equal(r.wishes.max_prompt_nano, INT64_C(9007199254740993)); /* no double has it */
    assert_int_equal(r.wishes.max_completion_nano, 100000000);
    assert_int_equal(r.wishes.max_request_nano, 0);
    assert_true(r.wants_json_schema);
    model_request_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_full_request_when_parsed_then_fields_are_read),
        cmocka_unit_test(given_nulls_and_empty_lists_when_parsed_then_as_if_absent),
        cmocka_unit_test(given_functions_when_parsed_then_legacy),
        cmocka_unit_test(given_broken_text_when_parsed_then_refused_with_place),
        cmocka_unit_test(given_deep_nesting_when_parsed_then_refused),
        cmocka_unit_test(given_mistyped_field_when_parsed_then_named),
        cmocka_unit_test(given_mistyped_message_when_parsed_then_named),
        cmocka_unit_test(given_refusal_when_read_then_says_expected_and_found),
        cmocka_unit_test(given_long_wrong_text_when_refused_then_not_quoted),
        cmocka_unit_test(given_calls_with_results_when_parsed_then_accepted),
        cmocka_unit_test(given_calls_without_results_when_parsed_then_refused),
        cmocka_unit_test(given_calls_in_a_users_message_when_parsed_then_they_are_none),
        cmocka_unit_test(given_results_without_calls_when_parsed_then_refused),
        cmocka_unit_test(given_every_form_of_content_when_parsed_then_accepted),
        cmocka_unit_test(given_no_model_when_parsed_then_its_name_is_empty),
        cmocka_unit_test(given_no_wishes_when_parsed_then_nothing_is_wished),
        cmocka_unit_test(given_wishes_when_parsed_then_read),
        cmocka_unit_test(given_images_in_several_messages_when_parsed_then_counted),
        cmocka_unit_test(given_longest_model_when_parsed_then_kept_and_one_more_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
