#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "usage/bpe.h"
#include "usage/calibration.h"
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

/* messages and tools (NULL = none) as text. */
static struct token_estimate estimate(const struct model_config *model, const char *messages,
                                      const char *tools)
{
    cJSON *m = parse(messages, strlen(messages));
    cJSON *t = tools == NULL ? NULL : parse(tools, strlen(tools));
    struct prompt_tokens *p;
    struct token_estimate e;

    assert_int_equal(prompt_tokens_new(model, m, t, &p), 0);
    count_slices(p, 1000);
    e = result_of(p, RATIO);
    prompt_tokens_free(p);
    cJSON_Delete(m);
    cJSON_Delete(t);
    return e;
}

static struct token_estimate estimate_text(const struct model_config *model, const char *input,
                                           int64_t *characters)
{
    cJSON *tree = parse(input, strlen(input));
    struct prompt_tokens *p;
    struct token_estimate e;

    assert_int_equal(prompt_tokens_new_text(model, tree, &p), 0);
    count_slices(p, 1000);
    e = result_of(p, RATIO);
    *characters = prompt_tokens_characters(p);
    prompt_tokens_free(p);
    cJSON_Delete(tree);
    return e;
}

#define HELLO "[{\"role\":\"user\",\"content\":\"Hello world\"}]" /* 3 + 1 + 2, and 3 */
#define TOOL "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"
#define IMAGE(detail)                                                                          \
    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hello world\"},"           \
    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://example.org/a.png\",\"detail\":" \
    "\"" detail "\"}}]}]"

static void given_a_vocabulary_when_counted_then_exact(void **state)
{
    struct token_estimate e = estimate(&o200k, HELLO, NULL);

    assert_int_equal(e.method, TOKENS_EXACT);
    assert_string_equal(TOKEN_METHOD_NAMES[e.method], "exact");
    assert_int_equal(e.tokens, 9);
    assert_int_equal(e.at_most, 9);
    assert_int_equal(e.at_least, 9);
    assert_int_equal(e.counted, 0);
    assert_int_equal(estimate(&cl100k, HELLO, NULL).tokens, 9);
    assert_int_equal(estimate(&o200k, HELLO, TOOL).tokens, 9 + 12 + 7 + 2);
    assert_int_equal(estimate(&cl100k, HELLO, TOOL).tokens, 9 + 12 + 10 + 2);
}

static void given_calibrated_when_counted_then_times_the_ratio_with_a_margin(void **state)
{
    struct token_estimate e = estimate(&calibrated, HELLO, NULL);

    assert_int_equal(e.method, TOKENS_CALIBRATED);
    assert_string_equal(TOKEN_METHOD_NAMES[e.method], "calibrated");
    assert_int_equal(e.tokens, 12);  /* 9 * 1.25 = 11.25 */
    assert_int_equal(e.at_most, 15); /* a quarter more */
    assert_int_equal(e.at_least, 9); /* a fifth less, 9.6 */
    assert_int_equal(e.counted, 9);
}

static void given_chars3_when_counted_then_a_third_of_each_messages_content(void **state)
{
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"\xd0\xb4\xd0\xb0\"},"           /* 2: 1 */
        "{\"role\":\"user\",\"name\":\"somebody\",\"content\":\"abcdefg\"}," /* 7: 3 */
        "{\"role\":\"assistant\",\"content\":null},{\"role\":\"user\",\"content\":\"\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"ab\"}," /* 4: 2 */
        "{\"type\":\"text\",\"text\":\"cd\"}]}]";
    struct token_estimate e = estimate(&chars3, messages, TOOL);

    assert_int_equal(e.method, TOKENS_EXACT);
    assert_int_equal(e.tokens, 1 + 3 + 2);
    assert_int_equal(e.at_most, 6);
    assert_int_equal(e.at_least, 6);
    assert_int_equal(e.counted, 0);
}

