#include "providers/chat_wishes.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/money.h"
#include "providers/chat_check.h"

#define DIGITS_MAX 32 /* of a price: more than an amount can have */
#define PRICE_WORDS "a price in credits with at most 9 decimal places"

static const struct place provider_place = {.name = "provider"};
static const struct place max_price_place = {.parent = &provider_place, .name = "max_price"};

/* The last of duplicates, as json_get() takes it; NULL unless something is in it. */
static const cJSON *get_filled(const cJSON *object, const char *name)
{
    const cJSON *array = json_get(object, name);

    return array != NULL && array->child != NULL ? array : NULL;
}

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(json_get(object, name));
}

static enum chat_sort sort_of(const char *text)
{
    static const char *const names[] = {[CHAT_SORT_PRICE] = "price",
                                        [CHAT_SORT_THROUGHPUT] = "throughput",
                                        [CHAT_SORT_LATENCY] = "latency"};

    for (size_t i = CHAT_SORT_PRICE; text != NULL && i <= CHAT_SORT_LATENCY; i++)
        if (strcmp(names[i], text) == 0)
            return (enum chat_sort)i;
    return CHAT_SORT_NONE;
}

/* By the digits that the client wrote: no amount passes through a double. */
static int read_price(const cJSON *prices, const char *name, const char *text, size_t len,
                      int64_t *nano, struct error *e)
{
    const struct place here = {.parent = &max_price_place, .name = name};
    const cJSON *value = json_get(prices, name);
    char path[64], digits[DIGITS_MAX + 1];
    const char *found;
    size_t found_len;

    *nano = -1;
    if (!chat_is_given(value))
        return 0;
    snprintf(path, sizeof(path), "provider.max_price.%s", name);
    if (json_slice(text, len, path, &found, &found_len) < 0)
        return chat_expected(e, &here, PRICE_WORDS, value);
    if (found_len >= 2 && found[0] == '"') {
        found++;
        found_len -= 2;
    }
    if (found_len > DIGITS_MAX)
        return chat_expected(e, &here, PRICE_WORDS, value);
    memcpy(digits, found, found_len);
    digits[found_len] = '\0';
    if (money_parse(digits, nano) < 0 || *nano < 0)
        return chat_expected(e, &here, PRICE_WORDS, value);
    return 0;
}

int chat_wishes_read(const cJSON *root, const char *text, size_t len, struct chat_wishes *out,
                     struct error *e)
{
    const cJSON *provider = json_get(root, "provider");
    const cJSON *prices = json_get(provider, "max_price");
    int rc;

    *out =
        (struct chat_wishes){.models = get_filled(root, "models"),
                             .order = get_filled(provider, "order"),
                             .only = get_filled(provider, "only"),
                             .ignore = get_filled(provider, "ignore"),
                             .no_fallbacks = cJSON_IsFalse(json_get(provider, "allow_fallbacks")),
                             .require_parameters = is_true(provider, "require_parameters"),
                             .sort = sort_of(json_string(provider, "sort"))};
    rc = read_price(prices, "prompt", text, len, &out->max_prompt_nano, e);
    if (rc == 0)
        rc = read_price(prices, "completion", text, len, &out->max_completion_nano, e);
    if (rc == 0)
        rc = read_price(prices, "request", text, len, &out->max_request_nano, e);
    return rc;
}
