#include "tests/sim/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/json.h"

#define FILE_BYTES_MAX (1024 * 1024)
#define CONTEXT_TOKENS_DEFAULT 131072

enum option_kind { OPTION_U32, OPTION_BOOL, OPTION_CHOICE };

struct option {
    const char *name;
    enum option_kind kind;
    size_t offset;
    uint32_t fallback;
    uint32_t min;
    uint32_t max;
    const char *words;
};

#define ROW_U32(field, fallback, low, high)                                               \
    {                                                                                     \
#field, OPTION_U32, offsetof(struct sim_config, field), fallback, low, high, NULL \
    }
#define ROW_BOOL(field, fallback, low, high)                                               \
    {                                                                                      \
#field, OPTION_BOOL, offsetof(struct sim_config, field), fallback, low, high, NULL \
    }
#define ROW_CHOICE(field, fallback, list, high)                                            \
    {                                                                                      \
#field, OPTION_CHOICE, offsetof(struct sim_config, field), fallback, 0, high, list \
    }
#define X(kind, name, fallback, min, max, help) ROW_##kind(name, fallback, min, max),
static const struct option options[] = {SIM_OPTIONS(X)};
#undef X

const char *const SIM_SCOPE_NAMES[SCOPE_COUNT] = {"GIGACHAT_API_PERS", "GIGACHAT_API_B2B",
                                                  "GIGACHAT_API_CORP"};
static const char *const model_type_names[] = {
    [MODEL_CHAT] = "chat",
    [MODEL_EMBEDDER] = "embedder",
    [MODEL_AICHECK] = "aicheck",
    [MODEL_FILTER] = "filter",
};

static const char builtin_config[] =
    "{\"listen\":\"127.0.0.1:0\","
    "\"clients\":[{\"id\":\"demo-client\",\"secret\":\"demo-secret\",\"scopes\":"
    "[\"GIGACHAT_API_PERS\",\"GIGACHAT_API_B2B\",\"GIGACHAT_API_CORP\"]}],"
    "\"api_keys\":[\"sk-sim\"],"
    "\"models\":[{\"id\":\"GigaChat\",\"dialect\":\"gigachat\"},"
    "{\"id\":\"GigaChat-2\",\"dialect\":\"gigachat\"},"
    "{\"id\":\"GigaChat-2-Pro\",\"dialect\":\"gigachat\"},"
    "{\"id\":\"GigaChat-2-Max\",\"dialect\":\"gigachat\"},"
    "{\"id\":\"Embeddings\",\"dialect\":\"gigachat\",\"type\":\"embedder\",\"context\":512},"
    "{\"id\":\"gpt-sim\",\"dialect\":\"openai\"},"
    "{\"id\":\"claude-sim\",\"dialect\":\"anthropic\"}]}";

__attribute__((format(printf, 2, 3))) static int refuse(char why[SIM_CONFIG_WHY_BYTES],
                                                        const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, SIM_CONFIG_WHY_BYTES, format, args);
    va_end(args);
    return -EINVAL;
}

static uint32_t *option_field(struct sim_config *config, const struct option *option)
{
    return (uint32_t *)((char *)config + option->offset);
}

/* The index of the word in a list like "ms|s", or -1. */
static int choice_index(const char *words, const char *word)
{
    size_t len = strlen(word);
    int index = 0;

    for (const char *p = words;; p++, index++) {
        size_t n = strcspn(p, "|");

        if (n == len && memcmp(p, word, len) == 0)
            return index;
        p += n;
        if (*p == '\0')
            return -1;
    }
}

static int read_u32(const cJSON *item, const char *name, uint32_t min, uint32_t max, uint32_t *out,
                    char why[SIM_CONFIG_WHY_BYTES])
{
    int64_t value;

    if (!json_is_integer(item, &value) || value < (int64_t)min || value > (int64_t)max)
        return refuse(why, "%s: a whole number from %u to %u is needed", name, min, max);
    *out = (uint32_t)value;
    return 0;
}

static int read_text(const cJSON *item, const char *name, char **out,
                     char why[SIM_CONFIG_WHY_BYTES])
{
    char *copy;

    if (!cJSON_IsString(item) || item->valuestring[0] == '\0')
        return refuse(why, "%s: a text is needed", name);
    copy = strdup(item->valuestring);
    if (copy == NULL)
        return -ENOMEM;
    free(*out);
    *out = copy;
    return 0;
}

