#include <stdlib.h>
#include <string.h>

#include "common/config_parse.h"

#define GIGACHAT_AUTH_URL "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"

/* Where an API is found if the file does not say. */
struct known_api {
    const char *type;
    const char *flavor; /* NULL = the type has none */
    const char *base_url;
    const char *auth_url;
    bool needs_key; /* it serves nobody without one */
};
static const struct known_api known_apis[] = {
    /* Without its key the adapter refuses each request, and says so. */
    {"gigachat", NULL, "https://api.giga.chat", GIGACHAT_AUTH_URL, false},
    {"anthropic", NULL, "https://api.anthropic.com", "", true},
    {"openai", "openai", "https://api.openai.com/v1", "", true},
    {"openai", "deepseek", "https://api.deepseek.com/v1", "", true},
    {"openai", "mistral", "https://api.mistral.ai/v1", "", true},
    {"openai", "groq", "https://api.groq.com/openai/v1", "", true},
    {"openai", "vllm", "http://localhost:8000/v1", "", false},
    {"openai", "ollama", "http://localhost:11434/v1", "", false},
    {"openai", "llamacpp", "http://localhost:8080/v1", "", false},
    {"openai", "openrouter", "https://openrouter.ai/api/v1", "", true},
    {"openai", "gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "", true},
    {"openai", "yandex", "https://llm.api.cloud.yandex.net/v1", "", true},
};
#define KNOWN_APIS (sizeof(known_apis) / sizeof(known_apis[0]))

static const struct known_api *find_api(const struct provider_config *provider)
{
    for (size_t i = 0; i < KNOWN_APIS; i++) {
        const struct known_api *api = &known_apis[i];

        if (strcmp(api->type, provider->type) == 0 &&
            (api->flavor == NULL || strcmp(api->flavor, provider->flavor) == 0))
            return api;
    }
    return NULL;
}

static int fill(const struct config_parser *p, char **field, const char *text)
{
    char *copy;

    if ((*field)[0] != '\0' || text[0] == '\0')
        return 0;
    copy = strdup(text);
    if (copy == NULL)
        return config_fail_memory(p);
    free(*field);
    *field = copy;
    return 0;
}

static int complete(const struct config_parser *p, struct provider_config *provider,
                    const struct node *n)
{
    const struct known_api *api = find_api(provider);
    int rc;

    if (api == NULL)
        return config_fail(p, n, "the adapter's API address is not known"); /* a row is missing */
    if (provider->auth_url[0] != '\0' && api->auth_url[0] == '\0')
        return config_fail(p, node_member(n, "auth_url"),
                           "an API of type \"%s\" has no OAuth address", provider->type);
    rc = config_check_auth(p, provider, n);
    if (rc == 0)
        rc = fill(p, &provider->base_url, api->base_url);
    if (rc == 0 && strcmp(provider->auth, "oauth") != 0)
        rc = fill(p, &provider->auth_url, provider->base_url); /* no other host is asked */
    if (rc == 0)
        rc = fill(p, &provider->auth_url, api->auth_url);
    if (rc < 0 || !api->needs_key || provider->credentials[0] != '\0' ||
        p->source->context.secrets == SECRETS_SKIPPED)
        return rc;
    /* Elsewhere there may be a server of one's own, or a proxy that has the key. */
    if (strcmp(provider->base_url, api->base_url) != 0)
        return 0;
    return config_fail(p, n, "\"credentials\" is missing: %s needs an API key", api->base_url);
}

int config_complete_providers(const struct config_parser *p)
{
    const struct node *array = node_member(p->root, "providers");
    const struct node *n = array != NULL ? array->first : NULL;
    uint32_t accounts = 0;
    int rc = 0;

    for (size_t i = 0; rc == 0 && n != NULL && i < p->config->provider_count; i++, n = n->next) {
        rc = complete(p, &p->config->providers[i], n);
        if (rc == 0)
            rc = config_check_accounts(p, &p->config->providers[i], &accounts, n);
    }
    return rc;
}

void config_describe_providers(struct buf *out)
{
    buf_str(out, "\nWhere `base_url` is empty:\n\n"
                 "| type | flavor | base_url | credentials |\n"
                 "| --- | --- | --- | --- |\n");
    for (size_t i = 0; i < KNOWN_APIS; i++)
        buf_printf(out, "| `%s` | %s | `%s` | %s |\n", known_apis[i].type,
                   known_apis[i].flavor != NULL ? known_apis[i].flavor : "", known_apis[i].base_url,
                   known_apis[i].needs_key ? "required" : "");
}
