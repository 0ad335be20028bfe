/* The simulator as OpenAI: what it accepts, how it says no, and what of a request it understands.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/answer.h"
#include "tests/sim/openai_rules.h"
#include "tests/sim/scenario.h"

#define HELLO "{\"role\":\"user\",\"content\":\"hello world\"}"
#define TOOLS                                                                            \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\","         \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}" \
    "}}}},{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]"
#define CALLS                                                                     \
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\","    \
    "\"type\":\"function\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}" \
    ",{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"now\","       \
    "\"arguments\":\"{}\"}}]}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"" text "\"}"

static const char config_text[] =
    "{\"api_keys\":[{\"key\":\"k\",\"max_concurrent\":2,\"balance\":{\"poor\":0}}],"
    "\"models\":[{\"id\":\"gpt\",\"context\":1000},{\"id\":\"poor\"},"
    "{\"id\":\"lite\",\"functions\":false},{\"id\":\"giga\",\"dialect\":\"gigachat\"}]}";

struct fixture {
    struct sim_config config;
    struct caller caller;
    struct sim_request request;
    struct verdict verdict;
    struct answer answer;
    struct buf text;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char why[SIM_CONFIG_WHY_BYTES];

    if (f == NULL || sim_config_init(&f->config) < 0 ||
        sim_config_merge(&f->config, config_text, sizeof(config_text) - 1, why) < 0)
        return -1;
    f->caller = (struct caller){
        .has_json_type = true, .token = TOKEN_VALID, .client = &f->config.api_keys[0]};
    answer_init(&f->answer);
    buf_init(&f->text, 1024 * 1024);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    sim_request_clear(&f->request);
    answer_clear(&f->answer);
    buf_clear(&f->text);
    sim_config_clear(&f->config);
    free(f);
    return 0;
}

static bool check(struct fixture *f, const char *body)
{
    sim_request_clear(&f->request);
    return openai_check_chat(&f->config, &f->caller, body, strlen(body), &f->request, &f->verdict);
}

static const char *chat_body(struct fixture *f, const char *messages, const char *more)
{
    buf_reset(&f->text);
    buf_printf(&f->text, "{\"model\":\"gpt\",\"messages\":[%s]%s}", messages, more);
    return buf_text(&f->text);
}

static void assert_passes(struct fixture *f, const char *messages, const char *more)
{
    if (!check(f, chat_body(f, messages, more)))
        fail_msg("refused: %d %s", f->verdict.status, f->verdict.message);
}

/* code NULL: none of its own. */
static void assert_refused(struct fixture *f, const char *body, int status, const char *code,
                           const char *param)
{
    assert_false(check(f, body));
    assert_int_equal(f->verdict.status, status);
    if (code == NULL)
        assert_null(f->verdict.code);
    else
        assert_string_equal(f->verdict.code, code);
    assert_string_equal(f->verdict.param, param);
    assert_null(f->request.root);
}

static void compose(struct fixture *f, const char *scenario, uint32_t calls)
{
    struct plan plan = {0};
    struct pace pace = {.words = 5, .chunk_words = 1, .calls = calls};
    char why[SCENARIO_WHY_BYTES];

    if (scenario[0] != '\0')
        assert_int_equal(scenario_parse(&plan, scenario, strlen(scenario), why), 0);
    assert_int_equal(answer_compose(&f->answer, &f->request, &plan, &pace), 0);
}

static const char *read_all(struct fixture *f)
{
    buf_reset(&f->text);
    while (answer_next(&f->answer, 1, &f->text))
        ;
    return buf_text(&f->text);
}

static void given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows(void **state)
{
    struct fixture *f = *state;

    f->caller.token = TOKEN_UNKNOWN;
    assert_refused(f, "{", 401, NULL, "");
    f->caller.token = TOKEN_VALID;
    f->config.api_keys[0].in_flight = 2;
    assert_refused(f, "{", 400, NULL, "");
    assert_refused(f, "{\"messages\":[]}", 400, NULL, "");
    assert_refused(f, "{\"model\":\"giga\",\"messages\":[" CALLS "],\"temperature\":9}", 404, NULL,
                   "");
    assert_refused(f, "{\"model\":\"poor\",\"messages\":[" CALLS "],\"temperature\":9}", 429,
                   "insufficient_quota", "");
    assert_refused(f, chat_body(f, CALLS, ",\"temperature\":9"), 429, NULL, "");
    f->config.api_keys[0].in_flight = 1;
    assert_refused(f, chat_body(f, CALLS, ",\"temperature\":9"), 400, "invalid_value",
                   "temperature");
    assert_refused(f, chat_body(f, CALLS, ""), 400, NULL, "messages.[1].role");
    assert_passes(f, HELLO, "");
}

