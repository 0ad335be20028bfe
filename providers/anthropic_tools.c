/* What the model may call: the client's functions, and where it has no other way to keep to a
 * schema, one whose arguments are the answer. */
#include "providers/anthropic.h"

#include <stdio.h>
#include <string.h>

#include "common/json_copy.h"

#define PARAM_BYTES 96

struct choice {
    enum mode { AUTO, NONE, ANY, NAMED } mode;
    const char *name; /* of NAMED */
};

int anthropic_put_schema(struct json_span schema, const char *param, struct buf *out,
                         struct error *e)
{
    bool has_type = false;
    struct json_copy c;
    struct json_member m;

    if (schema.at == NULL || schema.at[0] != '{') {
        buf_str(out, "{\"type\":\"object\",\"properties\":{}}");
        return 0;
    }
    json_copy_open(&c, schema, out);
    while (json_copy_next(&c, &m)) {
        bool is_type = json_name_is(m.name, "type");
        bool is_object = is_type && json_name_is(json_inside(m.value), "object");

        if (is_type && !is_object && m.value.at[0] != '[' && m.value.at[0] != 'n')
            return error_set(e, XR_EINVALID, param, "'%s': expected a schema of type \"object\".",
                             param);
        if (is_object || !is_type)
            json_copy_keep(&c, &m);
        has_type = has_type || is_object;
    }
    if (!has_type) /* the API insists; a list of types is replaced by it */
        buf_str(json_copy_add(&c, "type"), "\"object\"");
    json_copy_close(&c);
    return 0;
}

int anthropic_find_schema(const struct model_request *req, struct json_span *out, struct error *e)
{
    static const char path[] = "response_format.json_schema.schema";

    if (json_slice(req->text, req->len, path, &out->at, &out->len) == 0 && out->at[0] == '{')
        return 0;
    return error_set(e, XR_EINVALID, path, "'%s': expected an object, found nothing.", path);
}

bool anthropic_is_answer_function(const struct model_request *req, const char *name)
{
    return req->wants_json_schema && strcmp(name, ANTHROPIC_ANSWER_FUNCTION) == 0;
}

/* What the client asks for, in the older words or the newer. */
static int read_choice(const struct model_request *req, struct choice *out, struct error *e)
{
    const cJSON *choice = json_get(req->root, req->tools != NULL ? "tool_choice" : "function_call");
    const cJSON *function = json_get(choice, "function");
    const char *type = json_string(choice, "type");

    *out = (struct choice){AUTO, NULL};
    if (type != NULL && strcmp(type, "function") != 0)
        return anthropic_unsupported(e, "tool_choice", "only one function can be chosen");
    if (cJSON_IsObject(choice))
        *out = (struct choice){NAMED, json_string(function != NULL ? function : choice, "name")};
    else if (cJSON_IsString(choice) && strcmp(choice->valuestring, "none") == 0)
        out->mode = NONE;
    else if (cJSON_IsString(choice) && strcmp(choice->valuestring, "required") == 0)
        out->mode = ANY;
    return 0;
}

static void begin_tool(struct buf *out)
{
    if (out->len > 0 && out->data[out->len - 1] != '[')
        buf_byte(out, ',');
    buf_str(out, "{\"name\":");
}

/* function is the object with the name, source its bytes; tool the list's element. */
static int put_tool(const cJSON *function, const cJSON *tool, struct json_span source,
                    const char *param, struct buf *out, struct error *e)
{
    const char *description = json_string(function, "description");
    const cJSON *control = json_get(tool, "cache_control");
    struct json_span schema = {NULL, 0};
    int rc;

    begin_tool(out);
    anthropic_put_function_name(out, json_string(function, "name"));
    if (description != NULL && description[0] != '\0')
        json_put_field_text(out, "description", description);
    if (json_slice(source.at, source.len, "parameters", &schema.at, &schema.len) < 0)
        schema.at = NULL;
    json_put_key(out, "input_schema");
    rc = anthropic_put_schema(schema, param, out, e);
    if (cJSON_IsObject(control)) {
        json_put_key(out, "cache_control");
        json_put_tree(out, control);
    }
    buf_byte(out, '}');
    return rc;
}

