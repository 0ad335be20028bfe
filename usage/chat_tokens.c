#include "usage/chat_tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"
#include "usage/text_tokens.h"

#define MESSAGE_TOKENS 3
#define NAME_TOKENS 1
#define ANSWER_TOKENS 3
#define CALL_TOKENS 3 /* not documented */
#define PROPERTIES_TOKENS 3
#define PROPERTY_TOKENS 3
#define ENUM_TOKENS (-3)
#define ENUM_ITEM_TOKENS 3
#define TOOLS_TOKENS 12

const struct chat_token_rules CHAT_TOKENS_O200K = {
    .encoding = BPE_O200K, .function = 7, .image = {85, 170}};
const struct chat_token_rules CHAT_TOKENS_CL100K = {
    .encoding = BPE_CL100K, .function = 10, .image = {85, 170}};
const struct chat_token_rules CHAT_TOKENS_CHARS3 = {.is_chars3 = true, .image = {85, 170}};

struct chat_tokens {
    const struct chat_token_rules *rules;
    struct text_tokens texts;
    int64_t constant; /* the tokens that are no text's */
    int64_t images;   /* those of images among them */
    bool has_unknown;
    bool is_plain;
};

static void add_string(struct chat_tokens *t, const char *string)
{
    text_tokens_add(&t->texts, string, false);
}

static void add_said(struct chat_tokens *t, const char *string)
{
    text_tokens_add(&t->texts, string, true);
}

static void add_image(struct chat_tokens *t, const cJSON *part)
{
    const cJSON *image = json_get(part, "image_url");
    const char *url = cJSON_IsString(image) ? image->valuestring : json_string(image, "url");
    int64_t tokens;
    bool is_known;

    if (url == NULL)
        return;
    tokens = (int64_t)image_tokens(&t->rules->image, url, strlen(url), json_string(image, "detail"),
                                   &is_known);
    t->constant += tokens;
    t->images += tokens;
    t->has_unknown |= !is_known || t->rules->is_chars3;
    t->is_plain = false;
}

static void note_unknown(struct chat_tokens *t)
{
    t->has_unknown = true;
    t->is_plain = false;
}

static void add_part(struct chat_tokens *t, const cJSON *part)
{
    const char *type = json_string(part, "type");

    if (type == NULL)
        return;
    if (strcmp(type, "text") == 0)
        add_said(t, json_string(part, "text"));
    else if (strcmp(type, "refusal") == 0)
        add_said(t, json_string(part, "refusal"));
    else if (strcmp(type, "image_url") == 0)
        add_image(t, part);
    else
        note_unknown(t);
}

static void add_content(struct chat_tokens *t, const cJSON *content)
{
    const cJSON *part;

    if (cJSON_IsString(content)) {
        add_said(t, content->valuestring);
        return;
    }
    if (!cJSON_IsArray(content))
        return;
    cJSON_ArrayForEach(part, content)
    {
        add_part(t, part);
    }
}

static void add_call(struct chat_tokens *t, const cJSON *function)
{
    if (!cJSON_IsObject(function))
        return;
    t->is_plain = false;
    t->constant += CALL_TOKENS;
    add_string(t, json_string(function, "name"));
    add_string(t, json_string(function, "arguments"));
}

static void add_message(struct chat_tokens *t, const cJSON *message)
{
    const cJSON *calls = json_get(message, "tool_calls");
    const char *name = json_string(message, "name");
    const cJSON *call;

    if (!cJSON_IsObject(message))
        return;
    text_tokens_begin_group(&t->texts);
    add_content(t, json_get(message, "content"));
    if (t->rules->is_chars3)
        return;
    t->constant += MESSAGE_TOKENS;
    add_string(t, json_string(message, "role"));
    add_string(t, json_string(message, "refusal"));
    add_string(t, json_string(message, "tool_call_id"));
    if (name != NULL) {
        t->constant += NAME_TOKENS;
        add_string(t, name);
    }
    add_call(t, json_get(message, "function_call"));
    if (!cJSON_IsArray(calls))
        return;
    cJSON_ArrayForEach(call, calls)
    {
        if (json_get(call, "function") == NULL)
            note_unknown(t);
        add_call(t, json_get(call, "function"));
    }
}

/* ":description" without its last full stop, as the formula has it. */
static void compose_description(struct buf *composed, const cJSON *object)
{
    const char *description = json_string(object, "description");
    size_t len = description == NULL ? 0 : strlen(description);

    buf_byte(composed, ':');
    if (len > 0 && description[len - 1] == '.')
        len--;
    if (len > 0)
        buf_append(composed, description, len);
}

