#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/log.h"
#include "tests/unit/anthropic_kit.h"

#define HEAD                                                                                       \
    "data: {\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
    "\"model\":\"our/model\",\"choices\":["
#define CHUNK(delta) \
    HEAD "{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define ROLE CHUNK("{\"role\":\"assistant\",\"content\":\"\"}")
#define FINISH(reason) \
    HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"" reason "\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define PART CHUNK("{\"content\":\"First part of\"}")
#define TEXT PART CHUNK("{\"content\":\" the answer.\"}")
#define LOOK CHUNK("{\"content\":\"I look.\"}")
#define CALL(index, id, name)                                                              \
    CHUNK("{\"tool_calls\":[{\"index\":" index ",\"id\":\"" id "\",\"type\":\"function\"," \
          "\"function\":{\"name\":\"" name "\",\"arguments\":\"\"}}]}")
#define ARGS(index, text) \
    CHUNK("{\"tool_calls\":[{\"index\":" index ",\"function\":{\"arguments\":\"" text "\"}}]}")
#define WEATHER CALL("0", "toolu_01A", "get_weather")

struct stream_case {
    const char *file;
    int rc;
    const char *out;
};
static const struct stream_case stream_cases[] = {
    {"stream_text.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_crlf.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_after_stop.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_unknown.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_no_usage.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_half_usage.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_cache.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_stop_sequence.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_pause.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_unknown_reason.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_length.sse", 0, ROLE PART FINISH("length") DONE},
    {"stream_window.sse", 0, ROLE PART FINISH("length") DONE},
    {"stream_refusal.sse", 0, ROLE PART FINISH("content_filter") DONE},
    {"stream_cut.sse", XR_EUPSTREAM, ROLE TEXT},
    {"stream_cut_early.sse", XR_EUPSTREAM, ROLE PART},
    {"stream_error.sse", XR_EUPSTREAM, ROLE PART},
    {"stream_error_first.sse", XR_EBUSY, ""},
    {"stream_bad_json.sse", XR_EUPSTREAM, ROLE PART},
    {"stream_bad_block.sse", XR_EUPSTREAM, ROLE PART},
    {"stream_nameless_call.sse", XR_EUPSTREAM, ""},
    {"stream_tools.sse", 0,
     ROLE LOOK WEATHER ARGS("0", "{\\\"city\\\":\\\"Tu") ARGS("0", "la\\\"}") FINISH("tool_calls")
         DONE},
    {"stream_parallel.sse", 0,
     ROLE WEATHER ARGS("0", "{\\\"city\\\": ") ARGS("0", "\\\"Tula\\\"}")
         CALL("1", "toolu_01B", "get_time") ARGS("1", "{\\\"zone\\\"")
             ARGS("1", ":\\\"\\\\u041c\\\\n\\\"}") CALL("2", "toolu_01C", "ping") ARGS("2", "{}")
                 FINISH("tool_calls") DONE},
    {"stream_interleaved.sse", 0,
     ROLE WEATHER CALL("1", "toolu_01B", "get_time") ARGS("1", "{\\\"b\\\"") ARGS("0", "{\\\"a\\\"")
         ARGS("1", ":2}") ARGS("0", ":1}") FINISH("tool_calls") DONE},
    {"stream_whole_input.sse", 0,
     ROLE WEATHER ARGS("0", "{\\\"n\\\":12345678901234567890,\\\"a\\\":[1.50]}")
         FINISH("tool_calls") DONE},
    /* Its missing arguments are not taken for an empty object. */
    {"stream_cut_call.sse", 0,
     ROLE LOOK CALL("0", "toolu_01A", "get_weather") FINISH("length") DONE},
    {"stream_cut_arguments.sse", 0,
     ROLE WEATHER ARGS("0", "{\\\"city\\\":\\\"Tu") FINISH("length") DONE},
    {"stream_thinking.sse", 0,
     ROLE CHUNK("{\"reasoning_content\":\"2+2\"}") CHUNK("{\"reasoning_content\":\" is 4\"}")
         CHUNK("{\"content\":\"Four.\"}") FINISH("stop") DONE},
    {"stream_escapes.sse", 0,
     ROLE CHUNK("{\"content\":\"Ж😀 \\\"a\\\"\\n\\\\\"}") CHUNK("{\"content\":\"Строка 😀\"}")
         FINISH("stop") DONE},
    {"stream_answer.sse", 0,
     ROLE CALL("0", "toolu_01A", "xrouter_answer") ARGS("0", "{\\\"n\\\":") ARGS("0", "4}")
         FINISH("tool_calls") DONE},
    {"stream_blank_lines.sse", 0,
     ROLE CHUNK("{\"content\":\"One\\n\"}") CHUNK("{\"content\":\"\\nTwo\"}") FINISH("stop") DONE},
};
#define STREAM_CASES (sizeof(stream_cases) / sizeof(stream_cases[0]))

