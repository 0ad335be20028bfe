#include "usage/key_summary.h"

#include <stdbool.h>
#include <string.h>

#include "common/json.h"
#include "common/money.h"
#include "usage/spent.h"

struct limit {
    int64_t limit_nano; /* ACCOUNT_UNLIMITED = none is in force */
    int64_t left_nano;
    const char *reset; /* NULL = never */
};

static const char *const RESETS[SPEND_PERIODS] = {
    [SPEND_DAY] = "daily", [SPEND_WEEK] = "weekly", [SPEND_MONTH] = "monthly"};
static const char *const USAGES[SPEND_PERIODS] = {
    [SPEND_DAY] = "usage_daily", [SPEND_WEEK] = "usage_weekly", [SPEND_MONTH] = "usage_monthly"};

/* What may be spent now, reservations of running requests taken off; by the ledger's sums while the
 * account is being counted anew. */
static void read_left(const struct keystore *ks, const struct key_record *key, int64_t now_at_ms,
                      const struct spent spent[SPEND_PERIODS], struct account_values *out)
{
    bool is_marked;
    uint32_t account;

    if (ks->accounts != NULL && accounts_find(ks->accounts, key->id, &account) == 0) {
        account_get(ks->accounts, account, now_at_ms, out, &is_marked);
        if (!is_marked)
            return;
    }
    out->balance_nano = key->balance_nano;
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        if (__builtin_sub_overflow(key->spending_nano[p], spent[p].nano,
                                   &out->spending[p].left_nano))
            out->spending[p].left_nano = -ACCOUNT_MAX_NANO;
}

static void tighten(struct limit *tightest, int64_t limit_nano, int64_t left_nano,
                    const char *reset)
{
    if (tightest->limit_nano != ACCOUNT_UNLIMITED && tightest->left_nano <= left_nano)
        return;
    *tightest = (struct limit){.limit_nano = limit_nano, .left_nano = left_nano, .reset = reset};
}

static struct limit tightest_limit(const struct key_record *key, const struct account_values *left,
                                   int64_t used_nano)
{
    struct limit tightest = {.limit_nano = ACCOUNT_UNLIMITED, .left_nano = ACCOUNT_UNLIMITED};

    if (key->balance_nano != ACCOUNT_UNLIMITED) {
        int64_t paid_nano = key->balance_nano;

        sum_add(&paid_nano, used_nano);
        tighten(&tightest, paid_nano, left->balance_nano, NULL);
    }
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        if (key->spending_nano[p] != ACCOUNT_UNLIMITED)
            tighten(&tightest, key->spending_nano[p], left->spending[p].left_nano, RESETS[p]);
    return tightest;
}

static void put_rate(struct buf *out, const char *name, uint32_t limit)
{
    json_put_key(out, name);
    if (limit == 0)
        buf_str(out, "null");
    else
        buf_u64(out, limit);
}

static void put_rate_limit(struct buf *out, const struct keystore *ks, const struct key_record *key)
{
    struct key resolved;

    (void)key_record_resolve(key, ks->config, &resolved); /* a tier that is gone limits nothing */
    json_put_key(out, "rate_limit");
    buf_byte(out, '{');
    put_rate(out, "requests", resolved.rpm);
    json_put_field_text(out, "interval", "1m");
    put_rate(out, "rpm", resolved.rpm);
    put_rate(out, "rpd", resolved.rpd);
    put_rate(out, "tpm", resolved.tpm);
    put_rate(out, "tpd", resolved.tpd);
    put_rate(out, "parallel", resolved.parallel);
    buf_byte(out, '}');
}

int key_summary_encode(const struct keystore *ks, const struct key_record *key,
                       const struct sums *total, int64_t now_at_ms, struct buf *out)
{
    struct spent spent[SPEND_PERIODS] = {0};
    struct account_values left = {0};
    struct limit limit;
    char id[KEY_ID_TEXT_BYTES];
    bool is_prepaid = key->balance_nano != ACCOUNT_UNLIMITED;
    int rc = spent_read_all(ks->ledger, key->id, now_at_ms, spent);

    if (rc < 0)
        return rc;
    read_left(ks, key, now_at_ms, spent, &left);
    limit = tightest_limit(key, &left, total->of[SUM_COST]);
    key_id_format(key->id, id);
    buf_byte(out, '{');
    json_put_field_text(out, "id", id);
    json_put_field_text(out, "label", key->name[0] != '\0' ? key->name : NULL);
    key_credits_encode(out, "limit", limit.limit_nano);
    key_credits_encode(out, "limit_remaining", limit.left_nano);
    json_put_field_text(out, "limit_reset", limit.reset);
    key_credits_encode(out, "usage", total->of[SUM_COST]);
    for (enum spend_period p = SPEND_DAY; p < SPEND_PERIODS; p++)
        key_credits_encode(out, USAGES[p], spent[p].nano);
    key_credits_encode(out, "balance", key->balance_nano);
    key_credits_encode(out, "available", is_prepaid ? left.balance_nano : ACCOUNT_UNLIMITED);
    json_put_key(out, "spending");
    spent_encode(spent, key, &left, out);
    json_put_field_text(out, "currency", ks->config->currency);
    json_put_field_i64(out, "requests", total->of[SUM_REQUESTS]);
    json_put_field_bool(out, "is_free_tier", strcmp(key->tier, "free") == 0);
    json_put_field_text(out, "tier", key->tier[0] != '\0' ? key->tier : NULL);
    put_rate_limit(out, ks, key);
    json_put_key(out, "models");
    key_models_encode(key, out);
    json_put_field_time(out, "created_at", key->created_at_ms);
    json_put_field_time(out, "expires_at", key->expires_at_ms);
    return buf_byte(out, '}');
}
