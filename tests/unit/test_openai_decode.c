#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"

#include "tests/unit/openai_kit.h"

/* Each stream_NAME.sse has two twins: NAME.out is what a client gets that did not ask for usage,
 * NAME.asked what one gets that did. */
struct stream_case {
    const char *name;
    const char *flavor;
    int rc;
    const char *told;
    struct token_usage usage; /* all -1: the provider tells none */
};
#define NONE       \
    {              \
        -1, -1, -1 \
    }
static const struct stream_case stream_cases[] = {
    {"openai", "openai", 0, "Hello \"wor\\ld\"\nПривет 😀!", {19, 4, 10}},
    {"escapes", "openai", 0, "Пр😀 / \" \tx\\\"},\"finish_reason\":\"stop\"", NONE},
    {"tools", "openai", 0, "get_weatherI {\"cilookty\":get_time\"Tula\"}{}get_time{}", NONE},
    {"legacy", "openai", 0, "f{\"a\":1}", NONE},
    {"deepseek", "deepseek", 0, "2+2Four", {9, 3, 5}},
    {"deepseek_interrupted", "deepseek", XR_EUPSTREAM, "Fo", NONE},
    {"mistral", "mistral", 0, "2+\"2\" is 4Four", {7, 0, 12}},
    {"groq", "groq", 0, "HmmYes.", {11, 0, 3}},
    {"groq_error", "groq", XR_EUPSTREAM, "Ye", NONE},
    {"vllm", "vllm", 0, "SoAB", {6, 0, 4}},
    {"vllm_error", "vllm", XR_ECONTEXT, "", {6, 0, 0}},
    {"ollama", "ollama", 0, "Let meLookingget_weather{\"city\":\"Tula\"}", NONE},
    {"llamacpp", "llamacpp", 0, "Hm.OK", {20, 19, 4}},
    {"openrouter", "openrouter", 0, "ThAB", {5, 1, 2}},
    {"openrouter_error", "openrouter", XR_EUPSTREAM, "A", NONE},
    {"gemini", "gemini", 0, "I lookget_weather{\"city\":\"Tula\"}get_time{}", {8, 0, 9}},
    {"yandex", "yandex", 0, "Да.", {3, 0, 2}},
    {"no_done", "openai", 0, "AB", NONE},
    {"no_finish", "openai", XR_EUPSTREAM, "AB", NONE},
    {"cut", "openai", XR_EUPSTREAM, "AB", NONE},
    {"garbage", "openai", XR_EUPSTREAM, "A", NONE},
    {"one_of_two", "openai", XR_EUPSTREAM, "AB", NONE},
    {"unknown_finish", "openai", 0, "A", NONE},
    {"empty_finish", "openai", 0, "AB", NONE},
    {"no_id", "openai", 0, "AB", NONE},
    {"lines", "openai", 0, "A", NONE},
};
#define STREAM_CASES (sizeof(stream_cases) / sizeof(stream_cases[0]))

static void read_fixture(const struct stream_case *c, const char *ending, struct buf *out)
{
    char name[64];

    snprintf(name, sizeof(name), "stream_%s.%s", c->name, ending);
    kit_read(name, out);
}

static void check_stream(const struct stream_case *c, const char *request, const char *ending)
{
    struct buf expected;
    struct kit_answer a;
    char name[64];
    bool is_told = c->usage.input >= 0;

    snprintf(name, sizeof(name), "stream_%s.sse", c->name);
    read_fixture(c, ending, &expected);
    kit_stream_file(c->flavor, request, name, &a);
    if (a.rc != c->rc || a.e.number != c->rc)
        fail_msg("%s: %d %s", c->name, a.rc, a.e.message);
    if (strcmp(buf_text(&a.out), buf_text(&expected)) != 0)
        fail_msg("%s:\n%s\nexpected:\n%s", c->name, buf_text(&a.out), buf_text(&expected));
    assert_string_equal(told(&a), c->told);
    assert_int_equal(a.usage.input, c->usage.input);
    assert_int_equal(a.usage.cached, c->usage.cached);
    assert_int_equal(a.usage.output, c->usage.output);
    assert_int_equal(a.usage_final, is_told);
    assert_int_equal(a.meter.counts,
                     c->rc == 0 && !is_told && strcmp(request, KIT_STREAM_USAGE) == 0);
    kit_answer_clear(&a);
    buf_clear(&expected);
}

