#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "providers/chat_request.h"
#include "providers/count_request.h"

static void accept(const char *text, struct count_request *r)
{
    struct error e = {0};

    assert_int_equal(count_request_parse(text, strlen(text), r, &e), 0);
}

/* Refused, with that parameter and exactly these words. */
static void refuse(const char *text, const char *param, const char *message)
{
    struct count_request r;
    struct error e = {0};

    assert_int_equal(count_request_parse(text, strlen(text), &r, &e), XR_EINVALID);
    assert_string_equal(e.param, param);
    assert_string_equal(e.message, message);
    assert_null(r.root);
}

static void given_messages_when_parsed_then_they_and_the_tools(void **state)
{
    struct count_request r;

    accept("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":"
           "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"input\":null,\"what\":[1]}",
           &r);
    assert_string_equal(r.model, "m");
    assert_int_equal(cJSON_GetArraySize(r.messages), 1);
    assert_int_equal(cJSON_GetArraySize(r.tools), 1);
    assert_null(r.input);
    count_request_clear(&r);
    assert_null(r.root);
}

static void given_a_method_when_parsed_then_only_texts_go_to_the_provider(void **state)
{
    struct count_request r;

    accept("{\"model\":\"m\",\"input\":\"x\",\"method\":\"provider\"}", &r);
    assert_true(r.by_provider);
    count_request_clear(&r);
    accept("{\"model\":\"m\",\"input\":\"x\",\"method\":\"local\"}", &r);
    assert_false(r.by_provider);
    count_request_clear(&r);
    refuse("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
           "\"method\":\"provider\"}",
           "method", "'method': providers count texts alone; send 'input', or leave it out.");
}

static void given_functions_when_parsed_then_they_are_the_tools(void **state)
{
    struct count_request r;

    accept("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"functions\":"
           "[{\"name\":\"f\"},{\"name\":\"g\"}]}",
           &r);
    assert_int_equal(cJSON_GetArraySize(r.tools), 2);
    count_request_clear(&r);
}

static void given_input_when_parsed_then_its_texts(void **state)
{
    struct count_request r;

    accept("{\"model\":\"m\",\"input\":\"\",\"messages\":null,\"stream\":7}", &r);
    assert_string_equal(r.model, "m");
    assert_string_equal(r.input->valuestring, "");
    assert_null(r.messages);
    assert_null(r.tools);
    count_request_clear(&r);
    accept(" {\"inp\\u0075t\":[\"a\",\"\\u0451\"],\"model\":\"m\"}\n", &r);
    assert_int_equal(cJSON_GetArraySize(r.input), 2);
    count_request_clear(&r);
}

static void given_duplicates_when_parsed_then_the_last_counts(void **state)
{
    struct count_request r;

    accept("{\"model\":\"m\",\"input\":\"a\",\"input\":\"b\"}", &r);
    assert_string_equal(r.input->valuestring, "b");
    count_request_clear(&r);
    accept("{\"model\":\"m\",\"input\":\"a\",\"input\":null,"
           "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
           &r);
    assert_null(r.input);
    assert_int_equal(cJSON_GetArraySize(r.messages), 1);
    count_request_clear(&r);
}

static void given_wrong_input_when_parsed_then_named(void **state)
{
    static const char expected[] = "'input': expected a string or a non-empty array of strings, ";
    static const struct {
        const char *value;
        const char *found;
    } wrong[] = {{"[]", "found an empty array."},
                 {"7", "found the number 7."},
                 {"{}", "found an object."},
                 {"true", "found true."}};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char text[128];
        char message[160];

        snprintf(text, sizeof(text), "{\"model\":\"m\",\"input\":%s}", wrong[i].value);
        snprintf(message, sizeof(message), "%s%s", expected, wrong[i].found);
        refuse(text, "input", message);
    }
    refuse("{\"model\":\"m\",\"input\":[\"a\",\"b\",3]}", "input[2]",
           "'input[2]': expected a string, found the number 3.");
    refuse("{\"model\":\"m\",\"input\":[[\"a\"]]}", "input[0]",
           "'input[0]': expected a string, found an array.");
}

static void given_both_or_neither_when_parsed_then_refused(void **state)
{
    refuse("{\"model\":\"m\",\"input\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
           "messages", "'messages': expected nothing next to 'input', found an array.");
    refuse("{\"model\":\"m\"}", "messages",
           "'messages': expected a non-empty array, or 'input' in its place, found nothing.");
    refuse("{\"model\":\"m\",\"messages\":null,\"input\":null}", "messages",
           "'messages': expected a non-empty array, or 'input' in its place, found nothing.");
}

static void given_no_model_when_parsed_then_its_name_is_empty(void **state)
{
    static const char *const texts[] = {"{\"input\":\"a\"}",
                                        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
                                        "{\"model\":null,\"input\":\"a\"}"};

    for (size_t i = 0; i < 3; i++) {
        struct count_request r;
        struct error e = {0};

        assert_int_equal(count_request_parse(texts[i], strlen(texts[i]), &r, &e), 0);
        assert_string_equal(r.model, "");
        count_request_clear(&r);
    }
    refuse("{\"model\":\"\",\"input\":\"a\"}", "model",
           "'model': expected a string of 1 to 95 bytes, found an empty string.");
}

/* Whatever a chat request is told, in the same words. */
static void given_wrong_bodies_when_parsed_then_as_a_chat_request(void **state)
{
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "7",
        "{\"input\":\"\\u0000\",\"model\":\"m\"}",
        "{\"input\":\"\xff\",\"model\":\"m\"}",
        "{\"model\":\"m\",\"messages\":[]}",
        "{\"model\":\"m\",\"messages\":\"x\"}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"wizard\",\"content\":\"x\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[1]}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct model_request chat;
        struct error e = {0};

        assert_int_equal(chat_request_parse(bodies[i], strlen(bodies[i]), &chat, &e), XR_EINVALID);
        refuse(bodies[i], e.param, e.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_messages_when_parsed_then_they_and_the_tools),
        cmocka_unit_test(given_functions_when_parsed_then_they_are_the_tools),
        cmocka_unit_test(given_a_method_when_parsed_then_only_texts_go_to_the_provider),
        cmocka_unit_test(given_input_when_parsed_then_its_texts),
        cmocka_unit_test(given_duplicates_when_parsed_then_the_last_counts),
        cmocka_unit_test(given_wrong_input_when_parsed_then_named),
        cmocka_unit_test(given_both_or_neither_when_parsed_then_refused),
        cmocka_unit_test(given_no_model_when_parsed_then_its_name_is_empty),
        cmocka_unit_test(given_wrong_bodies_when_parsed_then_as_a_chat_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