static void given_each_stream_when_decoded_then_openai_chunks(void **state)
{
    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM, stream_cases[i].file, &a);
        if (a.rc != stream_cases[i].rc)
            fail_msg("%s: %d %s", stream_cases[i].file, a.rc, a.e.message);
        if (strcmp(buf_text(&a.out), stream_cases[i].out) != 0)
            fail_msg("%s:\n%s\nexpected:\n%s", stream_cases[i].file, buf_text(&a.out),
                     stream_cases[i].out);
        assert_int_equal(a.e.number, a.rc);
        kit_answer_clear(&a);
    }
}

/* Requests that are answered in different ways. */
static const char *const stream_requests[] = {
    KIT_STREAM,
    KIT_STREAM_USAGE,
    KIT_STREAM_WITH(KIT_FUNCTIONS),
    KIT_STREAM_WITH(KIT_SCHEMA),
    KIT_STREAM_WITH(KIT_BLANK_STOP),
};
#define STREAM_REQUESTS (sizeof(stream_requests) / sizeof(stream_requests[0]))

static void assert_same_at_any_cut(const char *request, const char *file)
{
    struct kit_answer whole;
    struct model_request req;
    struct buf in;

    kit_parse(request, &req);
    kit_read(file, &in);
    kit_stream(&req, &in, in.len, &whole);
    for (size_t cut = 0; cut < in.len; cut++) {
        struct kit_answer a;

        kit_stream(&req, &in, cut, &a);
        assert_int_equal(a.rc, whole.rc);
        assert_string_equal(buf_text(&a.out), buf_text(&whole.out));
        assert_string_equal(told(&a), told(&whole));
        assert_memory_equal(&a.usage, &whole.usage, sizeof(a.usage));
        assert_int_equal(a.usage_final, whole.usage_final);
        kit_answer_clear(&a);
    }
    kit_answer_clear(&whole);
    model_request_clear(&req);
    buf_clear(&in);
}

static void given_each_stream_when_cut_at_any_byte_then_same_output_text_and_usage(void **state)
{
    DIR *dir = opendir(FIXTURES);
    const struct dirent *entry;
    size_t count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');

        if (dot == NULL || strcmp(dot, ".sse") != 0)
            continue;
        count++;
        for (size_t i = 0; i < STREAM_REQUESTS; i++)
            assert_same_at_any_cut(stream_requests[i], entry->d_name);
    }
    closedir(dir);
    assert_int_equal(count, STREAM_CASES); /* each of them has its expected output above */
}

static void given_text_of_all_kinds_when_decoded_then_each_piece_is_told_once(void **state)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"stream_text.sse", "First part of the answer."},
        {"stream_thinking.sse", "2+2 is 4Four."},
        {"stream_tools.sse", "I look.get_weather{\"city\":\"Tula\"}"},
        {"stream_parallel.sse",
         "get_weather{\"city\": \"Tula\"}get_time{\"zone\":\"\\u041c\\n\"}ping{}"},
        {"stream_cut_arguments.sse", "get_weather{\"city\":\"Tu"},
        {"stream_unknown.sse", "First part of the answer."},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM, cases[i].file, &a);
        assert_string_equal(told(&a), cases[i].text);
        assert_int_equal(a.meter.counts, 0);
        kit_answer_clear(&a);
    }
}

static void given_cache_when_decoded_then_input_is_the_sum_and_the_last_number_counts(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_USAGE, "stream_cache.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_true(a.usage_final);
    assert_int_equal(a.usage.input, 12 + 20 + 300);
    assert_int_equal(a.usage.cached, 300);
    assert_int_equal(a.usage.output, 33);
    assert_non_null(strstr(buf_text(&a.out),
                           "\"usage\":{\"prompt_tokens\":332,\"completion_tokens\":33,"
                           "\"total_tokens\":365,\"prompt_tokens_details\":{\"cached_tokens\":300}"
                           "}}\n\n" DONE));
    assert_int_equal(a.meter.counts, 0);
    kit_answer_clear(&a);
}

