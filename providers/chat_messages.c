#include <string.h>

#include "common/json.h"
#include "providers/chat_check.h"

static int check_image(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "url", .kind = CHAT_TEXT, .required = true, .min = 1},
        {.name = "detail", .kind = CHAT_WORD, .words = "auto|low|high"},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_audio(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "data", .kind = CHAT_TEXT, .required = true, .min = 1},
        {.name = "format", .kind = CHAT_WORD, .required = true, .words = "wav|mp3"},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_file(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "file_id", .kind = CHAT_TEXT},
        {.name = "file_data", .kind = CHAT_TEXT},
        {.name = "filename", .kind = CHAT_TEXT},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

/* A part's type is also the name of the member that holds its content. */
static int check_part(const char *types, const cJSON *value, const struct place *at,
                      struct error *e)
{
    const struct chat_rule type_rule[] = {
        {.name = "type", .kind = CHAT_WORD, .required = true, .words = types},
    };
    static const struct chat_rule content_rules[] = {
        {.name = "text", .kind = CHAT_TEXT, .required = true},
        {.name = "refusal", .kind = CHAT_TEXT, .required = true},
        {.name = "image_url", .kind = CHAT_OBJECT, .required = true, .check = check_image},
        {.name = "input_audio", .kind = CHAT_OBJECT, .required = true, .check = check_audio},
        {.name = "file", .kind = CHAT_OBJECT, .required = true, .check = check_file},
    };
    int rc = chat_check_members(CHAT_RULES(type_rule), value, at, e);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < sizeof(content_rules) / sizeof(content_rules[0]); i++)
        if (strcmp(content_rules[i].name, json_string(value, "type")) == 0)
            return chat_check_members(&content_rules[i], 1, value, at, e);
    return 0;
}

static int check_text_part(const cJSON *value, const struct place *at, struct error *e)
{
    return check_part("text", value, at, e);
}

static int check_user_part(const cJSON *value, const struct place *at, struct error *e)
{
    return check_part("text|image_url|input_audio|file", value, at, e);
}

static int check_assistant_part(const cJSON *value, const struct place *at, struct error *e)
{
    return check_part("text|refusal", value, at, e);
}

static int check_content(chat_check_fn check, const cJSON *value, const struct place *at,
                         struct error *e)
{
    if (cJSON_IsString(value))
        return 0;
    if (!cJSON_IsArray(value) || value->child == NULL)
        return chat_expected(e, at, "a string or a non-empty array of parts", value);
    return chat_check_each(check, value, at, e);
}

static int check_text_content(const cJSON *value, const struct place *at, struct error *e)
{
    return check_content(check_text_part, value, at, e);
}

static int check_user_content(const cJSON *value, const struct place *at, struct error *e)
{
    return check_content(check_user_part, value, at, e);
}

static int check_assistant_content(const cJSON *value, const struct place *at, struct error *e)
{
    return check_content(check_assistant_part, value, at, e);
}

static int check_called_function(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "name", .kind = CHAT_ANY, .required = true, .check = chat_check_function_name},
        {.name = "arguments", .kind = CHAT_TEXT, .required = true},
    };

    return chat_check_members(CHAT_RULES(rules), value, at, e);
}

static int check_call(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rules[] = {
        {.name = "id", .kind = CHAT_TEXT, .required = true, .min = 1},
        {.name = "type", .kind = CHAT_WORD, .words = "function|custom"},
        {.name = "function", .kind = CHAT_OBJECT, .check = check_called_function},
        {.name = "custom", .kind = CHAT_OBJECT},
    };
    struct place here = {.parent = at, .name = "function"};
    const char *type;
    int rc = chat_check_members(CHAT_RULES(rules), value, at, e);

    if (rc < 0)
        return rc;
    type = json_string(value, "type");
    if (type != NULL)
        here.name = type;
    if (!chat_is_given(json_get(value, here.name)))
        return chat_expected(e, &here, "an object", json_get(value, here.name));
    return 0;
}

