#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "usage/chat_tokens.h"

/* The example of OpenAI's cookbook, "How to count tokens with tiktoken". */
static const char cookbook_messages[] =
    "[{\"role\":\"system\",\"content\":\"You are a helpful assistant that can answer to questions "
    "about the weather.\"},"
    "{\"role\":\"user\",\"content\":\"What's the weather like in San Francisco?\"}]";
static const char cookbook_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_current_weather\","
    "\"description\":\"Get the current weather in a given location\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"location\":{\"type\":\"string\",\"description\":\"The city and state, e.g. San Francisco, "
    "CA\"},"
    "\"unit\":{\"type\":\"string\",\"description\":\"The unit of temperature to return\","
    "\"enum\":[\"celsius\",\"fahrenheit\"]}},\"required\":[\"location\"]}}}]";

static const char older_messages[] =
    "[{\"role\":\"system\",\"content\":\"You are a helpful, pattern-following assistant that "
    "translates corporate jargon into plain English.\"},"
    "{\"role\":\"system\",\"name\":\"example_user\",\"content\":\"New synergies will help drive "
    "top-line growth.\"},"
    "{\"role\":\"system\",\"name\":\"example_assistant\",\"content\":\"Things working well "
    "together "
    "will increase revenue.\"},"
    "{\"role\":\"system\",\"name\":\"example_user\",\"content\":\"Let's circle back when we have "
    "more "
    "bandwidth to touch base on opportunities for increased leverage.\"},"
    "{\"role\":\"system\",\"name\":\"example_assistant\",\"content\":\"Let's talk later when we're "
    "less "
    "busy about how to do better.\"},"
    "{\"role\":\"user\",\"content\":\"This late pivot means we don't have time to boil the ocean "
    "for "
    "the client deliverable.\"}]";

static cJSON *parse(const char *text)
{
    cJSON *tree = json_parse(text, strlen(text), &JSON_LIMITS_DEFAULT, NULL, NULL);

    assert_non_null(tree);
    return tree;
}

static size_t count(const struct chat_token_rules *rules, const char *messages, const char *tools,
                    bool *has_unknown)
{
    cJSON *m = parse(messages);
    cJSON *f = tools == NULL ? NULL : parse(tools);
    struct chat_tokens *t;
    size_t whole, total;
    int rc;

    assert_int_equal(chat_tokens_count(rules, m, f, &whole), 0);
    assert_int_equal(chat_tokens_new(rules, m, f, &t), 0);
    do {
        rc = chat_tokens_step(t, 5);
    } while (rc == 1);
    assert_int_equal(rc, 0);
    total = chat_tokens_total(t);
    assert_int_equal(total, whole);
    if (has_unknown != NULL)
        *has_unknown = chat_tokens_has_unknown(t);
    chat_tokens_free(t);
    cJSON_Delete(m);
    cJSON_Delete(f);
    return total;
}

static void given_cookbook_messages_when_counted_then_published_counts(void **state)
{
    assert_int_equal(count(&CHAT_TOKENS_CL100K, older_messages, NULL, NULL), 129);
    assert_int_equal(count(&CHAT_TOKENS_O200K, older_messages, NULL, NULL), 124);
}

static void given_cookbook_tools_when_counted_then_published_counts(void **state)
{
    assert_int_equal(count(&CHAT_TOKENS_O200K, cookbook_messages, cookbook_tools, NULL), 101);
    assert_int_equal(count(&CHAT_TOKENS_CL100K, cookbook_messages, cookbook_tools, NULL), 105);
}

static void given_no_messages_when_counted_then_the_answers_three(void **state)
{
    size_t tokens;

    assert_int_equal(count(&CHAT_TOKENS_O200K, "[]", "[]", NULL), 3);
    assert_int_equal(chat_tokens_count(&CHAT_TOKENS_O200K, NULL, NULL, &tokens), 0);
    assert_int_equal(tokens, 3);
}

static void given_text_parts_when_counted_then_each_alone(void **state)
{
    size_t one =
        count(&CHAT_TOKENS_O200K, "[{\"role\":\"user\",\"content\":\"Hello\"}]", NULL, NULL);

    assert_int_equal(
        count(&CHAT_TOKENS_O200K,
              "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hello\"},"
              "{\"type\":\"text\",\"text\":\"Hello\"}]}]",
              NULL, NULL),
        one + 1);
}

