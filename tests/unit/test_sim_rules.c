/* The simulator's own rules: checks and their order, token counting, generation, scenarios. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/answer.h"
#include "tests/sim/config.h"
#include "tests/sim/rules.h"
#include "tests/sim/scenario.h"
#include "tests/sim/sessions.h"

#define HELLO "{\"role\":\"user\",\"content\":\"hello world\"}"
#define WEATHER                                                                      \
    "{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":{" \
    "\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\"},"                \
    "\"unit\":{\"type\":\"string\",\"enum\":[\"c\",\"f\"]},"                         \
    "\"near\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{"   \
    "\"km\":{\"type\":\"number\"},\"sea\":{\"type\":\"boolean\"}}}}}}}"
#define CALL                                                                                       \
    "{\"role\":\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"f\",\"arguments\":{}}" \
    "}"
#define RESULT "{\"role\":\"function\",\"name\":\"f\",\"content\":\"{\\\"t\\\":7}\"}"

static const char one_client[] =
    "{\"clients\":[{\"id\":\"a\",\"secret\":\"b\",\"max_concurrent\":2,"
    "\"balance\":{\"GigaChat-2-Max\":0}}],"
    "\"models\":[{\"id\":\"GigaChat-2\",\"context\":1000},{\"id\":\"GigaChat-2-Max\"},"
    "{\"id\":\"Lite\",\"functions\":false},{\"id\":\"E\",\"type\":\"embedder\"}]}";

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
        sim_config_merge(&f->config, one_client, sizeof(one_client) - 1, why) < 0)
        return -1;
    f->caller = (struct caller){.has_user_agent = true,
                                .has_json_type = true,
                                .token = TOKEN_VALID,
                                .client = &f->config.clients[0]};
    answer_init(&f->answer);
    buf_init(&f->text, 16 * 1024 * 1024);
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
    return rules_check_chat(&f->config, &f->caller, body, strlen(body), &f->request, &f->verdict);
}

static void assert_refused(struct fixture *f, const char *body, int status, const char *message)
{
    assert_false(check(f, body));
    assert_int_equal(f->verdict.status, status);
    assert_string_equal(f->verdict.message, message);
}

/* A request for GigaChat-2 with these messages and further fields (",..." or ""). */
static const char *chat_body(struct fixture *f, const char *messages, const char *more)
{
    buf_reset(&f->text);
    buf_printf(&f->text, "{\"model\":\"GigaChat-2\",\"messages\":[%s]%s}", messages, more);
    return buf_text(&f->text);
}

static void assert_passes(struct fixture *f, const char *messages, const char *more)
{
    if (!check(f, chat_body(f, messages, more)))
        fail_msg("refused: %d %s", f->verdict.status, f->verdict.message);
}

/* The whole content, read chunk_words at a time. */
static const char *answer_of(struct fixture *f, const char *scenario, uint32_t words,
                             uint32_t chunk_words)
{
    struct plan plan = {0};
    struct pace pace = {.words = words, .chunk_words = chunk_words};
    char why[SCENARIO_WHY_BYTES];

    if (scenario[0] != '\0')
        assert_int_equal(scenario_parse(&plan, scenario, strlen(scenario), why), 0);
    assert_int_equal(answer_compose(&f->answer, &f->request, &plan, &pace), 0);
    buf_reset(&f->text);
    while (answer_next(&f->answer, chunk_words, &f->text))
        ;
    return buf_text(&f->text);
}

/* --- tokens --- */

static void given_texts_when_counted_then_three_code_points_are_a_token(void **state)
{
    assert_int_equal(count_tokens(0), 0);
    assert_int_equal(count_tokens(1), 1);
    assert_int_equal(count_tokens(3), 1);
    assert_int_equal(count_tokens(4), 2);
    assert_int_equal(count_code_points("\xd0\xbc\xd0\xb8\xd1\x80", 6), 3);
    assert_int_equal(count_code_points("a\xf0\x9f\x98\x80z", 6), 3);
}