/* clang-format off */
static const struct chat_rule text_rules[] = { /* system, developer */
    {"role",          CHAT_TEXT,   true,  1, 0,  NULL, NULL},
    {"content",       CHAT_ANY,    true,  0, 0,  NULL, check_text_content},
    {"name",          CHAT_TEXT,   false, 0, 0,  NULL, NULL},
};
static const struct chat_rule user_rules[] = {
    {"role",          CHAT_TEXT,   true,  1, 0,  NULL, NULL},
    {"content",       CHAT_ANY,    true,  0, 0,  NULL, check_user_content},
    {"name",          CHAT_TEXT,   false, 0, 0,  NULL, NULL},
};
static const struct chat_rule assistant_rules[] = {
    {"role",          CHAT_TEXT,   true,  1, 0,  NULL, NULL},
    {"content",       CHAT_ANY,    false, 0, 0,  NULL, check_assistant_content},
    {"name",          CHAT_TEXT,   false, 0, 0,  NULL, NULL},
    {"refusal",       CHAT_TEXT,   false, 0, 0,  NULL, NULL},
    {"audio",         CHAT_OBJECT, false, 0, 0,  NULL, NULL},
    {"tool_calls",    CHAT_ARRAY,  false, 0, CHAT_CALLS_MAX, NULL, check_call},
    {"function_call", CHAT_OBJECT, false, 0, 0,  NULL, check_called_function},
};
static const struct chat_rule tool_rules[] = {
    {"role",          CHAT_TEXT,   true,  1, 0,  NULL, NULL},
    {"content",       CHAT_ANY,    true,  0, 0,  NULL, check_text_content},
    {"tool_call_id",  CHAT_TEXT,   true,  1, 0,  NULL, NULL},
};
static const struct chat_rule function_rules[] = {
    {"role",          CHAT_TEXT,   true,  1, 0,  NULL, NULL},
    {"content",       CHAT_ANY,    false, 0, 0,  NULL, check_text_content},
    {"name",          CHAT_ANY,    true,  0, 0,  NULL, chat_check_function_name},
};
/* clang-format on */

struct role_rules {
    const char *role;
    const struct chat_rule *rules;
    size_t count;
};
static const struct role_rules roles[] = {
    {"system", CHAT_RULES(text_rules)}, {"developer", CHAT_RULES(text_rules)},
    {"user", CHAT_RULES(user_rules)},   {"assistant", CHAT_RULES(assistant_rules)},
    {"tool", CHAT_RULES(tool_rules)},   {"function", CHAT_RULES(function_rules)},
};

static const struct role_rules *role_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(roles[i].role, name) == 0)
            return &roles[i];
    return NULL;
}

/* An assistant's message must say or call something. */
static int check_assistant(const cJSON *message, const struct place *at, struct error *e)
{
    const struct place content = {.parent = at, .name = "content"};
    const struct place call = {.parent = at, .name = "function_call"};
    const cJSON *calls = json_get(message, "tool_calls");
    bool has_calls = calls != NULL && calls->child != NULL;
    bool has_call = chat_is_given(json_get(message, "function_call"));

    if (has_calls && has_call)
        return chat_refuse(e, &call, "'function_call': expected nothing next to 'tool_calls'.");
    if (has_calls || has_call || chat_is_given(json_get(message, "content")) ||
        chat_is_given(json_get(message, "refusal")) || chat_is_given(json_get(message, "audio")))
        return 0;
    return chat_expected(e, &content, "a string or an array of parts, as there is no call",
                         json_get(message, "content"));
}