static int put_tools(const struct model_request *req, struct buf *out, struct error *e)
{
    const cJSON *list = req->tools != NULL ? req->tools : req->functions;
    const char *path = req->tools != NULL ? "tools" : "functions";
    struct json_span span = {NULL, 0};
    struct json_walk walk;
    struct json_member m;
    const cJSON *item;
    size_t index = 0;
    int rc = 0;

    if (list == NULL || json_slice(req->text, req->len, path, &span.at, &span.len) < 0)
        return 0;
    json_walk_begin(&walk, span);
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *function = req->tools != NULL ? json_get(item, "function") : item;
        struct json_span source;
        char param[PARAM_BYTES];

        if (!json_walk_next(&walk, &m))
            break;
        if (!cJSON_IsObject(function) ||
            (req->tools != NULL && strcmp(json_string(item, "type"), "function") != 0))
            return anthropic_unsupported(e, "tools", "only functions can be tools");
        source = m.value;
        if (req->tools != NULL)
            json_slice(m.value.at, m.value.len, "function", &source.at, &source.len);
        snprintf(param, sizeof(param), "%s[%zu]%s.parameters", path, index++,
                 req->tools != NULL ? ".function" : "");
        rc = put_tool(function, item, source, param, out, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int put_answer_tool(const struct model_request *req, struct buf *out, struct error *e)
{
    const cJSON *format = json_get(json_get(req->root, "response_format"), "json_schema");
    const char *description = json_string(format, "description");
    struct json_span schema;
    int rc = anthropic_find_schema(req, &schema, e);

    if (rc < 0)
        return rc;
    begin_tool(out);
    json_put_text(out, ANTHROPIC_ANSWER_FUNCTION);
    json_put_field_text(out, "description",
                        description != NULL && description[0] != '\0'
                            ? description
                            : "Gives the final answer to the user.");
    json_put_key(out, "input_schema");
    rc = anthropic_put_schema(schema, "response_format.json_schema.schema", out, e);
    buf_byte(out, '}');
    return rc;
}

/* The name of the first function that was called in the conversation, NULL = none. */
static const char *first_called(const cJSON *messages)
{
    const cJSON *message;

    cJSON_ArrayForEach(message, messages)
    {
        const cJSON *calls = anthropic_calls(message);
        const cJSON *function = json_get(message, "function_call");

        if (strcmp(json_string(message, "role"), "assistant") != 0)
            continue;
        if (calls != NULL && calls->child != NULL)
            function = json_get(calls->child, "function");
        if (cJSON_IsObject(function))
            return json_string(function, "name");
    }
    return NULL;
}

/* A conversation with calls in it is refused unless functions are offered. */
static void put_placeholder(const char *name, struct buf *out)
{
    begin_tool(out);
    anthropic_put_function_name(out, name);
    buf_str(out, ",\"input_schema\":{\"type\":\"object\"}}");
}

static void put_choice(const struct choice *choice, bool one_call, struct buf *out)
{
    static const char *const types[] = {
        [AUTO] = "auto", [NONE] = "none", [ANY] = "any", [NAMED] = "tool"};

    if (choice->mode == AUTO && !one_call)
        return;
    buf_str(out, ",\"tool_choice\":{");
    json_put_field_text(out, "type", types[choice->mode]);
    if (choice->mode == NAMED) {
        json_put_key(out, "name");
        anthropic_put_function_name(out, choice->name);
    }
    if (one_call && choice->mode != NONE)
        json_put_field_bool(out, "disable_parallel_tool_use", true);
    buf_byte(out, '}');
}

static bool has_strict(const struct model_request *req)
{
    const cJSON *tool;

    cJSON_ArrayForEach(tool, req->tools)
    {
        if (cJSON_IsTrue(json_get(json_get(tool, "function"), "strict")))
            return true;
    }
    return false;
}

/* Who may call what, once the function for the answer is among the others. */
static struct choice add_answer(struct choice choice, bool has_tools)
{
    if (has_tools && choice.mode == AUTO)
        return (struct choice){ANY, NULL};
    return (struct choice){NAMED, ANTHROPIC_ANSWER_FUNCTION};
}

int anthropic_encode_tools(const struct anthropic_model *model, const struct model_request *req,
                           struct buf *out, struct buf *ignored, struct error *e)
{
    bool has_tools = req->tools != NULL || req->functions != NULL;
    bool one_call = req->functions != NULL || /* which knows but one */
                    cJSON_IsFalse(json_get(req->root, "parallel_tool_calls"));
    const char *called = has_tools ? NULL : first_called(req->messages);
    struct choice choice;
    bool wants_answer;
    int rc = read_choice(req, &choice, e);

    if (rc < 0)
        return rc;
    /* A function that must be called leaves no room for an answer. */
    wants_answer =
        req->wants_json_schema && !model->has_format && choice.mode != ANY && choice.mode != NAMED;
    if (!has_tools && !wants_answer && called == NULL)
        return 0;
    buf_str(out, ",\"tools\":[");
    rc = put_tools(req, out, e);
    if (rc == 0 && wants_answer)
        rc = put_answer_tool(req, out, e);
    if (rc < 0)
        return rc;
    if (wants_answer) {
        choice = add_answer(choice, has_tools);
        one_call = true;
    } else if (!has_tools) {
        put_placeholder(called, out);
        choice.mode = NONE;
    }
    buf_byte(out, ']');
    put_choice(&choice, one_call, out);
    if (has_strict(req))
        anthropic_note_ignored(ignored, "tools[].function.strict");
    return 0;
}
