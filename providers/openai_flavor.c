#include "providers/openai_flavor.h"

#include <stddef.h>
#include <string.h>

static const struct openai_flavor flavors[] = {
    {.name = "openai"},
    {
        .name = "deepseek",
        .max_tokens = "max_tokens", /* the newer name is unknown there: no limit at all */
        .no_developer = true,
    },
    {
        .name = "mistral",
        .stream_usage = STREAM_USAGE_NEVER_ASK,
        .reasoning = REASONING_LIST,
        .fields_all = "model|messages|stream|temperature|top_p|max_tokens|stop|random_seed|"
                      "response_format|tools|tool_choice|parallel_tool_calls|presence_penalty|"
                      "frequency_penalty|n|prediction|prompt_mode|reasoning_effort|safe_prompt",
        .message_all = "role|content|tool_calls|tool_call_id|prefix",
        .max_tokens = "max_tokens",
        .seed = "random_seed",
        .required = "any",
        .alnum9 = true,
        .no_developer = true,
    },
    {
        .name = "groq",
        .reasoning = REASONING_SHORT,
        .fields_without = "logprobs|top_logprobs|logit_bias|n",
        .message_without = "name|reasoning_content",
    },
    {.name = "vllm", .reasoning = REASONING_SHORT},
    {.name = "ollama", .reasoning = REASONING_SHORT, .max_tokens = "max_tokens"},
    {.name = "llamacpp"},
    {
        .name = "openrouter",
        .stream_usage = STREAM_USAGE_ALWAYS,
        .reasoning = REASONING_SHORT,
        .routes = true,
    },
    {.name = "gemini"},
    {.name = "yandex", .yandex_auth = true},
};

const struct openai_flavor *openai_flavor_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(flavors) / sizeof(flavors[0]); i++)
        if (strcmp(flavors[i].name, name) == 0)
            return &flavors[i];
    return &flavors[0];
}

bool openai_names_have(const char *names, const char *name)
{
    size_t len = strlen(name);

    while (names != NULL && *names != '\0') {
        size_t n = strcspn(names, "|");

        if (n == len && memcmp(names, name, n) == 0)
            return true;
        names += n;
        names += *names == '|';
    }
    return false;
}
