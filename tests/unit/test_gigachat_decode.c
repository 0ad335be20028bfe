#define _GNU_SOURCE 1 /* memmem */
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
#include "common/utf8.h"
#include "tests/unit/gigachat_kit.h"

#define HEAD                                                                                       \
    "data: {\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion.chunk\",\"created\":1790000200," \
    "\"model\":\"GigaChat\",\"choices\":["
#define CHUNK(delta) \
    HEAD "{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define CHUNK_USAGE(delta)                                                                        \
    HEAD "{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":null}],\"usage\":" \
         "null}\n\n"
#define ROLE CHUNK("{\"role\":\"assistant\",\"content\":\"\"}")
#define FINISH(reason) \
    HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"" reason "\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define TEXT CHUNK("{\"content\":\"First part of\"}") CHUNK("{\"content\":\" the answer.\"}")
#define UUID "7f2c6a52-2a4e-4b43-8c3e-6d4b7a1a9f10"
#define TOOL_CALL                                                                                  \
    CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"call_" UUID "\",\"type\":\"function\","          \
          "\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Tula\\\"}\"}}" \
          "]}")

struct stream_case {
    const char *file;
    int rc;
    const char *out;
};
static const struct stream_case stream_cases[] = {
    {"stream_text.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_one_chunk.sse", 0, ROLE CHUNK("{\"content\":\"Yes.\"}") FINISH("stop") DONE},
    {"stream_no_usage.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_bad_usage.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_usage_apart.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_no_done.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_double_done.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_after_done.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_comment.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_crlf.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_object_plural.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_call_in_progress.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_malformed_one.sse", 0, ROLE TEXT FINISH("stop") DONE},
    {"stream_malformed_two.sse", XR_EUPSTREAM, ROLE TEXT},
    {"stream_cut.sse", XR_EUPSTREAM, ROLE TEXT},
    {"stream_error.sse", XR_EUPSTREAM, ROLE CHUNK("{\"content\":\"First part of\"}")},
    {"stream_call_error.sse", XR_EUPSTREAM, ""},
    {"stream_call_split.sse", 0, ROLE TOOL_CALL FINISH("tool_calls") DONE},
    {"stream_call_split_object.sse", 0, ROLE TOOL_CALL FINISH("tool_calls") DONE},
    {"stream_call_string_args.sse", 0, ROLE TOOL_CALL FINISH("tool_calls") DONE},
    {"stream_call_text_first.sse", 0,
     ROLE CHUNK("{\"content\":\"Let me \"}") CHUNK("{\"content\":\"look.\"}")
         TOOL_CALL FINISH("tool_calls") DONE},
    {"stream_blacklist.sse", 0,
     ROLE CHUNK("{\"content\":\"Let us talk about something else.\"}") FINISH("content_filter")
         DONE},
    {"stream_length.sse", 0, ROLE CHUNK("{\"content\":\"First part of\"}") FINISH("length") DONE},
    {"stream_think.sse", 0,
     ROLE CHUNK("{\"reasoning_content\":\"2+2\"}") CHUNK("{\"reasoning_content\":\" is <b>4\"}")
         CHUNK("{\"content\":\"Fo\"}") CHUNK("{\"content\":\"ur.\"}") FINISH("stop") DONE},
    {"stream_escapes.sse", 0,
     ROLE CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"a\"}")
         CHUNK("{\"content\":\"Строка \\\"один\\\"\\nдва\\t\\\\ / \"}")
             CHUNK("{\"content\":\"Ж😀 \"}") CHUNK("{\"content\":\"😀 конец\"}") FINISH("stop") DONE},
    {"stream_twins.sse", 0,
     ROLE CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"c\"}")
         CHUNK("{\"content\":\"a\"}") FINISH("stop") DONE},
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

static void given_documented_call_stream_when_decoded_then_one_tool_call(void **state)
{
    struct kit_answer a;
    const char *out;

    kit_stream_file(KIT_STREAM, "stream_call.sse", &a);
    assert_int_equal(a.rc, 0);
    out = buf_text(&a.out);
    assert_non_null(strstr(out, "\"created\":1790000300,"));
    assert_non_null(strstr(out, "\"id\":\"call_" UUID "\""));
    assert_non_null(strstr(out, "\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n"));
    assert_int_equal(a.usage.input, 80);
    assert_int_equal(a.usage.output, 20);
    kit_answer_clear(&a);
}

static void given_each_stream_when_cut_at_any_byte_then_same_output(void **state)
{
    struct provider_config p = kit_provider();

    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct model_request req;
        struct buf in;

        kit_parse(KIT_STREAM, &req);
        kit_read(stream_cases[i].file, &in);
        for (size_t cut = 0; cut <= in.len; cut++) {
            struct kit_answer a;

            kit_stream(&p, &req, in.data, in.len, cut, &a);
            assert_int_equal(a.rc, stream_cases[i].rc);
            assert_string_equal(buf_text(&a.out), stream_cases[i].out);
            assert_int_equal(a.meter.counts, 0);
            kit_answer_clear(&a);
        }
        model_request_clear(&req);
        buf_clear(&in);
    }
}

