#include <string.h>

#include "common/json.h"
#include "tests/sim/answer.h"

#define SCHEMA_DEPTH_MAX 16
#define INDENT_STEP 2

static void put_line(struct buf *out, int indent)
{
    if (indent < 0)
        return;
    buf_byte(out, '\n');
    for (int i = 0; i < indent; i++)
        buf_byte(out, ' ');
}

/* The schema's type: the first that is not null, of a name or a list of names. */
static const char *type_of(const cJSON *schema)
{
    const cJSON *type = json_get(schema, "type");
    const cJSON *item;

    if (cJSON_IsString(type))
        return type->valuestring;
    if (cJSON_IsArray(type)) {
        cJSON_ArrayForEach(item, type)
        {
            if (cJSON_IsString(item) && strcmp(item->valuestring, "null") != 0)
                return item->valuestring;
        }
    }
    if (cJSON_IsObject(json_get(schema, "properties")))
        return "object";
    return "string";
}

static const cJSON *first_variant(const cJSON *schema)
{
    static const char *const names[] = {"anyOf", "oneOf", "allOf"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const cJSON *list = json_get(schema, names[i]);

        if (cJSON_IsArray(list) && list->child != NULL)
            return list->child;
    }
    return schema;
}

static void put_value(struct buf *out, const cJSON *schema, int indent, int depth);

static void put_object(struct buf *out, const cJSON *schema, int indent, int depth)
{
    int inner = indent < 0 ? indent : indent + INDENT_STEP;
    const cJSON *properties = json_get(schema, "properties");
    const cJSON *item;
    bool any = false;

    buf_byte(out, '{');
    cJSON_ArrayForEach(item, properties)
    {
        if (any)
            buf_byte(out, ',');
        any = true;
        put_line(out, inner);
        json_put_text(out, item->string);
        buf_str(out, indent < 0 ? ":" : ": ");
        put_value(out, item, inner, depth + 1);
    }
    if (any)
        put_line(out, indent);
    buf_byte(out, '}');
}

static void put_array(struct buf *out, const cJSON *schema, int indent, int depth)
{
    int inner = indent < 0 ? indent : indent + INDENT_STEP;

    buf_byte(out, '[');
    put_line(out, inner);
    put_value(out, json_get(schema, "items"), inner, depth + 1);
    put_line(out, indent);
    buf_byte(out, ']');
}

static void put_value(struct buf *out, const cJSON *schema, int indent, int depth)
{
    const cJSON *list;
    const char *type;

    schema = first_variant(schema);
    list = json_get(schema, "enum");
    type = type_of(schema);
    if (cJSON_IsArray(list) && list->child != NULL)
        json_put_tree(out, list->child);
    else if (json_get(schema, "const") != NULL)
        json_put_tree(out, json_get(schema, "const"));
    else if (strcmp(type, "object") == 0 && depth < SCHEMA_DEPTH_MAX)
        put_object(out, schema, indent, depth);
    else if (strcmp(type, "array") == 0 && depth < SCHEMA_DEPTH_MAX)
        put_array(out, schema, indent, depth);
    else if (strcmp(type, "integer") == 0)
        buf_str(out, "1");
    else if (strcmp(type, "number") == 0)
        buf_str(out, "1.5");
    else if (strcmp(type, "boolean") == 0)
        buf_str(out, "true");
    else if (strcmp(type, "null") == 0)
        buf_str(out, "null");
    else
        buf_str(out, "\"x\"");
}

void schema_fill(struct buf *out, const cJSON *schema, int indent)
{
    put_value(out, schema, indent, 0);
}