/* A type may be a name or, with null for example, several. */
static void compose_type(struct buf *composed, const cJSON *type)
{
    const cJSON *one;

    if (cJSON_IsString(type)) {
        buf_str(composed, type->valuestring);
        return;
    }
    if (!cJSON_IsArray(type))
        return;
    cJSON_ArrayForEach(one, type)
    {
        if (one != type->child)
            buf_byte(composed, '|');
        if (cJSON_IsString(one))
            buf_str(composed, one->valuestring);
    }
}

static void add_enum(struct chat_tokens *t, const cJSON *values)
{
    struct buf *composed = text_tokens_compose(&t->texts);
    const cJSON *value;

    if (!cJSON_IsArray(values))
        return;
    t->constant += ENUM_TOKENS;
    cJSON_ArrayForEach(value, values)
    {
        size_t from = composed->len;

        t->constant += ENUM_ITEM_TOKENS;
        if (cJSON_IsString(value)) {
            add_string(t, value->valuestring);
            continue;
        }
        json_put_tree(composed, value);
        text_tokens_add_composed(&t->texts, from);
    }
}

static void add_property(struct chat_tokens *t, const cJSON *property)
{
    struct buf *composed = text_tokens_compose(&t->texts);
    size_t from = composed->len;

    t->constant += PROPERTY_TOKENS;
    buf_str(composed, property->string);
    buf_byte(composed, ':');
    compose_type(composed, json_get(property, "type"));
    compose_description(composed, property);
    text_tokens_add_composed(&t->texts, from);
    add_enum(t, json_get(property, "enum"));
}

static bool is_one_of(const char *key, const char *const *keys)
{
    while (*keys != NULL && strcmp(*keys, key) != 0)
        keys++;
    return *keys != NULL;
}

/* The formula knows flat parameters; what is nested is counted as if it were one level up. The
 * tree's depth, which json_check() has limited, limits the recursion. */
static void add_schema(struct chat_tokens *t, const cJSON *schema)
{
    static const char *const schemas[] = {
        "items", "anyOf", "oneOf", "allOf", "not", "additionalProperties", NULL};
    static const char *const named_schemas[] = {"$defs", "definitions", NULL};
    const cJSON *properties = json_get(schema, "properties");
    const cJSON *item;

    if (cJSON_IsObject(properties) && properties->child != NULL) {
        t->constant += PROPERTIES_TOKENS;
        cJSON_ArrayForEach(item, properties)
        {
            add_property(t, item);
            add_schema(t, item);
        }
    }
    if (!cJSON_IsObject(schema))
        return;
    cJSON_ArrayForEach(item, schema)
    {
        bool is_named = is_one_of(item->string, named_schemas);
        const cJSON *inner;

        if (!is_named && !is_one_of(item->string, schemas))
            continue;
        if (!is_named && !cJSON_IsArray(item)) {
            add_schema(t, item);
            continue;
        }
        cJSON_ArrayForEach(inner, item)
        {
            add_schema(t, inner);
        }
    }
}

static void add_tool(struct chat_tokens *t, const cJSON *tool)
{
    const cJSON *function = json_get(tool, "function");
    struct buf *composed = text_tokens_compose(&t->texts);
    size_t from = composed->len;
    const char *name;

    if (function == NULL) /* the older "functions" have no wrapper */
        function = tool;
    name = json_string(function, "name");
    if (name == NULL) {
        note_unknown(t);
        return;
    }
    t->constant += t->rules->function;
    buf_str(composed, name);
    compose_description(composed, function);
    text_tokens_add_composed(&t->texts, from);
    add_schema(t, json_get(function, "parameters"));
}

static void add_tools(struct chat_tokens *t, const cJSON *tools)
{
    const cJSON *tool;

    if (!cJSON_IsArray(tools) || tools->child == NULL)
        return;
    t->is_plain = false;
    t->constant += TOOLS_TOKENS;
    cJSON_ArrayForEach(tool, tools)
    {
        add_tool(t, tool);
    }
}

static struct chat_tokens *new_empty(const struct chat_token_rules *rules)
{
    struct chat_tokens *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->rules = rules;
    t->is_plain = true;
    text_tokens_init(&t->texts, rules->encoding, rules->is_chars3);
    return t;
}

