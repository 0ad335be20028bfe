#include "providers/gigachat.h"

#include <string.h>

/* What gigachat_encode_body() carries over or, as with stop, plays itself. */
static const char *const supported[] = {
    "temperature",   "top_p",           "max_tokens",       "max_completion_tokens",
    "stop",          "tools",           "tool_choice",      "functions",
    "function_call", "response_format", "reasoning_effort",
};

bool gigachat_supports(const struct provider_config *p, const char *parameter)
{
    for (size_t i = 0; i < sizeof(supported) / sizeof(supported[0]); i++)
        if (strcmp(supported[i], parameter) == 0)
            return true;
    return false;
}
