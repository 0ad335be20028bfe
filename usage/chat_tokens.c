#include "usage/chat_tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/json.h"

#define MESSAGE_TOKENS 3
#define NAME_TOKENS 1
#define ANSWER_TOKENS 3
#define CALL_TOKENS 3 /* not documented */
#define PROPERTIES_TOKENS 3
#define PROPERTY_TOKENS 3
#define ENUM_TOKENS (-3)
#define ENUM_ITEM_TOKENS 3
#define TOOLS_TOKENS 12

#define COMPOSED_MAX ((size_t)64 << 20) /* far above what a request's schemas come to */
#define TEXTS_FIRST 32
#define TEXT_COST 32 /* bytes of a budget that beginning a text is worth */

const struct chat_token_rules CHAT_TOKENS_O200K = {BPE_O200K, 7, {85, 170}};
const struct chat_token_rules CHAT_TOKENS_CL100K = {BPE_CL100K, 10, {85, 170}};

/* A text that is counted alone. */
struct text {
    const char *borrowed; /* NULL: in the composed ones */
    size_t at;
    size_t len;
};

struct chat_tokens {
    const struct chat_token_rules *rules;
    struct text *texts;
    size_t count, capacity;
    struct buf composed;
    int64_t constant; /* the tokens that are no text's */
    bool has_unknown;
    int rc; /* the first failure while listing */
    size_t next;
    size_t done; /* tokens of the texts before next */
    struct bpe_counter counter;
    bool is_counting; /* counter is at work on next */
};

static void add(struct chat_tokens *t, struct text text)
{
    if (t->rc < 0 || text.len == 0)
        return;
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? TEXTS_FIRST : 2 * t->capacity;
        struct text *texts = reallocarray(t->texts, capacity, sizeof(*texts));

        if (texts == NULL) {
            t->rc = -ENOMEM;
            return;
        }
        t->texts = texts;
        t->capacity = capacity;
    }
    t->texts[t->count++] = text;
}

static void add_string(struct chat_tokens *t, const char *string)
{
    if (string != NULL)
        add(t, (struct text){.borrowed = string, .len = strlen(string)});
}

/* What has been composed since from. */
static void add_composed(struct chat_tokens *t, size_t from)
{
    if (t->rc == 0)
        t->rc = t->composed.err;
    add(t, (struct text){.at = from, .len = t->composed.len - from});
}

static void add_image(struct chat_tokens *t, const cJSON *part)
{
    const cJSON *image = json_get(part, "image_url");
    const char *url = cJSON_IsString(image) ? image->valuestring : json_string(image, "url");
    bool is_known;

    if (url == NULL)
        return;
    t->constant += (int64_t)image_tokens(&t->rules->image, url, strlen(url),
                                         json_string(image, "detail"), &is_known);
    t->has_unknown |= !is_known;
}

static void add_part(struct chat_tokens *t, const cJSON *part)
{
    const char *type = json_string(part, "type");

    if (type == NULL)
        return;
    if (strcmp(type, "text") == 0)
        add_string(t, json_string(part, "text"));
    else if (strcmp(type, "refusal") == 0)
        add_string(t, json_string(part, "refusal"));
    else if (strcmp(type, "image_url") == 0)
        add_image(t, part);
    else
        t->has_unknown = true;
}

static void add_content(struct chat_tokens *t, const cJSON *content)
{
    const cJSON *part;

    if (cJSON_IsString(content)) {
        add_string(t, content->valuestring);
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
    t->constant += CALL_TOKENS;
    add_string(t, json_string(function, "name"));
    add_string(t, json_string(function, "arguments"));
}

static void add_message(struct chat_tokens *t, const cJSON *message)
{
    const cJSON *calls = json_get(message, "tool_calls");
    const char *name = json_string(message, "name");
    const cJSON *call;

    t->constant += MESSAGE_TOKENS;
    add_string(t, json_string(message, "role"));
    add_content(t, json_get(message, "content"));
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
        add_call(t, json_get(call, "function"));
    }
}

/* ":description" without its last full stop, as the formula has it. */
static void compose_description(struct chat_tokens *t, const cJSON *object)
{
    const char *description = json_string(object, "description");
    size_t len = description == NULL ? 0 : strlen(description);

    buf_byte(&t->composed, ':');
    if (len > 0 && description[len - 1] == '.')
        len--;
    if (len > 0)
        buf_append(&t->composed, description, len);
}

