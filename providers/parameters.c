#include "providers/parameters.h"

#include <stddef.h>
#include <string.h>

#include "providers/provider.h"

const char *const PARAMETERS[] = {
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "structured_outputs",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "modalities",
    "audio",
    "web_search_options",
    NULL,
};

bool parameter_is_supported(const struct provider_config *p, const char *parameter)
{
    const struct provider_ops *ops = provider_ops_find(p->type);

    return ops != NULL && (ops->supports == NULL || ops->supports(p, parameter));
}

bool parameter_takes_images(const struct provider_config *p)
{
    const struct provider_ops *ops = provider_ops_find(p->type);

    return ops != NULL && ops->takes_images;
}

/* What a candidate's configuration may take away, and which field of the request it is. */
static const struct {
    const char *parameter;
    const char *field;
    size_t allowed; /* the option's place in struct candidate_config */
} OPTIONS[] = {
    {"structured_outputs", "response_format", offsetof(struct candidate_config, json_schema)},
    {"tools", "tools", offsetof(struct candidate_config, tools)},
    {"tool_choice", "tool_choice", offsetof(struct candidate_config, tools)},
    {"parallel_tool_calls", "parallel_tool_calls", offsetof(struct candidate_config, tools)},
    {"functions", "functions", offsetof(struct candidate_config, tools)},
    {"function_call", "function_call", offsetof(struct candidate_config, tools)},
};

bool candidate_supports(const struct provider_config *p, const struct candidate_config *candidate,
                        const char *parameter)
{
    for (size_t i = 0; i < sizeof(OPTIONS) / sizeof(OPTIONS[0]); i++)
        if (strcmp(OPTIONS[i].parameter, parameter) == 0)
            return *(const bool *)((const char *)candidate + OPTIONS[i].allowed) &&
                   parameter_is_supported(p, OPTIONS[i].field);
    return parameter_is_supported(p, parameter);
}

bool candidate_takes_images(const struct provider_config *p,
                            const struct candidate_config *candidate)
{
    return candidate->images && parameter_takes_images(p);
}