/* Hands over what has been listed. */
static int finish_list(struct chat_tokens *t, struct chat_tokens **out)
{
    int rc = text_tokens_error(&t->texts);

    if (rc < 0)
        chat_tokens_free(t);
    else
        *out = t;
    return rc;
}

int chat_tokens_new(const struct chat_token_rules *rules, const cJSON *messages, const cJSON *tools,
                    struct chat_tokens **out)
{
    struct chat_tokens *t = new_empty(rules);
    const cJSON *message;

    *out = NULL;
    if (t == NULL)
        return -ENOMEM;
    if (cJSON_IsArray(messages)) {
        cJSON_ArrayForEach(message, messages)
        {
            add_message(t, message);
        }
    }
    if (!rules->is_chars3) {
        t->constant += ANSWER_TOKENS;
        add_tools(t, tools);
    }
    return finish_list(t, out);
}

int chat_tokens_new_text(const struct chat_token_rules *rules, const cJSON *input,
                         struct chat_tokens **out)
{
    struct chat_tokens *t = new_empty(rules);
    const cJSON *text;

    *out = NULL;
    if (t == NULL)
        return -ENOMEM;
    if (cJSON_IsString(input))
        add_said(t, input->valuestring);
    if (cJSON_IsArray(input)) {
        cJSON_ArrayForEach(text, input)
        {
            text_tokens_begin_group(&t->texts);
            if (cJSON_IsString(text))
                add_said(t, text->valuestring);
        }
    }
    return finish_list(t, out);
}

void chat_tokens_free(struct chat_tokens *t)
{
    if (t == NULL)
        return;
    text_tokens_clear(&t->texts);
    free(t);
}

int chat_tokens_step(struct chat_tokens *t, size_t budget)
{
    return text_tokens_step(&t->texts, budget);
}

size_t chat_tokens_total(const struct chat_tokens *t)
{
    return (size_t)(t->constant + text_tokens_total(&t->texts));
}

size_t chat_tokens_images(const struct chat_tokens *t)
{
    return (size_t)t->images;
}

int64_t chat_tokens_characters(const struct chat_tokens *t)
{
    return text_tokens_characters(&t->texts);
}

bool chat_tokens_has_unknown(const struct chat_tokens *t)
{
    return t->has_unknown;
}

bool chat_tokens_is_plain(const struct chat_tokens *t)
{
    return t->is_plain;
}

int chat_tokens_count(const struct chat_token_rules *rules, const cJSON *messages,
                      const cJSON *tools, size_t *tokens)
{
    struct chat_tokens *t;
    int rc = chat_tokens_new(rules, messages, tools, &t);

    if (rc < 0)
        return rc;
    do {
        rc = chat_tokens_step(t, SIZE_MAX);
    } while (rc == 1);
    *tokens = chat_tokens_total(t);
    chat_tokens_free(t);
    return rc;
}

/* Why it holds. Each part of a request pays for its tokens with its own bytes in the JSON text, and
 * nothing is counted twice. A text has no more tokens than bytes, and JSON never writes it shorter.
 * A message is {} and a comma for its 3; what a name, a call, a tool ({"name":""}, 12 bytes) and a
 * list of properties cost beside their texts is less than the member's name and its quotes; a
 * property ("":0 and a comma) is 5 bytes for 3 and two colons. Dearest is the value of an enum: 3
 * beside its text, so that 1 and a comma, two bytes, are 4 tokens; hence the 2. A number is printed
 * anew and may grow (1e14), but three digits are one token: k bytes of a number are no more than
 * 2k - 1 tokens. The answer and the head of the tools are added.
 *
 * For chars3 a text of c characters, a third of them rounded up, has the two that the rounding may
 * add in its quotes. */
int64_t chat_tokens_bound(const struct chat_token_rules *rules, size_t json_bytes, size_t images)
{
    size_t image = rules->image.base + (size_t)IMAGE_TILES_MAX * rules->image.tile;
    size_t text, sum;

    if (rules->is_chars3)
        text = json_bytes / 3;
    else if (__builtin_mul_overflow(json_bytes, (size_t)2, &text) ||
             __builtin_add_overflow(text, (size_t)(ANSWER_TOKENS + TOOLS_TOKENS), &text))
        return INT64_MAX;
    if (__builtin_mul_overflow(images, image, &sum) || __builtin_add_overflow(sum, text, &sum))
        return INT64_MAX;
    return sum > INT64_MAX ? INT64_MAX : (int64_t)sum;
}