static void given_messages_when_counted_then_each_is_rounded_up_alone(void **state)
{
    struct fixture *f = *state;

    assert_passes(
        f, "{\"role\":\"system\",\"content\":\"abcd\"},{\"role\":\"user\",\"content\":\"a\"}", "");
    assert_int_equal(f->request.prompt_tokens, 3);
}

/* --- the order of checks --- */

static void given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows(void **state)
{
    struct fixture *f = *state;
    static const char longest[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct buf body;

    f->caller = (struct caller){.has_json_type = true, .token = TOKEN_EXPIRED};
    assert_refused(f, "{", 403, "Unauthorized");
    f->caller.has_user_agent = true;
    assert_refused(f, "{", 401, "Token has expired");
    f->caller.token = TOKEN_UNKNOWN;
    assert_refused(f, "{", 401, "Unauthorized");
    f->caller.token = TOKEN_VALID;
    f->caller.client = &f->config.clients[0];
    f->config.clients[0].in_flight = 2;
    assert_refused(f, "{", 400, "Your request contains invalid JSON syntax.");
    assert_refused(f, "{\"model\":\"Nope\",\"messages\":[" CALL "]}", 404, "No such model");
    assert_refused(f, "{\"model\":\"GigaChat-2-Max\",\"messages\":[" CALL "]}", 402,
                   "Payment Required");
    assert_refused(f, chat_body(f, CALL, ""), 429, "Too many requests");
    f->config.clients[0].in_flight = 1;
    assert_refused(f, chat_body(f, CALL, ",\"response_format\":{\"type\":\"json_object\"}"), 422,
                   "Invalid params: every assistant function call must have a result in history");

    buf_init(&body, 100000);
    buf_str(&body, "{\"model\":\"GigaChat-2\",\"response_format\":{\"type\":\"json_object\"},"
                   "\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 100; i++)
        buf_str(&body, longest);
    buf_str(&body, "\"}]}");
    assert_refused(f, buf_text(&body), 400, "Unknown type \"json_object\" in response_format");
    memcpy(strstr(body.data, "json_object"), "text\"      ", 11);
    memcpy(strstr(body.data, "      \"}"), "       }", 8);
    assert_refused(f, buf_text(&body), 413, "Payload too large");
    buf_clear(&body);
    assert_passes(f, HELLO, "");
}

static void given_wrong_shapes_when_checked_then_all_are_bad_syntax(void **state)
{
    struct fixture *f = *state;
    static const char *const bodies[] = {
        "[]",
        "{\"messages\":[" HELLO "]}",
        "{\"model\":\"GigaChat-2\"}",
        "{\"model\":\"GigaChat-2\",\"messages\":[]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[{\"role\":\"user\",\"content\":null}]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\"}]}]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[" HELLO "],\"stream\":\"yes\"}",
        "{\"model\":\"GigaChat-2\",\"messages\":[" HELLO "],\"temperature\":\"1\"}",
        "{\"model\":\"GigaChat-2\",\"messages\":[" HELLO "],\"function_call\":\"required\"}",
        "{\"model\":\"GigaChat-2\",\"messages\":[" HELLO "],\"functions\":[{\"name\":\"f\"}]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[{\"role\":\"assistant\",\"content\":\"\","
        "\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}",
        "{\"model\":\"GigaChat-2\",\"messages\":[" HELLO "],}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        assert_refused(f, bodies[i], 400, "Your request contains invalid JSON syntax.");
    f->caller.has_json_type = false;
    assert_refused(f, chat_body(f, HELLO, ""), 400, "Your request contains invalid JSON syntax.");
}

static void given_an_embedder_when_asked_to_chat_then_404(void **state)
{
    assert_refused(*state, "{\"model\":\"E\",\"messages\":[" HELLO "]}", 404, "No such model");
}

/* --- message rules --- */

static void given_a_late_system_message_when_checked_then_422(void **state)
{
    struct fixture *f = *state;
    const char *message = "Invalid params: system message must be the first message";
    const char *system = "{\"role\":\"system\",\"content\":\"s\"}";
    char two[200];

    snprintf(two, sizeof(two), "%s,%s", system, system);
    assert_refused(f, chat_body(f, two, ""), 422, message);
    snprintf(two, sizeof(two), "%s,%s", HELLO, system);
    assert_refused(f, chat_body(f, two, ""), 422, message);
}

static void given_calls_and_results_when_unpaired_then_422(void **state)
{
    struct fixture *f = *state;

    assert_refused(f, chat_body(f, HELLO "," CALL "," HELLO, ""), 422,
                   "Invalid params: every assistant function call must have a result in history");
    assert_refused(
        f, chat_body(f, HELLO "," RESULT, ""), 422,
        "Invalid params: every assistant function result must have an assistant function "
        "call in history");
    assert_passes(f, HELLO "," CALL "," RESULT, "");
}

static void given_a_result_that_is_not_json_when_checked_then_422(void **state)
{
    struct fixture *f = *state;

    assert_refused(
        f,
        chat_body(f,
                  HELLO "," CALL
                        ",{\"role\":\"function\",\"name\":\"f\",\"content\":\"7\xc2\xb0 rain\"}",
                  ""),
        422,
        "invalid function result for function f json string 7\xc2\xb0 rain, error: JSON "
        "parse error at line 1 column 1");
}

static void given_function_rules_when_broken_then_their_texts(void **state)
{
    struct fixture *f = *state;

    assert_refused(f,
                   chat_body(f, "{\"role\":\"system\",\"content\":\"s\"}",
                             ",\"functions\":[" WEATHER
                             "],\"function_call\":{\"name\":\"get_weather\"}"),
                   422,
                   "explicit_call should only appeal in user, function messages or random role "
                   "messages");
    assert_refused(
        f, chat_body(f, HELLO, ",\"functions\":[{\"name\":\"1st\",\"parameters\":{}}]"), 422,
        "Invalid params: Invalid function names. Only Latin letters (A-Z or a-z), "
        "underscore (_), hyphen (-), dot (.) and digits (not leading) are allowed.: [1st]");
    assert_refused(f, "{\"model\":\"Lite\",\"messages\":[" HELLO "],\"functions\":[" WEATHER "]}",
                   422, "Requested model does not support functions");
    assert_refused(
        f, chat_body(f, HELLO, ",\"functions\":[" WEATHER "],\"function_call\":{\"name\":\"g\"}"),
        422, "Invalid params: function g is not in functions");
}

static void given_numbers_out_of_range_when_checked_then_422_names_them(void **state)
{
    struct fixture *f = *state;

    assert_refused(f, chat_body(f, HELLO, ",\"repetition_penalty\":0"), 422,
                   "Invalid params: repetition_penalty must be in range (0, +inf)");
    assert_refused(f, chat_body(f, HELLO, ",\"temperature\":0"), 422,
                   "Invalid params: temperature must be in range (0, +inf)");
    assert_refused(f, chat_body(f, HELLO, ",\"top_p\":1.5"), 422,
                   "Invalid params: top_p must be in range [0, 1]");
    assert_refused(f, chat_body(f, HELLO, ",\"max_tokens\":2.5"), 422,
                   "Invalid params: max_tokens must be in range (0, +inf)");
    assert_passes(f, HELLO, ",\"temperature\":0.7,\"top_p\":0,\"max_tokens\":null");
}

static void given_a_schema_format_when_empty_then_400(void **state)
{
    assert_refused(*state,
                   chat_body(*state, HELLO, ",\"response_format\":{\"type\":\"json_schema\"}"), 400,
                   "Empty schema with json format type is not supported");
}

/* --- generation --- */

static void given_a_user_text_when_echoed_then_its_words_without_markers(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, "{\"role\":\"user\",\"content\":\"one [[words:5]]two  three[[x]]\"}", "");
    assert_string_equal(answer_of(f, "", 5, 1), "one two three one two");
    assert_int_equal(answer_tokens(&f->answer, false), 7);
    assert_int_equal(f->answer.finish, FINISH_STOP);
}

static void given_any_chunking_when_read_then_the_same_text(void **state)
{
    struct fixture *f = *state;
    char whole[400];

    assert_passes(f, HELLO, "");
    snprintf(whole, sizeof(whole), "%s", answer_of(f, "think", 23, UINT32_MAX));
    for (uint32_t words = 1; words < 30; words++)
        assert_string_equal(answer_of(f, "think", 23, words), whole);
    assert_int_equal(strncmp(whole, "<think>", 7), 0);
}

static void given_max_tokens_when_reached_then_exactly_that_many_and_length(void **state)
{
    struct fixture *f = *state;

    for (int limit = 1; limit < 12; limit++) {
        char more[40];

        snprintf(more, sizeof(more), ",\"max_tokens\":%d", limit);
        assert_passes(f, "{\"role\":\"user\",\"content\":\"\xd0\xbc\xd0\xb8\xd1\x80 ok\"}", more);
        answer_of(f, "", 100, 3);
        assert_int_equal(answer_tokens(&f->answer, false), limit);
        assert_int_equal(f->answer.finish, FINISH_LENGTH);
        assert_int_equal(count_code_points(f->text.data, f->text.len), 3 * limit);
    }
    assert_passes(f, HELLO, ",\"max_tokens\":4");
    assert_string_equal(answer_of(f, "", 2, 1), "hello world");
    assert_int_equal(f->answer.finish, FINISH_STOP);
}

static void
given_a_function_named_by_the_user_when_auto_then_called_with_filled_arguments(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, "{\"role\":\"user\",\"content\":\"please get_weather\"}",
                  ",\"functions\":[" WEATHER "],\"function_call\":\"auto\"");
    assert_string_equal(answer_of(f, "", 5, 1), "");
    assert_true(answer_has_call(&f->answer));
    assert_string_equal(buf_text(&f->answer.calls[0].name), "get_weather");
    assert_string_equal(
        buf_text(&f->answer.calls[0].arguments),
        "{\"city\":\"x\",\"days\":1,\"unit\":\"c\",\"near\":[{\"km\":1.5,\"sea\":true}]}");
    assert_int_equal(f->answer.finish, FINISH_CALL);
}

static void given_functions_when_none_or_not_named_then_text(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, "{\"role\":\"user\",\"content\":\"please get_weather\"}",
                  ",\"functions\":[" WEATHER "],\"function_call\":\"none\"");
    answer_of(f, "", 2, 1);
    assert_false(answer_has_call(&f->answer));
    assert_passes(f, HELLO, ",\"functions\":[" WEATHER "]");
    answer_of(f, "", 2, 1);
    assert_false(answer_has_call(&f->answer));
}

