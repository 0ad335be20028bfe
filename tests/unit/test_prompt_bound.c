/* Requests of every shape: slices come to the count of the whole, and none passes its bound. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "usage/calibration.h"
#include "usage/chat_tokens.h"
#include "usage/prompt_tokens.h"

static char names[][12] = {"o200k_base", "cl100k_base", "calibrated", "chars3"};
static const struct model_config o200k = {.tokenizer = names[0]};
static const struct model_config cl100k = {.tokenizer = names[1]};
static const struct model_config calibrated = {.tokenizer = names[2]};
static const struct model_config chars3 = {.tokenizer = names[3]};
static const struct model_config *const models[] = {&o200k, &cl100k, &calibrated, &chars3};
#define MODEL_COUNT (sizeof(models) / sizeof(models[0]))

#define RATIO (CALIBRATION_ONE / 4 * 5)

static cJSON *parse(const char *text, size_t len)
{
    cJSON *tree = json_parse(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL);

    assert_non_null(tree);
    return tree;
}

static size_t count_slices(struct prompt_tokens *p, size_t budget)
{
    size_t slices = 1;

    while (prompt_tokens_step(p, budget) == 1)
        slices++;
    assert_int_equal(prompt_tokens_step(p, budget), 0);
    return slices;
}

static struct token_estimate result_of(struct prompt_tokens *p, uint32_t ratio)
{
    struct token_estimate e;

    prompt_tokens_result(p, ratio, &e);
    return e;
}

static uint32_t seed;

static uint32_t any(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void put_any(struct buf *out, const char *const *words, size_t count)
{
    buf_str(out, words[any((uint32_t)count)]);
}
#define PUT_ANY(out, words) put_any(out, words, sizeof(words) / sizeof(words[0]))

/* A string, escapes and all; much of it is a token a byte. */
static void put_random_string(struct buf *out)
{
    static const char *const atoms[] = {"hello",
                                        " world",
                                        "Привет",
                                        "1",
                                        "12345",
                                        "\\n",
                                        "\\\"",
                                        "\\\\",
                                        "\\/",
                                        "\\u0041",
                                        "\\t",
                                        "文",
                                        "😀",
                                        "ᚠ",
                                        "𐎀",
                                        "q",
                                        "\\u0001",
                                        "~",
                                        "\\ud83d\\ude00",
                                        "\xc2\x85",
                                        ":",
                                        "|",
                                        ".",
                                        " ",
                                        "'",
                                        "Z",
                                        "\\u0416",
                                        "}",
                                        "ﷺ",
                                        "\x7f"};

    buf_byte(out, '"');
    for (uint32_t i = any(3) == 0 ? 0 : any(12); i > 0; i--)
        PUT_ANY(out, atoms);
    buf_byte(out, '"');
}

static void put_field(struct buf *out, const char *name)
{
    if (out->len > 0 && out->data[out->len - 1] != '{')
        buf_byte(out, ',');
    buf_printf(out, "\"%s\":", name);
}

static void put_random_text_field(struct buf *out, const char *name)
{
    put_field(out, name);
    put_random_string(out);
}

static void put_random_value(struct buf *out, unsigned depth)
{
    static const char *const scalars[] = {"1",
                                          "0",
                                          "-1",
                                          "10",
                                          "999",
                                          "1e9",
                                          "-1e9",
                                          "1e14",
                                          "9e14",
                                          "-1e14",
                                          "1e5",
                                          "1e-4",
                                          "-1e-4",
                                          "1e-5",
                                          "1e99",
                                          "9e99",
                                          "-9e-9",
                                          "1E300",
                                          "0.1",
                                          "1.5e14",
                                          "null",
                                          "true",
                                          "false",
                                          "1e400",
                                          "\"\"",
                                          "[]",
                                          "{}",
                                          "12345678901234567890",
                                          "0.1234567890123456",
                                          "-1.234567890123456e-300"};
    uint32_t kind = any(8);

    if (kind == 0) {
        put_random_string(out);
    } else if (kind == 1 && depth < 3) {
        buf_byte(out, '[');
        for (uint32_t i = any(6); i > 0; i--) {
            put_random_value(out, depth + 1);
            if (i > 1)
                buf_byte(out, ',');
        }
        buf_byte(out, ']');
    } else if (kind == 2 && depth < 3) {
        buf_str(out, "{\"\":");
        put_random_value(out, depth + 1);
        buf_byte(out, '}');
    } else {
        PUT_ANY(out, scalars);
    }
}