static void given_nothing_when_counted_then_the_answers_three_or_none(void **state)
{
    struct prompt_tokens *p;

    for (size_t i = 0; i < MODEL_COUNT; i++) {
        assert_int_equal(prompt_tokens_new(models[i], NULL, NULL, &p), 0);
        assert_int_equal(prompt_tokens_step(p, 1), 0);
        assert_int_equal(result_of(p, CALIBRATION_ONE).tokens, models[i] == &chars3 ? 0 : 3);
        assert_int_equal(prompt_tokens_characters(p), 0);
        prompt_tokens_free(p);
        assert_int_equal(prompt_tokens_new_text(models[i], NULL, &p), 0);
        assert_int_equal(prompt_tokens_step(p, 1), 0);
        assert_int_equal(result_of(p, CALIBRATION_ONE).tokens, 0);
        prompt_tokens_free(p);
    }
    prompt_tokens_free(NULL);
}

static void given_an_image_when_counted_then_inexact_unless_its_cost_is_known(void **state)
{
    struct token_estimate low = estimate(&o200k, IMAGE("low"), NULL);
    struct token_estimate high = estimate(&o200k, IMAGE("high"), NULL);
    struct token_estimate other = estimate(&chars3, IMAGE("low"), NULL);

    assert_int_equal(low.method, TOKENS_EXACT);
    assert_int_equal(low.tokens, 9 + 85);
    assert_int_equal(high.method, TOKENS_CALIBRATED);
    assert_int_equal(high.tokens, 9 + 85 + 8 * 170);
    assert_int_equal(high.at_most, (high.tokens * 5 + 3) / 4);
    assert_int_equal(high.at_least, 7); /* 9 less a fifth, and no image */
    assert_int_equal(other.method, TOKENS_CALIBRATED);
    assert_int_equal(other.tokens, 4 + 85);
    assert_int_equal(other.at_least, 3);
}

static void given_what_is_unknown_when_counted_then_inexact(void **state)
{
    static const char audio[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]";
    static const char custom_call[] =
        "[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\",\"custom\":{}}]}]";

    assert_int_equal(estimate(&o200k, audio, NULL).method, TOKENS_CALIBRATED);
    assert_int_equal(estimate(&chars3, audio, NULL).method, TOKENS_CALIBRATED);
    assert_int_equal(estimate(&o200k, custom_call, NULL).method, TOKENS_CALIBRATED);
    assert_int_equal(estimate(&o200k, HELLO, "[{\"type\":\"custom\"}]").method, TOKENS_CALIBRATED);
    assert_int_equal(estimate(&o200k, "[1]", NULL).tokens, 3);
}

static void given_more_than_text_when_calibrated_then_it_teaches_nothing(void **state)
{
    static const char call[] = "[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\","
                               "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]";
    static const char audio[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]";

    assert_true(estimate(&calibrated, HELLO, "[]").counted > 0);
    assert_int_equal(estimate(&calibrated, HELLO, TOOL).counted, 0);
    assert_int_equal(estimate(&calibrated, IMAGE("low"), NULL).counted, 0);
    assert_int_equal(estimate(&calibrated, call, NULL).counted, 0);
    assert_int_equal(estimate(&calibrated, audio, NULL).counted, 0);
}

static void given_texts_when_counted_then_one_by_one(void **state)
{
    int64_t characters;
    struct token_estimate e = estimate_text(&o200k, "\"Hello world\"", &characters);

    assert_int_equal(e.method, TOKENS_EXACT);
    assert_int_equal(e.tokens, 2);
    assert_int_equal(characters, 11);
    e = estimate_text(&o200k, "[\"Hello world\",\"Hello\",\"\",7,\" world\"]", &characters);
    assert_int_equal(e.tokens, 4);
    assert_int_equal(characters, 22);
    e = estimate_text(&chars3, "[\"a\",\"bc\",\"\xd0\xb4\xd0\xb0, \xd0\xb4\"]", &characters);
    assert_int_equal(e.method, TOKENS_EXACT);
    assert_int_equal(e.tokens, 1 + 1 + 2);
    assert_int_equal(characters, 1 + 2 + 5);
    e = estimate_text(&calibrated, "\"Hello world\"", &characters);
    assert_int_equal(e.tokens, 3);
    assert_int_equal(e.counted, 2);
    assert_int_equal(estimate_text(&o200k, "{\"a\":\"b\"}", &characters).tokens, 0);
}