static void given_include_usage_when_decoded_then_other_chunks_say_null(void **state)
{
    struct kit_answer a;
    const char *out;
    size_t nulls = 0;

    kit_stream_file(KIT_STREAM_USAGE, "stream_tools.sse", &a);
    assert_int_equal(a.rc, 0);
    for (out = buf_text(&a.out); (out = strstr(out, "\"usage\":null")) != NULL; out++)
        nulls++;
    assert_int_equal(nulls, 6); /* role, text, call, two pieces, finish */
    kit_answer_clear(&a);
}

static void given_no_usage_when_asked_for_then_the_meters_numbers(void **state)
{
    static const char *const files[] = {"stream_no_usage.sse", "stream_half_usage.sse"};

    for (size_t i = 0; i < 2; i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM_USAGE, files[i], &a);
        assert_int_equal(a.rc, 0);
        assert_false(a.usage_final);
        assert_int_equal(a.usage.input, -1); /* not the provider's */
        assert_int_equal(a.meter.counts, 1);
        assert_non_null(strstr(buf_text(&a.out), "\"prompt_tokens\":1111,"));
        kit_answer_clear(&a);
    }
}

static void given_cut_stream_when_usage_has_come_then_it_is_kept(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_USAGE, "stream_cut.sse", &a);
    assert_int_equal(a.rc, XR_EUPSTREAM);
    assert_true(a.usage_final);
    assert_int_equal(a.usage.output, 33);
    assert_null(strstr(buf_text(&a.out), "finish_reason\":\"stop"));
    assert_null(strstr(buf_text(&a.out), "[DONE]"));
    kit_answer_clear(&a);
}

static void
given_stream_cut_in_the_text_when_decoded_then_its_first_output_count_is_not_taken(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM, "stream_cut_early.sse", &a);
    assert_false(a.usage_final);
    assert_int_equal(a.usage.output, -1);
    kit_answer_clear(&a);
}

static void given_functions_when_called_then_answer_in_kind(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_WITH(KIT_FUNCTIONS), "stream_parallel.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(
        buf_text(&a.out),
        ROLE CHUNK("{\"function_call\":{\"name\":\"get_weather\",\"arguments\":\"\"}}")
            CHUNK("{\"function_call\":{\"arguments\":\"{\\\"city\\\": \"}}")
                CHUNK("{\"function_call\":{\"arguments\":\"\\\"Tula\\\"}\"}}")
                    FINISH("function_call") DONE);
    /* The others were written all the same. */
    assert_non_null(strstr(told(&a), "get_time{\"zone\""));
    kit_answer_clear(&a);
    kit_whole_file(KIT_WHOLE_WITH(KIT_FUNCTIONS), "answer_tools.json", &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out), "\"function_call\":{\"name\":\"get_weather\","));
    assert_null(strstr(buf_text(&a.out), "get_time"));
    kit_answer_clear(&a);
}

static void given_schema_when_the_answer_comes_as_a_call_then_it_is_content(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_WITH(KIT_SCHEMA), "stream_answer.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out), ROLE CHUNK("{\"content\":\"{\\\"n\\\":\"}")
                                              CHUNK("{\"content\":\"4}\"}") FINISH("stop") DONE);
    assert_string_equal(told(&a), "{\"n\":4}");
    kit_answer_clear(&a);
    kit_whole_file(KIT_WHOLE_WITH(KIT_SCHEMA), "answer_answer.json", &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out), "\"content\":\"{\\\"n\\\":4}\",\"refusal\":null}"));
    assert_non_null(strstr(buf_text(&a.out), "\"finish_reason\":\"stop\""));
    assert_string_equal(told(&a), "{\"n\":4}");
    kit_answer_clear(&a);
}

static void given_blank_stop_when_met_then_cut_here(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_WITH(KIT_BLANK_STOP), "stream_blank_lines.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out), ROLE CHUNK("{\"content\":\"One\"}") FINISH("stop") DONE);
    kit_answer_clear(&a);
    kit_whole_file(KIT_WHOLE_WITH(KIT_BLANK_STOP), "answer_blank_lines.json", &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out), "\"content\":\"One\","));
    kit_answer_clear(&a);
}

static void given_dotted_name_when_called_then_the_clients_own_is_told(void **state)
{
    static const char request[] =
        KIT_WHOLE_WITH("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a.b\"}}],");
    static const char body[] =
        "{\"type\":\"message\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"a_dot_"
        "b\","
        "\"input\":{}},{\"type\":\"tool_use\",\"id\":\"u\",\"name\":\"c_dot_d\",\"input\":{}}],"
        "\"stop_reason\":\"tool_use\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}";
    struct kit_answer a;

    kit_whole(request, body, &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out), "\"name\":\"a.b\""));
    assert_non_null(strstr(buf_text(&a.out), "\"name\":\"c_dot_d\"")); /* nobody's */
    kit_answer_clear(&a);
}

