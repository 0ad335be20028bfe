/* The simulator as Anthropic: what it accepts, how it says no, and what of a request it reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/anthropic_rules.h"
#include "tests/sim/answer.h"

#define HELLO "{\"role\":\"user\",\"content\":\"hello world\"}"
#define TOOLS ",\"tools\":[{\"name\":\"now\",\"input_schema\":{\"type\":\"object\"}}]"
#define CALLS                                                                                     \
    "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"now\"," \
    "\"input\":{}},{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"now\",\"input\":{}}]}"
#define RESULT(id, text) \
    "{\"type\":\"tool_result\",\"tool_use_id\":\"" id "\",\"content\":\"" text "\"}"
#define USER(blocks) "{\"role\":\"user\",\"content\":[" blocks "]}"
#define TEXT(text) "{\"type\":\"text\",\"text\":\"" text "\"}"

static const char config_text[] =
    "{\"api_keys\":[{\"key\":\"k\",\"max_concurrent\":2,\"balance\":{\"poor\":0}}],"
    "\"models\":[{\"id\":\"claude\",\"context\":1000},{\"id\":\"poor\"},"
    "{\"id\":\"gpt\",\"dialect\":\"openai\"}]}";

struct fixture {
    struct sim_config config;
    struct caller caller;
    struct sim_request request;
    struct verdict verdict;
    struct buf text;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char why[SIM_CONFIG_WHY_BYTES];

    if (f == NULL || sim_config_init(&f->config) < 0 ||
        sim_config_merge(&f->config, config_text, sizeof(config_text) - 1, why) < 0)
        return -1;
    f->caller = (struct caller){.has_json_type = true,
                                .has_version = true,
                                .token = TOKEN_VALID,
                                .client = &f->config.api_keys[0]};
    buf_init(&f->text, 1024 * 1024);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    sim_request_clear(&f->request);
    buf_clear(&f->text);
    sim_config_clear(&f->config);
    free(f);
    return 0;
}

static bool check(struct fixture *f, const char *body)
{
    sim_request_clear(&f->request);
    return anthropic_check_chat(&f->config, &f->caller, body, strlen(body), &f->request,
                                &f->verdict);
}

static const char *chat_body(struct fixture *f, const char *messages, const char *more)
{
    buf_reset(&f->text);
    buf_printf(&f->text, "{\"model\":\"claude\",\"max_tokens\":2000,\"messages\":[%s]%s}", messages,
               more);
    return buf_text(&f->text);
}

static void assert_passes(struct fixture *f, const char *messages, const char *more)
{
    if (!check(f, chat_body(f, messages, more)))
        fail_msg("refused: %d %s", f->verdict.status, f->verdict.message);
}

/* start: how the message begins. */
static void assert_refused(struct fixture *f, const char *body, int status, const char *start)
{
    assert_false(check(f, body));
    assert_int_equal(f->verdict.status, status);
    if (strncmp(f->verdict.message, start, strlen(start)) != 0)
        assert_string_equal(f->verdict.message, start);
    assert_null(f->request.root);
}

static void given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows(void **state)
{
    struct fixture *f = *state;

    f->caller.token = TOKEN_UNKNOWN;
    f->caller.has_version = false;
    f->config.api_keys[0].in_flight = 2;
    assert_refused(f, "{", 401, "invalid x-api-key");
    f->caller.token = TOKEN_VALID;
    assert_refused(f, "{", 400, "anthropic-version: header is required");
    f->caller.has_version = true;
    assert_refused(f, "{", 400, "The request body is not valid JSON");
    assert_refused(f, "{\"n\":1,\"model\":\"gpt\"}", 400, "n: Extra inputs are not permitted");
    assert_refused(f, "{\"model\":\"gpt\",\"messages\":[" CALLS "]}", 400,
                   "max_tokens: Field required");
    assert_refused(f, "{\"model\":\"gpt\",\"messages\":[" CALLS "],\"max_tokens\":0}", 404,
                   "model: gpt");
    assert_refused(f, "{\"model\":\"poor\",\"messages\":[" CALLS "],\"max_tokens\":0}", 402,
                   "Your credit balance is too low");
    assert_refused(f, "{\"model\":\"claude\",\"messages\":[" CALLS "],\"max_tokens\":0}", 429,
                   "Number of concurrent");
    f->config.api_keys[0].in_flight = 1;
    assert_refused(f, "{\"model\":\"claude\",\"messages\":[" CALLS "],\"max_tokens\":0}", 400,
                   "max_tokens: Input should be greater than or equal to 1");
    assert_refused(f, chat_body(f, CALLS, ""), 400, "messages.1: `tool_use` ids were found");
    assert_passes(f, HELLO, "");
}

