#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "providers/parameters.h"

static char gigachat_type[] = "gigachat", openai_type[] = "openai", no_type[] = "none";
static char groq[] = "groq";

static const struct provider_config gigachat = {.type = gigachat_type};
static const struct provider_config compatible = {.type = openai_type, .flavor = groq};
static const struct provider_config unknown = {.type = no_type};
static const struct candidate_config everything = {
    .tools = true, .images = true, .json_schema = true};

static void given_an_adapter_when_asked_then_its_own_word(void **state)
{
    assert_true(parameter_is_supported(&gigachat, "temperature"));
    assert_true(parameter_is_supported(&gigachat, "reasoning_effort"));
    assert_false(parameter_is_supported(&gigachat, "seed"));
    assert_true(parameter_is_supported(&compatible, "seed"));
    assert_false(parameter_is_supported(&compatible, "logprobs"));
}

static void given_no_adapter_when_asked_then_nothing_is_supported(void **state)
{
    for (size_t i = 0; PARAMETERS[i] != NULL; i++)
        assert_false(candidate_supports(&unknown, &everything, PARAMETERS[i]));
    assert_false(candidate_takes_images(&unknown, &everything));
}

static void given_a_candidate_without_tools_when_asked_then_none_of_their_fields(void **state)
{
    static const char *const fields[] = {"tools", "tool_choice", "parallel_tool_calls", "functions",
                                         "function_call"};
    const struct candidate_config plain = {.json_schema = true};

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        assert_true(candidate_supports(&compatible, &everything, fields[i]));
        assert_false(candidate_supports(&compatible, &plain, fields[i]));
    }
    assert_true(candidate_supports(&compatible, &plain, "temperature"));
}

static void given_a_candidate_without_schemas_when_asked_then_other_formats_stay(void **state)
{
    const struct candidate_config plain = {.tools = true};

    assert_true(candidate_supports(&compatible, &everything, "structured_outputs"));
    assert_false(candidate_supports(&compatible, &plain, "structured_outputs"));
    assert_true(candidate_supports(&compatible, &plain, "response_format"));
}

static void given_a_candidate_without_images_when_asked_then_not_taken(void **state)
{
    const struct candidate_config plain = {.tools = true};

    assert_true(candidate_takes_images(&compatible, &everything));
    assert_false(candidate_takes_images(&compatible, &plain));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_an_adapter_when_asked_then_its_own_word),
        cmocka_unit_test(given_no_adapter_when_asked_then_nothing_is_supported),
        cmocka_unit_test(given_a_candidate_without_tools_when_asked_then_none_of_their_fields),
        cmocka_unit_test(given_a_candidate_without_schemas_when_asked_then_other_formats_stay),
        cmocka_unit_test(given_a_candidate_without_images_when_asked_then_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