#define WHOLE(message, reason, usage)                                                        \
    "{\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion\",\"created\":1700000000,"       \
    "\"model\":\"our/model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"," \
    "\"content\":" message "},\"logprobs\":null,\"finish_reason\":\"" reason                 \
    "\"}],\"usage\":" usage "}"
#define USAGE(input, output, total, cached)                                                 \
    "{\"prompt_tokens\":" input ",\"completion_tokens\":" output ",\"total_tokens\":" total \
    ",\"prompt_tokens_details\":{\"cached_tokens\":" cached "}}"
#define USUAL USAGE("40", "33", "73", "0")

static const struct {
    const char *file, *out;
} whole_cases[] = {
    {"answer_text.json", WHOLE("\"First part of the answer.\",\"refusal\":null", "stop", USUAL)},
    {"answer_cache.json",
     WHOLE("\"Yes.\",\"refusal\":null", "stop", USAGE("330", "33", "363", "300"))},
    {"answer_no_usage.json",
     WHOLE("\"Yes.\",\"refusal\":null", "stop", USAGE("1111", "222", "1333", "0"))},
    {"answer_length.json", WHOLE("\"First part of\",\"refusal\":null", "length", USUAL)},
    {"answer_refusal.json", WHOLE("\"No.\",\"refusal\":null", "content_filter", USUAL)},
    {"answer_thinking.json",
     WHOLE("\"Four.\",\"refusal\":null,\"reasoning_content\":\"2+2\"", "stop", USUAL)},
    {"answer_tools.json",
     WHOLE("\"I look.\",\"refusal\":null,\"tool_calls\":[{\"id\":\"toolu_01A\",\"type\":"
           "\"function\",\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"n\\\":"
           "12345678901234567890,\\\"city\\\":\\\"Тула\\\",\\\"a\\\":[1.50]}\"}},{\"id\":"
           "\"toolu_01B\",\"type\":\"function\",\"function\":{\"name\":\"get_time\",\"arguments\":"
           "\"{}\"}}]",
           "tool_calls", USUAL)},
};

static void given_each_answer_when_decoded_then_openai_json(void **state)
{
    for (size_t i = 0; i < sizeof(whole_cases) / sizeof(whole_cases[0]); i++) {
        struct kit_answer a;

        kit_whole_file(KIT_WHOLE, whole_cases[i].file, &a);
        if (a.rc != 0)
            fail_msg("%s: %s", whole_cases[i].file, a.e.message);
        assert_string_equal(buf_text(&a.out), whole_cases[i].out);
        assert_int_equal(a.meter.counts, a.usage_final ? 0 : 1);
        kit_answer_clear(&a);
    }
}

static void
given_whole_answer_when_a_stream_was_asked_for_then_chunks_of_the_same_text(void **state)
{
    static const char *const files[] = {"answer_text.json",     "answer_cache.json",
                                        "answer_no_usage.json", "answer_thinking.json",
                                        "answer_tools.json",    "answer_refusal.json"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct kit_answer whole, stream;

        kit_whole_file(KIT_WHOLE, files[i], &whole);
        kit_whole_file(KIT_STREAM_USAGE, files[i], &stream);
        assert_int_equal(stream.rc, 0);
        assert_string_equal(told(&stream), told(&whole));
        assert_memory_equal(&stream.usage, &whole.usage, sizeof(whole.usage));
        assert_non_null(strstr(buf_text(&stream.out), DONE));
        kit_answer_clear(&whole);
        kit_answer_clear(&stream);
    }
}

static void
given_whole_answer_with_calls_when_streamed_then_numbered_with_their_arguments(void **state)
{
    struct kit_answer a;

    kit_whole_file(KIT_STREAM, "answer_tools.json", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(
        buf_text(&a.out),
        ROLE LOOK WEATHER ARGS(
            "0", "{\\\"n\\\":12345678901234567890,\\\"city\\\":\\\"Тула\\\",\\\"a\\\":[1.50]}")
            CALL("1", "toolu_01B", "get_time") ARGS("1", "{}") FINISH("tool_calls") DONE);
    kit_answer_clear(&a);
}

#define MESSAGE(content) "{\"type\":\"message\",\"content\":" content "}"

static void given_no_answer_when_decoded_then_upstream_error_and_no_output(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>",
        "{}",
        "[]",
        "null",
        MESSAGE("\"x\""),
        MESSAGE("[1]"),
        MESSAGE("[{\"type\":\"text\",\"text\":1}]"),
        MESSAGE("[{\"type\":\"tool_use\",\"id\":\"a\",\"input\":{}}]"),
        MESSAGE("[{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"b\",\"input\":\"{}\"}]"),
        "{\"type\":\"error\"}",
        "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct kit_answer a;

        kit_whole(KIT_WHOLE, bodies[i], &a);
        assert_int_equal(a.rc, XR_EUPSTREAM);
        assert_int_equal(a.e.number, XR_EUPSTREAM);
        assert_int_equal(a.out.len, 0);
        assert_int_equal(a.meter.counts, 0);
        kit_answer_clear(&a);
    }
}

