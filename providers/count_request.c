#include "providers/count_request.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/json.h"
#include "providers/chat_check.h"
#include "providers/chat_request.h"

static int check_text(const cJSON *value, const struct place *at, struct error *e)
{
    static const struct chat_rule rule = {.kind = CHAT_TEXT, .required = true};

    return chat_check_value(&rule, value, at, e);
}

static int check_input(const cJSON *value, const struct place *at, struct error *e)
{
    if (cJSON_IsString(value))
        return 0;
    if (!cJSON_IsArray(value) || value->child == NULL)
        return chat_expected(e, at, "a string or a non-empty array of strings", value);
    return chat_check_each(check_text, value, at, e);
}

static int refuse_beside_input(const cJSON *value, const struct place *at, struct error *e)
{
    return chat_expected(e, at, "nothing next to 'input'", value);
}

static const struct chat_rule input_rules[] = {
    /* What it is made of does not matter: a name that is no model's is not found. */
    {.name = "model", .kind = CHAT_TEXT, .min = 1, .max = CHAT_MODEL_BYTES - 1},
    {.name = "messages", .kind = CHAT_ANY, .check = refuse_beside_input},
    {.name = "input", .kind = CHAT_ANY, .required = true, .check = check_input},
    {.name = "method", .kind = CHAT_WORD, .words = "local|provider"},
};

static bool is_given(const cJSON *root, const char *name)
{
    return chat_is_given(json_get(root, name));
}

/* NULL unless something is in it. */
static const cJSON *get_filled(const cJSON *root, const char *name)
{
    const cJSON *array = json_get(root, name);

    return array != NULL && array->child != NULL ? array : NULL;
}

static int check_messages(const cJSON *root, struct error *e)
{
    static const struct place messages = {.name = "messages"};
    int rc = chat_check_fields(root, e);
    const char *method = json_string(root, "method");

    if (rc == 0 && method != NULL && strcmp(method, "provider") == 0)
        return error_set(e, XR_EINVALID, "method",
                         "'method': providers count texts alone; send 'input', or leave it out.");
    if (rc == 0)
        return chat_check_calls(json_get(root, messages.name), &messages, e);
    if (strcmp(e->param, messages.name) == 0 && !is_given(root, messages.name))
        return chat_expected(e, &messages, "a non-empty array, or 'input' in its place", NULL);
    return rc;
}

int count_request_parse(const char *text, size_t len, struct count_request *out, struct error *e)
{
    bool is_text;
    cJSON *root;
    int rc;

    memset(out, 0, sizeof(*out));
    if (json_check(text, len, &JSON_LIMITS_DEFAULT, NULL, NULL) < 0) {
        struct model_request chat;

        return chat_request_parse(text, len, &chat, e); /* says why */
    }
    root = cJSON_ParseWithLength(text, len); /* after the check only memory can be missing */
    if (root == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    is_text = is_given(root, "input");
    rc = is_text ? chat_check_members(CHAT_RULES(input_rules), root, NULL, e)
                 : check_messages(root, e);
    if (rc < 0) {
        cJSON_Delete(root);
        return rc;
    }
    out->root = root;
    out->model = is_given(root, "model") ? json_string(root, "model") : "";
    if (is_text) {
        out->input = json_get(root, "input");
        out->by_provider =
            is_given(root, "method") && strcmp(json_string(root, "method"), "provider") == 0;
        return 0;
    }
    out->messages = json_get(root, "messages");
    out->tools = get_filled(root, "tools");
    if (out->tools == NULL)
        out->tools = get_filled(root, "functions");
    return 0;
}

void count_request_clear(struct count_request *r)
{
    cJSON_Delete(r->root);
    memset(r, 0, sizeof(*r));
}