int chat_check_message(const cJSON *message, const struct place *at, struct error *e)
{
    const struct place role_place = {.parent = at, .name = "role"};
    const struct role_rules *role;
    int rc;

    if (!cJSON_IsObject(message))
        return chat_expected(e, at, "an object", message);
    role = role_find(json_string(message, "role"));
    if (role == NULL)
        return chat_expected(e, &role_place, "one of system,developer,user,assistant,tool,function",
                             json_get(message, "role"));
    rc = chat_check_members(role->rules, role->count, message, at, e);
    if (rc < 0)
        return rc;
    return role->rules == assistant_rules ? check_assistant(message, at, e) : 0;
}

/* The calls of one assistant message that still want their result. */
struct open_calls {
    const char *ids[CHAT_CALLS_MAX]; /* NULL = answered */
    size_t count;
    size_t open;
    size_t message; /* where they were made */
    bool legacy;    /* one function_call, without an id */
};

static void open_message(struct open_calls *calls, const cJSON *message, size_t index)
{
    const char *role = json_string(message, "role");
    const cJSON *call;

    calls->count = calls->open = 0;
    calls->message = index;
    calls->legacy = false;
    if (role == NULL || strcmp(role, "assistant") != 0)
        return; /* in another's message such members mean nothing, and nobody has checked them */
    calls->legacy = chat_is_given(json_get(message, "function_call"));
    cJSON_ArrayForEach(call, json_get(message, "tool_calls"))
    {
        if (calls->count < CHAT_CALLS_MAX)
            calls->ids[calls->count++] = json_string(call, "id");
    }
    calls->open = calls->legacy ? 1 : calls->count;
}

/* Takes the call off the open ones; false if there is none with that id. */
static bool close_call(struct open_calls *calls, const char *id)
{
    for (size_t i = 0; i < calls->count; i++) {
        if (calls->ids[i] == NULL || strcmp(calls->ids[i], id) != 0)
            continue;
        calls->ids[i] = NULL;
        calls->open--;
        return true;
    }
    return false;
}

static int refuse_unanswered(const struct open_calls *calls, const struct place *at,
                             struct error *e)
{
    const struct place message = {.parent = at, .index = calls->message};
    const struct place field = {.parent = &message,
                                .name = calls->legacy ? "function_call" : "tool_calls"};

    for (size_t i = 0; i < calls->count; i++)
        if (calls->ids[i] != NULL)
            return chat_refuse(e, &field,
                               "expected a 'tool' message right behind for each call, found none "
                               "for the call \"%.80s\".",
                               calls->ids[i]);
    return chat_refuse(e, &field, "expected a 'function' message right behind, found none.");
}

static int check_result(struct open_calls *calls, const cJSON *message, const struct place *at,
                        struct error *e)
{
    const char *id = json_string(message, "tool_call_id");
    const struct place id_place = {.parent = at, .name = "tool_call_id"};
    const struct place role_place = {.parent = at, .name = "role"};

    if (strcmp(json_string(message, "role"), "tool") == 0) {
        if (!calls->legacy && calls->open > 0 && close_call(calls, id))
            return 0;
        return chat_refuse(e, &id_place,
                           "expected the id of an unanswered call of the assistant's message "
                           "before, found \"%.80s\".",
                           id);
    }
    if (calls->legacy && calls->open > 0) {
        calls->open = 0;
        return 0;
    }
    return chat_refuse(e, &role_place,
                       "expected an assistant's function_call before a 'function' message.");
}

int chat_check_calls(const cJSON *messages, const struct place *at, struct error *e)
{
    struct open_calls calls = {.count = 0};
    struct place here = {.parent = at};
    const cJSON *message;

    cJSON_ArrayForEach(message, messages)
    {
        const char *role = json_string(message, "role");

        if (strcmp(role, "tool") == 0 || strcmp(role, "function") == 0) {
            if (check_result(&calls, message, &here, e) < 0)
                return XR_EINVALID;
        } else if (calls.open > 0) {
            return refuse_unanswered(&calls, at, e);
        } else {
            open_message(&calls, message, here.index);
        }
        here.index++;
    }
    return calls.open > 0 ? refuse_unanswered(&calls, at, e) : 0;
}