static void given_images_when_counted_then_tiles_by_detail(void **state)
{
    static const char low[] =
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
        "\"https://example.org/a.png\",\"detail\":\"low\"}}]}]";
    static const char high[] =
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
        "\"https://example.org/a.png\"}}]}]";
    size_t none = count(&CHAT_TOKENS_O200K, "[{\"role\":\"user\",\"content\":\"\"}]", NULL, NULL);
    bool has_unknown;

    assert_int_equal(count(&CHAT_TOKENS_O200K, low, NULL, &has_unknown), none + 85);
    assert_false(has_unknown);
    assert_int_equal(count(&CHAT_TOKENS_O200K, high, NULL, &has_unknown), none + 85 + 8 * 170);
    assert_true(has_unknown);
}

static void given_calls_of_tools_when_counted_then_their_texts_add(void **state)
{
    size_t without =
        count(&CHAT_TOKENS_O200K, "[{\"role\":\"assistant\",\"content\":null}]", NULL, NULL);
    size_t with = count(&CHAT_TOKENS_O200K,
                        "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"x\","
                        "\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":"
                        "\"hello hello\"}}]}]",
                        NULL, NULL);

    assert_int_equal(with, without + 3 + 1 + 2);
}

static void given_nested_schema_when_counted_then_inner_parameters_add(void **state)
{
    static const char flat[] = "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
                               "\"a\":{\"type\":\"array\"}}}}}]";
    static const char nested[] =
        "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"type\":\"array\","
        "\"items\":{\"anyOf\":[{\"properties\":{\"b\":{\"type\":[\"string\",\"null\"],\"enum\":[1,"
        "\"x\",null]}}}]}}}}}}]";
    size_t tokens = count(&CHAT_TOKENS_O200K, "[]", flat, NULL);
    size_t line;

    assert_int_equal(bpe_count(BPE_O200K, "b:string|null:", 14, &line), 0);
    /* properties 3, parameter 3 and its line, the enum's -3 + 3 * (3 + 1) */
    assert_int_equal(count(&CHAT_TOKENS_O200K, "[]", nested, NULL), tokens + 3 + 3 + line + 9);
}

static void given_functions_without_wrapper_when_counted_then_like_tools(void **state)
{
    assert_int_equal(
        count(&CHAT_TOKENS_O200K, "[]", "[{\"name\":\"f\",\"description\":\"does.\"}]", NULL),
        count(&CHAT_TOKENS_O200K, "[]",
              "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"does\"}}]",
              NULL));
}

static void given_what_cannot_be_counted_when_counted_then_said(void **state)
{
    bool has_unknown;

    (void)count(&CHAT_TOKENS_O200K,
                "[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{}}]}]",
                NULL, &has_unknown);
    assert_true(has_unknown);
    (void)count(&CHAT_TOKENS_O200K, "[]", "[{\"type\":\"custom\",\"custom\":{}}]", &has_unknown);
    assert_true(has_unknown);
    (void)count(&CHAT_TOKENS_O200K, cookbook_messages, cookbook_tools, &has_unknown);
    assert_false(has_unknown);
}

static void given_wrong_shapes_when_counted_then_they_add_nothing(void **state)
{
    assert_int_equal(
        count(&CHAT_TOKENS_O200K,
              "[{\"role\":1,\"content\":{\"a\":1},\"name\":[],\"tool_calls\":{},"
              "\"function_call\":\"f\"}]",
              "[{\"function\":{\"name\":\"f\",\"parameters\":[1,{\"properties\":2}]}}]", NULL),
        3 + 3 + 12 + 7 + 2);
    assert_int_equal(count(&CHAT_TOKENS_O200K, "{\"a\":1}", "\"tools\"", NULL), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_cookbook_messages_when_counted_then_published_counts),
        cmocka_unit_test(given_cookbook_tools_when_counted_then_published_counts),
        cmocka_unit_test(given_no_messages_when_counted_then_the_answers_three),
        cmocka_unit_test(given_text_parts_when_counted_then_each_alone),
        cmocka_unit_test(given_images_when_counted_then_tiles_by_detail),
        cmocka_unit_test(given_calls_of_tools_when_counted_then_their_texts_add),
        cmocka_unit_test(given_nested_schema_when_counted_then_inner_parameters_add),
        cmocka_unit_test(given_functions_without_wrapper_when_counted_then_like_tools),
        cmocka_unit_test(given_what_cannot_be_counted_when_counted_then_said),
        cmocka_unit_test(given_wrong_shapes_when_counted_then_they_add_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
