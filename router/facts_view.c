#include "router/facts_view.h"

#include "common/json.h"

static void put_balances(const struct facts_region *facts, size_t provider, struct buf *out)
{
    bool is_first = true;

    json_put_key(out, "balances");
    buf_byte(out, '[');
    for (uint32_t account = 0; facts != NULL && account < CONFIG_ACCOUNTS_MAX; account++) {
        struct facts_account value;

        facts_load_account(facts, provider, account, &value);
        for (size_t i = 0; i < value.balances.count; i++) {
            buf_str(out, is_first ? "{" : ",{");
            is_first = false;
            json_put_field_u64(out, "account", account);
            json_put_field_text(out, "model", value.balances.of[i].model);
            json_put_field_i64(out, "tokens", value.balances.of[i].tokens);
            json_put_field_i64(out, "at_ms", value.at_ms);
            buf_byte(out, '}');
        }
    }
    buf_byte(out, ']');
}

void facts_put_provider(const struct facts_region *facts, size_t provider, struct buf *out)
{
    struct facts_models models = {0};

    if (facts != NULL)
        facts_load_models(facts, provider, &models);
    if (models.at_ms != 0)
        json_put_field_u64(out, "models_offered",
                           (uint64_t)models.list.count + models.list.left_out);
    else
        json_put_field_text(out, "models_offered", NULL);
    put_balances(facts, provider, out);
}

void facts_put_offered(const struct facts_models *models, const char *model, struct buf *out)
{
    bool is_known = models->at_ms != 0;
    bool has = is_known && models_list_has(&models->list, model);

    if (has || (is_known && models->list.left_out == 0))
        json_put_field_bool(out, "offered", has);
    else
        json_put_field_text(out, "offered", NULL);
}

static void put_head(struct buf *out, const char *name, const char *help)
{
    buf_printf(out, "# HELP xrouter_%s %s\n# TYPE xrouter_%s gauge\n", name, help, name);
}

static void put_account(struct buf *out, const char *provider, uint32_t account,
                        const struct account_balances *balances)
{
    for (size_t i = 0; i < balances->count; i++) {
        buf_str(out, "xrouter_provider_balance_tokens{provider=\"");
        counters_put_label(out, provider);
        buf_printf(out, "\",account=\"%u\",model=\"", account);
        counters_put_label(out, balances->of[i].model);
        buf_printf(out, "\"} %lld\n", (long long)balances->of[i].tokens);
    }
}

void facts_put_prometheus(const struct facts_region *facts, const struct counters_region *names,
                          struct buf *out)
{
    const char *name;

    if (facts == NULL)
        return;
    put_head(out, "provider_balance_tokens", "What an account at the provider has left");
    for (size_t i = 0; (name = counters_provider_name(names, i)) != NULL; i++)
        for (uint32_t account = 0; account < CONFIG_ACCOUNTS_MAX; account++) {
            struct facts_account value;

            facts_load_account(facts, i, account, &value);
            put_account(out, name, account, &value.balances);
        }
    put_head(out, "provider_models_offered", "Models that the provider lists");
    for (size_t i = 0; (name = counters_provider_name(names, i)) != NULL; i++) {
        struct facts_models models;

        facts_load_models(facts, i, &models);
        if (models.at_ms == 0)
            continue;
        buf_str(out, "xrouter_provider_models_offered{provider=\"");
        counters_put_label(out, name);
        buf_printf(out, "\"} %u\n", models.list.count + models.list.left_out);
    }
}
