#include "tests/sim/translate.h"

#include <string.h>

#define TEXT_BYTES_MAX (64 * 1024 * 1024)

/* Adds the item, or notes that it is missing; owner is one of tree's objects or lists. */
static void add(struct sim_request *request, cJSON *owner, const char *name, cJSON *item)
{
    cJSON_bool done = name == NULL ? cJSON_AddItemToArray(owner, item)
                                   : cJSON_AddItemToObjectCS(owner, name, item);

    if (done)
        return;
    cJSON_Delete(item);
    request->is_incomplete = true;
}

void translate_begin(struct sim_request *request, cJSON *root)
{
    *request = (struct sim_request){.root = root, .last_user = "", .choices = 1};
    request->tree = cJSON_CreateObject();
    if (request->tree == NULL) {
        request->is_incomplete = true;
        return;
    }
    add(request, request->tree, "messages", cJSON_CreateArray());
    add(request, request->tree, "functions", cJSON_CreateArray());
}

static void add_message(struct sim_request *request, enum role role, cJSON *content)
{
    cJSON *message = cJSON_CreateObject();

    add(request, message, "role", cJSON_CreateStringReference(role_name(role)));
    add(request, message, "content", content);
    add(request, cJSON_GetObjectItem(request->tree, "messages"), NULL, message);
}

void translate_message(struct sim_request *request, enum role role, const char *text)
{
    add_message(request, role, cJSON_CreateStringReference(text));
}

void translate_content(struct sim_request *request, enum role role, const cJSON *content)
{
    const cJSON *part;
    const char *joined;
    struct buf text;

    if (cJSON_IsString(content) || !cJSON_IsArray(content)) {
        translate_message(request, role, cJSON_IsString(content) ? content->valuestring : "");
        return;
    }
    buf_init(&text, TEXT_BYTES_MAX);
    cJSON_ArrayForEach(part, content)
    {
        const char *type = json_string(part, "type");
        const char *more = json_string(part, "text");

        if (type != NULL && more != NULL && strcmp(type, "text") == 0)
            buf_str(&text, more);
    }
    joined = buf_text(&text);
    add_message(request, role, joined == NULL ? NULL : cJSON_CreateString(joined));
    buf_clear(&text);
}

void translate_function(struct sim_request *request, const char *name, const cJSON *parameters)
{
    cJSON *function = cJSON_CreateObject();
    cJSON *object;

    add(request, function, "name", cJSON_CreateStringReference(name));
    if (parameters != NULL && parameters->child != NULL) {
        object = cJSON_CreateObjectReference(parameters->child);
    } else {
        object = cJSON_CreateObject();
        add(request, object, "type", cJSON_CreateStringReference("object"));
    }
    add(request, function, "parameters", object);
    add(request, cJSON_GetObjectItem(request->tree, "functions"), NULL, function);
}

void translate_any_object(struct sim_request *request)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON *properties = cJSON_CreateObject();

    add(request, properties, "answer", cJSON_CreateObject());
    add(request, schema, "properties", properties);
    add(request, request->tree, "schema", schema);
    request->schema = json_get(request->tree, "schema");
}

void translate_end(struct sim_request *request)
{
    const cJSON *message;

    request->messages = json_get(request->tree, "messages");
    request->functions = json_get(request->tree, "functions");
    if (request->functions != NULL && request->functions->child == NULL)
        request->functions = NULL;
    cJSON_ArrayForEach(message, request->messages)
    {
        if (role_of(message) == ROLE_USER)
            request->last_user = json_string(message, "content");
        request->last = message;
    }
    request->prompt_tokens = count_prompt_tokens(request->messages);
}