static int read_option(struct sim_config *config, const struct option *option, const cJSON *item,
                       char why[SIM_CONFIG_WHY_BYTES])
{
    uint32_t *field = option_field(config, option);
    char number[16];
    const char *word;
    int index;

    switch (option->kind) {
    case OPTION_U32:
        return read_u32(item, option->name, option->min, option->max, field, why);
    case OPTION_BOOL:
        if (!cJSON_IsBool(item))
            return refuse(why, "%s: true or false is needed", option->name);
        *field = cJSON_IsTrue(item) ? 1 : 0;
        return 0;
    case OPTION_CHOICE:
        if (cJSON_IsNumber(item))
            snprintf(number, sizeof(number), "%d", item->valueint);
        word = cJSON_IsNumber(item) ? number : cJSON_IsString(item) ? item->valuestring : "";
        index = choice_index(option->words, word);
        if (index < 0)
            return refuse(why, "%s: one of %s is needed", option->name, option->words);
        *field = (uint32_t)index;
        return 0;
    }
    return -EINVAL;
}

static int read_scopes(const cJSON *list, unsigned *scopes, char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;

    *scopes = 0;
    if (!cJSON_IsArray(list))
        return refuse(why, "clients[].scopes: an array is needed");
    cJSON_ArrayForEach(item, list)
    {
        unsigned bit = 0;

        for (unsigned i = 0; i < SCOPE_COUNT; i++) {
            if (cJSON_IsString(item) && strcmp(item->valuestring, SIM_SCOPE_NAMES[i]) == 0)
                bit = 1U << i;
        }
        if (bit == 0)
            return refuse(why, "clients[].scopes: unknown scope");
        *scopes |= bit;
    }
    return 0;
}

static int read_balance(const cJSON *object, struct sim_client *client,
                        char why[SIM_CONFIG_WHY_BYTES])
{
    size_t count = (size_t)cJSON_GetArraySize(object);
    const cJSON *item;

    if (!cJSON_IsObject(object))
        return refuse(why, "clients[].balance: an object of model: tokens is needed");
    if (client->balances != NULL)
        return refuse(why, "clients[].balance: given twice");
    client->balances = calloc(count + 1, sizeof(*client->balances));
    if (client->balances == NULL)
        return -ENOMEM;
    cJSON_ArrayForEach(item, object)
    {
        struct sim_balance *balance = &client->balances[client->balance_count];

        if (!json_is_integer(item, &balance->tokens))
            return refuse(why, "clients[].balance.%s: a whole number is needed", item->string);
        balance->model = strdup(item->string);
        if (balance->model == NULL)
            return -ENOMEM;
        client->balance_count++;
    }
    return 0;
}

static int read_client(const cJSON *object, struct sim_client *client,
                       char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;
    int rc = 0;

    if (!cJSON_IsObject(object))
        return refuse(why, "clients[]: an object is needed");
    client->scopes = SCOPE_PERS;
    cJSON_ArrayForEach(item, object)
    {
        if (strcmp(item->string, "id") == 0)
            rc = read_text(item, "clients[].id", &client->id, why);
        else if (strcmp(item->string, "secret") == 0)
            rc = read_text(item, "clients[].secret", &client->secret, why);
        else if (strcmp(item->string, "scopes") == 0)
            rc = read_scopes(item, &client->scopes, why);
        else if (strcmp(item->string, "max_concurrent") == 0)
            rc = read_u32(item, "clients[].max_concurrent", 0, 1000000, &client->max_concurrent,
                          why);
        else if (strcmp(item->string, "balance") == 0)
            rc = read_balance(item, client, why);
        else
            rc = refuse(why, "clients[].%s: unknown key", item->string);
        if (rc < 0)
            return rc;
    }
    if (client->id == NULL || client->secret == NULL)
        return refuse(why, "clients[]: id and secret are needed");
    return 0;
}