static void given_each_stream_when_decoded_then_relayed_under_our_id_and_model(void **state)
{
    for (size_t i = 0; i < STREAM_CASES; i++)
        check_stream(&stream_cases[i], KIT_STREAM, "out");
}

static void given_each_stream_when_usage_was_asked_for_then_in_one_chunk_at_the_end(void **state)
{
    for (size_t i = 0; i < STREAM_CASES; i++)
        check_stream(&stream_cases[i], KIT_STREAM_USAGE, "asked");
}

static void given_each_stream_when_cut_at_any_byte_then_same_output(void **state)
{
    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct provider_config p = kit_provider(stream_cases[i].flavor);
        struct model_request req;
        struct buf in, expected;

        kit_parse(KIT_STREAM_USAGE, &req);
        read_fixture(&stream_cases[i], "sse", &in);
        read_fixture(&stream_cases[i], "asked", &expected);
        for (size_t cut = 0; cut <= in.len; cut++) {
            struct kit_answer a;

            kit_stream(&p, &req, in.data, in.len, cut, &a);
            assert_int_equal(a.rc, stream_cases[i].rc);
            assert_string_equal(buf_text(&a.out), buf_text(&expected));
            assert_string_equal(told(&a), stream_cases[i].told);
            kit_answer_clear(&a);
        }
        model_request_clear(&req);
        buf_clear(&in);
        buf_clear(&expected);
    }
}

/* One space more in each event than in the one before: same JSON, but never a form that is known.
 */
static void spread(const struct buf *in, struct buf *out)
{
    const char *at = in->data;
    const char *end = in->data + in->len;
    size_t spaces = 1;

    buf_init(out, KIT_MAX);
    while (at < end) {
        const char *found = strstr(at, "data: {");
        const char *stop = found == NULL ? end : found + 7;

        buf_append(out, at, (size_t)(stop - at));
        for (size_t i = 0; found != NULL && i < spaces; i++)
            buf_byte(out, ' ');
        spaces++;
        at = stop;
    }
}

/* The same without the spaces that spread() put in. */
static void gather(const struct buf *in, struct buf *out)
{
    buf_init(out, KIT_MAX);
    for (size_t i = 0; i < in->len; i++) {
        buf_byte(out, in->data[i]);
        if (out->len >= 7 && memcmp(out->data + out->len - 7, "data: {", 7) == 0)
            while (i + 1 < in->len && in->data[i + 1] == ' ')
                i++;
    }
    assert_non_null(buf_text(out));
}

static void given_each_stream_when_every_chunk_is_parsed_then_same_as_the_short_way(void **state)
{
    for (size_t i = 0; i < STREAM_CASES; i++) {
        struct provider_config p = kit_provider(stream_cases[i].flavor);
        struct model_request req;
        struct buf in, slow, gathered;
        struct kit_answer a, b;

        if (strcmp(stream_cases[i].name, "lines") == 0)
            continue; /* its chunks begin in the middle */
        kit_parse(KIT_STREAM, &req);
        read_fixture(&stream_cases[i], "sse", &in);
        spread(&in, &slow);
        kit_stream(&p, &req, in.data, in.len, in.len, &a);
        kit_stream(&p, &req, slow.data, slow.len, slow.len, &b);
        gather(&b.out, &gathered);
        assert_int_equal(a.rc, b.rc);
        assert_string_equal(buf_text(&a.out), buf_text(&gathered));
        assert_string_equal(told(&a), told(&b));
        assert_memory_equal(&a.usage, &b.usage, sizeof(a.usage));
        kit_answer_clear(&a);
        kit_answer_clear(&b);
        buf_clear(&in);
        buf_clear(&slow);
        buf_clear(&gathered);
        model_request_clear(&req);
    }
}

#define HEAD "data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":"
#define CHUNK(delta) HEAD delta ",\"finish_reason\":null}]}\n\n"
#define OUR_HEAD \
    "data: {\"id\":\"chatcmpl-0123\",\"model\":\"our/model\",\"choices\":[{\"index\":0,\"delta\":"
#define OUR_CHUNK(delta) OUR_HEAD delta ",\"finish_reason\":null}]}\n\n"
#define STOP HEAD "{},\"finish_reason\":\"stop\"}]}\n\n"
#define OUR_STOP OUR_HEAD "{},\"finish_reason\":\"stop\"}]}\n\n"
#define DONE "data: [DONE]\n\n"

