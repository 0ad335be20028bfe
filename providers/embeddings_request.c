#include "providers/embeddings_request.h"

#include <string.h>

#include "common/json.h"
#include "providers/chat_check.h"

#define DIMENSIONS_MAX 65536
#define TOKEN_MAX 2147483647.0

static int check_token(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {
        .kind = CHAT_INTEGER, .required = true, .min = 0, .max = TOKEN_MAX};

    return chat_check_value(&rule, value, at, e);
}

static int check_text(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {.kind = CHAT_TEXT, .required = true, .min = 1};

    return chat_check_value(&rule, value, at, e);
}

static int check_tokens(const cJSON *value, const struct place *at, struct error *e)
{
    if (!cJSON_IsArray(value) || value->child == NULL)
        return chat_expected(e, at, "a non-empty array of token ids", value);
    return chat_check_each(check_token, value, at, e);
}

/* The first element says what all have to be. */
static int check_input(const cJSON *value, const struct place *at, struct error *e)
{
    if (cJSON_IsString(value))
        return check_text(value, at, e);
    if (!cJSON_IsArray(value) || value->child == NULL)
        return chat_expected(e, at, "a string or a non-empty array of strings or token ids", value);
    if (cJSON_IsNumber(value->child))
        return check_tokens(value, at, e);
    if (cJSON_GetArraySize(value) > EMBEDDINGS_INPUTS_MAX)
        return chat_refuse(e, at, "'input': expected at most %d elements, found %d.",
                           EMBEDDINGS_INPUTS_MAX, cJSON_GetArraySize(value));
    return chat_check_each(cJSON_IsArray(value->child) ? check_tokens : check_text, value, at, e);
}

/* clang-format off */
static const struct chat_rule field_rules[] = {
    {"model",           CHAT_TEXT,    false, 1, CHAT_MODEL_BYTES - 1, NULL, chat_check_model},
    {"models",          CHAT_ARRAY,   false, 0, CHAT_MODELS_MAX, NULL, chat_check_further_model},
    {"provider",        CHAT_OBJECT,  false, 0, 0,               NULL, chat_check_provider},
    {"input",           CHAT_ANY,     true,  0, 0,               NULL, check_input},
    {"encoding_format", CHAT_WORD,    false, 0, 0,               "float|base64", NULL},
    {"dimensions",      CHAT_INTEGER, false, 1, DIMENSIONS_MAX,  NULL, NULL},
    {"user",            CHAT_TEXT,    false, 0, 0,               NULL, NULL},
};
/* clang-format on */

static int64_t count_tokens(const cJSON *input)
{
    int64_t count = 0;
    const cJSON *item;

    cJSON_ArrayForEach(item, input)
    {
        if (cJSON_IsArray(item))
            count += cJSON_GetArraySize(item);
        else
            count += cJSON_IsNumber(item);
    }
    return count;
}

int embeddings_request_parse(const char *text, size_t len, struct model_request *out,
                             struct error *e)
{
    const char *format;
    int rc = model_request_open(out, text, len, e);

    if (rc < 0)
        return rc;
    rc = chat_check_members(CHAT_RULES(field_rules), out->root, NULL, e);
    if (rc == 0)
        rc = model_request_read_route(out, e);
    if (rc < 0) {
        model_request_clear(out);
        return rc;
    }
    out->operation = OPERATION_EMBEDDINGS;
    out->input = json_get(out->root, "input");
    out->input_tokens = count_tokens(out->input);
    format = json_string(out->root, "encoding_format");
    out->wants_base64 = format != NULL && strcmp(format, "base64") == 0;
    return 0;
}
