/* openai_flavor.h - how the APIs that call themselves compatible with OpenAI's differ from it: a
 * row each, which the adapter's code asks instead of names. */
#ifndef XROUTER_PROVIDERS_OPENAI_FLAVOR_H
#define XROUTER_PROVIDERS_OPENAI_FLAVOR_H

#include <stdbool.h>

enum stream_usage {
    STREAM_USAGE_ASK,      /* comes only if stream_options.include_usage asks */
    STREAM_USAGE_ALWAYS,   /* comes unasked */
    STREAM_USAGE_NEVER_ASK /* comes unasked, and stream_options is refused */
};

enum reasoning_field {
    REASONING_CONTENT, /* "reasoning_content", or none at all */
    REASONING_SHORT,   /* "reasoning" */
    REASONING_LIST     /* content is a list with parts of type "thinking" */
};

struct openai_flavor {
    const char *name;
    enum stream_usage stream_usage;
    enum reasoning_field reasoning;
    /* Names joined by |; all = every other field is refused by the API, so it is left out. NULL =
     * no such list. */
    const char *fields_all, *fields_without;
    const char *message_all, *message_without; /* the same for each of messages[] */
    const char *max_tokens; /* what both of OpenAI's names become, NULL = neither changes */
    const char *seed;       /* what "seed" becomes, NULL = as it is */
    const char *required;   /* what tool_choice "required" becomes, NULL = as it is */
    bool alnum9;            /* ids of tool calls are nine letters and digits */
    bool no_developer;      /* the role "developer" is refused: it becomes "system" */
    bool routes;            /* OpenRouter's own "route" and "transforms" are known */
    bool yandex_auth;       /* Api-Key instead of Bearer, the folder in a header */
};

/* By the config's word; the first row, OpenAI itself, if there is none (NULL is fine). */
const struct openai_flavor *openai_flavor_find(const char *name);

/* Whether name is among names joined by |. */
bool openai_names_have(const char *names, const char *name);

#endif
