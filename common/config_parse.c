#include "common/config_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nearest.h"

#define PATH_BYTES sizeof(((struct config_error *)NULL)->path)
#define VARIABLE_PREFIX "XROUTER_"
#define VARIABLE_BYTES 64
/* An array of a model longer than this is a generator's mistake. */
#define LIST_MAX 256

/* Whether name is what stands in path at depth prefix ("listen.tls." or ""), as a whole path
 * (*is_leaf) or as the object above others. */
static bool is_at(const char *path, const char *prefix, const char *name, bool *is_leaf)
{
    size_t prefix_len = strlen(prefix);
    size_t name_len = strlen(name);

    if (strncmp(path, prefix, prefix_len) != 0 || strncmp(path + prefix_len, name, name_len) != 0)
        return false;
    *is_leaf = path[prefix_len + name_len] == '\0';
    return *is_leaf || path[prefix_len + name_len] == '.';
}

enum member_kind { MEMBER_UNKNOWN, MEMBER_OPTION, MEMBER_GROUP, MEMBER_SECTION };

static enum member_kind classify(const struct option_table *table, const char *prefix,
                                 const char *name, const struct option **option)
{
    bool is_leaf;

    for (size_t i = 0; i < table->count; i++)
        if (is_at(table->options[i].path, prefix, name, &is_leaf)) {
            *option = &table->options[i];
            return is_leaf ? MEMBER_OPTION : MEMBER_GROUP;
        }
    for (const char *const *section = table->sections; *section != NULL; section++)
        if (is_at(*section, prefix, name, &is_leaf))
            return is_leaf ? MEMBER_SECTION : MEMBER_GROUP;
    return MEMBER_UNKNOWN;
}

/* Offers what may stand at this level, and the same name at another one. */
static void offer_path(struct nearest *nearest, const char *path, const char *prefix,
                       const char *name)
{
    size_t prefix_len = strlen(prefix);
    const char *leaf = strrchr(path, '.');

    if (strncmp(path, prefix, prefix_len) == 0)
        nearest_offer(nearest, path + prefix_len, strcspn(path + prefix_len, "."));
    if (leaf != NULL && strcmp(leaf + 1, name) == 0 && nearest->distance > 0) {
        snprintf(nearest->name, sizeof(nearest->name), "%s", path);
        nearest->distance = 0;
    }
}

static int fail_unknown(const struct config_parser *p, const struct option_table *table,
                        const char *prefix, const struct node *member)
{
    struct nearest nearest;

    nearest_init(&nearest, member->key);
    for (size_t i = 0; i < table->count; i++)
        offer_path(&nearest, table->options[i].path, prefix, member->key);
    for (const char *const *section = table->sections; *section != NULL; section++)
        offer_path(&nearest, *section, prefix, member->key);
    if (nearest.name[0] == '\0')
        return config_fail_name(p, member, "unknown option");
    return config_fail_name(p, member, "unknown option, did you mean \"%s\"?", nearest.name);
}

static int expect_type(const struct config_parser *p, const struct node *n, enum node_type type)
{
    if (n->type == type)
        return 0;
    return config_fail(p, n, "must be %s, not %s", node_type_name(type), node_type_name(n->type));
}

static int parse_option(const struct config_parser *p, const struct option *o, void *section,
                        const struct node *n)
{
    char why[OPTION_WHY_BYTES];
    int rc = expect_type(p, n, option_node_type(o));

    if (rc < 0)
        return rc;
    rc = option_set(o, section, n->text, &p->source->context, why);
    if (rc == -ENOMEM)
        return config_fail_memory(p);
    return rc < 0 ? config_fail(p, n, "%s", why) : 0;
}

static int parse_members(const struct config_parser *p, const struct option_table *table,
                         const char *prefix, void *section, const struct node *object)
{
    int rc = expect_type(p, object, NODE_OBJECT);

    for (const struct node *n = rc == 0 ? object->first : NULL; rc == 0 && n != NULL; n = n->next) {
        const struct option *option = NULL;
        char inner[PATH_BYTES];

        switch (classify(table, prefix, n->key, &option)) {
        case MEMBER_UNKNOWN:
            return fail_unknown(p, table, prefix, n);
        case MEMBER_OPTION:
            rc = parse_option(p, option, section, n);
            break;
        case MEMBER_GROUP:
            snprintf(inner, sizeof(inner), "%s%s.", prefix, n->key);
            rc = parse_members(p, table, inner, section, n);
            break;
        case MEMBER_SECTION: /* its own parser follows */
            break;
        }
    }
    return rc;
}