static void given_a_chat_when_counted_then_characters_are_those_of_contents(void **state)
{
    static const char messages[] =
        "[{\"role\":\"user\",\"name\":\"somebody\",\"content\":\"\xd0\xb4\xd0\xb0\"},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"abc\"},"
        "{\"type\":\"refusal\",\"refusal\":\"no\"}],\"tool_calls\":[{\"function\":{\"name\":"
        "\"f\",\"arguments\":\"{}\"}}]}]";
    cJSON *m = parse(messages, strlen(messages));
    cJSON *t = parse(TOOL, strlen(TOOL));

    for (size_t i = 0; i < MODEL_COUNT; i++) {
        struct prompt_tokens *p;

        assert_int_equal(prompt_tokens_new(models[i], m, t, &p), 0);
        count_slices(p, 1);
        assert_int_equal(prompt_tokens_characters(p), 2 + 3 + 2);
        prompt_tokens_free(p);
    }
    cJSON_Delete(m);
    cJSON_Delete(t);
}

static void given_what_is_no_utf8_when_counted_then_refused_but_for_chars3(void **state)
{
    cJSON *text = cJSON_CreateString("ok \xff");
    struct prompt_tokens *p;

    assert_non_null(text);
    assert_int_equal(prompt_tokens_new_text(&o200k, text, &p), 0);
    assert_int_equal(prompt_tokens_step(p, 100), -EILSEQ);
    prompt_tokens_free(p);
    assert_int_equal(prompt_tokens_new_text(&chars3, text, &p), 0);
    assert_int_equal(prompt_tokens_step(p, 100), 0);
    prompt_tokens_free(p);
    cJSON_Delete(text);
}

static void given_a_long_text_when_counted_then_no_slice_is_longer_than_its_budget(void **state)
{
    const size_t len = 1000000, budget = 16384;
    char *bytes = malloc(len + 1);
    struct prompt_tokens *p;
    cJSON *text;
    size_t whole;

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = "one two three "[i % 14];
    bytes[len] = '\0';
    text = cJSON_CreateString(bytes);
    assert_non_null(text);
    assert_int_equal(prompt_tokens_new_text(&o200k, text, &p), 0);
    assert_true(count_slices(p, budget) >= len / budget);
    assert_int_equal(bpe_count(BPE_O200K, bytes, len, &whole), 0);
    assert_int_equal(result_of(p, 1).tokens, whole);
    assert_int_equal(prompt_tokens_characters(p), len);
    prompt_tokens_free(p);
    assert_int_equal(prompt_tokens_new_text(&chars3, text, &p), 0);
    assert_true(count_slices(p, budget) > 1); /* longer ones, for they cost little */
    assert_int_equal(result_of(p, 1).tokens, (len + 2) / 3);
    prompt_tokens_free(p);
    cJSON_Delete(text);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_vocabulary_when_counted_then_exact),
        cmocka_unit_test(given_calibrated_when_counted_then_times_the_ratio_with_a_margin),
        cmocka_unit_test(given_chars3_when_counted_then_a_third_of_each_messages_content),
        cmocka_unit_test(given_nothing_when_counted_then_the_answers_three_or_none),
        cmocka_unit_test(given_an_image_when_counted_then_inexact_unless_its_cost_is_known),
        cmocka_unit_test(given_what_is_unknown_when_counted_then_inexact),
        cmocka_unit_test(given_more_than_text_when_calibrated_then_it_teaches_nothing),
        cmocka_unit_test(given_texts_when_counted_then_one_by_one),
        cmocka_unit_test(given_a_chat_when_counted_then_characters_are_those_of_contents),
        cmocka_unit_test(given_what_is_no_utf8_when_counted_then_refused_but_for_chars3),
        cmocka_unit_test(given_a_long_text_when_counted_then_no_slice_is_longer_than_its_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