static void given_a_forced_function_when_answered_then_called(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO,
                  ",\"functions\":[" WEATHER "],\"function_call\":{\"name\":\"get_weather\"}");
    answer_of(f, "", 2, 1);
    assert_true(answer_has_call(&f->answer));
}

static void given_a_function_result_when_answered_then_quoted(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO "," CALL "," RESULT, "");
    assert_string_equal(answer_of(f, "", 2, 1), "The function says: {\"t\":7}");
}

static void given_a_json_schema_when_answered_then_pretty_json(void **state)
{
    struct fixture *f = *state;

    assert_passes(
        f, HELLO,
        ",\"response_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\","
        "\"properties\":{\"a\":{\"type\":[\"null\",\"integer\"]},\"b\":{\"type\":\"array\","
        "\"items\":{\"type\":\"string\"}}}}}");
    assert_string_equal(answer_of(f, "", 2, 1), "{\n  \"a\": 1,\n  \"b\": [\n    \"x\"\n  ]\n}");
}

static void given_a_burst_when_read_then_as_many_megabytes_and_stop(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO, "");
    answer_of(f, "burst:2", 5, 64);
    assert_int_equal(f->text.len, 2 * 1024 * 1024);
    assert_int_equal(f->answer.finish, FINISH_STOP);
}