struct short_case {
    const char *in;
    const char *out;
    const char *told;
    int rc;
};

static void check_short(const struct short_case *c)
{
    struct provider_config p = kit_provider("openai");
    struct model_request req;
    struct kit_answer a;

    kit_parse(KIT_STREAM, &req);
    kit_stream(&p, &req, c->in, strlen(c->in), strlen(c->in), &a);
    if (a.rc != c->rc)
        fail_msg("%s: %d %s", c->in, a.rc, a.e.message);
    assert_int_equal(a.out.len, strlen(c->out));
    assert_memory_equal(a.out.data, c->out, a.out.len);
    assert_string_equal(told(&a), c->told);
    kit_answer_clear(&a);
    model_request_clear(&req);
}

/* What looks like the chunk before, but is another. */
static void given_chunk_like_a_known_one_when_it_means_something_else_then_it_is_read(void **state)
{
    static const struct short_case cases[] = {
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"b\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}") OUR_CHUNK("{\"content\":\"b\"}") OUR_STOP DONE, "ab", 0},
        /* the text's end is inside another string */
        {CHUNK("{\"content\":\"a\"}")
             CHUNK("{\"content\":\"b\",\"x\":\"},\\\"finish_reason\\\":null}]}\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}") OUR_CHUNK(
             "{\"content\":\"b\",\"x\":\"},\\\"finish_reason\\\":null}]}\"}") OUR_STOP DONE,
         "ab", 0},
        /* a second member of the name: the last one counts */
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"b\",\"content\":\"c\"}")
             CHUNK("{\"content\":\"d\",\"content\":\"e\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}") OUR_CHUNK("{\"content\":\"b\",\"content\":\"c\"}")
             OUR_CHUNK("{\"content\":\"d\",\"content\":\"e\"}") OUR_STOP DONE,
         "ace", 0},
        /* a name spelt with an escape */
        {CHUNK("{\"c\\u006fntent\":\"a\"}") CHUNK("{\"c\\u006fntent\":\"b\"}") STOP DONE,
         OUR_CHUNK("{\"c\\u006fntent\":\"a\"}") OUR_CHUNK("{\"c\\u006fntent\":\"b\"}")
             OUR_STOP DONE,
         "ab", 0},
        /* no text is no learning, and costs nothing */
        {CHUNK("{\"content\":\"\"}") CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"\"}")
             STOP DONE,
         OUR_CHUNK("{\"content\":\"\"}") OUR_CHUNK("{\"content\":\"a\"}")
             OUR_CHUNK("{\"content\":\"\"}") OUR_STOP DONE,
         "a", 0},
        /* what no JSON string may hold */
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"b\t\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"\xff\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"\\ud800\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"\\u0000\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        {CHUNK("{\"content\":\"a\"}") CHUNK("{\"content\":\"\\x\"}") STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        /* a line end inside a string is no space */
        {CHUNK("{\"content\":\"a\"}") "data: {\"choices\":[{\"delta\":{\"content\":\"b\ndata: "
                                      "c\"}}]}\n\n" STOP DONE,
         OUR_CHUNK("{\"content\":\"a\"}"), "a", XR_EUPSTREAM},
        /* the finish chunk may carry text */
        {CHUNK("{\"content\":\"a\"}") HEAD
         "{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n" DONE,
         OUR_CHUNK("{\"content\":\"a\"}") OUR_HEAD
         "{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n" DONE,
         "ab", 0},
        /* nothing after [DONE] is wanted, and its end is the stream's */
        {STOP DONE CHUNK("{\"content\":\"a\"}"), OUR_STOP DONE, "", 0},
        /* an error behind the finish */
        {STOP "data: {\"error\":{\"message\":\"x\"}}\n\n" DONE, OUR_STOP, "", XR_EUPSTREAM},
        {"data: [{\"error\":{\"code\":429,\"message\":\"x\",\"status\":\"RESOURCE_EXHAUSTED\"}}]"
         "\n\n",
         "", "", XR_EBUSY},
        {"data: {\"object\":\"error\",\"message\":\"x\",\"code\":400}\n\n", "", "", XR_EINVALID},
        {"data: {\"error\":\"overloaded\"}\n\n", "", "", XR_EUPSTREAM},
        /* no error */
        {"data: {\"id\":\"x\",\"model\":\"m\",\"error\":null,\"choices\":[{\"index\":0,\"delta\":{}"
         ",\"finish_reason\":\"stop\"}]}\n\n" DONE,
         "data: {\"id\":\"chatcmpl-0123\",\"model\":\"our/model\",\"error\":null,\"choices\":[{"
         "\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" DONE,
         "", 0},
        /* shapes that are no answer */
        {"data: 1\n\n", "", "", XR_EUPSTREAM},
        {"data: {\"choices\":{}}\n\n", "", "", XR_EUPSTREAM},
        {"data: {\"choices\":[1]}\n\n", "", "", XR_EUPSTREAM},
        {"data: {\"choices\":[{\"index\":128,\"delta\":{}}]}\n\n", "", "", XR_EUPSTREAM},
        {"data: {\"choices\":[{\"delta\":{\"content\":5}}]}\n\n", "", "", XR_EUPSTREAM},
        {"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
         "{}}}]}}]}\n\n",
         "", "", XR_EUPSTREAM},
        {"", "", "", XR_EUPSTREAM},
        {DONE, "", "", XR_EUPSTREAM},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_short(&cases[i]);
}

