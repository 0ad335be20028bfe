#include <string.h>

#include "common/json.h"
#include "providers/chat_check.h"
#include "providers/model_request.h"

#define INTEGER_MAX 9223372036854775807.0
#define TOKENS_MAX 2147483647.0

static int check_stop_text(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {
        .kind = CHAT_TEXT, .required = true, .min = 1, .max = CHAT_STOP_BYTES_MAX};

    return chat_check_value(&rule, value, at, e);
}

static int check_stop(const cJSON *value, const struct place *at, struct error *e)
{
    if (cJSON_IsString(value))
        return check_stop_text(value, at, e);
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) > CHAT_STOP_MAX)
        return chat_expected(e, at, "a string or an array of at most 4 strings", value);
    return chat_check_each(check_stop_text, value, at, e);
}

static int check_stream_options(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "include_usage", .kind = CHAT_BOOL},
        {.name = "include_obfuscation", .kind = CHAT_BOOL},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_logit_bias(const cJSON *value, const struct place *at, struct error *e)
{
    const cJSON *member;

    cJSON_ArrayForEach(member, value)
    {
        struct chat_rule rule = {.kind = CHAT_NUMBER, .required = true, .min = -100, .max = 100};
        struct place here = {.parent = at, .name = member->string};

        if (chat_check_value(&rule, member, &here, e) < 0)
            return XR_EINVALID;
    }
    return 0;
}

static int check_metadata(const cJSON *value, const struct place *at, struct error *e)
{
    const cJSON *member;

    cJSON_ArrayForEach(member, value)
    {
        struct chat_rule rule = {.kind = CHAT_TEXT, .required = true};
        struct place here = {.parent = at, .name = member->string};

        if (chat_check_value(&rule, member, &here, e) < 0)
            return XR_EINVALID;
    }
    return 0;
}

static int check_modality(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {
        .kind = CHAT_WORD, .required = true, .words = "text|audio"};

    return chat_check_value(&rule, value, at, e);
}

static int check_json_schema(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "name", .kind = CHAT_ANY, .required = true, .check = chat_check_function_name},
        {.name = "description", .kind = CHAT_TEXT},
        {.name = "schema", .kind = CHAT_OBJECT},
        {.name = "strict", .kind = CHAT_BOOL},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_response_format(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "type",
         .kind = CHAT_WORD,
         .required = true,
         .words = "text|json_object|json_schema"},
        {.name = "json_schema", .kind = CHAT_OBJECT, .check = check_json_schema},
    };
    struct place here = {.parent = at, .name = "json_schema"};
    int rc = chat_check_members(CHAT_RULES(rules), value, at, e);

    if (rc < 0)
        return rc;
    if (strcmp(json_string(value, "type"), "json_schema") == 0 &&
        !chat_is_given(json_get(value, "json_schema")))
        return chat_expected(e, &here, "an object", json_get(value, "json_schema"));
    return 0;
}

static const struct chat_rule function_rules[] = {
    {.name = "name", .kind = CHAT_ANY, .required = true, .check = chat_check_function_name},
    {.name = "description", .kind = CHAT_TEXT},
    {.name = "parameters", .kind = CHAT_OBJECT},
    {.name = "strict", .kind = CHAT_BOOL},
};

static int check_function(const cJSON *value, const struct place *at, struct error *e)
{
    return chat_check_members(CHAT_RULES(function_rules), value, at, e);
}

static int check_tool(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "type", .kind = CHAT_WORD, .required = true, .words = "function|custom"},
        {.name = "function", .kind = CHAT_OBJECT, .check = check_function},
        {.name = "custom", .kind = CHAT_OBJECT},
    };
    struct place here = {.parent = at, .name = "function"};
    int rc = chat_check_members(CHAT_RULES(rules), value, at, e);

    if (rc < 0)
        return rc;
    here.name = json_string(value, "type");
    if (!chat_is_given(json_get(value, here.name)))
        return chat_expected(e, &here, "an object", json_get(value, here.name));
    return 0;
}

