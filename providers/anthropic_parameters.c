#include "providers/anthropic.h"

#include <string.h>

/* What becomes of a field of OpenAI's request. */
struct parameter {
    const char *name;
    enum fate { CARRIED, DROPPED, REFUSED } fate;
    bool off_is_absent; /* 0 and false change nothing, so nothing is lost */
    const char *why;    /* it is refused */
};
/* clang-format off */
static const struct parameter parameters[] = {
    {"temperature",            CARRIED, false, NULL},
    {"top_p",                  CARRIED, false, NULL},
    {"max_tokens",             CARRIED, false, NULL},
    {"max_completion_tokens",  CARRIED, false, NULL},
    {"stop",                   CARRIED, false, NULL},
    {"tools",                  CARRIED, false, NULL},
    {"tool_choice",            CARRIED, false, NULL},
    {"parallel_tool_calls",    CARRIED, false, NULL},
    {"functions",              CARRIED, false, NULL},
    {"function_call",          CARRIED, false, NULL},
    {"response_format",        CARRIED, false, NULL},
    {"reasoning_effort",       CARRIED, false, NULL},
    {"user",                   CARRIED, false, NULL},
    {"n",                      REFUSED, true,  "it gives one answer"},
    {"logprobs",               REFUSED, true,  "it gives no probabilities"},
    {"top_logprobs",           REFUSED, true,  "it gives no probabilities"},
    {"audio",                  REFUSED, true,  "it answers in text"},
    {"modalities",             REFUSED, true,  "it answers in text"},
    {"web_search_options",     REFUSED, true,  "it does not search"},
    {"seed",                   DROPPED, false, NULL},
    {"presence_penalty",       DROPPED, true,  NULL},
    {"frequency_penalty",      DROPPED, true,  NULL},
    {"logit_bias",             DROPPED, true,  NULL},
    {"metadata",               DROPPED, true,  NULL},
    {"store",                  DROPPED, true,  NULL},
    {"service_tier",           DROPPED, false, NULL},
    {"prediction",             DROPPED, false, NULL},
    {"prompt_cache_key",       DROPPED, false, NULL},
    {"prompt_cache_retention", DROPPED, false, NULL},
    {"safety_identifier",      DROPPED, false, NULL},
    {"verbosity",              DROPPED, false, NULL},
};
/* clang-format on */
#define PARAMETER_COUNT (sizeof(parameters) / sizeof(parameters[0]))

bool anthropic_supports(const struct provider_config *p, const char *parameter)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++)
        if (strcmp(parameters[i].name, parameter) == 0)
            return parameters[i].fate == CARRIED;
    return false;
}

static bool is_off(const struct parameter *p, const cJSON *item)
{
    if (item == NULL || cJSON_IsNull(item))
        return true;
    if (cJSON_IsArray(item) || (p->fate == DROPPED && cJSON_IsObject(item)))
        return item->child == NULL;
    if (cJSON_IsString(item))
        return item->valuestring[0] == '\0';
    if (!p->off_is_absent)
        return false;
    return cJSON_IsFalse(item) ||
           (cJSON_IsNumber(item) && !(item->valuedouble < 0 || item->valuedouble > 0));
}

/* Two fields are harmless with a value. */
static bool is_harmless(const char *name, const cJSON *item)
{
    const cJSON *mode;

    if (strcmp(name, "n") == 0)
        return item->valuedouble <= 1;
    if (strcmp(name, "modalities") != 0)
        return false;
    cJSON_ArrayForEach(mode, item)
    {
        if (strcmp(mode->valuestring, "text") != 0)
            return false;
    }
    return true;
}

int anthropic_unsupported(struct error *e, const char *param, const char *why)
{
    return error_set(e, XR_EUNSUPPORTED, param,
                     "'%s' is not supported by the model's provider: %s.", param, why);
}

int anthropic_refuse_parameters(const cJSON *root, struct error *e)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        const struct parameter *p = &parameters[i];
        const cJSON *item = json_get(root, p->name);

        if (p->fate == REFUSED && !is_off(p, item) && !is_harmless(p->name, item))
            return anthropic_unsupported(e, p->name, p->why);
    }
    return 0;
}

void anthropic_note_ignored(struct buf *ignored, const char *name)
{
    if (ignored->len > 0)
        buf_str(ignored, ", ");
    buf_str(ignored, name);
}

void anthropic_note_dropped(const cJSON *root, struct buf *ignored)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        const struct parameter *p = &parameters[i];

        if (p->fate == DROPPED && !is_off(p, json_get(root, p->name)))
            anthropic_note_ignored(ignored, p->name);
    }
}
