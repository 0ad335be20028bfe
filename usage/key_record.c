#include "usage/key_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/money.h"

#define SPEND_PREFIX "spend_" /* and the period's name */

const char *const KEY_LIMIT_NAMES[KEY_LIMIT_COUNT] = {"rpm", "rpd", "tpm", "tpd", "parallel"};

__attribute__((format(printf, 2, 3))) static int invalid(char why[KEY_WHY_BYTES],
                                                         const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, KEY_WHY_BYTES, format, args);
    va_end(args);
    return -EINVAL;
}

/* The text has passed json_check(), so it is valid UTF-8. */
int key_name_check(const char *name, char why[KEY_WHY_BYTES])
{
    size_t chars = 0;
    uint64_t id;

    for (const uint8_t *p = (const uint8_t *)name; *p != '\0'; p++) {
        bool is_c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;

        if (*p < 0x20 || *p == 0x7f || is_c1)
            return invalid(why, "name: control characters are not allowed");
        if ((*p & 0xc0) != 0x80)
            chars++;
    }
    if (chars == 0 || chars > KEY_NAME_CHARS)
        return invalid(why, "name: must have 1 to %d characters", KEY_NAME_CHARS);
    if (key_id_parse(name, &id) == 0)
        return invalid(why, "name: looks like a key's id");
    if (strncmp(name, KEY_PREFIX, strlen(KEY_PREFIX)) == 0)
        return invalid(why, "name: looks like a key itself");
    return 0;
}

/* Absent stays as it is; null goes back to what a record starts with. */
enum wish { WISH_NONE, WISH_RESET, WISH_VALUE };

static enum wish wish_of(const cJSON *item)
{
    if (item == NULL)
        return WISH_NONE;
    return cJSON_IsNull(item) ? WISH_RESET : WISH_VALUE;
}

static int decode_name(const cJSON *request, struct key_record *out, char why[KEY_WHY_BYTES])
{
    const cJSON *item = json_get(request, "name");
    enum wish wish = wish_of(item);
    int rc;

    if (wish == WISH_RESET)
        out->name[0] = '\0';
    if (wish != WISH_VALUE)
        return 0;
    if (!cJSON_IsString(item))
        return invalid(why, "name: must be a string");
    rc = key_name_check(item->valuestring, why);
    if (rc == 0)
        memcpy(out->name, item->valuestring, strlen(item->valuestring) + 1);
    return rc;
}

static const struct tier_config *find_tier(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->tier_count; i++) {
        if (strcmp(config->tiers[i].name, name) == 0)
            return &config->tiers[i];
    }
    return NULL;
}

static int decode_tier(const cJSON *request, const struct config *config, struct key_record *out,
                       char why[KEY_WHY_BYTES])
{
    const cJSON *item = json_get(request, "tier");
    enum wish wish = wish_of(item);

    if (wish == WISH_RESET)
        out->tier[0] = '\0';
    if (wish != WISH_VALUE)
        return 0;
    if (!cJSON_IsString(item))
        return invalid(why, "tier: must be a string");
    if (find_tier(config, item->valuestring) == NULL)
        return invalid(why, "tier: \"%.64s\" is not one of the configured tiers",
                       item->valuestring);
    if (strlen(item->valuestring) >= sizeof(out->tier))
        return invalid(why, "tier: the name is too long for a key");
    memcpy(out->tier, item->valuestring, strlen(item->valuestring) + 1);
    return 0;
}

static bool has_model(const struct key_record *r, const char *id)
{
    for (size_t i = 0; i < r->model_count; i++) {
        if (strcmp(r->models[i], id) == 0)
            return true;
    }
    return false;
}