static void given_each_stream_when_cut_at_any_byte_then_the_meter_gets_the_same_text(void **state)
{
    struct provider_config p = kit_provider();

    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct kit_answer whole;
        struct model_request req;
        struct buf in;

        kit_parse(KIT_STREAM, &req);
        kit_read(stream_cases[i].file, &in);
        kit_stream(&p, &req, in.data, in.len, in.len, &whole);
        for (size_t cut = 0; cut < in.len; cut++) {
            struct kit_answer a;

            kit_stream(&p, &req, in.data, in.len, cut, &a);
            assert_string_equal(told(&a), told(&whole));
            kit_answer_clear(&a);
        }
        kit_answer_clear(&whole);
        model_request_clear(&req);
        buf_clear(&in);
    }
}

/* One space more in each event: same JSON, but never the form that needs no parser. */
static void spread(const struct buf *in, struct buf *out)
{
    static const char mark[] = "data: {";
    const char *at = in->data;
    const char *end = in->data + in->len;

    buf_init(out, KIT_MAX);
    while (at < end) {
        const char *found = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1);
        const char *stop = found == NULL ? end : found + sizeof(mark) - 1;

        buf_append(out, at, (size_t)(stop - at));
        if (found != NULL)
            buf_byte(out, ' ');
        at = stop;
    }
}

static void given_each_stream_when_every_event_is_parsed_then_same_as_the_short_way(void **state)
{
    struct provider_config p = kit_provider();

    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct model_request req;
        struct buf in, slow;
        struct kit_answer a, b;

        kit_parse(KIT_STREAM_USAGE, &req);
        kit_read(stream_cases[i].file, &in);
        spread(&in, &slow);
        kit_stream(&p, &req, in.data, in.len, in.len, &a);
        kit_stream(&p, &req, slow.data, slow.len, slow.len, &b);
        assert_int_equal(a.rc, b.rc);
        assert_string_equal(buf_text(&a.out), buf_text(&b.out));
        assert_memory_equal(&a.usage, &b.usage, sizeof(a.usage));
        assert_string_equal(told(&a), told(&b));
        assert_int_equal(a.usage_final, b.usage_final);
        kit_answer_clear(&a);
        kit_answer_clear(&b);
        buf_clear(&in);
        buf_clear(&slow);
        model_request_clear(&req);
    }
}

static void given_include_usage_when_decoded_then_last_chunk_has_it_and_others_null(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_USAGE, "stream_text.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(
        buf_text(&a.out), CHUNK_USAGE("{\"role\":\"assistant\",\"content\":\"\"}")
                              CHUNK_USAGE("{\"content\":\"First part of\"}")
                                  CHUNK_USAGE("{\"content\":\" the answer.\"}") HEAD
        "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}"
        "\n\n" HEAD "],\"usage\":{\"prompt_tokens\":17,\"completion_tokens\":42,\"total_tokens\":"
        "59,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n" DONE);
    assert_int_equal(a.usage.input, 17);
    assert_int_equal(a.usage.cached, 2);
    assert_int_equal(a.usage.output, 42);
    assert_true(a.usage_final);
    kit_answer_clear(&a);
}

static void given_no_usage_when_decoded_then_the_usage_chunk_has_the_meters(void **state)
{
    static const char *const files[] = {"stream_no_usage.sse", "stream_bad_usage.sse"};

    for (size_t i = 0; i < 2; i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM_USAGE, files[i], &a);
        assert_int_equal(a.rc, 0);
        assert_false(a.usage_final);
        assert_int_equal(a.usage.input, -1); /* not the provider's */
        assert_int_equal(a.meter.counts, 1);
        assert_non_null(strstr(buf_text(&a.out), "\"usage\":{\"prompt_tokens\":1111,"
                                                 "\"completion_tokens\":222,"
                                                 "\"total_tokens\":1333,"));
        kit_answer_clear(&a);
    }
}

static void given_no_usage_when_the_client_does_not_ask_then_nobody_counts(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM, "stream_no_usage.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.meter.counts, 0);
    assert_null(strstr(buf_text(&a.out), "prompt_tokens"));
    assert_string_equal(buf_text(&a.meter.text), "First part of the answer."); /* all the same */
    kit_answer_clear(&a);
}

static void given_text_of_all_kinds_when_decoded_then_each_piece_is_told_once(void **state)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"stream_text.sse", "First part of the answer."},
        {"stream_escapes.sse", "aaСтрока \"один\"\nдва\t\\ / Ж😀 😀 конец"},
        {"stream_think.sse", "<think>2+2 is <b>4</think>Four."},
        {"stream_call.sse", "get_weather{\"city\":\"Tula\"}"},
        {"stream_call_split.sse", "get_weather{\"city\": \"Tula\"}"},
        {"stream_call_split_object.sse", "get_weather{\"city\":\"Tula\"}"},
        {"stream_call_text_first.sse", "Let me look.get_weather{\"city\":\"Tula\"}"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM, cases[i].file, &a);
        assert_int_equal(a.rc, 0);
        assert_string_equal(buf_text(&a.meter.text), cases[i].text);
        assert_int_equal(a.meter.counts, 0);
        kit_answer_clear(&a);
    }
}