/* Defaults, members, and nothing required missing. */
static int parse_section(const struct config_parser *p, const struct option_table *table,
                         void *section, const struct node *object)
{
    int rc = options_set_defaults(table, section, &p->source->context);

    if (rc < 0)
        return config_fail_memory(p);
    rc = parse_members(p, table, "", section, object);
    for (size_t i = 0; rc == 0 && i < table->count; i++) {
        const struct option *o = &table->options[i];

        if (o->standard == NULL && node_member(object, o->path) == NULL)
            rc = config_fail(p, object, "\"%s\" is missing", o->path);
    }
    return rc;
}

/* Makes room for the elements of array n (NULL = absent), at most max. */
static int open_array(const struct config_parser *p, const struct node *n, size_t max, size_t size,
                      void *out)
{
    int rc = n != NULL ? expect_type(p, n, NODE_ARRAY) : 0;

    if (rc < 0 || n == NULL || n->count == 0)
        return rc;
    if (n->count > max)
        return config_fail(p, n, "has %zu elements, at most %zu are allowed", n->count, max);
    *(void **)out = calloc(n->count, size);
    return *(void **)out != NULL ? 0 : config_fail_memory(p);
}

static const struct node *first_of(const struct node *n)
{
    return n != NULL ? n->first : NULL;
}

static int parse_accounts(const struct config_parser *p, struct provider_config *provider,
                          const struct node *array)
{
    int rc = open_array(p, array, CONFIG_ACCOUNTS_MAX - 1, sizeof(*provider->accounts),
                        &provider->accounts);

    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next)
        rc = parse_section(p, &ACCOUNT_TABLE, &provider->accounts[provider->account_count++], n);
    return rc;
}

static int parse_provider(const struct config_parser *p, const struct node *n)
{
    struct config *config = p->config;
    struct provider_config *provider = &config->providers[config->provider_count++];
    int rc = parse_section(p, &PROVIDER_TABLE, provider, n);

    if (rc == 0)
        rc = parse_accounts(p, provider, node_member(n, "accounts"));
    for (size_t i = 0; rc == 0 && i + 1 < config->provider_count; i++)
        if (strcmp(config->providers[i].name, provider->name) == 0)
            rc = config_fail(p, node_member(n, "name"),
                             "the name \"%s\" is taken by providers[%zu]", provider->name, i);
    return rc;
}

static int parse_providers(const struct config_parser *p)
{
    const struct node *array = node_member(p->root, "providers");
    int rc = open_array(p, array, p->config->providers_max, sizeof(*p->config->providers),
                        &p->config->providers);

    if (rc == -EINVAL && array->type == NODE_ARRAY)
        rc = config_fail(p, array, "has %zu providers, limits.providers allows %u", array->count,
                         p->config->providers_max);
    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next)
        rc = parse_provider(p, n);
    return rc;
}

static int parse_aliases(const struct config_parser *p, struct model_config *model,
                         const struct node *array)
{
    static const struct option alias_option = {
        .type = OPTION_TEXT, .min = 1, .max = 95, .unit = ""};
    int rc = open_array(p, array, LIST_MAX, sizeof(*model->aliases), &model->aliases);

    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next)
        rc = parse_option(p, &alias_option, &model->aliases[model->alias_count++], n);
    return rc;
}

static int parse_prices(const struct config_parser *p, const struct node *array,
                        struct price **prices, size_t *count)
{
    int rc = open_array(p, array, LIST_MAX, sizeof(**prices), prices);

    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next) {
        struct price price = {0};
        size_t at = *count;

        rc = parse_section(p, &PRICE_TABLE, &price, n);
        for (; at > 0 && (*prices)[at - 1].from_at_ms > price.from_at_ms; at--)
            (*prices)[at] = (*prices)[at - 1];
        if (rc == 0 && at > 0 && (*prices)[at - 1].from_at_ms == price.from_at_ms)
            rc = config_fail(p, n, "there are two prices from the same moment");
        (*prices)[at] = price;
        ++*count;
    }
    return rc;
}

