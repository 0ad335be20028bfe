#include "common/config_parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "common/config_files.h"
#include "common/nearest.h"

/* The longest name that is made inside runtime_dir, for which a socket's address must have room. */
#define LONGEST_SOCKET "/master.sock"

struct listener {
    const char *path;
    const char *address;
};

static bool is_any_host(const char *address, size_t len)
{
    return (len == 7 && memcmp(address, "0.0.0.0", len) == 0) ||
           (len == 4 && memcmp(address, "[::]", len) == 0);
}

/* Whether both want the same port of the same host; port 0 is a different one each time. */
static bool is_same_listener(const char *a, const char *b)
{
    const char *port_a = strrchr(a, ':'), *port_b = strrchr(b, ':');
    size_t len_a, len_b;

    if (port_a == NULL || port_b == NULL || strtol(port_a + 1, NULL, 10) == 0 ||
        strtol(port_a + 1, NULL, 10) != strtol(port_b + 1, NULL, 10))
        return false;
    len_a = (size_t)(port_a - a);
    len_b = (size_t)(port_b - b);
    return (len_a == len_b && memcmp(a, b, len_a) == 0) || is_any_host(a, len_a) ||
           is_any_host(b, len_b);
}

static int check_listeners(const struct config_parser *p)
{
    const struct listener listeners[] = {
        {"listen.http", p->config->listen_http},
        {"listen.https", p->config->listen_https},
        {"listen.ops", p->config->listen_ops},
    };

    for (size_t i = 1; i < sizeof(listeners) / sizeof(listeners[0]); i++)
        for (size_t j = 0; j < i; j++)
            if (is_same_listener(listeners[i].address, listeners[j].address))
                return config_fail_path(p, listeners[i].path, "the address is taken by %s (\"%s\")",
                                        listeners[j].path, listeners[j].address);
    return 0;
}

static int check_tls(const struct config_parser *p)
{
    const struct config *config = p->config;
    bool has_cert = config->tls_cert[0] != '\0', has_key = config->tls_key[0] != '\0';
    char why[FILES_WHY_BYTES];

    if (config->listen_https[0] != '\0' && !has_cert && !has_key)
        return config_fail_path(p, "listen.https",
                                "HTTPS needs listen.tls.cert and listen.tls.key");
    if (has_cert != has_key)
        return config_fail_path(p, has_cert ? "listen.tls.cert" : "listen.tls.key",
                                "listen.tls.%s is missing", has_cert ? "key" : "cert");
    if (!has_cert || !p->source->opens_files)
        return 0;
    if (files_check_certificates(config->tls_cert, why) < 0)
        return config_fail_path(p, "listen.tls.cert", "%s: %s", config->tls_cert, why);
    if (files_check_key(config->tls_key, config->tls_cert, why) < 0)
        return config_fail_path(p, "listen.tls.key", "%s: %s", config->tls_key, why);
    return 0;
}

static int check_runtime_dir(const struct config_parser *p)
{
    size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof(LONGEST_SOCKET);
    size_t len = strlen(p->config->runtime_dir);

    if (len > max)
        return config_fail_path(p, "runtime_dir",
                                "%s is %zu bytes long: sockets inside would pass the system's "
                                "limit, at most %zu are possible",
                                p->config->runtime_dir, len, max);
    return 0;
}

static const struct node *child_at(const struct node *n, size_t index)
{
    for (n = n->first; index > 0; index--)
        n = n->next;
    return n;
}

static int check_bundles(const struct config_parser *p)
{
    char why[FILES_WHY_BYTES];

    if (!p->source->opens_files)
        return 0;
    for (size_t i = 0; i < p->config->provider_count; i++) {
        const char *file = p->config->providers[i].ca_bundle_file;
        const struct node *provider;

        if (file[0] == '\0' || files_check_certificates(file, why) == 0)
            continue;
        provider = child_at(node_member(p->root, "providers"), i);
        return config_fail(p, node_member(provider, "ca_bundle_file"), "%s: %s", file, why);
    }
    return 0;
}

/* Where a model's name stands: the last of its aliases with that text, or its id. */
static const struct node *name_node(const struct config_parser *p, const struct model_name *name)
{
    const struct model_config *model = &p->config->models[name->model_index];
    const struct node *object = child_at(node_member(p->root, "models"), name->model_index);

    for (size_t i = model->alias_count; i > 0; i--)
        if (strcmp(model->aliases[i - 1], name->name) == 0)
            return child_at(node_member(object, "aliases"), i - 1);
    return node_member(object, "id");
}

static int compare_names(const void *a, const void *b)
{
    const struct model_name *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order != 0)
        return order;
    return (x->model_index > y->model_index) - (x->model_index < y->model_index);
}

static int index_names(const struct config_parser *p)
{
    struct config *config = p->config;
    size_t count = config->model_count;

    for (size_t i = 0; i < config->model_count; i++)
        count += config->models[i].alias_count;
    if (count == 0)
        return 0;
    config->model_names = calloc(count, sizeof(*config->model_names));
    if (config->model_names == NULL)
        return config_fail_memory(p);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct model_config *model = &config->models[i];

        config->model_names[config->model_name_count++] = (struct model_name){model->id, i};
        for (size_t j = 0; j < model->alias_count; j++)
            config->model_names[config->model_name_count++] =
                (struct model_name){model->aliases[j], i};
    }
    qsort(config->model_names, count, sizeof(*config->model_names), compare_names);
    return 0;
}

static int check_names(const struct config_parser *p)
{
    const struct config *config = p->config;
    int rc = index_names(p);

    for (size_t i = 1; rc == 0 && i < config->model_name_count; i++) {
        const struct model_name *earlier = &config->model_names[i - 1];
        const struct model_name *later = &config->model_names[i];

        if (strcmp(earlier->name, later->name) == 0)
            rc = config_fail(p, name_node(p, later), "the name \"%s\" is taken by models[%zu]",
                             later->name, earlier->model_index);
    }
    return rc;
}

static int check_default_model(const struct config_parser *p)
{
    const char *name = p->config->default_model;
    struct nearest nearest;

    if (name[0] == '\0' || config_model(p->config, name, strlen(name)) != NULL)
        return 0;
    nearest_init(&nearest, name);
    for (size_t i = 0; i < p->config->model_name_count; i++)
        nearest_offer(&nearest, p->config->model_names[i].name,
                      strlen(p->config->model_names[i].name));
    if (nearest.name[0] != '\0')
        return config_fail_path(p, "default_model",
                                "there is no model \"%s\", did you mean \"%s\"?", name,
                                nearest.name);
    return config_fail_path(p, "default_model", "there is no model \"%s\"", name);
}

int config_check(const struct config_parser *p)
{
    int rc = check_runtime_dir(p);

    if (rc == 0)
        rc = config_complete_providers(p);
    if (rc == 0)
        rc = check_listeners(p);
    if (rc == 0)
        rc = check_names(p);
    if (rc == 0)
        rc = check_default_model(p);
    if (rc == 0)
        rc = check_tls(p);
    if (rc == 0)
        rc = check_bundles(p);
    return rc;
}