static void put_random_enum(struct buf *out)
{
    uint32_t plain = any(2);

    put_field(out, "enum");
    buf_byte(out, '[');
    for (uint32_t i = any(4) == 0 ? any(60) : any(4); i > 0; i--) {
        if (plain == 0)
            buf_byte(out, (char)('0' + any(10)));
        else
            put_random_value(out, 0);
        if (i > 1)
            buf_byte(out, ',');
    }
    buf_byte(out, ']');
}

static void put_random_schema(struct buf *out, unsigned depth)
{
    static const char *const types[] = {"\"string\"",  "\"\"",    "[]",
                                        "[\"\",\"\"]", "[1,1,1]", "[\"string\",\"null\"]"};
    static const char *const inner[] = {"items", "not", "additionalProperties"};
    static const char *const lists[] = {"anyOf", "allOf", "oneOf", "items"};

    buf_byte(out, '{');
    if (any(2) == 0) {
        put_field(out, "type");
        PUT_ANY(out, types);
    }
    if (any(3) == 0)
        put_random_text_field(out, "description");
    if (any(3) == 0)
        put_random_enum(out);
    if (any(2) == 0 && depth < 3) {
        put_field(out, any(4) == 0 ? "$defs" : "properties");
        buf_byte(out, '{');
        for (uint32_t i = any(5); i > 0; i--) {
            put_random_string(out);
            buf_byte(out, ':');
            if (any(2) == 0)
                buf_byte(out, '0');
            else
                put_random_schema(out, depth + 1);
            if (i > 1)
                buf_byte(out, ',');
        }
        buf_byte(out, '}');
    }
    if (any(4) == 0 && depth < 3) {
        put_field(out, inner[any(3)]);
        put_random_schema(out, depth + 1);
    }
    if (any(4) == 0 && depth < 3) {
        put_field(out, lists[any(4)]);
        buf_byte(out, '[');
        put_random_schema(out, depth + 1);
        buf_byte(out, ']');
    }
    buf_byte(out, '}');
}

static void put_random_function(struct buf *out)
{
    buf_byte(out, '{');
    put_random_text_field(out, "name");
    if (any(2) == 0)
        put_random_text_field(out, "description");
    if (any(4) > 0) {
        put_field(out, "parameters");
        put_random_schema(out, 0);
    }
    buf_byte(out, '}');
}

static void put_random_tools(struct buf *out)
{
    buf_byte(out, '[');
    for (uint32_t i = any(4); i > 0; i--) {
        if (any(3) == 0) {
            buf_byte(out, '1');
        } else if (any(2) == 0) {
            buf_str(out, "{\"function\":");
            put_random_function(out);
            buf_byte(out, '}');
        } else {
            put_random_function(out);
        }
        if (i > 1)
            buf_byte(out, ',');
    }
    buf_byte(out, ']');
}

static void put_random_part(struct buf *out, size_t *images)
{
    static const char *const kinds[] = {"text", "refusal", "image_url", "input_audio"};
    const char *kind = kinds[any(4)];

    buf_printf(out, "{\"type\":\"%s\"", kind);
    if (strcmp(kind, "image_url") == 0) {
        buf_str(out, ",\"image_url\":{\"url\":\"x\"}");
        ++*images;
    } else {
        put_random_text_field(out, kind);
    }
    buf_byte(out, '}');
}

static void put_random_content(struct buf *out, size_t *images)
{
    uint32_t parts = any(4);

    put_field(out, "content");
    if (any(3) > 0) {
        put_random_string(out);
        return;
    }
    buf_byte(out, '[');
    for (; parts > 0; parts--) {
        put_random_part(out, images);
        if (parts > 1)
            buf_byte(out, ',');
    }
    buf_byte(out, ']');
}