static int check_named(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "name", .kind = CHAT_ANY, .required = true, .check = chat_check_function_name},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_tool_choice(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule word = {.kind = CHAT_WORD, .words = "none|auto|required"};
    static const struct chat_rule rules[] = {
        {.name = "type",
         .kind = CHAT_WORD,
         .required = true,
         .words = "function|custom|allowed_tools"},
        {.name = "function", .kind = CHAT_OBJECT, .check = check_named},
        {.name = "custom", .kind = CHAT_OBJECT, .check = check_named},
        {.name = "allowed_tools", .kind = CHAT_OBJECT},
    };
    struct place here = {.parent = at};
    int rc;

    if (cJSON_IsString(value))
        return chat_check_value(&word, value, at, e);
    if (!cJSON_IsObject(value))
        return chat_expected(e, at, "one of none,auto,required or an object", value);
    rc = chat_check_members(CHAT_RULES(rules), value, at, e);
    if (rc < 0)
        return rc;
    here.name = json_string(value, "type");
    if (!chat_is_given(json_get(value, here.name)))
        return chat_expected(e, &here, "an object", json_get(value, here.name));
    return 0;
}

static int check_function_call(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule word = {.kind = CHAT_WORD, .words = "none|auto"};

    if (cJSON_IsString(value))
        return chat_check_value(&word, value, at, e);
    if (!cJSON_IsObject(value))
        return chat_expected(e, at, "one of none,auto or an object", value);
    return check_named(value, at, e);
}

/* clang-format off */
static const struct chat_rule field_rules[] = {
    {"model",                  CHAT_TEXT,    false, 1, CHAT_MODEL_BYTES - 1, NULL, chat_check_model},
    {"models",                 CHAT_ARRAY,   false, 0, CHAT_MODELS_MAX, NULL, chat_check_further_model},
    {"provider",               CHAT_OBJECT,  false, 0, 0,           NULL, chat_check_provider},
    {"messages",               CHAT_ARRAY,   true,  1, 0,           NULL, chat_check_message},
    {"stream",                 CHAT_BOOL,    false, 0, 0,           NULL, NULL},
    {"stream_options",         CHAT_OBJECT,  false, 0, 0,           NULL, check_stream_options},
    {"temperature",            CHAT_NUMBER,  false, 0, 2,           NULL, NULL},
    {"top_p",                  CHAT_NUMBER,  false, 0, 1,           NULL, NULL},
    {"n",                      CHAT_INTEGER, false, 1, 128,         NULL, NULL},
    {"stop",                   CHAT_ANY,     false, 0, 0,           NULL, check_stop},
    {"max_tokens",             CHAT_INTEGER, false, 1, TOKENS_MAX,  NULL, NULL},
    {"max_completion_tokens",  CHAT_INTEGER, false, 1, TOKENS_MAX,  NULL, NULL},
    {"presence_penalty",       CHAT_NUMBER,  false, -2, 2,          NULL, NULL},
    {"frequency_penalty",      CHAT_NUMBER,  false, -2, 2,          NULL, NULL},
    {"logit_bias",             CHAT_OBJECT,  false, 0, 0,           NULL, check_logit_bias},
    {"logprobs",               CHAT_BOOL,    false, 0, 0,           NULL, NULL},
    {"top_logprobs",           CHAT_INTEGER, false, 0, 20,          NULL, NULL},
    {"seed",                   CHAT_INTEGER, false, -INTEGER_MAX, INTEGER_MAX, NULL, NULL},
    {"user",                   CHAT_TEXT,    false, 0, 0,           NULL, NULL},
    {"metadata",               CHAT_OBJECT,  false, 0, 0,           NULL, check_metadata},
    {"store",                  CHAT_BOOL,    false, 0, 0,           NULL, NULL},
    {"service_tier",           CHAT_TEXT,    false, 0, 0,           NULL, NULL},
    {"prediction",             CHAT_OBJECT,  false, 0, 0,           NULL, NULL},
    {"modalities",             CHAT_ARRAY,   false, 0, 0,           NULL, check_modality},
    {"audio",                  CHAT_OBJECT,  false, 0, 0,           NULL, NULL},
    {"prompt_cache_key",       CHAT_TEXT,    false, 0, 0,           NULL, NULL},
    {"prompt_cache_retention", CHAT_TEXT,    false, 0, 0,           NULL, NULL},
    {"safety_identifier",      CHAT_TEXT,    false, 0, 0,           NULL, NULL},
    {"verbosity",              CHAT_WORD,    false, 0, 0, "low|medium|high", NULL},
    {"reasoning_effort",       CHAT_WORD,    false, 0, 0, "none|minimal|low|medium|high|xhigh|max", NULL},
    {"web_search_options",     CHAT_OBJECT,  false, 0, 0,           NULL, NULL},
    {"response_format",        CHAT_OBJECT,  false, 0, 0,           NULL, check_response_format},
    {"tools",                  CHAT_ARRAY,   false, 0, 128,         NULL, check_tool},
    {"tool_choice",            CHAT_ANY,     false, 0, 0,           NULL, check_tool_choice},
    {"parallel_tool_calls",    CHAT_BOOL,    false, 0, 0,           NULL, NULL},
    {"functions",              CHAT_ARRAY,   false, 0, 128,         NULL, check_function},
    {"function_call",          CHAT_ANY,     false, 0, 0,           NULL, check_function_call},
};
/* clang-format on */

