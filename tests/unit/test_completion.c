#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "providers/completion_answer.h"
#include "providers/completion_request.h"

static int parse(const char *text, struct model_request *req, struct error *e)
{
    memset(e, 0, sizeof(*e));
    return completion_request_parse(text, strlen(text), req, e);
}

static void given_a_prompt_when_parsed_then_it_is_the_users_message(void **state)
{
    static const char *const texts[] = {
        "{\"model\":\"m\", \"prompt\":\"\\u0451 {\\\"a\\\":1}\",\"max_tokens\":5,\"top_p\":0.5}",
        "{\"prompt\":[\"\\u0451 {\\\"a\\\":1}\"],\"max_tokens\":5,\"model\":\"m\",\"top_p\":0.5}",
    };

    for (size_t i = 0; i < 2; i++) {
        struct model_request req;
        struct error e;

        assert_int_equal(parse(texts[i], &req, &e), 0);
        assert_int_equal(req.operation, OPERATION_COMPLETION);
        assert_string_equal(req.model, "m");
        assert_int_equal(req.max_tokens, 5);
        assert_int_equal(cJSON_GetArraySize(req.messages), 1);
        assert_string_equal(json_string(req.messages->child, "role"), "user");
        assert_string_equal(json_string(req.messages->child, "content"), "\xd1\x91 {\"a\":1}");
        assert_null(json_get(req.root, "prompt"));
        assert_non_null(json_get(req.root, "top_p"));
        assert_ptr_equal(req.text, req.own_text);
        model_request_clear(&req);
    }
}

static void given_fields_of_a_chat_when_parsed_then_they_do_not_count(void **state)
{
    struct model_request req;
    struct error e;

    assert_int_equal(parse("{\"messages\":7,\"prompt\":\"a\",\"tools\":7,\"echo\":false,"
                           "\"logprobs\":null,\"best_of\":1,\"suffix\":\"\",\"max_tokens\":null}",
                           &req, &e),
                     0);
    assert_int_equal(req.max_tokens, COMPLETION_TOKENS);
    assert_null(req.tools);
    assert_int_equal(cJSON_GetArraySize(req.root), 2); /* messages and max_tokens */
    model_request_clear(&req);
}

static void given_bad_fields_when_parsed_then_named(void **state)
{
    static const struct {
        const char *text;
        int number;
        const char *param;
    } cases[] = {
        {"{}", XR_EINVALID, "prompt"},
        {"{\"prompt\":7}", XR_EINVALID, "prompt"},
        {"{\"prompt\":[]}", XR_EINVALID, "prompt"},
        {"{\"prompt\":[{}]}", XR_EINVALID, "prompt"},
        {"{\"prompt\":[1]}", XR_EUNSUPPORTED, "prompt"},
        {"{\"prompt\":[[1]]}", XR_EUNSUPPORTED, "prompt"},
        {"{\"prompt\":[\"a\",\"b\"]}", XR_EUNSUPPORTED, "prompt"},
        {"{\"prompt\":\"a\",\"echo\":1}", XR_EINVALID, "echo"},
        {"{\"prompt\":\"a\",\"echo\":true}", XR_EUNSUPPORTED, "echo"},
        {"{\"prompt\":\"a\",\"logprobs\":0}", XR_EUNSUPPORTED, "logprobs"},
        {"{\"prompt\":\"a\",\"temperature\":9}", XR_EINVALID, "temperature"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_request req;
        struct error e;

        assert_int_equal(parse(cases[i].text, &req, &e), cases[i].number);
        assert_string_equal(e.param, cases[i].param);
    }
}

static void given_a_whole_answer_when_turned_then_choices_have_texts(void **state)
{
    static const char chat[] =
        "{\"id\":\"cmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"a\\n\\u0451\"},\"finish_reason\":"
        "\"stop\"},"
        "{\"index\":1,\"message\":{\"content\":null},\"finish_reason\":\"length\"}],"
        "\"usage\":{\"total_tokens\":12345678901234567890}}";
    struct buf out;

    buf_init(&out, 4096);
    assert_int_equal(completion_answer_put(chat, sizeof(chat) - 1, &out), 0);
    assert_string_equal(
        buf_text(&out),
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"choices\":[{\"index\":0,"
        "\"finish_reason\":\"stop\",\"text\":\"a\\n\\u0451\",\"logprobs\":null},"
        "{\"index\":1,\"finish_reason\":\"length\",\"text\":\"\",\"logprobs\":null}],"
        "\"usage\":{\"total_tokens\":12345678901234567890}}");
    buf_clear(&out);
}

static void given_events_when_turned_then_each_is_and_done_stays(void **state)
{
    static const char events[] =
        "data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
        "\"assistant\"},\"finish_reason\":null}]}\n\n"
        "data: "
        "{\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
        "\"x\"}}]}\n\n"
        "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{}}\n\n"
        "data: [DONE]\n\n";
    struct buf out;

    buf_init(&out, 4096);
    assert_int_equal(completion_answer_put_events(events, sizeof(events) - 1, &out), 0);
    assert_string_equal(
        buf_text(&out),
        "data: {\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"finish_reason\":null,"
        "\"text\":\"\",\"logprobs\":null}]}\n\n"
        "data: "
        "{\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"x\",\"logprobs\":"
        "null}]}\n\n"
        "data: {\"object\":\"text_completion\",\"choices\":[],\"usage\":{}}\n\n"
        "data: [DONE]\n\n");
    buf_clear(&out);
}

static void given_no_room_when_turned_then_an_error(void **state)
{
    struct buf out;

    buf_init(&out, 8);
    assert_int_equal(completion_answer_put("{\"object\":\"chat.completion\"}", 28, &out),
                     -EMSGSIZE);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_prompt_when_parsed_then_it_is_the_users_message),
        cmocka_unit_test(given_fields_of_a_chat_when_parsed_then_they_do_not_count),
        cmocka_unit_test(given_bad_fields_when_parsed_then_named),
        cmocka_unit_test(given_a_whole_answer_when_turned_then_choices_have_texts),
        cmocka_unit_test(given_events_when_turned_then_each_is_and_done_stays),
        cmocka_unit_test(given_no_room_when_turned_then_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