static void put_random_message(struct buf *out, size_t *images)
{
    static const char *const texts[] = {"role", "name", "refusal", "tool_call_id"};

    if (any(10) == 0) {
        buf_byte(out, '1');
        return;
    }
    buf_byte(out, '{');
    if (any(4) > 0)
        put_random_content(out, images);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (any(4) == 0)
            put_random_text_field(out, texts[i]);
    if (any(6) == 0) {
        put_field(out, "function_call");
        put_random_function(out);
    }
    if (any(6) == 0) {
        put_field(out, "tool_calls");
        buf_str(out, "[{\"function\":{}},{\"function\":{");
        put_random_text_field(out, "arguments");
        buf_str(out, "}}]");
    }
    buf_byte(out, '}');
}

static void put_random_messages(struct buf *out, size_t *images)
{
    uint32_t count = any(5);

    *images = 0;
    buf_byte(out, '[');
    for (uint32_t i = count; i > 0; i--) {
        put_random_message(out, images);
        if (i > 1)
            buf_byte(out, ',');
    }
    buf_byte(out, ']');
}

/* What chars3 says, by its words. */
static int64_t chars3_of(const cJSON *messages)
{
    const cJSON *message, *part;
    int64_t sum = 0;

    cJSON_ArrayForEach(message, messages)
    {
        const cJSON *content = json_get(message, "content");
        int64_t code_points = 0;
        struct buf all;

        buf_init(&all, SIZE_MAX);
        if (cJSON_IsString(content))
            buf_str(&all, content->valuestring);
        else
            cJSON_ArrayForEach(part, content)
            {
                const char *text = json_string(part, json_string(part, "type"));

                if (text != NULL && strcmp(json_string(part, "type"), "input_audio") != 0)
                    buf_str(&all, text);
            }
        for (size_t i = 0; i < all.len; i++)
            code_points += ((unsigned char)all.data[i] & 0xc0) != 0x80;
        sum += (code_points + 2) / 3;
        buf_clear(&all);
    }
    return sum;
}

static int64_t expected_count(const struct model_config *model, const cJSON *messages,
                              const cJSON *tools, size_t images)
{
    size_t tokens;

    if (model == &chars3)
        return chars3_of(messages) + (int64_t)images * (85 + 8 * 170);
    assert_int_equal(chat_tokens_count(model == &cl100k ? &CHAT_TOKENS_CL100K : &CHAT_TOKENS_O200K,
                                       messages, tools, &tokens),
                     0);
    return (int64_t)tokens;
}

/* The texts of a request take care of themselves: that nothing around them is forgotten is tested
 * where the formulas are (test_chat_tokens.c). */
static void
given_any_chat_when_counted_in_slices_then_the_whole_count_within_the_bound(void **state)
{
    static const size_t budgets[] = {1, 2, 50, 1000, SIZE_MAX};

    seed = 1;
    for (int i = 0; i < 4000; i++) {
        const struct model_config *model = models[i % MODEL_COUNT];
        uint32_t ratio = CALIBRATION_MIN + any(3 * CALIBRATION_ONE);
        struct buf messages, tools;
        struct prompt_tokens *p;
        struct token_estimate e;
        cJSON *m, *t;
        int64_t expected;
        size_t images;

        buf_init(&messages, SIZE_MAX);
        buf_init(&tools, SIZE_MAX);
        put_random_messages(&messages, &images);
        put_random_tools(&tools);
        m = parse(messages.data, messages.len);
        t = parse(tools.data, tools.len);
        expected = expected_count(model, m, t, images);
        assert_int_equal(prompt_tokens_new(model, m, t, &p), 0);
        count_slices(p, budgets[any(5)]);
        e = result_of(p, ratio);
        assert_int_equal(e.tokens,
                         model == &calibrated ? calibration_apply(ratio, expected) : expected);
        assert_true(e.tokens >= 0 && e.at_least <= e.tokens && e.tokens <= e.at_most);
        assert_true(e.tokens <=
                    prompt_tokens_bound(model, ratio, messages.len + tools.len, images));
        prompt_tokens_free(p);
        cJSON_Delete(m);
        cJSON_Delete(t);
        buf_clear(&messages);
        buf_clear(&tools);
    }
}