/* A type may be a name or, with null for example, several. */
static void compose_type(struct chat_tokens *t, const cJSON *type)
{
    const cJSON *one;

    if (cJSON_IsString(type)) {
        buf_str(&t->composed, type->valuestring);
        return;
    }
    if (!cJSON_IsArray(type))
        return;
    cJSON_ArrayForEach(one, type)
    {
        if (one != type->child)
            buf_byte(&t->composed, '|');
        if (cJSON_IsString(one))
            buf_str(&t->composed, one->valuestring);
    }
}

static void add_enum(struct chat_tokens *t, const cJSON *values)
{
    const cJSON *value;

    if (!cJSON_IsArray(values))
        return;
    t->constant += ENUM_TOKENS;
    cJSON_ArrayForEach(value, values)
    {
        size_t from = t->composed.len;

        t->constant += ENUM_ITEM_TOKENS;
        if (cJSON_IsString(value)) {
            add_string(t, value->valuestring);
            continue;
        }
        json_put_tree(&t->composed, value);
        add_composed(t, from);
    }
}

static void add_property(struct chat_tokens *t, const cJSON *property)
{
    size_t from = t->composed.len;

    t->constant += PROPERTY_TOKENS;
    buf_str(&t->composed, property->string);
    buf_byte(&t->composed, ':');
    compose_type(t, json_get(property, "type"));
    compose_description(t, property);
    add_composed(t, from);
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
    size_t from = t->composed.len;
    const char *name;

    if (function == NULL) /* the older "functions" have no wrapper */
        function = tool;
    name = json_string(function, "name");
    if (name == NULL) {
        t->has_unknown = true;
        return;
    }
    t->constant += t->rules->function;
    buf_str(&t->composed, name);
    compose_description(t, function);
    add_composed(t, from);
    add_schema(t, json_get(function, "parameters"));
}

static void add_tools(struct chat_tokens *t, const cJSON *tools)
{
    const cJSON *tool;

    if (!cJSON_IsArray(tools) || tools->child == NULL)
        return;
    t->constant += TOOLS_TOKENS;
    cJSON_ArrayForEach(tool, tools)
    {
        add_tool(t, tool);
    }
}

int chat_tokens_new(const struct chat_token_rules *rules, const cJSON *messages, const cJSON *tools,
                    struct chat_tokens **out)
{
    struct chat_tokens *t = calloc(1, sizeof(*t));
    const cJSON *message;
    int rc;

    *out = NULL;
    if (t == NULL)
        return -ENOMEM;
    t->rules = rules;
    t->constant = ANSWER_TOKENS;
    buf_init(&t->composed, COMPOSED_MAX);
    if (cJSON_IsArray(messages)) {
        cJSON_ArrayForEach(message, messages)
        {
            add_message(t, message);
        }
    }
    add_tools(t, tools);
    rc = t->rc;
    if (rc < 0)
        chat_tokens_free(t);
    else
        *out = t;
    return rc;
}

void chat_tokens_free(struct chat_tokens *t)
{
    if (t == NULL)
        return;
    buf_clear(&t->composed);
    free(t->texts);
    free(t);
}

static void begin_text(struct chat_tokens *t)
{
    const struct text *text = &t->texts[t->next];
    const char *bytes = text->borrowed != NULL ? text->borrowed : t->composed.data + text->at;

    bpe_counter_init(&t->counter, t->rules->encoding, bytes, text->len);
    t->is_counting = true;
}

int chat_tokens_step(struct chat_tokens *t, size_t budget)
{
    while (t->next < t->count && budget > 0) {
        size_t len = t->texts[t->next].len;
        int rc;

        if (!t->is_counting)
            begin_text(t);
        rc = bpe_counter_step(&t->counter, budget);
        if (rc != 0)
            return rc;
        t->done += t->counter.tokens;
        t->is_counting = false;
        t->next++;
        budget -= len + TEXT_COST < budget ? len + TEXT_COST : budget;
    }
    return t->next < t->count ? 1 : 0;
}

size_t chat_tokens_total(const struct chat_tokens *t)
{
    return (size_t)t->constant + t->done + (t->is_counting ? t->counter.tokens : 0);
}

bool chat_tokens_has_unknown(const struct chat_tokens *t)
{
    return t->has_unknown;
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