#define DELTA(delta, more) "data: {\"choices\":[{\"delta\":{" delta "}" more "}]}\n\n"
#define CALL_F(arguments) "\"function_call\":{\"name\":\"f\",\"arguments\":" arguments "}"

static void given_text_that_the_client_never_sees_when_streamed_then_told_all_the_same(void **state)
{
    static const struct {
        const char *events, *text;
        int rc;
    } cases[] = {
        /* reasoning in a member of its own */
        {DELTA("\"reasoning_content\":\"2+2\",\"content\":\"4\"", ",\"finish_reason\":\"stop\""),
         "2+24", 0},
        /* a call that was cut by length, by the filter, by a broken stream; one that is no JSON */
        {DELTA(CALL_F("\"{\\\"a\""), ",\"finish_reason\":\"length\""), "f{\"a", 0},
        {DELTA(CALL_F("{\"a\":1}"), ",\"finish_reason\":\"blacklist\""), "f{\"a\":1}", 0},
        {DELTA(CALL_F("\"{\""), ""), "f{", XR_EUPSTREAM},
        {DELTA(CALL_F("\"{\""), ",\"finish_reason\":\"function_call\""), "f{", XR_EUPSTREAM},
        /* an object that comes twice is one */
        {DELTA(CALL_F("{\"a\":1}"), "")
             DELTA(CALL_F("{\"a\":1}"), ",\"finish_reason\":\"function_call\""),
         "f{\"a\":1}", 0},
        /* no arguments: "{}" is ours */
        {DELTA("\"function_call\":{\"name\":\"f\"}", ",\"finish_reason\":\"function_call\""), "f",
         0},
        /* a tool of the server's: seconds left, not the model's text */
        {DELTA("\"role\":\"function_in_progress\",\"content\":\"12\"", "")
             DELTA("\"content\":\"a\"", ",\"finish_reason\":\"stop\""),
         "a", 0},
    };
    struct provider_config p = kit_provider();
    struct model_request req;

    kit_parse(KIT_STREAM, &req);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;

        kit_stream(&p, &req, cases[i].events, strlen(cases[i].events), 0, &a);
        assert_int_equal(a.rc, cases[i].rc);
        assert_string_equal(told(&a), cases[i].text);
        assert_int_equal(a.meter.counts, 0);
        kit_answer_clear(&a);
    }
    model_request_clear(&req);
}

static void given_usage_from_the_provider_when_asked_for_then_nobody_counts(void **state)
{
    struct kit_answer a;

    kit_stream_file(KIT_STREAM_USAGE, "stream_text.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_true(a.usage_final);
    assert_int_equal(a.meter.counts, 0);
    kit_answer_clear(&a);
}

static void given_a_stream_that_fails_when_usage_is_asked_for_then_nobody_counts(void **state)
{
    static const char *const files[] = {"stream_cut.sse", "stream_error.sse",
                                        "stream_malformed_two.sse"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct kit_answer a;

        kit_stream_file(KIT_STREAM_USAGE, files[i], &a);
        assert_int_not_equal(a.rc, 0);
        assert_int_equal(a.meter.counts, 0);
        kit_answer_clear(&a);
    }
}

static void given_cached_tokens_excluded_when_decoded_then_added_to_input(void **state)
{
    struct provider_config p = kit_provider();
    static char excluded[] = "excluded";
    struct model_request req;
    struct kit_answer a;
    struct buf in;

    p.cached_tokens = excluded;
    kit_parse(KIT_STREAM, &req);
    kit_read("stream_text.sse", &in);
    kit_stream(&p, &req, in.data, in.len, in.len, &a);
    assert_int_equal(a.usage.input, 19);
    assert_int_equal(a.usage.cached, 2);
    kit_answer_clear(&a);
    buf_clear(&in);
    model_request_clear(&req);
}

static void given_legacy_functions_when_call_is_streamed_then_answered_in_kind(void **state)
{
    struct kit_answer a;

    kit_stream_file("{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\","
                    "\"content\":\"x\"}],\"functions\":[{\"name\":\"get_weather\"}]}",
                    "stream_call_split.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out),
                        ROLE CHUNK("{\"function_call\":{\"name\":\"get_weather\",\"arguments\":"
                                   "\"{\\\"city\\\":\\\"Tula\\\"}\"}}") FINISH("function_call")
                            DONE);
    kit_answer_clear(&a);
}

static void given_stop_sequence_when_streamed_then_cut_and_done(void **state)
{
    struct kit_answer a;

    kit_stream_file("{\"model\":\"m\",\"stream\":true,\"stop\":\"of the\",\"messages\":[{\"role\":"
                    "\"user\",\"content\":\"x\"}]}",
                    "stream_text.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out),
                        ROLE CHUNK("{\"content\":\"First part \"}") FINISH("stop") DONE);
    assert_false(a.usage_final); /* what comes later is not waited for */
    assert_string_equal(told(&a), "First part of the answer."); /* the model has written it */
    kit_answer_clear(&a);
    kit_stream_file("{\"model\":\"m\",\"stream\":true,\"stop\":[\"answer. No\"],\"messages\":[{"
                    "\"role\":\"user\",\"content\":\"x\"}]}",
                    "stream_text.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out),
                        ROLE CHUNK("{\"content\":\"First part of\"}")
                            CHUNK("{\"content\":\" the \"}") CHUNK("{\"content\":\"answer.\"}")
                                FINISH("stop") DONE);
    assert_true(a.usage_final);
    kit_answer_clear(&a);
}

static void given_stream_error_with_status_when_decoded_then_mapped(void **state)
{
    static const struct {
        const char *event;
        int rc;
    } cases[] = {
        {"data: {\"status\":429,\"message\":\"Too many requests\"}\n\n", XR_EBUSY},
        {"data: {\"status\":401,\"message\":\"Token has expired\"}\n\n", XR_EUPSTREAMAUTH},
        {"data: {\"code\":402,\"message\":\"Payment Required\"}\n\n", XR_EQUOTA},
        {"data: {\"message\":\"odd\"}\n\n", XR_EUPSTREAM},
        {"data: {\"status\":200,\"message\":\"odd\"}\n\n", XR_EUPSTREAM},
        {"data: {\"error\":{\"message\":\"no\",\"code\":422}}\n\n", XR_EINVALID},
        {"data: [DONE]\n\n", XR_EUPSTREAM},
        {"data: {}\n\n", XR_EUPSTREAM},
        {"", XR_EUPSTREAM},
    };
    struct provider_config p = kit_provider();
    struct model_request req;

    kit_parse(KIT_STREAM, &req);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;

        kit_stream(&p, &req, cases[i].event, strlen(cases[i].event), 0, &a);
        assert_int_equal(a.rc, cases[i].rc);
        assert_int_equal(a.out.len, 0);
        kit_answer_clear(&a);
    }
    model_request_clear(&req);
}