static void given_wrong_shapes_when_checked_then_the_field_is_named(void **state)
{
    static const struct {
        const char *messages;
        const char *more;
        const char *code;
        const char *param;
    } rows[] = {
        {"", "", "empty_array", "messages"},
        {HELLO, ",\"stream\":1", "invalid_type", "stream"},
        {HELLO, ",\"n\":\"2\"", "invalid_type", "n"},
        {HELLO, ",\"n\":0", "invalid_value", "n"},
        {HELLO, ",\"n\":1.5", "invalid_value", "n"},
        {HELLO, ",\"max_tokens\":0", "invalid_value", "max_tokens"},
        {HELLO, ",\"stop\":[1]", "invalid_type", "stop"},
        {HELLO, ",\"stream_options\":{}", NULL, "stream_options"},
        {HELLO, ",\"tool_choice\":\"auto\"", NULL, "tool_choice"},
        {HELLO, ",\"tools\":[{\"type\":\"function\"}]", "missing_required_parameter",
         "tools[0].function.name"},
        {HELLO, ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a.b\"}}]",
         "invalid_value", "tools[0].function.name"},
        {HELLO, TOOLS ",\"tool_choice\":\"any\"", "invalid_value", "tool_choice"},
        {HELLO, TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"none\"}}",
         "invalid_value", "tool_choice"},
        {HELLO, ",\"response_format\":{\"type\":\"json_schema\",\"schema\":{}}",
         "missing_required_parameter", "response_format.json_schema"},
        {"{\"role\":\"robot\",\"content\":\"\"}", "", "invalid_value", "messages.[0].role"},
        {HELLO ",{\"role\":\"user\",\"content\":null}", "", NULL, "messages.[1].content"},
        {"{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}", "", NULL, "messages.[0].content"},
        {"{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"a\"}]}", "",
         "missing_required_parameter", "messages.[0].tool_calls"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_refused(*state, chat_body(*state, rows[i].messages, rows[i].more), 400, rows[i].code,
                       rows[i].param);
}

static void given_calls_and_results_when_unpaired_then_400(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO "," CALLS "," RESULT("c2", "2") "," RESULT("c1", "1"), "");
    assert_refused(f, chat_body(f, HELLO "," CALLS "," RESULT("c2", "2"), ""), 400, NULL,
                   "messages.[2].role");
    assert_refused(f, chat_body(f, CALLS "," HELLO "," RESULT("c1", "1"), ""), 400, NULL,
                   "messages.[1].role");
    assert_refused(f, chat_body(f, HELLO "," RESULT("c1", "1"), ""), 400, NULL,
                   "messages.[1].role");
    assert_refused(f, chat_body(f, HELLO ",{\"role\":\"tool\",\"content\":\"\"}", ""), 400,
                   "missing_required_parameter", "messages.[1].tool_call_id");
}

static void given_a_long_prompt_when_checked_then_context_length_exceeded(void **state)
{
    struct fixture *f = *state;
    char text[3010] = {0};
    char message[3100];

    memset(text, 'a', 3001);
    snprintf(message, sizeof(message), "{\"role\":\"user\",\"content\":\"%s\"}", text);
    assert_refused(f, chat_body(f, message, ""), 400, "context_length_exceeded", "messages");
}

static void given_a_model_without_functions_when_tools_come_then_400(void **state)
{
    assert_refused(*state, "{\"model\":\"lite\",\"messages\":[" HELLO "]" TOOLS "}", 400,
                   "unsupported_parameter", "tools");
}

static void given_parts_and_roles_when_translated_then_texts_are_joined_and_counted(void **state)
{
    struct fixture *f = *state;

    assert_passes(f,
                  "{\"role\":\"developer\",\"content\":\"abcd\"},"
                  "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one \"},"
                  "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}},"
                  "{\"type\":\"text\",\"text\":\"two\"}]}",
                  "");
    assert_string_equal(f->request.last_user, "one two");
    assert_int_equal(f->request.prompt_tokens, 2 + 3);
    assert_int_equal(role_of(f->request.messages->child), ROLE_SYSTEM);
}

static void given_options_when_checked_then_understood(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO,
                  ",\"n\":3,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                  "\"max_tokens\":5,\"max_completion_tokens\":7,\"prompt_cache_key\":\"u\"");
    assert_int_equal(f->request.choices, 3);
    assert_true(f->request.stream && f->request.includes_usage);
    assert_int_equal(f->request.max_tokens, 7);
    assert_string_equal(f->request.cache_key, "u");
}