static bool is_filled(const cJSON *root, const char *name)
{
    const cJSON *array = json_get(root, name);

    return array != NULL && array->child != NULL;
}

/* The function that the choice names, NULL if it names none. */
static const cJSON *chosen_name(const cJSON *choice)
{
    const cJSON *function = json_get(choice, "function");

    return json_get(function != NULL ? function : choice, "name");
}

static bool is_listed(const cJSON *list, const char *name)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, list)
    {
        const cJSON *function = json_get(item, "function");
        const char *listed = json_string(function != NULL ? function : item, "name");

        if (listed != NULL && strcmp(listed, name) == 0)
            return true;
    }
    return false;
}

/* A choice makes sense only with something to choose from. */
static int check_choice(const cJSON *root, const char *choice_name, const char *list_name,
                        struct error *e)
{
    const cJSON *choice = json_get(root, choice_name);
    const struct place here = {.name = choice_name};
    const cJSON *name;

    if (!chat_is_given(choice))
        return 0;
    if (!is_filled(root, list_name)) {
        if (cJSON_IsString(choice) && strcmp(choice->valuestring, "required") != 0)
            return 0; /* "none" and "auto" come true by themselves */
        return chat_refuse(e, &here, "'%s': expected '%s' to be given with it, found nothing.",
                           choice_name, list_name);
    }
    name = chosen_name(choice);
    if (name != NULL && !is_listed(json_get(root, list_name), name->valuestring))
        return chat_refuse(e, &here, "'%s': expected a name out of '%s', found \"%s\".",
                           choice_name, list_name, name->valuestring);
    return 0;
}

int chat_check_fields(const cJSON *root, struct error *e)
{
    static const struct place functions = {.name = "functions"};
    int rc;

    if (!cJSON_IsObject(root))
        return error_set(e, XR_EINVALID, NULL, "The body must be a JSON object.");
    rc = chat_check_members(CHAT_RULES(field_rules), root, NULL, e);
    if (rc < 0)
        return rc;
    if (is_filled(root, "tools") && is_filled(root, "functions"))
        return chat_refuse(e, &functions, "'functions': expected nothing next to 'tools'.");
    rc = check_choice(root, "tool_choice", "tools", e);
    if (rc < 0)
        return rc;
    return check_choice(root, "function_call", "functions", e);
}