static void given_broken_calls_when_streamed_then_never_handed_out(void **state)
{
    static const char *const events[] = {
        "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\",\"arguments\":\"{\"}},"
        "\"finish_reason\":\"function_call\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\",\"arguments\":[1]}},"
        "\"finish_reason\":\"function_call\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\",\"arguments\":\"[]\"}},"
        "\"finish_reason\":\"function_call\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"function_call\":5},\"finish_reason\":"
        "\"function_call\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"function_call\"}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\"}}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"g\"}}}]}\n\n",
    };
    struct provider_config p = kit_provider();
    struct model_request req;

    kit_parse(KIT_STREAM, &req);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        struct kit_answer a;

        kit_stream(&p, &req, events[i], strlen(events[i]), 0, &a);
        assert_int_equal(a.rc, XR_EUPSTREAM);
        assert_int_equal(a.e.number, XR_EUPSTREAM);
        assert_null(strstr(buf_text(&a.out), "tool_calls"));
        assert_null(strstr(buf_text(&a.out), "[DONE]"));
        kit_answer_clear(&a);
    }
    model_request_clear(&req);
}

static void given_failed_stream_when_fed_further_then_fails_still(void **state)
{
    struct provider_config p = kit_provider();
    struct token_usage usage = {-1, -1, -1};
    struct model_request req;
    struct error e = {0};
    struct buf out;
    struct event bad = {"", "{\"status\":500,\"message\":\"x\"}", 28};
    struct event good = {"", "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}", 0};
    struct meter_double meter;
    bool final;
    void *s;

    good.len = strlen(good.data);
    buf_init(&out, KIT_MAX);
    meter_double_init(&meter);
    kit_parse(KIT_STREAM, &req);
    s = kit_ops()->stream_new(&p, &req, &kit_identity, &meter.meter);
    assert_int_equal(kit_ops()->decode_event(s, &bad, &out, &usage, &final, &e), XR_EUPSTREAM);
    assert_int_equal(kit_ops()->decode_event(s, &good, &out, &usage, &final, &e), XR_EUPSTREAM);
    assert_int_equal(kit_ops()->decode_end(s, &out, &e), XR_EUPSTREAM);
    assert_int_equal(out.len, 0);
    kit_ops()->stream_free(s);
    kit_ops()->stream_free(NULL);
    model_request_clear(&req);
    buf_clear(&out);
    meter_double_clear(&meter);
}

/* Whole answers. */

static void decode_text(const char *request, const char *body, size_t len, struct kit_answer *a)
{
    struct provider_config p = kit_provider();
    struct model_request req;

    kit_answer_init(a);
    kit_parse(request, &req);
    a->rc = kit_ops()->decode_chat(&p, &req, &kit_identity, body, len, &a->out, &a->meter.meter,
                                   &a->usage, &a->usage_final, &a->e);
    model_request_clear(&req);
}

static void decode_file(const char *request, const char *name, struct kit_answer *a)
{
    struct buf in;

    kit_read(name, &in);
    decode_text(request, in.data, in.len, a);
    buf_clear(&in);
}