static int add_model(struct key_record *r, const char *id, char why[KEY_WHY_BYTES])
{
    if (has_model(r, id))
        return 0;
    if (r->model_count == KEY_MODELS_MAX)
        return invalid(why, "models: a key may name at most %d", KEY_MODELS_MAX);
    if (strlen(id) >= sizeof(r->models[0]))
        return invalid(why, "models: \"%.96s\" is too long", id);
    memcpy(r->models[r->model_count++], id, strlen(id) + 1);
    return 0;
}

static int decode_models(const cJSON *request, const struct config *config, struct key_record *out,
                         char why[KEY_WHY_BYTES])
{
    const cJSON *list = json_get(request, "models");
    enum wish wish = wish_of(list);
    const cJSON *item;

    if (wish != WISH_NONE)
        out->model_count = 0;
    if (wish != WISH_VALUE)
        return 0;
    if (!cJSON_IsArray(list))
        return invalid(why, "models: must be an array of model names");
    cJSON_ArrayForEach(item, list)
    {
        const struct model_config *model;
        int rc;

        if (!cJSON_IsString(item))
            return invalid(why, "models: must be an array of model names");
        model = config_model(config, item->valuestring, strlen(item->valuestring));
        if (model == NULL)
            return invalid(why, "models: \"%.96s\" is not one of the configured models",
                           item->valuestring);
        rc = add_model(out, model->id, why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int decode_expiry(const cJSON *request, struct key_record *out, char why[KEY_WHY_BYTES])
{
    const cJSON *item = json_get(request, "expires_at");
    enum wish wish = wish_of(item);

    if (wish == WISH_RESET)
        out->expires_at_ms = 0;
    if (wish != WISH_VALUE)
        return 0;
    if (!cJSON_IsString(item) || clock_parse(item->valuestring, &out->expires_at_ms) < 0 ||
        out->expires_at_ms <= 0)
        return invalid(why, "expires_at: must be a date like 2026-12-31T23:59:59Z");
    return 0;
}

static int limit_index(const char *name)
{
    for (int i = 0; i < KEY_LIMIT_COUNT; i++) {
        if (strcmp(KEY_LIMIT_NAMES[i], name) == 0)
            return i;
    }
    return -1;
}

static int spending_index(const char *name)
{
    if (strncmp(name, SPEND_PREFIX, strlen(SPEND_PREFIX)) != 0)
        return -1;
    for (int i = 0; i < SPEND_PERIODS; i++) {
        if (strcmp(SPEND_PERIOD_NAMES[i], name + strlen(SPEND_PREFIX)) == 0)
            return i;
    }
    return -1;
}

int key_credits_decode(const cJSON *item, int64_t *nano)
{
    int rc = cJSON_IsString(item) ? money_parse(item->valuestring, nano) : -EINVAL;

    if (rc == 0 && (*nano > ACCOUNT_MAX_NANO || *nano < -ACCOUNT_MAX_NANO))
        rc = -ERANGE;
    return rc;
}

static int decode_limit(const cJSON *item, struct key_record *out, int i, char why[KEY_WHY_BYTES])
{
    int64_t value = KEY_LIMIT_UNSET;

    if (!cJSON_IsNull(item) && (!json_is_integer(item, &value) || value < 0 || value > UINT32_MAX))
        return invalid(why, "limits.%s: must be a whole number from 0 to %u", item->string,
                       UINT32_MAX);
    out->limits[i] = value;
    return 0;
}

static int decode_spending(const cJSON *item, struct key_record *out, int i,
                           char why[KEY_WHY_BYTES])
{
    int64_t value_nano = ACCOUNT_UNLIMITED;

    if (!cJSON_IsNull(item) && (key_credits_decode(item, &value_nano) < 0 || value_nano <= 0))
        return invalid(why,
                       "limits.%s: must be credits as text like \"12.5\", above 0 and at most %lld",
                       item->string, (long long)(ACCOUNT_MAX_NANO / NANO_PER_CREDIT));
    out->spending_nano[i] = value_nano;
    return 0;
}

static void reset_limits(struct key_record *r)
{
    for (size_t i = 0; i < KEY_LIMIT_COUNT; i++)
        r->limits[i] = KEY_LIMIT_UNSET;
    for (size_t i = 0; i < SPEND_PERIODS; i++)
        r->spending_nano[i] = ACCOUNT_UNLIMITED;
}

static int decode_limits(const cJSON *request, struct key_record *out, char why[KEY_WHY_BYTES])
{
    const cJSON *limits = json_get(request, "limits");
    enum wish wish = wish_of(limits);
    const cJSON *item;

    if (wish == WISH_RESET)
        reset_limits(out);
    if (wish != WISH_VALUE)
        return 0;
    if (!cJSON_IsObject(limits))
        return invalid(why, "limits: must be an object");
    cJSON_ArrayForEach(item, limits)
    {
        int i = limit_index(item->string);
        int p = spending_index(item->string);
        int rc = i >= 0   ? decode_limit(item, out, i, why)
                 : p >= 0 ? decode_spending(item, out, p, why)
                          : invalid(why, "limits.%.32s: there is no such limit", item->string);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int decode_credits(const cJSON *request, struct key_record *out, char why[KEY_WHY_BYTES])
{
    const cJSON *item = json_get(request, "credits");

    if (wish_of(item) != WISH_VALUE)
        return 0;
    if (key_credits_decode(item, &out->balance_nano) < 0 || out->balance_nano < 0)
        return invalid(why, "credits: must be credits as text like \"12.5\", from 0 to %lld",
                       (long long)(ACCOUNT_MAX_NANO / NANO_PER_CREDIT));
    return 0;
}

void key_record_init(struct key_record *r)
{
    memset(r, 0, sizeof(*r));
    r->balance_nano = ACCOUNT_UNLIMITED;
    reset_limits(r);
}

int key_record_apply(const cJSON *request, const struct config *config, struct key_record *r,
                     char why[KEY_WHY_BYTES])
{
    int rc = decode_name(request, r, why);

    if (rc == 0)
        rc = decode_tier(request, config, r, why);
    if (rc == 0)
        rc = decode_models(request, config, r, why);
    if (rc == 0)
        rc = decode_expiry(request, r, why);
    if (rc == 0)
        rc = decode_limits(request, r, why);
    return rc;
}

int key_record_decode(const cJSON *request, const struct config *config, struct key_record *out,
                      char why[KEY_WHY_BYTES])
{
    int rc;

    key_record_init(out);
    rc = key_record_apply(request, config, out, why);
    return rc < 0 ? rc : decode_credits(request, out, why);
}

bool key_record_is_limited(const struct key_record *r)
{
    bool is_limited = r->balance_nano != ACCOUNT_UNLIMITED;

    for (size_t i = 0; i < SPEND_PERIODS; i++)
        is_limited = is_limited || r->spending_nano[i] != ACCOUNT_UNLIMITED;
    return is_limited;
}

static const char *state_name(const struct key_record *r, int64_t now_at_ms)
{
    if (r->revoked_at_ms != 0)
        return "revoked";
    if (r->expires_at_ms != 0 && now_at_ms >= r->expires_at_ms)
        return "expired";
    return "active";
}

void key_models_encode(const struct key_record *r, struct buf *out)
{
    buf_byte(out, '[');
    for (size_t i = 0; i < r->model_count; i++) {
        if (i > 0)
            buf_byte(out, ',');
        json_put_text(out, r->models[i]);
    }
    buf_byte(out, ']');
}

int key_models_decode(const char *json, struct key_record *r)
{
    char why[KEY_WHY_BYTES];
    cJSON *list = json_parse(json, strlen(json), &JSON_LIMITS_DEFAULT, NULL, NULL);
    const cJSON *item;
    int rc = cJSON_IsArray(list) ? 0 : -EINVAL;

    r->model_count = 0;
    if (rc == 0) {
        cJSON_ArrayForEach(item, list)
        {
            if (rc == 0)
                rc = cJSON_IsString(item) ? add_model(r, item->valuestring, why) : -EINVAL;
        }
    }
    cJSON_Delete(list);
    return rc;
}

void key_credits_encode(struct buf *out, const char *name, int64_t nano)
{
    char text[MONEY_TEXT_BYTES];

    if (nano != ACCOUNT_UNLIMITED)
        money_format(nano, text);
    json_put_field_text(out, name, nano != ACCOUNT_UNLIMITED ? text : NULL);
}

static void put_limits(struct buf *out, const struct key_record *r)
{
    json_put_key(out, "limits");
    buf_byte(out, '{');
    for (size_t i = 0; i < KEY_LIMIT_COUNT; i++) {
        if (r->limits[i] != KEY_LIMIT_UNSET)
            json_put_field_i64(out, KEY_LIMIT_NAMES[i], r->limits[i]);
    }
    for (size_t i = 0; i < SPEND_PERIODS; i++) {
        char name[32];

        snprintf(name, sizeof(name), SPEND_PREFIX "%s", SPEND_PERIOD_NAMES[i]);
        if (r->spending_nano[i] != ACCOUNT_UNLIMITED)
            key_credits_encode(out, name, r->spending_nano[i]);
    }
    buf_byte(out, '}');
}

void key_record_encode(const struct key_record *r, const char *text, int64_t now_at_ms,
                       struct buf *out)
{
    char id[KEY_ID_TEXT_BYTES];

    key_id_format(r->id, id);
    buf_byte(out, '{');
    json_put_field_text(out, "id", id);
    if (text != NULL)
        json_put_field_text(out, "key", text);
    json_put_field_text(out, "name", r->name[0] != '\0' ? r->name : NULL);
    if (text == NULL)
        json_put_field_text(out, "state", state_name(r, now_at_ms));
    json_put_field_time(out, "created_at", r->created_at_ms);
    json_put_field_time(out, "expires_at", r->expires_at_ms);
    if (text == NULL) {
        json_put_field_time(out, "last_used_at", r->last_used_at_ms);
        json_put_field_time(out, "revoked_at", r->revoked_at_ms);
    }
    json_put_key(out, "models");
    key_models_encode(r, out);
    json_put_field_text(out, "tier", r->tier[0] != '\0' ? r->tier : NULL);
    put_limits(out, r);
    key_credits_encode(out, "balance", r->balance_nano);
    buf_byte(out, '}');
}

bool key_record_resolve(const struct key_record *r, const struct config *config, struct key *out)
{
    const struct tier_config *tier = r->tier[0] != '\0' ? find_tier(config, r->tier) : NULL;
    uint32_t limits[KEY_LIMIT_COUNT] = {0};

    if (tier != NULL) {
        limits[KEY_RPM] = tier->rpm;
        limits[KEY_RPD] = tier->rpd;
        limits[KEY_TPM] = tier->tpm;
        limits[KEY_TPD] = tier->tpd;
        limits[KEY_PARALLEL] = tier->parallel;
    }
    for (size_t i = 0; i < KEY_LIMIT_COUNT; i++) {
        if (r->limits[i] != KEY_LIMIT_UNSET)
            limits[i] = (uint32_t)r->limits[i];
    }
    *out = (struct key){
        .id = r->id,
        .expires_at_ms = r->expires_at_ms,
        .revoked = r->revoked_at_ms != 0,
        .model_count = (uint8_t)r->model_count,
        .rpm = limits[KEY_RPM],
        .rpd = limits[KEY_RPD],
        .tpm = limits[KEY_TPM],
        .tpd = limits[KEY_TPD],
        .parallel = limits[KEY_PARALLEL],
    };
    for (size_t i = 0; i < r->model_count; i++)
        out->models[i] = keytable_model_hash(r->models[i], strlen(r->models[i]));
    return r->tier[0] == '\0' || tier != NULL;
}
