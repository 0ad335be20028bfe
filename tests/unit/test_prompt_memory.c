/* A prompt's count begins with lists, for which memory can run out at any place. */
#include <stdint.h>
#include <stdlib.h>

static int allocations_left = INT32_MAX;

static void *calloc_or_fail(size_t count, size_t size)
{
    return allocations_left-- > 0 ? calloc(count, size) : NULL;
}

static void *realloc_or_fail(void *memory, size_t size)
{
    return allocations_left-- > 0 ? realloc(memory, size) : NULL;
}

static void *reallocarray_or_fail(void *memory, size_t count, size_t size)
{
    return allocations_left-- > 0 ? reallocarray(memory, count, size) : NULL;
}

/* The library's own are then not linked. Two statics have one name. */
#define calloc calloc_or_fail
#define realloc realloc_or_fail
#define reallocarray reallocarray_or_fail
#include "common/buf.c"
#include "usage/chat_tokens.c"
#include "usage/text_tokens.c"
#define new_empty new_empty_prompt
#include "usage/prompt_tokens.c"
#undef new_empty
#undef calloc
#undef realloc
#undef reallocarray

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char name[] = "o200k_base";
static const struct model_config model = {.tokenizer = name};

static cJSON *parse(const char *text, size_t len)
{
    cJSON *tree = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);

    assert_non_null(tree);
    return tree;
}

/* More texts than the first list holds. */
static cJSON *many_messages(void)
{
    struct buf text;
    cJSON *messages;

    buf_init(&text, SIZE_MAX);
    buf_byte(&text, '[');
    for (int i = 0; i < 2 * TEXTS_FIRST; i++)
        buf_str(&text, "{\"role\":\"user\",\"content\":\"x\"},");
    buf_str(&text, "{}]");
    assert_int_equal(text.err, 0);
    messages = parse(text.data, text.len);
    buf_clear(&text);
    return messages;
}

static void given_no_memory_at_any_place_when_a_chat_begins_then_refused(void **state)
{
    static const char text[] =
        "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{\"enum\":[1,[2]]}}}}]";
    cJSON *messages = many_messages();
    cJSON *tools = parse(text, sizeof(text) - 1);
    struct prompt_tokens *p;
    int places = 0;

    for (;; places++) {
        int rc;

        allocations_left = places;
        rc = prompt_tokens_new(&model, messages, tools, &p);
        allocations_left = INT32_MAX;
        if (rc == 0)
            break;
        assert_int_equal(rc, -ENOMEM);
        assert_null(p);
        prompt_tokens_free(p);
    }
    assert_true(places >= 6); /* two structs, a list that grows, a composed text */
    prompt_tokens_free(p);
    cJSON_Delete(messages);
    cJSON_Delete(tools);
}

static void given_no_memory_at_any_place_when_a_text_begins_then_refused(void **state)
{
    cJSON *input = parse("\"Hello\"", 7);
    struct prompt_tokens *p;

    for (int places = 0; places < 3; places++) {
        allocations_left = places;
        assert_int_equal(prompt_tokens_new_text(&model, input, &p), -ENOMEM);
        allocations_left = INT32_MAX;
        assert_null(p);
        prompt_tokens_free(p);
    }
    assert_int_equal(prompt_tokens_new_text(&model, input, &p), 0);
    prompt_tokens_free(p);
    cJSON_Delete(input);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_no_memory_at_any_place_when_a_chat_begins_then_refused),
        cmocka_unit_test(given_no_memory_at_any_place_when_a_text_begins_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