#define WHOLE(message, finish, usage)                                                            \
    "{\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion\",\"created\":1790000100,\"model\":" \
    "\"GigaChat\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\"," message        \
    "},\"logprobs\":null,\"finish_reason\":\"" finish "\"}]" usage "}"
#define USAGE(cached)                                                               \
    ",\"usage\":{\"prompt_tokens\":61,\"completion_tokens\":4,\"total_tokens\":65," \
    "\"prompt_tokens_details\":{\"cached_tokens\":" cached "}}"

#define METERS_USAGE                                                                      \
    ",\"usage\":{\"prompt_tokens\":1111,\"completion_tokens\":222,\"total_tokens\":1333," \
    "\"prompt_tokens_details\":{\"cached_tokens\":0}}"

struct whole_case {
    const char *file;
    const char *out;
};

static void given_each_answer_when_decoded_then_openai_completion(void **state)
{
    static const struct whole_case cases[] = {
        {"answer_text.json",
         WHOLE("\"content\":\"Take one.\",\"refusal\":null", "stop", USAGE("12"))},
        {"answer_state_id.json",
         WHOLE("\"content\":\"Hello.\",\"refusal\":null", "stop", USAGE("0"))},
        {"answer_length.json",
         WHOLE("\"content\":\"One two thr\",\"refusal\":null", "length", USAGE("0"))},
        {"answer_blacklist.json",
         WHOLE("\"content\":\"Let us talk about something else.\",\"refusal\":null",
               "content_filter", USAGE("0"))},
        {"answer_unknown_finish.json",
         WHOLE("\"content\":\"Hi\",\"refusal\":null", "stop", USAGE("0"))},
        {"answer_think.json",
         WHOLE("\"content\":\"Four.\",\"refusal\":null,\"reasoning_content\":\"2+2 is 4\"", "stop",
               USAGE("0"))},
        {"answer_no_usage.json",
         WHOLE("\"content\":\"Привет, мир\",\"refusal\":null", "stop", METERS_USAGE)},
        {"answer_bad_usage.json",
         WHOLE("\"content\":\"Hi\",\"refusal\":null", "stop", METERS_USAGE)},
        {"answer_huge_usage.json",
         WHOLE("\"content\":\"Hi\",\"refusal\":null", "stop", METERS_USAGE)},
        {"answer_call.json",
         WHOLE("\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"call_" UUID
               "\",\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"arguments\":"
               "\"{\\\"city\\\":\\\"Tula\\\",\\\"b\\\":1.50,\\\"a\\\":12345678901234567890,"
               "\\\"city\\\":\\\"Orel\\\"}\"}}]",
               "tool_calls", USAGE("0"))},
        {"answer_call_string.json",
         WHOLE("\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"call_" UUID
               "\",\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"arguments\":"
               "\"{\\\"city\\\":\\\"Tula\\\"}\"}}]",
               "tool_calls", USAGE("0"))},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;

        decode_file(KIT_WHOLE, cases[i].file, &a);
        if (a.rc != 0)
            fail_msg("%s: %s", cases[i].file, a.e.message);
        assert_string_equal(buf_text(&a.out), cases[i].out);
        kit_answer_clear(&a);
    }
}

static void given_usage_when_decoded_then_reported_or_counted(void **state)
{
    struct kit_answer a;

    decode_file(KIT_WHOLE, "answer_text.json", &a);
    assert_true(a.usage_final);
    assert_int_equal(a.usage.input, 61);
    assert_int_equal(a.usage.cached, 12);
    assert_int_equal(a.usage.output, 4);
    assert_int_equal(a.meter.counts, 0);
    kit_answer_clear(&a);
    decode_file(KIT_WHOLE, "answer_no_usage.json", &a);
    assert_false(a.usage_final);
    assert_int_equal(a.meter.counts, 1);
    assert_non_null(strstr(buf_text(&a.out), METERS_USAGE));
    assert_int_equal(a.usage.input, -1); /* not the provider's */
    assert_int_equal(a.usage.output, -1);
    kit_answer_clear(&a);
}