static void given_the_length_scenario_when_read_then_cut(void **state)
{
    struct fixture *f = *state;

    assert_passes(f, HELLO, "");
    answer_of(f, "length", 12, 1);
    assert_int_equal(answer_tokens(&f->answer, false), 4);
    assert_int_equal(f->answer.finish, FINISH_LENGTH);
}

static void given_the_same_request_when_answered_twice_then_the_same_answer(void **state)
{
    struct fixture *f = *state;
    char first[200];

    assert_passes(f, HELLO, "");
    snprintf(first, sizeof(first), "%s", answer_of(f, "", 9, 2));
    assert_string_equal(answer_of(f, "", 9, 2), first);
}

/* --- scenarios, markers, script --- */

static void given_scenario_texts_when_parsed_then_flags_and_numbers(void **state)
{
    struct plan plan = {0};
    char why[SCENARIO_WHY_BYTES];
    const char *text = "drip:3:7+cut:0+status:502:html";

    assert_int_equal(scenario_parse(&plan, text, strlen(text), why), 0);
    assert_true(plan.flags == (PLAN(DRIP) | PLAN(CUT) | PLAN(STATUS)));
    assert_int_equal(plan.drip_bytes, 3);
    assert_int_equal(plan.drip_ms, 7);
    assert_int_equal(plan.cut_after, 0);
    assert_int_equal(plan.status, 502);
    assert_int_equal(plan.body, BODY_HTML);
}

