#include "providers/chat_check.h"
#include "providers/model_request.h"

int chat_check_model(const cJSON *value, const struct place *at, struct error *e)
{
    const char *text = value->valuestring;

    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;

        /* C2 80 to C2 9F are the control characters beyond ASCII. */
        if (byte < 0x20 || byte == 0x7f || (byte == 0xc2 && (unsigned char)c[1] < 0xa0))
            return chat_refuse(e, at, "'%s': expected a name without control characters.",
                               at->name != NULL ? at->name : "models");
    }
    return 0;
}

int chat_check_further_model(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {.kind = CHAT_TEXT,
                                          .required = true,
                                          .min = 1,
                                          .max = CHAT_MODEL_BYTES - 1,
                                          .check = chat_check_model};

    return chat_check_value(&rule, value, at, e);
}

static int check_provider_name(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {.kind = CHAT_TEXT, .required = true, .min = 1};

    return chat_check_value(&rule, value, at, e);
}

static int check_price(const cJSON *value, const struct place *at, struct error *e)
{
    if (cJSON_IsNumber(value) || cJSON_IsString(value))
        return 0; /* which number is read from the text */
    return chat_expected(e, at, "a number or a string with one", value);
}

static int check_max_price(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "prompt", .kind = CHAT_ANY, .check = check_price},
        {.name = "completion", .kind = CHAT_ANY, .check = check_price},
        {.name = "request", .kind = CHAT_ANY, .check = check_price},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

int chat_check_provider(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {"order", CHAT_ARRAY, false, 0, CHAT_PROVIDERS_MAX, NULL, check_provider_name},
        {"only", CHAT_ARRAY, false, 0, CHAT_PROVIDERS_MAX, NULL, check_provider_name},
        {"ignore", CHAT_ARRAY, false, 0, CHAT_PROVIDERS_MAX, NULL, check_provider_name},
        {.name = "allow_fallbacks", .kind = CHAT_BOOL},
        {.name = "require_parameters", .kind = CHAT_BOOL},
        {.name = "sort", .kind = CHAT_WORD, .words = "price|throughput|latency"},
        {.name = "max_price", .kind = CHAT_OBJECT, .check = check_max_price},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}