static void
given_stream_of_two_choices_when_it_ends_without_done_then_both_must_have_finished(void **state)
{
    static const char half[] = STOP;
    static const char whole[] =
        STOP "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
    struct provider_config p = kit_provider("openai");
    struct model_request req;
    struct kit_answer a;

    kit_parse("{\"model\":\"m\",\"stream\":true,\"n\":2," KIT_USER "}", &req);
    kit_stream(&p, &req, half, strlen(half), 0, &a);
    assert_int_equal(a.rc, XR_EUPSTREAM);
    kit_answer_clear(&a);
    kit_stream(&p, &req, whole, strlen(whole), 0, &a);
    assert_int_equal(a.rc, 0);
    kit_answer_clear(&a);
    model_request_clear(&req);
}

static void given_running_usage_when_the_client_asked_for_it_then_it_stays(void **state)
{
    struct kit_answer a;

    kit_stream_file("vllm",
                    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
                    "\"continuous_usage_stats\":true}," KIT_USER "}",
                    "stream_vllm.sse", &a);
    assert_int_equal(a.rc, 0);
    assert_non_null(strstr(buf_text(&a.out), "\"completion_tokens\":2}}\n\n"));
    assert_null(strstr(buf_text(&a.out), "\"usage\":null"));
    kit_answer_clear(&a);
}

static void given_cached_tokens_excluded_when_usage_is_read_then_added(void **state)
{
    static char excluded[] = "excluded";
    struct provider_config p = kit_provider("openai");
    struct model_request req;
    struct kit_answer a;
    struct buf in;

    p.cached_tokens = excluded;
    kit_parse(KIT_STREAM, &req);
    kit_read("stream_openai.sse", &in);
    kit_stream(&p, &req, in.data, in.len, 0, &a);
    assert_int_equal(a.usage.input, 23);
    assert_int_equal(a.usage.cached, 4);
    kit_answer_clear(&a);
    buf_clear(&in);
    model_request_clear(&req);
}

/* Replaces each `from` by `to`. */
static void replace_all(struct buf *text, const char *from, const char *to)
{
    struct buf out;
    const char *at = buf_text(text);
    const char *found;

    buf_init(&out, KIT_MAX);
    while ((found = strstr(at, from)) != NULL) {
        buf_append(&out, at, (size_t)(found - at));
        buf_str(&out, to);
        at = found + strlen(from);
    }
    buf_str(&out, at);
    buf_clear(text);
    *text = out;
    assert_non_null(buf_text(text));
}

static void given_whole_answer_when_decoded_then_only_id_and_model_differ(void **state)
{
    struct kit_answer a;
    struct buf body;

    kit_read("answer_openai.json", &body);
    kit_whole("openai", KIT_WHOLE, buf_text(&body), &a);
    assert_int_equal(a.rc, 0);
    replace_all(&body, "chatcmpl-AbC", "chatcmpl-0123");
    replace_all(&body, "gpt-4.1-2025-04-14", "our/model");
    body.len--; /* the line end behind it */
    assert_string_equal(buf_text(&a.out), buf_text(&body));
    assert_int_equal(a.usage.input, 19);
    assert_int_equal(a.usage.cached, 4);
    assert_int_equal(a.usage.output, 10);
    assert_true(a.usage_final);
    assert_int_equal(a.meter.counts, 0);
    kit_answer_clear(&a);
    buf_clear(&body);
}

