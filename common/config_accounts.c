#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_parse.h"

static bool is_empty(const struct account_config *account)
{
    return account->credentials[0] == '\0' && account->user[0] == '\0' &&
           account->password[0] == '\0' && account->client_cert_file[0] == '\0' &&
           account->client_key_file[0] == '\0';
}

static bool is_same(const struct provider_config *a, const struct provider_config *b)
{
    return strcmp(a->credentials, b->credentials) == 0 && strcmp(a->user, b->user) == 0 &&
           strcmp(a->client_cert_file, b->client_cert_file) == 0;
}

/* The secrets of by_account[i] are an account's of its own, and all that its kind of auth needs. */
static int check_account(const struct config_parser *p, const struct provider_config *provider,
                         size_t i, const struct node *n)
{
    bool skips_secrets = p->source->context.secrets == SECRETS_SKIPPED;

    if (!skips_secrets && is_empty(&provider->accounts[i - 1]))
        return config_fail(p, n, "an account needs credentials of its own");
    for (size_t j = 0; !skips_secrets && j < i; j++)
        if (is_same(&provider->by_account[j], &provider->by_account[i]))
            return config_fail(p, n, "this is the same account as %s of the provider",
                               j == 0 ? "that" : "another one");
    return config_check_auth(p, &provider->by_account[i], n);
}

static int check_slots(const struct config_parser *p, const struct provider_config *provider,
                       const struct node *array)
{
    size_t accounts = provider->account_count + 1;

    if (provider->max_concurrent >= CONFIG_SLOTS_MAX ||
        provider->max_concurrent * accounts < CONFIG_SLOTS_MAX)
        return 0;
    return config_fail(p, array,
                       "%zu accounts with max_concurrent %u are more than the %d requests at once "
                       "that can be counted; from max_concurrent %d on they are not limited",
                       accounts, provider->max_concurrent, CONFIG_SLOTS_MAX - 1, CONFIG_SLOTS_MAX);
}

/* The provider, with another account's secrets. */
static struct provider_config with_account(const struct provider_config *provider,
                                           const struct account_config *account)
{
    struct provider_config own = *provider;

    own.accounts = NULL;
    own.account_count = 0;
    own.by_account = NULL;
    if (account == NULL)
        return own;
#define X(type, field, ...) own.field = account->field;
    ACCOUNT_OPTIONS(X)
#undef X
    return own;
}

int config_check_accounts(const struct config_parser *p, struct provider_config *provider,
                          uint32_t *index, const struct node *n)
{
    const struct node *array = node_member(n, "accounts");
    const struct node *account = array != NULL ? array->first : NULL;
    size_t count = provider->account_count + 1;
    int rc = check_slots(p, provider, array);

    if (rc < 0)
        return rc;
    provider->by_account = calloc(count, sizeof(*provider->by_account));
    if (provider->by_account == NULL)
        return config_fail_memory(p);
    provider->account_index = *index;
    for (size_t i = 0; i < count; i++) {
        provider->by_account[i] =
            with_account(provider, i == 0 ? NULL : &provider->accounts[i - 1]);
        provider->by_account[i].account_index = (*index)++;
    }
    for (size_t i = 1; rc == 0 && account != NULL; i++, account = account->next)
        rc = check_account(p, provider, i, account);
    return rc;
}