static int read_api_key(const cJSON *entry, struct sim_client *client,
                        char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;
    int rc = 0;

    if (!cJSON_IsObject(entry))
        return read_text(entry, "api_keys[]", &client->id, why);
    cJSON_ArrayForEach(item, entry)
    {
        if (strcmp(item->string, "key") == 0)
            rc = read_text(item, "api_keys[].key", &client->id, why);
        else if (strcmp(item->string, "max_concurrent") == 0)
            rc = read_u32(item, "api_keys[].max_concurrent", 0, 1000000, &client->max_concurrent,
                          why);
        else if (strcmp(item->string, "balance") == 0)
            rc = read_balance(item, client, why);
        else
            rc = refuse(why, "api_keys[].%s: unknown key", item->string);
        if (rc < 0)
            return rc;
    }
    return client->id != NULL ? 0 : refuse(why, "api_keys[]: key is needed");
}

/* The index of the item's text in a list like "ms|s", or -EINVAL. */
static int read_choice(const cJSON *item, const char *name, const char *words,
                       char why[SIM_CONFIG_WHY_BYTES])
{
    int index = cJSON_IsString(item) ? choice_index(words, item->valuestring) : -1;

    return index >= 0 ? index : refuse(why, "%s: one of %s is needed", name, words);
}

static int read_model(const cJSON *object, struct sim_model *model, char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;
    int rc = 0;

    model->dialect = DIALECT_COUNT;
    model->context_tokens = CONTEXT_TOKENS_DEFAULT;
    model->has_functions = true;
    cJSON_ArrayForEach(item, object)
    {
        if (strcmp(item->string, "id") == 0) {
            rc = read_text(item, "models[].id", &model->id, why);
        } else if (strcmp(item->string, "type") == 0) {
            rc = read_choice(item, "models[].type", "chat|embedder|aicheck|filter", why);
            model->type = rc < 0 ? MODEL_CHAT : (enum model_type)rc;
        } else if (strcmp(item->string, "dialect") == 0) {
            rc = read_choice(item, "models[].dialect", "gigachat|openai|anthropic", why);
            model->dialect = rc < 0 ? DIALECT_COUNT : (enum dialect_id)rc;
        } else if (strcmp(item->string, "context") == 0) {
            rc = read_u32(item, "models[].context", 1, UINT32_MAX, &model->context_tokens, why);
        } else if (strcmp(item->string, "functions") == 0) {
            rc = cJSON_IsBool(item) ? 0 : refuse(why, "models[].functions: true or false");
            model->has_functions = cJSON_IsTrue(item);
        } else {
            rc = refuse(why, "models[].%s: unknown key", item->string);
        }
        if (rc < 0)
            return rc;
    }
    return model->id != NULL ? 0 : refuse(why, "models[]: id is needed");
}

static void clear_clients(struct sim_client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(clients[i].id);
        free(clients[i].secret);
        for (size_t b = 0; b < clients[i].balance_count; b++)
            free(clients[i].balances[b].model);
        free(clients[i].balances);
    }
    free(clients);
}

static void clear_models(struct sim_model *models, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(models[i].id);
    free(models);
}