static void given_bad_scenario_texts_when_parsed_then_refused(void **state)
{
    static const char *const texts[] = {
        "",       "cutt",      "cut:",           "cut:x",  "cut:1:2", "slow_first",
        "status", "status:42", "status:500:xml", "drip:0", "cut:1+",  "fail:1:1000"};
    char why[SCENARIO_WHY_BYTES];

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct plan plan = {0};

        assert_int_equal(scenario_parse(&plan, texts[i], strlen(texts[i]), why), -EINVAL);
    }
}

static void given_markers_when_read_then_plan_and_pace(void **state)
{
    struct plan plan = {0};
    struct pace pace = {.words = 16, .chunk_words = 1};
    char marker[MARKER_TEXT_BYTES];
    char why[SCENARIO_WHY_BYTES];

    assert_int_equal(
        scenario_read_markers("a [[words:3]] b [[sim:cut:2]][[chunk_ms:9]] [[first_ms:8]]"
                              "[[tag:7]][[blacklist]] [[open",
                              &plan, &pace, marker, why),
        0);
    assert_true(plan.flags == (PLAN(CUT) | PLAN(BLACKLIST)));
    assert_int_equal(plan.cut_after, 2);
    assert_int_equal(pace.words, 3);
    assert_int_equal(pace.chunk_ms, 9);
    assert_int_equal(pace.first_ms, 8);
    assert_string_equal(marker, "[[words:3]][[sim:cut:2]][[chunk_ms:9]][[first_ms:8]][[tag:7]][[");
}

static void given_a_script_when_taken_then_by_path_in_order_and_times(void **state)
{
    static const char text[] = "[{\"scenario\":\"status:500\",\"times\":2},{\"path\":\"/v1/"
                               "models\",\"scenario\":\"normal\"},"
                               "{\"scenario\":\"cut:1\",\"times\":-1}]";
    static const char path[] = "/v1/chat/completions";
    struct script *script = script_new();
    struct plan plan;
    char why[SCENARIO_WHY_BYTES];

    assert_non_null(script);
    assert_int_equal(script_add(script, text, sizeof(text) - 1, why), 3);
    for (int i = 0; i < 5; i++) {
        assert_true(script_take(script, path, sizeof(path) - 1, &plan));
        assert_true(plan_has(&plan, i < 2 ? PLAN(STATUS) : PLAN(CUT)));
    }
    assert_int_equal(script_pending(script), 2);
    assert_false(script_take(script, "/v1", 3, &plan));
    script_reset(script);
    assert_false(script_take(script, path, sizeof(path) - 1, &plan));
    script_free(script);
}

static void given_a_bad_script_when_added_then_nothing_is_queued(void **state)
{
    static const char text[] = "[{\"scenario\":\"cut:1\"},{\"scenario\":\"nonsense\"}]";
    struct script *script = script_new();
    char why[SCENARIO_WHY_BYTES];

    assert_non_null(script);
    assert_int_equal(script_add(script, text, sizeof(text) - 1, why), -EINVAL);
    assert_string_equal(why, "llm-sim: bad scenario: nonsense");
    assert_int_equal(script_pending(script), 0);
    script_free(script);
}