static void given_text_of_all_kinds_when_the_answer_is_whole_then_told_once(void **state)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"answer_text.json", "Take one."},
        {"answer_no_usage.json", "Привет, мир"},
        {"answer_think.json", "<think>2+2 is 4</think>Four."},
        {"answer_call_string.json", "get_weather{\"city\": \"Tula\"}"},
    };
    static const char both[] =
        "{\"choices\":[{\"message\":{\"reasoning_content\":\"2+2\",\"content\":\"4\"," CALL_F(
            "{\"a\":1}") "},\"finish_reason\":\"length\"}]}";
    struct kit_answer a;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        decode_file(KIT_WHOLE, cases[i].file, &a);
        assert_int_equal(a.rc, 0);
        assert_string_equal(told(&a), cases[i].text);
        kit_answer_clear(&a);
    }
    decode_text(KIT_WHOLE, both, sizeof(both) - 1, &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(told(&a), "2+24f{\"a\":1}"); /* the call was cut, but written */
    kit_answer_clear(&a);
    /* the same as the chunks of a stream */
    decode_text(KIT_STREAM, both, sizeof(both) - 1, &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(told(&a), "2+24f{\"a\":1}");
    assert_int_equal(a.meter.counts, 0);
    kit_answer_clear(&a);
    decode_text(KIT_STREAM_USAGE, both, sizeof(both) - 1, &a);
    assert_int_equal(a.meter.counts, 1);
    assert_non_null(strstr(buf_text(&a.out), METERS_USAGE));
    kit_answer_clear(&a);
}

static void given_error_finish_when_decoded_then_upstream_error_with_usage(void **state)
{
    struct kit_answer a;

    decode_file(KIT_WHOLE, "answer_error.json", &a);
    assert_int_equal(a.rc, XR_EUPSTREAM);
    assert_int_equal(a.out.len, 0);
    assert_true(a.usage_final);
    assert_int_equal(a.usage.output, 4);
    kit_answer_clear(&a);
    kit_stream_file(KIT_STREAM, "stream_call_error.sse", &a);
    assert_int_equal(a.rc, XR_EUPSTREAM);
    assert_true(a.usage_final);
    assert_int_equal(a.usage.output, 42);
    kit_answer_clear(&a);
}

static void given_legacy_functions_when_call_is_decoded_then_answered_in_kind(void **state)
{
    struct kit_answer a;

    decode_file("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                "\"functions\":[{\"name\":\"get_weather\"}]}",
                "answer_call_string.json", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(buf_text(&a.out),
                        WHOLE("\"content\":null,\"refusal\":null,\"function_call\":{\"name\":"
                              "\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Tula\\\"}\"}",
                              "function_call", USAGE("0")));
    kit_answer_clear(&a);
}

static void given_stop_sequence_when_decoded_then_content_is_cut(void **state)
{
    struct kit_answer a;

    decode_file("{\"model\":\"m\",\"stop\":[\"zzz\",\"else\"],\"messages\":[{\"role\":\"user\","
                "\"content\":\"x\"}]}",
                "answer_blacklist.json", &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(
        buf_text(&a.out),
        WHOLE("\"content\":\"Let us talk about something \",\"refusal\":null", "stop", USAGE("0")));
    assert_string_equal(told(&a), "Let us talk about something else.");
    kit_answer_clear(&a);
}

static void given_whole_answer_for_a_stream_when_decoded_then_chunks(void **state)
{
    struct kit_answer a;
    const char *out;

    decode_file(KIT_STREAM_USAGE, "answer_text.json", &a);
    assert_int_equal(a.rc, 0);
    out = buf_text(&a.out);
    assert_non_null(strstr(out, "\"delta\":{\"content\":\"Take one.\"}"));
    assert_non_null(strstr(out, "\"finish_reason\":\"stop\""));
    assert_non_null(strstr(out, "\"prompt_tokens\":61"));
    assert_string_equal(out + a.out.len - strlen(DONE), DONE);
    kit_answer_clear(&a);
}

static void given_answer_without_state_id_when_decoded_then_id_from_the_answers_own(void **state)
{
    static const char body[] =
        "{\"choices\":[{\"message\":{\"content\":null,\"function_call\":{\"name\":"
        "\"xr_user_web_search\"},\"functions_state_id\":\"not an id\"},\"finish_reason\":"
        "\"function_call\"}]}";
    struct kit_answer a;

    decode_text(KIT_WHOLE, body, sizeof(body) - 1, &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out),
                           "\"tool_calls\":[{\"id\":\"call_0123\",\"type\":\"function\","
                           "\"function\":{\"name\":\"web_search\",\"arguments\":\"{}\"}}]"));
    kit_answer_clear(&a);
}

static void given_no_answer_when_decoded_then_upstream_error(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>",
        "[]",
        "{}",
        "{\"choices\":[]}",
        "{\"choices\":{}}",
        "{\"choices\":[5]}",
        "{\"choices\":[{\"message\":\"x\"}]}",
        "{\"status\":500,\"message\":\"x\"}",
        "{\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"function_call\"}]}",
        "{\"choices\":[{\"message\":{\"content\":\"a\"}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct kit_answer a;

        decode_text(KIT_WHOLE, bodies[i], strlen(bodies[i]), &a);
        assert_int_equal(a.rc, XR_EUPSTREAM);
        assert_int_equal(a.meter.counts, 0); /* nobody would see it */
        assert_int_equal(a.e.number, XR_EUPSTREAM);
        assert_int_equal(a.out.len, 0);
        kit_answer_clear(&a);
    }
}

/* Errors. */