/* A list in place of the one that was there. */
static int read_clients(const cJSON *list, const char *name,
                        int (*read_one)(const cJSON *item, struct sim_client *client,
                                        char why[SIM_CONFIG_WHY_BYTES]),
                        struct sim_client **clients, size_t *count, char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;

    if (!cJSON_IsArray(list))
        return refuse(why, "%s: an array is needed", name);
    clear_clients(*clients, *count);
    *count = 0;
    *clients = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(**clients));
    if (*clients == NULL)
        return -ENOMEM;
    cJSON_ArrayForEach(item, list)
    {
        /* Counted first: what was half read is cleared with the rest. */
        int rc = read_one(item, &(*clients)[(*count)++], why);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_models(struct sim_config *config, const cJSON *list, char why[SIM_CONFIG_WHY_BYTES])
{
    const cJSON *item;

    if (!cJSON_IsArray(list))
        return refuse(why, "models: an array is needed");
    clear_models(config->models, config->model_count);
    config->model_count = 0;
    config->models = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*config->models));
    if (config->models == NULL)
        return -ENOMEM;
    cJSON_ArrayForEach(item, list)
    {
        int rc;

        if (!cJSON_IsObject(item))
            return refuse(why, "models[]: an object is needed");
        rc = read_model(item, &config->models[config->model_count++], why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_key(struct sim_config *config, const cJSON *item, char why[SIM_CONFIG_WHY_BYTES])
{
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (strcmp(item->string, options[i].name) == 0)
            return read_option(config, &options[i], item, why);
    }
    if (strcmp(item->string, "listen") == 0)
        return read_text(item, "listen", &config->listen, why);
    if (strcmp(item->string, "tls_cert") == 0)
        return read_text(item, "tls_cert", &config->tls_cert, why);
    if (strcmp(item->string, "tls_key") == 0)
        return read_text(item, "tls_key", &config->tls_key, why);
    if (strcmp(item->string, "clients") == 0)
        return read_clients(item, "clients", read_client, &config->clients, &config->client_count,
                            why);
    if (strcmp(item->string, "api_keys") == 0)
        return read_clients(item, "api_keys", read_api_key, &config->api_keys,
                            &config->api_key_count, why);
    if (strcmp(item->string, "models") == 0)
        return read_models(config, item, why);
    return refuse(why, "%s: unknown key", item->string);
}

int sim_config_init(struct sim_config *config)
{
    char why[SIM_CONFIG_WHY_BYTES];

    *config = (struct sim_config){0};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        *option_field(config, &options[i]) = options[i].fallback;
    return sim_config_merge(config, builtin_config, sizeof(builtin_config) - 1, why);
}

void sim_config_clear(struct sim_config *config)
{
    clear_clients(config->clients, config->client_count);
    clear_clients(config->api_keys, config->api_key_count);
    clear_models(config->models, config->model_count);
    free(config->listen);
    free(config->tls_cert);
    free(config->tls_key);
    *config = (struct sim_config){0};
}

int sim_config_merge(struct sim_config *config, const char *text, size_t len,
                     char why[SIM_CONFIG_WHY_BYTES])
{
    const char *wrong = "out of memory";
    size_t offset = 0;
    cJSON *root = json_parse(text, len, &JSON_LIMITS_DEFAULT, &offset, &wrong);
    const cJSON *item;
    int rc = 0;

    snprintf(why, SIM_CONFIG_WHY_BYTES, "out of memory");
    if (root == NULL)
        return refuse(why, "byte %zu: %s", offset, wrong);
    if (!cJSON_IsObject(root))
        rc = refuse(why, "a JSON object is needed");
    cJSON_ArrayForEach(item, root)
    {
        if (rc == 0)
            rc = read_key(config, item, why);
    }
    cJSON_Delete(root);
    return rc;
}

int sim_config_load(struct sim_config *config, const char *path, char why[SIM_CONFIG_WHY_BYTES])
{
    struct buf text;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = 0;

    buf_init(&text, FILE_BYTES_MAX);
    if (fd == -1) {
        rc = -errno;
        snprintf(why, SIM_CONFIG_WHY_BYTES, "%s", strerror(-rc));
        return rc;
    }
    while (rc == 0) {
        char *room = buf_room(&text, 4096);
        ssize_t n = room == NULL ? -1 : read(fd, room, 4096);

        if (n == 0)
            break;
        if (n > 0)
            buf_commit(&text, (size_t)n);
        else if (room == NULL || errno != EINTR)
            rc = room == NULL ? text.err : -errno;
    }
    close(fd);
    if (rc == 0)
        rc = sim_config_merge(config, text.data, text.len, why);
    else
        snprintf(why, SIM_CONFIG_WHY_BYTES, "%s", strerror(-rc));
    buf_clear(&text);
    return rc;
}

const char *sim_model_type_name(enum model_type type)
{
    return model_type_names[type];
}

bool sim_model_speaks(const struct sim_model *model, enum dialect_id dialect)
{
    return model->dialect == dialect || model->dialect == DIALECT_COUNT;
}

const struct sim_model *sim_config_model(const struct sim_config *config, enum dialect_id dialect,
                                         const char *id)
{
    for (size_t i = 0; i < config->model_count; i++) {
        if (strcmp(config->models[i].id, id) == 0 && sim_model_speaks(&config->models[i], dialect))
            return &config->models[i];
    }
    return NULL;
}

struct sim_client *sim_config_api_key(const struct sim_config *config, const char *text, size_t len)
{
    for (size_t i = 0; i < config->api_key_count; i++) {
        struct sim_client *client = &config->api_keys[i];

        if (strlen(client->id) == len && memcmp(client->id, text, len) == 0)
            return client;
    }
    return NULL;
}

struct sim_balance *sim_client_balance(const struct sim_client *client, const char *model)
{
    for (size_t i = 0; i < client->balance_count; i++) {
        if (strcmp(client->balances[i].model, model) == 0)
            return &client->balances[i];
    }
    return NULL;
}