static int parse_candidate(const struct config_parser *p, struct candidate_config *candidate,
                           const struct node *n)
{
    const struct config *config = p->config;
    const struct node *at = node_member(n, "provider");
    struct nearest nearest;
    int rc = parse_section(p, &CANDIDATE_TABLE, candidate, n);

    if (rc == 0)
        rc = parse_prices(p, node_member(n, "prices"), &candidate->prices, &candidate->price_count);
    if (rc < 0)
        return rc;
    nearest_init(&nearest, candidate->provider);
    for (size_t i = 0; i < config->provider_count; i++) {
        if (strcmp(config->providers[i].name, candidate->provider) == 0) {
            candidate->provider_index = (uint32_t)i;
            return 0;
        }
        nearest_offer(&nearest, config->providers[i].name, strlen(config->providers[i].name));
    }
    if (nearest.name[0] != '\0')
        return config_fail(p, at, "there is no provider \"%s\", did you mean \"%s\"?",
                           candidate->provider, nearest.name);
    return config_fail(p, at, "there is no provider \"%s\"", candidate->provider);
}

/* Insertion, so that equal priorities keep the file's order. */
static void sort_candidates(struct candidate_config *all, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct candidate_config moved = all[i];
        size_t j = i;

        for (; j > 0 && all[j - 1].priority > moved.priority; j--)
            all[j] = all[j - 1];
        all[j] = moved;
    }
}

static int parse_candidates(const struct config_parser *p, struct model_config *model,
                            const struct node *object)
{
    const struct node *array = node_member(object, "candidates");
    int rc =
        open_array(p, array, CONFIG_CANDIDATES_MAX, sizeof(*model->candidates), &model->candidates);

    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next)
        rc = parse_candidate(p, &model->candidates[model->candidate_count++], n);
    if (rc == 0 && model->candidate_count == 0)
        return config_fail(p, array != NULL ? array : object,
                           "a model needs at least one candidate");
    sort_candidates(model->candidates, model->candidate_count);
    return rc;
}

static int parse_model(const struct config_parser *p, const struct node *n)
{
    struct model_config *model = &p->config->models[p->config->model_count++];
    int rc = parse_section(p, &MODEL_TABLE, model, n);

    if (rc == 0)
        rc = parse_aliases(p, model, node_member(n, "aliases"));
    if (rc == 0)
        rc = parse_candidates(p, model, n);
    if (rc == 0)
        rc = parse_prices(p, node_member(n, "prices"), &model->prices, &model->price_count);
    return rc;
}

static int parse_models(const struct config_parser *p)
{
    const struct node *array = node_member(p->root, "models");
    int rc =
        open_array(p, array, p->config->models_max, sizeof(*p->config->models), &p->config->models);

    if (rc == -EINVAL && array->type == NODE_ARRAY)
        rc = config_fail(p, array, "has %zu models, limits.models allows %u", array->count,
                         p->config->models_max);
    for (const struct node *n = first_of(array); rc == 0 && n != NULL; n = n->next)
        rc = parse_model(p, n);
    return rc;
}

static int parse_tiers(const struct config_parser *p)
{
    static const struct option name_option = {.type = OPTION_TEXT, .min = 1, .max = 95, .unit = ""};
    const struct node *object = node_find(p->root, "limits.tiers");
    struct config *config = p->config;
    int rc = object != NULL ? expect_type(p, object, NODE_OBJECT) : 0;

    if (rc < 0 || object == NULL || object->count == 0)
        return rc;
    if (object->count > LIST_MAX)
        return config_fail(p, object, "has %zu tiers, at most %d are allowed", object->count,
                           LIST_MAX);
    config->tiers = calloc(object->count, sizeof(*config->tiers));
    if (config->tiers == NULL)
        return config_fail_memory(p);
    for (const struct node *n = object->first; rc == 0 && n != NULL; n = n->next) {
        struct tier_config *tier = &config->tiers[config->tier_count++];
        char why[OPTION_WHY_BYTES];

        rc = option_set(&name_option, &tier->name, n->key, &p->source->context, why);
        if (rc == -ENOMEM)
            return config_fail_memory(p);
        if (rc < 0)
            return config_fail_name(p, n, "the tier's name %s", why);
        rc = parse_section(p, &TIER_TABLE, tier, n);
    }
    return rc;
}