static void given_calls_asked_for_when_composed_then_of_the_functions_in_turn(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO, TOOLS);
    compose(f, "", 3);
    assert_int_equal(f->answer.call_count, 3);
    assert_string_equal(buf_text(&f->answer.calls[0].name), "get_weather");
    assert_string_equal(buf_text(&f->answer.calls[0].arguments), "{\"city\":\"x\"}");
    assert_string_equal(buf_text(&f->answer.calls[1].name), "now");
    assert_string_equal(buf_text(&f->answer.calls[1].arguments), "{}");
    assert_string_equal(buf_text(&f->answer.calls[2].name), "get_weather");
    assert_int_equal(f->answer.finish, FINISH_CALL);
    assert_int_equal(answer_tokens(&f->answer, 0), 0);
    assert_int_equal(answer_tokens(&f->answer, 2), (11 + 12 + 3 + 2 + 2) / 3);
}

static void given_tool_choices_when_composed_then_obeyed(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO, TOOLS);
    compose(f, "", 0);
    assert_int_equal(f->answer.call_count, 0);
    assert_passes(f, HELLO, TOOLS ",\"tool_choice\":\"required\"");
    compose(f, "", 0);
    assert_int_equal(f->answer.call_count, 1);
    assert_passes(f, HELLO, TOOLS ",\"tool_choice\":\"none\"");
    compose(f, "", 2);
    assert_int_equal(f->answer.call_count, 0);
    assert_passes(f, HELLO,
                  TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"now\"}}");
    compose(f, "", 2);
    assert_int_equal(f->answer.call_count, 2);
    assert_string_equal(buf_text(&f->answer.calls[1].name), "now");
    assert_passes(f, HELLO, TOOLS ",\"parallel_tool_calls\":false");
    compose(f, "", 2);
    assert_int_equal(f->answer.call_count, 1);
}

static void given_results_when_answered_then_the_last_is_quoted(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO "," CALLS "," RESULT("c1", "one") "," RESULT("c2", "two"), TOOLS);
    compose(f, "", 2);
    assert_int_equal(f->answer.call_count, 0);
    assert_string_equal(read_all(f), "The function says: two");
}

static void given_the_think_scenario_when_read_then_thinking_is_apart(void **state)
{
    struct fixture *f = *state;

    for (uint32_t words = 1; words < 9; words++) {
        assert_passes(f, HELLO, "");
        compose(f, "think", 0);
        buf_reset(&f->text);
        while (answer_is_thinking(&f->answer))
            assert_true(answer_next(&f->answer, words, &f->text));
        assert_string_equal(buf_text(&f->text), "Let me think about it first.");
        assert_int_equal(answer_thinking_tokens(&f->answer), 10);
        assert_string_equal(read_all(f), "hello world hello world hello");
        assert_int_equal(answer_tokens(&f->answer, 0), (28 + 29) / 3);
    }
}

static void given_stop_sequences_when_one_comes_then_the_text_ends_before_it(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO, ",\"stop\":[\"zzz\",\"rld\",\"o w\"]");
    compose(f, "", 0);
    assert_string_equal(read_all(f), "hell");
    assert_int_equal(f->answer.finish, FINISH_STOP_SEQUENCE);
    assert_string_equal(buf_text(&f->answer.stop), "o w");
    assert_passes(f, HELLO, ",\"stop\":\"zzz\"");
    compose(f, "", 0);
    assert_string_equal(read_all(f), "hello world hello world hello");
    assert_int_equal(f->answer.finish, FINISH_STOP);
    assert_passes(f, HELLO, ",\"stop\":\"world\",\"max_tokens\":1");
    compose(f, "think", 0);
    read_all(f);
    assert_int_equal(f->answer.finish, FINISH_LENGTH);
}

static void given_response_formats_when_composed_then_json(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO,
                  ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\","
                  "\"schema\":{\"properties\":{\"a\":{\"type\":\"integer\"}}}}}");
    compose(f, "", 0);
    assert_string_equal(read_all(f), "{\n  \"a\": 1\n}");
    assert_passes(f, HELLO, ",\"response_format\":{\"type\":\"json_object\"}");
    compose(f, "", 0);
    assert_string_equal(read_all(f), "{\n  \"answer\": \"x\"\n}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows),
        TEST(given_wrong_shapes_when_checked_then_the_field_is_named),
        TEST(given_calls_and_results_when_unpaired_then_400),
        TEST(given_a_long_prompt_when_checked_then_context_length_exceeded),
        TEST(given_a_model_without_functions_when_tools_come_then_400),
        TEST(given_parts_and_roles_when_translated_then_texts_are_joined_and_counted),
        TEST(given_options_when_checked_then_understood),
        TEST(given_calls_asked_for_when_composed_then_of_the_functions_in_turn),
        TEST(given_tool_choices_when_composed_then_obeyed),
        TEST(given_results_when_answered_then_the_last_is_quoted),
        TEST(given_the_think_scenario_when_read_then_thinking_is_apart),
        TEST(given_stop_sequences_when_one_comes_then_the_text_ends_before_it),
        TEST(given_response_formats_when_composed_then_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