static void given_events_that_are_no_chunks_when_decoded_then_left_out(void **state)
{
    static const char in[] =
        "data: {\"ok\":true}\n\n"
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n"
        "data: {\"type\":\"ping\"}\n\n"
        "data: "
        "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
        "data: [DONE]\n\n";
    struct provider_config p = kit_provider("openai");
    struct model_request req;
    struct kit_answer a;

    kit_parse(KIT_STREAM, &req);
    kit_stream(&p, &req, in, sizeof(in) - 1, sizeof(in) - 1, &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(told(&a), "Hi");
    assert_null(strstr(buf_text(&a.out), "ok"));
    assert_null(strstr(buf_text(&a.out), "ping"));
    kit_answer_clear(&a);
    model_request_clear(&req);
}

struct whole_case {
    const char *file, *flavor;
    int rc;
    const char *part; /* of the answer */
};

static void given_each_whole_answer_when_decoded_then_in_openais_terms(void **state)
{
    static const struct whole_case cases[] = {
        {"answer_deepseek.json", "deepseek", 0,
         "{\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion\",\"created\":1790000200,"
         "\"model\":\"our/model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
         "\"content\":\"4\",\"reasoning_content\":\"2+2\"},\"logprobs\":null,"},
        {"answer_mistral.json", "mistral", 0,
         "\"message\":{\"role\":\"assistant\",\"content\":\"Four\",\"tool_calls\":null,"
         "\"reasoning_content\":\"2+\\n2\"},"},
        {"answer_groq.json", "groq", 0,
         "\"message\":{\"role\":\"assistant\",\"reasoning_content\":\"Hm\",\"content\":\"Yes\"},"},
        {"answer_ollama_call.json", "ollama", 0,
         "\"arguments\":\"{}\"}}]},\"finish_reason\":"
         "\"tool_calls\"}]"},
        {"answer_no_usage.json", "openai", 0,
         "\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":1111,\"completion_tokens\":"
         "222,\"total_tokens\":1333,\"prompt_tokens_details\":{\"cached_tokens\":0}}}"},
        {"answer_two.json", "openai", 0,
         "{\"index\":1,\"message\":{\"role\":\"assistant\","
         "\"content\":\"B\"},\"finish_reason\":\"stop\"}]"},
        {"answer_error.json", "openrouter", XR_EUPSTREAM, ""},
        {"stream_openai.sse", "openai", XR_EUPSTREAM, ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kit_answer a;
        struct buf body;

        kit_read(cases[i].file, &body);
        kit_whole(cases[i].flavor, KIT_WHOLE, buf_text(&body), &a);
        if (a.rc != cases[i].rc || a.e.number != cases[i].rc)
            fail_msg("%s: %d %s", cases[i].file, a.rc, a.e.message);
        if (strstr(buf_text(&a.out), cases[i].part) == NULL)
            fail_msg("%s:\n%s\nlacks\n%s", cases[i].file, buf_text(&a.out), cases[i].part);
        if (a.rc == 0)
            assert_int_equal(json_check(a.out.data, a.out.len, &JSON_LIMITS_DEFAULT, NULL, NULL),
                             0);
        kit_answer_clear(&a);
        buf_clear(&body);
    }
}

static void given_whole_answer_without_usage_when_decoded_then_meter_has_its_text(void **state)
{
    struct kit_answer a;
    struct buf body;

    kit_read("answer_no_usage.json", &body);
    kit_whole("openai", KIT_WHOLE, buf_text(&body), &a);
    assert_string_equal(told(&a), "Hi");
    assert_int_equal(a.meter.counts, 1);
    assert_false(a.usage_final);
    assert_int_equal(a.usage.input, -1);
    kit_answer_clear(&a);
    buf_clear(&body);
}

static void given_whole_answer_for_a_stream_request_when_decoded_then_chunks(void **state)
{
    struct kit_answer a;
    struct buf body;

    kit_read("answer_ollama_call.json", &body);
    kit_whole("ollama", KIT_STREAM_USAGE, buf_text(&body), &a);
    assert_int_equal(a.rc, 0);
    assert_string_equal(
        buf_text(&a.out),
        "data: {\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion.chunk\",\"created\":"
        "1790000500,\"model\":\"our/model\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
        "\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"call_x1\",\"type\":\"function\","
        "\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Tula\\\"}\"},"
        "\"index\":0},{\"id\":\"call_x2\",\"type\":\"function\",\"function\":{\"name\":"
        "\"get_time\",\"arguments\":\"{}\"},\"index\":1}]},\"finish_reason\":\"tool_calls\"}],"
        "\"usage\":null}\n\n"
        "data: {\"id\":\"chatcmpl-0123\",\"object\":\"chat.completion.chunk\",\"created\":"
        "1790000500,\"model\":\"our/model\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,"
        "\"completion_tokens\":5,\"total_tokens\":14}}\n\n" DONE);
    kit_answer_clear(&a);
    buf_clear(&body);
}

static void given_answer_that_is_none_when_decoded_then_upstream_failed(void **state)
{
    static const char *const bodies[] = {
        "",
        "{}",
        "[]",
        "null",
        "<html></html>",
        "{\"choices\":[]}",
        "{\"choices\":[{}]}",
        "{\"choices\":[{\"message\":{\"content\":1}}]}",
        "{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":\"error\"}]}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct kit_answer a;

        kit_whole("openai", KIT_WHOLE, bodies[i], &a);
        if (a.rc != XR_EUPSTREAM || a.out.len != 0)
            fail_msg("%s: %d", bodies[i], a.rc);
        kit_answer_clear(&a);
    }
}

static void given_no_room_for_a_chunk_when_decoded_then_error(void **state)
{
    struct provider_config p = kit_provider("openai");
    struct meter_double meter;
    struct token_usage usage = {-1, -1, -1};
    struct event ev = {"", "{\"choices\":[{\"delta\":{\"content\":\"abc\"}}]}", 0};
    struct model_request req;
    struct error e = {0};
    struct buf out;
    bool final;
    void *s;

    ev.len = strlen(ev.data);
    kit_parse(KIT_STREAM, &req);
    meter_double_init(&meter);
    buf_init(&out, 40);
    s = kit_ops()->stream_new(&p, &req, &kit_identity, &meter.meter);
    assert_true(kit_ops()->decode_event(s, &ev, &out, &usage, &final, &e) < 0);
    assert_true(e.number < 0);
    assert_int_equal(kit_ops()->decode_end(s, &out, &e), XR_EUPSTREAM);
    kit_ops()->stream_free(s);
    kit_ops()->stream_free(NULL);
    buf_clear(&out);
    meter_double_clear(&meter);
    model_request_clear(&req);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_each_stream_when_decoded_then_relayed_under_our_id_and_model),
        cmocka_unit_test(given_each_stream_when_usage_was_asked_for_then_in_one_chunk_at_the_end),
        cmocka_unit_test(given_each_stream_when_cut_at_any_byte_then_same_output),
        cmocka_unit_test(given_each_stream_when_every_chunk_is_parsed_then_same_as_the_short_way),
        cmocka_unit_test(given_chunk_like_a_known_one_when_it_means_something_else_then_it_is_read),
        cmocka_unit_test(
            given_stream_of_two_choices_when_it_ends_without_done_then_both_must_have_finished),
        cmocka_unit_test(given_running_usage_when_the_client_asked_for_it_then_it_stays),
        cmocka_unit_test(given_cached_tokens_excluded_when_usage_is_read_then_added),
        cmocka_unit_test(given_whole_answer_when_decoded_then_only_id_and_model_differ),
        cmocka_unit_test(given_events_that_are_no_chunks_when_decoded_then_left_out),
        cmocka_unit_test(given_each_whole_answer_when_decoded_then_in_openais_terms),
        cmocka_unit_test(given_whole_answer_without_usage_when_decoded_then_meter_has_its_text),
        cmocka_unit_test(given_whole_answer_for_a_stream_request_when_decoded_then_chunks),
        cmocka_unit_test(given_answer_that_is_none_when_decoded_then_upstream_failed),
        cmocka_unit_test(given_no_room_for_a_chunk_when_decoded_then_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
