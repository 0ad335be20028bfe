#include "providers/anthropic.h"

#include <string.h>

/* The first row whose part is in the name counts. Names not listed are taken for newer models with
 * everything, except that only claude-... has what Anthropic alone has: other servers that speak
 * its dialect pass over what they do not know. */
static const struct anthropic_model models[] = {
    {"claude-2", false, true, ""},
    {"claude-instant", false, true, ""},
    {"claude-3", false, true, ""},
    {"opus-4-0", false, true, ""},
    {"opus-4-1", false, true, ""},
    {"opus-4-2025", false, true, ""},
    {"sonnet-4-0", false, true, ""},
    {"sonnet-4-2025", false, true, ""},
    {"haiku-4-5", true, true, ""},
    {"sonnet-4-5", true, true, ""},
    {"opus-4-5", true, true, "low medium high"},
    {"opus-4-6", true, true, "low medium high max"},
    {"sonnet-4-6", true, true, "low medium high max"},
    {"opus-4-", true, false, "low medium high xhigh max"},
    {"opus-5", true, false, "low medium high xhigh max"},
    {"sonnet-5", true, false, "low medium high xhigh max"},
    {"haiku-5", true, false, "low medium high xhigh max"},
    {"fable-", true, false, "low medium high xhigh max"},
    {"mythos-", true, false, "low medium high xhigh max"},
    {"claude", true, true, "low medium high xhigh max"},
    {"", false, true, ""},
};

const struct anthropic_model *anthropic_model_find(const char *name)
{
    const struct anthropic_model *m = models;

    while (strstr(name, m->part) == NULL) /* "" is in every name */
        m++;
    return m;
}

static bool has_word(const char *words, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = words; (at = strstr(at, word)) != NULL; at += len)
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

const char *anthropic_model_effort(const struct anthropic_model *model, const char *effort)
{
    if (model->efforts[0] == '\0')
        return NULL;
    if (strcmp(effort, "minimal") == 0)
        return "low";
    return has_word(model->efforts, effort) ? effort : "high"; /* those that may lack are above */
}