static void given_each_status_when_mapped_then_our_error_whatever_the_body(void **state)
{
    static const struct {
        unsigned status;
        int number;
        bool stale;
        bool shown;
    } cases[] = {
        {400, XR_EINVALID, false, true},   {401, XR_EUPSTREAMAUTH, true, false},
        {402, XR_EQUOTA, false, false},    {403, XR_EUPSTREAMAUTH, false, false},
        {404, XR_EMODEL, false, true},     {408, XR_ETIMEOUT, false, false},
        {413, XR_ECONTEXT, false, true},   {422, XR_EINVALID, false, true},
        {429, XR_EBUSY, false, false},     {500, XR_EUPSTREAM, false, false},
        {502, XR_EUPSTREAM, false, false}, {503, XR_EUPSTREAM, false, false},
        {504, XR_ETIMEOUT, false, false},  {302, XR_EUPSTREAM, false, false},
        {418, XR_EUPSTREAM, false, false},
    };
    static const char json[] = "{\"status\":1,\"message\":\"Their own words\"}";
    struct buf html;

    kit_read("error_403.html", &html);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *bodies[] = {json, html.data, ""};
        size_t lens[] = {sizeof(json) - 1, html.len, 0};

        for (size_t b = 0; b < 3; b++) {
            struct error e = {0};
            bool stale = !cases[i].stale;
            bool shown;

            assert_int_equal(kit_ops()->map_error(cases[i].status, bodies[b], lens[b], &stale, &e),
                             cases[i].number);
            assert_int_equal(e.number, cases[i].number);
            assert_int_equal(stale, cases[i].stale);
            shown = strstr(e.message, "Their own words") != NULL;
            assert_int_equal(shown, cases[i].shown && b == 0);
            assert_null(strstr(e.message, "nginx"));
        }
    }
    buf_clear(&html);
}

static void given_recorded_errors_when_mapped_then_text_for_the_client(void **state)
{
    struct error e = {0};
    struct buf body;
    bool stale;

    kit_read("error_404.json", &body);
    assert_int_equal(kit_ops()->map_error(404, body.data, body.len, &stale, &e), XR_EMODEL);
    assert_string_equal(e.message, "The provider refused the request: No such model");
    assert_string_equal(e.param, "model");
    buf_clear(&body);
    kit_read("error_422.json", &body);
    assert_int_equal(kit_ops()->map_error(422, body.data, body.len, &stale, &e), XR_EINVALID);
    assert_non_null(strstr(e.message, "system message must be the first message"));
    buf_clear(&body);
}

static void given_secret_in_message_when_mapped_then_not_shown(void **state)
{
    char body[600];
    char key[101];
    struct error e = {0};
    bool stale;

    memset(key, 'k', 100);
    key[100] = '\0';
    snprintf(body, sizeof(body),
             "{\"message\":\"bad key %s and eyJhbGciOiJSU0EtT0FFUCJ9.x end\\u0007\"}", key);
    kit_ops()->map_error(400, body, strlen(body), &stale, &e);
    assert_null(strstr(e.message, "kkk"));
    assert_null(strstr(e.message, "eyJ"));
    assert_non_null(strstr(e.message, "bad key *** and *** end?"));
}

static void given_short_secret_in_message_when_mapped_then_not_shown(void **state)
{
    static const char body[] =
        "{\"message\":\"bad header 'Bearer short-token', key Zm9vOmJhcjEyMzQ1Njc4OTA= of "
        "3f3f3c0e-6a0a-4b62-9e0e-0a7d6a3b1c11 for get_current_weather_in_town_2\"}";
    struct error e = {0};
    bool stale;

    kit_ops()->map_error(400, body, strlen(body), &stale, &e);
    assert_non_null(strstr(e.message, "bad header 'Bearer ***', key *** of "
                                      "3f3f3c0e-6a0a-4b62-9e0e-0a7d6a3b1c11 for "
                                      "get_current_weather_in_town_2"));
}

static void given_long_message_when_mapped_then_cut_between_characters(void **state)
{
    char body[4200] = "{\"message\":\"x";
    struct error e = {0};
    bool stale;

    for (size_t i = 0; i < 1000; i++)
        strcat(body, "ж ");
    strcat(body, "\"}");
    kit_ops()->map_error(400, body, strlen(body), &stale, &e);
    assert_true(strlen(e.message) > 200);
    for (size_t at = 0, len = strlen(e.message); at < len;) {
        size_t width = utf8_width(e.message + at, len - at);

        assert_true(width > 0);
        at += width;
    }
}