/* "listen.http" -> "XROUTER_LISTEN_HTTP" */
static void variable_name(const char *path, char out[VARIABLE_BYTES])
{
    size_t len = (size_t)snprintf(out, VARIABLE_BYTES, "%s%s", VARIABLE_PREFIX, path);

    for (size_t i = 0; i < len && i < VARIABLE_BYTES - 1; i++)
        out[i] = out[i] == '.' ? '_' : (char)toupper((unsigned char)out[i]);
}

static int parse_environment(const struct config_parser *p)
{
    for (size_t i = 0; i < CONFIG_TABLE.count; i++) {
        const struct option *o = &CONFIG_TABLE.options[i];
        char name[VARIABLE_BYTES], why[OPTION_WHY_BYTES];
        const char *value;
        int rc;

        variable_name(o->path, name);
        value = getenv(name);
        if (value == NULL)
            continue;
        rc = option_set(o, p->config, value, &p->source->context, why);
        if (rc == -ENOMEM)
            return config_fail_memory(p);
        if (rc < 0) {
            /* Not where the file sets the same option: the mistake is not there. */
            config_fail_path(p, o->path, "%s (from the environment: %s)", why, name);
            p->e->line = 0;
            p->e->column = 0;
            return rc;
        }
    }
    return 0;
}

/* What config_encode() adds for the children. */
static int parse_origin(const struct config_parser *p)
{
    static const struct option file_option = {
        .type = OPTION_PATH, .unit = "", .offset = offsetof(struct config, file)};
    static const struct option generation_option = {.type = OPTION_BYTES,
                                                    .max = INT64_MAX,
                                                    .unit = "",
                                                    .offset = offsetof(struct config, generation)};
    const struct node *origin = node_member(p->root, "origin");
    const struct node *file = node_member(origin, "file");
    const struct node *generation = node_member(origin, "generation");
    int rc;

    if (file == NULL || generation == NULL)
        return config_fail(p, p->root, "\"origin\" is missing");
    rc = parse_option(p, &file_option, p->config, file);
    return rc == 0 ? parse_option(p, &generation_option, p->config, generation) : rc;
}

static int parse_root(const struct config_parser *p)
{
    const struct config_source *source = p->source;
    struct option_table root = CONFIG_TABLE;
    static const char *const encoded_sections[] = {"providers", "models", "limits.tiers", "origin",
                                                   NULL};
    const struct node *duplicate = NULL;
    int rc = node_duplicate(p->root, &duplicate);

    if (rc < 0)
        return config_fail_memory(p);
    if (duplicate != NULL)
        return config_fail_name(p, duplicate, "this name appears twice in its object");
    if (source->is_encoded)
        root.sections = encoded_sections;
    rc = parse_section(p, &root, p->config, p->root);
    if (rc == 0 && source->has_environment)
        rc = parse_environment(p);
    if (rc == 0)
        rc = parse_tiers(p);
    if (rc == 0)
        rc = parse_providers(p);
    if (rc == 0)
        rc = parse_models(p);
    if (rc == 0 && source->is_encoded)
        rc = parse_origin(p);
    return rc == 0 ? config_check(p) : rc;
}

int config_parse_source(const struct config_source *source, struct config **out,
                        struct config_error *e)
{
    struct config_parser p = {source, NULL, NULL, e};
    char why[NODE_WHY_BYTES];
    struct node *root = NULL;
    size_t offset = 0;
    int rc;

    *out = NULL;
    memset(e, 0, sizeof(*e));
    rc = node_parse(source->text, source->len, &root, &offset, why);
    if (rc == -ENOMEM)
        return config_fail_memory(&p);
    if (rc < 0)
        return config_fail_syntax(&p, offset, why);
    p.root = root;
    p.config = calloc(1, sizeof(*p.config));
    if (p.config == NULL) {
        rc = config_fail_memory(&p);
        goto out;
    }
    p.config->references = 1;
    p.config->generation = 1;
    p.config->file = strdup(source->file);
    rc = p.config->file != NULL ? parse_root(&p) : config_fail_memory(&p);
    if (rc < 0)
        goto out;
    *out = p.config;
    p.config = NULL; /* the caller's now */
out:
    config_unref(p.config);
    node_free(root);
    return rc;
}