static void given_attempts_when_counted_then_the_first_n_fail_and_it_begins_anew(void **state)
{
    static const bool expected[] = {true, true, false, true, true, false};
    struct script *script = script_new();

    assert_non_null(script);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_int_equal(script_attempt_fails(script, 42, 2), expected[i]);
        assert_false(script_attempt_fails(script, 43, 0));
    }
    script_free(script);
}

static void given_a_session_when_it_goes_on_then_the_shared_beginning_is_cached(void **state)
{
    struct fixture *f = *state;
    struct sessions *sessions = sessions_new();

    assert_non_null(sessions);
    assert_passes(f, HELLO, "");
    assert_int_equal(sessions_cached_tokens(sessions, "s", 1, f->request.messages), 0);
    assert_int_equal(sessions_cached_tokens(sessions, "s", 1, f->request.messages), 4);
    assert_passes(f, HELLO ",{\"role\":\"assistant\",\"content\":\"yes\"}," HELLO, "");
    assert_int_equal(sessions_cached_tokens(sessions, "s", 1, f->request.messages), 4);
    assert_passes(f, "{\"role\":\"user\",\"content\":\"other\"}," HELLO, "");
    assert_int_equal(sessions_cached_tokens(sessions, "s", 1, f->request.messages), 0);
    assert_int_equal(sessions_cached_tokens(sessions, "t", 1, f->request.messages), 0);
    sessions_free(sessions);
}

/* --- configuration --- */