/* The tool loop, both turns, both sides. */
static void given_tool_loop_when_driven_through_then_each_side_sees_its_own_form(void **state)
{
    static const char tools[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
                                "\"get_weather\",\"parameters\":{\"type\":\"object\","
                                "\"properties\":{\"city\":{\"type\":\"string\"}}}}}]";
    static const char history[] =
        "\"messages\":[{\"role\":\"user\",\"content\":\"Weather in Tula?\"},{\"role\":"
        "\"assistant\",\"content\":\"\",\"function_call\":{\"name\":\"get_weather\","
        "\"arguments\":{\"city\":\"Tula\"}}},{\"role\":\"function\",\"content\":"
        "\"{\\\"result\\\":\\\"7 degrees, rain\\\"}\",\"name\":\"get_weather\"}],\"functions\":[";
    struct provider_config p = kit_provider();
    struct upstream_request r;
    struct model_request req;
    struct kit_answer a;
    struct error e = {0};
    struct buf text, ignored;
    const char *message, *id;
    size_t message_len, id_len;

    decode_file(KIT_WHOLE, "answer_call_string.json", &a);
    assert_int_equal(a.rc, 0);
    assert_int_equal(json_slice(a.out.data, a.out.len, "choices.0.message", &message, &message_len),
                     0);
    assert_int_equal(
        json_slice(a.out.data, a.out.len, "choices.0.message.tool_calls.0.id", &id, &id_len), 0);
    /* The client sends the assistant's message back as it got it, and the result. */
    buf_init(&text, KIT_MAX);
    buf_printf(&text,
               "{\"model\":\"m\",%s,\"messages\":[{\"role\":\"user\",\"content\":\"Weather in "
               "Tula?\"},%.*s,{\"role\":\"tool\",\"tool_call_id\":%.*s,\"content\":\"7 degrees, "
               "rain\"}]}",
               tools, (int)message_len, message, (int)id_len, id);
    kit_parse(buf_text(&text), &req);
    upstream_request_init(&r);
    buf_init(&ignored, 100);
    assert_int_equal(
        kit_ops()->encode_chat(&p, "Up", &req,
                               &(struct upstream_call){.token = "tok", .request_id = "req-1"}, &r,
                               &ignored, &e),
        0);
    assert_non_null(strstr(buf_text(&r.body), history));
    assert_null(strstr(buf_text(&r.body), "state_id"));
    assert_null(strstr(buf_text(&r.body), UUID));
    upstream_request_clear(&r);
    model_request_clear(&req);
    buf_clear(&text);
    kit_answer_clear(&a);
}

/* Every fixture of a stream is in the table above. */
static void given_fixture_directory_when_listed_then_each_stream_has_its_case(void **state)
{
    DIR *dir = opendir(FIXTURES);
    struct dirent *entry;
    size_t found = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        found += strncmp(entry->d_name, "stream_", 7) == 0;
    closedir(dir);
    assert_int_equal(found, STREAM_CASES + 1); /* stream_call.sse has a test of its own */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_each_stream_when_decoded_then_openai_chunks),
        cmocka_unit_test(given_documented_call_stream_when_decoded_then_one_tool_call),
        cmocka_unit_test(given_each_stream_when_cut_at_any_byte_then_same_output),
        cmocka_unit_test(given_each_stream_when_cut_at_any_byte_then_the_meter_gets_the_same_text),
        cmocka_unit_test(given_each_stream_when_every_event_is_parsed_then_same_as_the_short_way),
        cmocka_unit_test(given_include_usage_when_decoded_then_last_chunk_has_it_and_others_null),
        cmocka_unit_test(given_no_usage_when_decoded_then_the_usage_chunk_has_the_meters),
        cmocka_unit_test(given_no_usage_when_the_client_does_not_ask_then_nobody_counts),
        cmocka_unit_test(given_text_of_all_kinds_when_decoded_then_each_piece_is_told_once),
        cmocka_unit_test(
            given_text_that_the_client_never_sees_when_streamed_then_told_all_the_same),
        cmocka_unit_test(given_usage_from_the_provider_when_asked_for_then_nobody_counts),
        cmocka_unit_test(given_a_stream_that_fails_when_usage_is_asked_for_then_nobody_counts),
        cmocka_unit_test(given_cached_tokens_excluded_when_decoded_then_added_to_input),
        cmocka_unit_test(given_legacy_functions_when_call_is_streamed_then_answered_in_kind),
        cmocka_unit_test(given_stop_sequence_when_streamed_then_cut_and_done),
        cmocka_unit_test(given_stream_error_with_status_when_decoded_then_mapped),
        cmocka_unit_test(given_broken_calls_when_streamed_then_never_handed_out),
        cmocka_unit_test(given_failed_stream_when_fed_further_then_fails_still),
        cmocka_unit_test(given_each_answer_when_decoded_then_openai_completion),
        cmocka_unit_test(given_usage_when_decoded_then_reported_or_counted),
        cmocka_unit_test(given_text_of_all_kinds_when_the_answer_is_whole_then_told_once),
        cmocka_unit_test(given_error_finish_when_decoded_then_upstream_error_with_usage),
        cmocka_unit_test(given_legacy_functions_when_call_is_decoded_then_answered_in_kind),
        cmocka_unit_test(given_stop_sequence_when_decoded_then_content_is_cut),
        cmocka_unit_test(given_whole_answer_for_a_stream_when_decoded_then_chunks),
        cmocka_unit_test(given_answer_without_state_id_when_decoded_then_id_from_the_answers_own),
        cmocka_unit_test(given_no_answer_when_decoded_then_upstream_error),
        cmocka_unit_test(given_each_status_when_mapped_then_our_error_whatever_the_body),
        cmocka_unit_test(given_recorded_errors_when_mapped_then_text_for_the_client),
        cmocka_unit_test(given_secret_in_message_when_mapped_then_not_shown),
        cmocka_unit_test(given_short_secret_in_message_when_mapped_then_not_shown),
        cmocka_unit_test(given_long_message_when_mapped_then_cut_between_characters),
        cmocka_unit_test(given_tool_loop_when_driven_through_then_each_side_sees_its_own_form),
        cmocka_unit_test(given_fixture_directory_when_listed_then_each_stream_has_its_case),
    };

    log_set_level(LOG_ERROR); /* bad events are reported, here by the thousand */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
