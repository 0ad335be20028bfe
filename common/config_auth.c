#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/config_files.h"
#include "common/config_parse.h"

/* What each kind makes of the options: an option without a use must not be there, so that nobody
 * believes in it. */
enum use { USE_NONE, USE_OPTIONAL, USE_REQUIRED };

/* clang-format off */
/*  option                     secret */
#define AUTH_OPTIONS(X) \
  X(credentials,               true)  \
  X(user,                      false) \
  X(password,                  true)  \
  X(client_cert_file,          false) \
  X(client_key_file,           false)
/* clang-format on */

struct auth_kind {
    const char *name;
#define X(option, secret) enum use option;
    AUTH_OPTIONS(X)
#undef X
};
static const struct auth_kind auth_kinds[] = {
    /* Without its key the adapter refuses each request, and says so. */
    {.name = "oauth", .credentials = USE_OPTIONAL},
    {.name = "password", .user = USE_REQUIRED, .password = USE_REQUIRED},
    {.name = "token", .credentials = USE_REQUIRED},
    {.name = "certificate", .client_cert_file = USE_REQUIRED, .client_key_file = USE_REQUIRED},
};

static const struct auth_kind *find_kind(const struct provider_config *provider)
{
    size_t i = 0;

    while (strcmp(auth_kinds[i].name, provider->auth) != 0) /* one of them: the option's words */
        i++;
    return &auth_kinds[i];
}

/* value NULL = it is there, or would be: secrets are not read. */
static int check_use(const struct config_parser *p, const struct provider_config *provider,
                     const struct node *n, const char *name, const char *value, enum use use)
{
    if (value == NULL)
        return 0;
    if (use == USE_REQUIRED && value[0] == '\0')
        return config_fail(p, n, "\"%s\" is missing: auth \"%s\" needs it", name, provider->auth);
    if (use == USE_NONE && value[0] != '\0')
        return config_fail(p, node_member(n, name), "auth \"%s\" has no use for it",
                           provider->auth);
    return 0;
}

static int check_uses(const struct config_parser *p, const struct provider_config *provider,
                      const struct node *n, const struct auth_kind *kind)
{
    bool skips_secrets = p->source->context.secrets == SECRETS_SKIPPED;
    int rc = 0;

#define X(option, secret)                                                                          \
    if (rc == 0)                                                                                   \
        rc = check_use(p, provider, n, #option, secret && skips_secrets ? NULL : provider->option, \
                       kind->option);
    AUTH_OPTIONS(X)
#undef X
    return rc;
}

static int check_certificate(const struct config_parser *p, const struct provider_config *provider,
                             const struct node *n)
{
    const char *cert = provider->client_cert_file, *key = provider->client_key_file;
    char why[FILES_WHY_BYTES];

    if (strncmp(provider->base_url, "http://", 7) == 0)
        return config_fail(p, node_member(n, "base_url"),
                           "auth \"certificate\" needs an address of https");
    if (!p->source->opens_files)
        return 0;
    if (files_check_certificates(cert, why) < 0)
        return config_fail(p, node_member(n, "client_cert_file"), "%s: %s", cert, why);
    if (files_check_key(key, cert, why) < 0)
        return config_fail(p, node_member(n, "client_key_file"), "%s: %s", key, why);
    return 0;
}

int config_check_auth(const struct config_parser *p, const struct provider_config *provider,
                      const struct node *n)
{
    const struct auth_kind *kind = find_kind(provider);
    int rc;

    if (strcmp(provider->type, "gigachat") != 0 && kind != &auth_kinds[0])
        return config_fail(p, node_member(n, "auth"), "an API of type \"%s\" has no kinds of auth",
                           provider->type);
    rc = check_uses(p, provider, n, kind);
    if (rc == 0 && strchr(provider->user, ':') != NULL)
        return config_fail(p, node_member(n, "user"),
                           "must be without \":\", which ends it in HTTP");
    if (rc == 0 && kind->client_cert_file == USE_REQUIRED)
        rc = check_certificate(p, provider, n);
    return rc;
}