static void given_any_value_of_an_enum_when_counted_then_within_the_bound(void **state)
{
    static const char head[] = "[{\"name\":\"\",\"parameters\":{\"properties\":{\"\":{\"enum\":[";

    seed = 2;
    for (int i = 0; i < 3000; i++) {
        struct buf value, tools;
        size_t len, tokens;
        cJSON *t;

        buf_init(&value, SIZE_MAX);
        buf_init(&tools, SIZE_MAX);
        put_random_value(&value, 0);
        buf_str(&tools, head);
        /* So many of it that what is around does not matter. */
        for (int k = 0; k < 100; k++) {
            buf_str(&tools, k == 0 ? "" : ",");
            buf_append(&tools, value.data, value.len);
        }
        len = tools.len;
        buf_str(&tools, "]}}}}]");
        t = parse(tools.data, tools.len);
        assert_int_equal(chat_tokens_count(&CHAT_TOKENS_CL100K, NULL, t, &tokens), 0);
        assert_true(tokens <= 2 * len);
        cJSON_Delete(t);
        buf_clear(&value);
        buf_clear(&tools);
    }
}

static int64_t count_texts(const struct model_config *model, const char *input, size_t len)
{
    cJSON *tree = parse(input, len);
    struct prompt_tokens *p;
    int64_t tokens;

    assert_int_equal(prompt_tokens_new_text(model, tree, &p), 0);
    count_slices(p, 1000);
    tokens = result_of(p, RATIO).tokens;
    prompt_tokens_free(p);
    cJSON_Delete(tree);
    return tokens;
}

static void given_any_texts_when_counted_then_within_the_bound(void **state)
{
    seed = 3;
    for (int i = 0; i < 1000; i++) {
        const struct model_config *model = models[i % MODEL_COUNT];
        struct buf input;

        buf_init(&input, SIZE_MAX);
        buf_byte(&input, '[');
        put_random_string(&input);
        for (uint32_t k = any(5); k > 0; k--) {
            buf_byte(&input, ',');
            put_random_string(&input);
        }
        buf_byte(&input, ']');
        assert_int_equal(input.err, 0);
        assert_true(count_texts(model, input.data, input.len) <=
                    prompt_tokens_bound(model, RATIO, input.len, 0));
        buf_clear(&input);
    }
}

static void given_sizes_when_bounded_then_by_the_rules(void **state)
{
    const int64_t image = 85 + 8 * 170;

    assert_int_equal(prompt_tokens_bound(&o200k, 1, 1000, 0), 2015);
    assert_int_equal(prompt_tokens_bound(&cl100k, 1, 1000, 2), 2015 + 2 * image);
    assert_int_equal(prompt_tokens_bound(&calibrated, RATIO, 1000, 0), 2519);
    assert_int_equal(prompt_tokens_bound(&chars3, 1, 1000, 1), 333 + image);
    assert_int_equal(prompt_tokens_bound(&o200k, 1, SIZE_MAX, 0), INT64_MAX);
    assert_int_equal(prompt_tokens_bound(&o200k, 1, SIZE_MAX / 2 - 7, 0), INT64_MAX);
    assert_int_equal(prompt_tokens_bound(&chars3, 1, 1, SIZE_MAX), INT64_MAX);
    assert_int_equal(prompt_tokens_bound(&calibrated, CALIBRATION_MAX, SIZE_MAX / 8, 0), INT64_MAX);
    assert_int_equal(prompt_tokens_guess(0), 0);
    assert_int_equal(prompt_tokens_guess(1), 1);
    assert_int_equal(prompt_tokens_guess(4), 1);
    assert_int_equal(prompt_tokens_guess(5), 2);
    assert_true(prompt_tokens_guess(SIZE_MAX) > 0);
}

static void given_digits_when_looked_up_then_three_are_a_token(void **state)
{
    for (int encoding = BPE_O200K; encoding <= BPE_CL100K; encoding++) {
        for (int n = 0; n < 1000; n++) {
            for (int width = 1; width <= 3; width++) {
                char digits[16];
                uint32_t id;

                snprintf(digits, sizeof(digits), "%0*d", width, n);
                assert_int_equal(bpe_token_lookup(encoding, digits, strlen(digits), &id), 0);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            given_any_chat_when_counted_in_slices_then_the_whole_count_within_the_bound),
        cmocka_unit_test(given_any_value_of_an_enum_when_counted_then_within_the_bound),
        cmocka_unit_test(given_any_texts_when_counted_then_within_the_bound),
        cmocka_unit_test(given_sizes_when_bounded_then_by_the_rules),
        cmocka_unit_test(given_digits_when_looked_up_then_three_are_a_token),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