static void given_wrong_shapes_when_checked_then_the_place_is_named(void **state)
{
    static const struct {
        const char *messages;
        const char *more;
        const char *start;
    } rows[] = {
        {"", "", "messages: at least one message is required"},
        {HELLO, ",\"stream\":\"yes\"", "stream: "},
        {HELLO, ",\"temperature\":1.5", "temperature: Input should be between 0 and 1"},
        {HELLO, ",\"system\":[{\"type\":\"image\"}]", "system: "},
        {HELLO, ",\"stop_sequences\":\"x\"", "stop_sequences: "},
        {HELLO, ",\"tools\":[{\"name\":\"a\"}]", "tools.0.custom.input_schema: Field required"},
        {HELLO, ",\"tools\":[{\"name\":\"a\",\"input_schema\":{}}]",
         "tools.0.custom.input_schema.type: Input should be 'object'"},
        {HELLO, ",\"tool_choice\":{\"type\":\"auto\"}", "tool_choice may only be specified"},
        {HELLO, TOOLS ",\"tool_choice\":{\"type\":\"required\"}", "tool_choice: Input tag"},
        {HELLO, TOOLS ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"x\"}", "Tool 'x' not found"},
        {HELLO, ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1000}",
         "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"},
        {HELLO, ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000}",
         "`max_tokens` must be greater"},
        {HELLO, ",\"output_config\":{\"format\":{\"type\":\"json_schema\"}}",
         "output_config.format.schema: Field required"},
        {"{\"role\":\"system\",\"content\":\"s\"}", "", "messages: Unexpected role \"system\"."},
        {"{\"role\":\"user\",\"content\":\"\"}," HELLO, "", "messages.0: all messages must have"},
        {USER(TEXT("")), "", "messages: text content blocks must be non-empty"},
        {USER("{\"type\":\"image\"}"), "", "messages.0.content.0.image.source: "},
        {USER("{\"type\":\"image_url\"}"), "", "messages.0.content.0: Input tag"},
        {USER("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"b\",\"input\":{}}"), "",
         "messages.0: `tool_use` blocks can only be in `assistant` messages"},
        {HELLO ",{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"a\","
               "\"name\":\"b\",\"input\":\"{}\"}]}",
         "", "messages.1.content.0.tool_use.input: "},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_refused(*state, chat_body(*state, rows[i].messages, rows[i].more), 400,
                       rows[i].start);
}

static void given_calls_and_results_when_unpaired_or_late_then_400(void **state)
{
    struct fixture *f = *state;

    assert_passes(
        f, HELLO "," CALLS "," USER(RESULT("c2", "2") "," RESULT("c1", "1") "," TEXT("so?")), "");
    assert_refused(f, chat_body(f, HELLO "," CALLS "," USER(RESULT("c1", "1")), ""), 400,
                   "messages.2: `tool_use` ids were found without `tool_result` blocks immediately "
                   "after: c2.");
    assert_refused(
        f,
        chat_body(f, HELLO "," CALLS "," USER(TEXT("t") "," RESULT("c1", "1") "," RESULT("c2", "")),
                  ""),
        400, "messages.2: `tool_use` ids were found");
    assert_refused(f, chat_body(f, USER(RESULT("c9", "1")), ""), 400,
                   "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: "
                   "c9.");
}

static void given_a_long_prompt_when_checked_then_400(void **state)
{
    struct fixture *f = *state;
    char text[3010] = {0};
    char message[3100];

    memset(text, 'a', 3001);
    snprintf(message, sizeof(message), "{\"role\":\"user\",\"content\":\"%s\"}", text);
    assert_refused(f, chat_body(f, message, ""), 400, "prompt is too long: 1001 tokens > 1000");
}

static void given_a_conversation_when_translated_then_results_come_before_the_text(void **state)
{
    static const enum role expected[] = {ROLE_SYSTEM,   ROLE_USER,     ROLE_ASSISTANT,
                                         ROLE_FUNCTION, ROLE_FUNCTION, ROLE_USER};
    struct fixture *f = *state;
    const cJSON *message;
    size_t i = 0;

    assert_passes(f,
                  HELLO "," CALLS "," USER(
                      RESULT("c1", "one") "," RESULT("c2", "two") "," TEXT("and ") "," TEXT("so?")),
                  ",\"system\":[" TEXT("be brief") "]");
    cJSON_ArrayForEach(message, f->request.messages)
        assert_int_equal(role_of(message), expected[i++]);
    assert_int_equal(i, 6);
    assert_string_equal(f->request.last_user, "and so?");
    assert_int_equal(f->request.prompt_tokens, 3 + 4 + 0 + 1 + 1 + 3);
}

static void given_options_when_checked_then_understood(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO,
                  TOOLS ",\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true},"
                        "\"stream\":true,\"metadata\":{\"user_id\":\"u\"},"
                        "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},"
                        "\"stop_sequences\":[\"END\"]");
    assert_true(f->request.must_call && f->request.one_call && f->request.calls_allowed);
    assert_true(f->request.stream && f->request.wants_thinking);
    assert_int_equal(f->request.max_tokens, 2000);
    assert_string_equal(f->request.cache_key, "u");
    assert_string_equal(f->request.stops->child->valuestring, "END");
    assert_passes(f, HELLO, TOOLS ",\"tool_choice\":{\"type\":\"none\"}");
    assert_false(f->request.calls_allowed);
    assert_false(f->request.wants_thinking);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows),
        TEST(given_wrong_shapes_when_checked_then_the_place_is_named),
        TEST(given_calls_and_results_when_unpaired_or_late_then_400),
        TEST(given_a_long_prompt_when_checked_then_400),
        TEST(given_a_conversation_when_translated_then_results_come_before_the_text),
        TEST(given_options_when_checked_then_understood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