static void given_configurations_when_wrong_then_the_key_is_named(void **state)
{
    static const struct {
        const char *text;
        const char *why;
    } rows[] = {
        {"{\"chunkms\":1}", "chunkms: unknown key"},
        {"{\"chunk_words\":0}", "chunk_words: a whole number from 1 to 1000000 is needed"},
        {"{\"expires_unit\":\"us\"}", "expires_unit: one of ms|s is needed"},
        {"{\"single_token\":1}", "single_token: true or false is needed"},
        {"{\"clients\":[{\"id\":\"a\"}]}", "clients[]: id and secret are needed"},
        {"{\"models\":[{\"id\":\"a\",\"type\":\"x\"}]}",
         "models[].type: one of chat|embedder|aicheck|filter is needed"},
        {"{\"models\":[{\"id\":\"a\",\"dialect\":7}]}",
         "models[].dialect: one of gigachat|openai|anthropic is needed"},
        {"{\"api_keys\":{}}", "api_keys: an array is needed"},
        {"{\"api_keys\":[7]}", "api_keys[]: a text is needed"},
        {"{\"api_keys\":[{\"max_concurrent\":1}]}", "api_keys[]: key is needed"},
        {"{\"api_keys\":[{\"key\":\"a\",\"id\":\"b\"}]}", "api_keys[].id: unknown key"},
        {"{\"clients\":[7]}", "clients[]: an object is needed"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sim_config config;
        char why[SIM_CONFIG_WHY_BYTES];

        assert_int_equal(sim_config_init(&config), 0);
        assert_int_equal(sim_config_merge(&config, rows[i].text, strlen(rows[i].text), why),
                         -EINVAL);
        assert_string_equal(why, rows[i].why);
        sim_config_clear(&config);
    }
}

static void given_api_keys_when_configured_then_texts_and_objects_are_known(void **state)
{
    static const char text[] = "{\"api_keys\":[\"one\",{\"key\":\"two\",\"max_concurrent\":3,"
                               "\"balance\":{\"m\":7}}],\"models\":[{\"id\":\"m\"}]}";
    struct sim_config config;
    char why[SIM_CONFIG_WHY_BYTES];
    const struct sim_client *two;

    assert_int_equal(sim_config_init(&config), 0);
    assert_int_equal(sim_config_merge(&config, text, sizeof(text) - 1, why), 0);
    two = sim_config_api_key(&config, "two", 3);
    assert_non_null(sim_config_api_key(&config, "one", 3));
    assert_null(sim_config_api_key(&config, "sk-sim", 6));
    assert_int_equal(two->max_concurrent, 3);
    assert_int_equal(sim_client_balance(two, "m")->tokens, 7);
    for (unsigned dialect = 0; dialect < DIALECT_COUNT; dialect++)
        assert_non_null(sim_config_model(&config, (enum dialect_id)dialect, "m"));
    sim_config_clear(&config);
}

static void given_a_configuration_when_merged_then_over_the_defaults(void **state)
{
    static const char text[] =
        "{\"expires_unit\":\"s\",\"bad_authorization_status\":401,\"chunk_ms\":5,"
        "\"require_user_agent\":false}";
    struct sim_config config;
    char why[SIM_CONFIG_WHY_BYTES];

    assert_int_equal(sim_config_init(&config), 0);
    assert_int_equal(sim_config_merge(&config, text, sizeof(text) - 1, why), 0);
    assert_int_equal(config.expires_unit, EXPIRES_S);
    assert_int_equal(config.bad_authorization_status, BAD_AUTHORIZATION_401);
    assert_int_equal(config.chunk_ms, 5);
    assert_int_equal(config.require_user_agent, 0);
    assert_int_equal(config.answer_words, 16);
    assert_null(sim_config_model(&config, DIALECT_OPENAI, "GigaChat-2-Max"));
    assert_non_null(sim_config_model(&config, DIALECT_OPENAI, "gpt-sim"));
    assert_non_null(sim_config_api_key(&config, "sk-sim", 6));
    assert_null(sim_config_api_key(&config, "sk-si", 5));
    assert_non_null(sim_config_model(&config, DIALECT_GIGACHAT, "GigaChat-2-Max"));
    sim_config_clear(&config);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_texts_when_counted_then_three_code_points_are_a_token),
        TEST(given_messages_when_counted_then_each_is_rounded_up_alone),
        TEST(given_everything_wrong_when_mended_one_by_one_then_the_fixed_order_shows),
        TEST(given_wrong_shapes_when_checked_then_all_are_bad_syntax),
        TEST(given_an_embedder_when_asked_to_chat_then_404),
        TEST(given_a_late_system_message_when_checked_then_422),
        TEST(given_calls_and_results_when_unpaired_then_422),
        TEST(given_a_result_that_is_not_json_when_checked_then_422),
        TEST(given_function_rules_when_broken_then_their_texts),
        TEST(given_numbers_out_of_range_when_checked_then_422_names_them),
        TEST(given_a_schema_format_when_empty_then_400),
        TEST(given_a_user_text_when_echoed_then_its_words_without_markers),
        TEST(given_any_chunking_when_read_then_the_same_text),
        TEST(given_max_tokens_when_reached_then_exactly_that_many_and_length),
        TEST(given_a_function_named_by_the_user_when_auto_then_called_with_filled_arguments),
        TEST(given_functions_when_none_or_not_named_then_text),
        TEST(given_a_forced_function_when_answered_then_called),
        TEST(given_a_function_result_when_answered_then_quoted),
        TEST(given_a_json_schema_when_answered_then_pretty_json),
        TEST(given_a_burst_when_read_then_as_many_megabytes_and_stop),
        TEST(given_the_length_scenario_when_read_then_cut),
        TEST(given_the_same_request_when_answered_twice_then_the_same_answer),
        TEST(given_scenario_texts_when_parsed_then_flags_and_numbers),
        TEST(given_bad_scenario_texts_when_parsed_then_refused),
        TEST(given_markers_when_read_then_plan_and_pace),
        TEST(given_a_script_when_taken_then_by_path_in_order_and_times),
        TEST(given_a_bad_script_when_added_then_nothing_is_queued),
        TEST(given_attempts_when_counted_then_the_first_n_fail_and_it_begins_anew),
        TEST(given_a_session_when_it_goes_on_then_the_shared_beginning_is_cached),
        TEST(given_configurations_when_wrong_then_the_key_is_named),
        TEST(given_api_keys_when_configured_then_texts_and_objects_are_known),
        TEST(given_a_configuration_when_merged_then_over_the_defaults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