static void given_numbers_without_sense_when_decoded_then_not_taken(void **state)
{
    static const char *const usages[] = {
        "{\"input_tokens\":-1,\"output_tokens\":2}",
        "{\"input_tokens\":1.5,\"output_tokens\":2}",
        "{\"input_tokens\":9e15,\"output_tokens\":2}",
        "{\"input_tokens\":\"1\",\"output_tokens\":2}",
        "{\"input_tokens\":1}",
        "[]",
    };

    for (size_t i = 0; i < sizeof(usages) / sizeof(usages[0]); i++) {
        struct kit_answer a;
        char body[256];

        snprintf(body, sizeof(body), "{\"type\":\"message\",\"content\":[],\"usage\":%s}",
                 usages[i]);
        kit_whole(KIT_WHOLE, body, &a);
        assert_int_equal(a.rc, 0);
        assert_false(a.usage_final);
        assert_int_equal(a.usage.input, -1);
        assert_int_equal(a.meter.counts, 1);
        kit_answer_clear(&a);
    }
}

static void given_failed_stream_when_fed_again_then_it_stays_failed(void **state)
{
    const struct event bad = {.name = "", .data = "{", .len = 1};
    const struct event stop = {.name = "", .data = "{\"type\":\"message_stop\"}", .len = 23};
    struct provider_config p = kit_provider();
    struct model_request req;
    struct kit_answer a;
    void *stream;

    kit_parse(KIT_STREAM, &req);
    kit_answer_init(&a);
    stream = kit_ops()->stream_new(&p, &req, &kit_identity, &a.meter.meter);
    assert_int_equal(kit_ops()->decode_event(stream, &bad, &a.out, &a.usage, &a.usage_final, &a.e),
                     XR_EUPSTREAM);
    assert_int_equal(kit_ops()->decode_event(stream, &stop, &a.out, &a.usage, &a.usage_final, &a.e),
                     XR_EUPSTREAM);
    assert_int_equal(kit_ops()->decode_end(stream, &a.out, &a.e), XR_EUPSTREAM);
    assert_int_equal(a.out.len, 0);
    kit_ops()->stream_free(stream);
    kit_answer_clear(&a);
    model_request_clear(&req);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_each_stream_when_decoded_then_openai_chunks),
        cmocka_unit_test(given_each_stream_when_cut_at_any_byte_then_same_output_text_and_usage),
        cmocka_unit_test(given_text_of_all_kinds_when_decoded_then_each_piece_is_told_once),
        cmocka_unit_test(given_cache_when_decoded_then_input_is_the_sum_and_the_last_number_counts),
        cmocka_unit_test(given_include_usage_when_decoded_then_other_chunks_say_null),
        cmocka_unit_test(given_no_usage_when_asked_for_then_the_meters_numbers),
        cmocka_unit_test(given_cut_stream_when_usage_has_come_then_it_is_kept),
        cmocka_unit_test(
            given_stream_cut_in_the_text_when_decoded_then_its_first_output_count_is_not_taken),
        cmocka_unit_test(given_functions_when_called_then_answer_in_kind),
        cmocka_unit_test(given_schema_when_the_answer_comes_as_a_call_then_it_is_content),
        cmocka_unit_test(given_blank_stop_when_met_then_cut_here),
        cmocka_unit_test(given_dotted_name_when_called_then_the_clients_own_is_told),
        cmocka_unit_test(given_each_answer_when_decoded_then_openai_json),
        cmocka_unit_test(
            given_whole_answer_when_a_stream_was_asked_for_then_chunks_of_the_same_text),
        cmocka_unit_test(
            given_whole_answer_with_calls_when_streamed_then_numbered_with_their_arguments),
        cmocka_unit_test(given_no_answer_when_decoded_then_upstream_error_and_no_output),
        cmocka_unit_test(given_numbers_without_sense_when_decoded_then_not_taken),
        cmocka_unit_test(given_failed_stream_when_fed_again_then_it_stays_failed),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
