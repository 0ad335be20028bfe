#include "providers/json_schema.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

/* References multiply: a small schema can stand for a huge one, and each look-up walks a list. A
 * request may bring 128 schemas, and whoever else the worker serves waits for all of them. */
#define STEPS_MAX 100000
#define TYPES_MAX 8   /* of a list of types looked at: there are seven */
#define TOKEN_MAX 128 /* bytes of one name in a reference */

/* clang-format off */
#define KEYWORDS(X) \
    X(REF, "$ref") X(ANY_OF, "anyOf") X(ONE_OF, "oneOf") X(ALL_OF, "allOf") X(TYPE, "type") \
    X(PROPERTIES, "properties") X(REQUIRED, "required") X(ITEMS, "items") \
    X(PREFIX_ITEMS, "prefixItems") X(ENUM, "enum") X(CONST, "const") X(FORMAT, "format") \
    /* copied as they are: */ \
    X(TITLE, "title") X(DESCRIPTION, "description") X(DEFAULT, "default") X(MINIMUM, "minimum") \
    X(MAXIMUM, "maximum") X(MIN_LENGTH, "minLength") X(MAX_LENGTH, "maxLength") \
    X(PATTERN, "pattern") X(MIN_ITEMS, "minItems") X(MAX_ITEMS, "maxItems")
/* clang-format on */

#define X(name, text) KEY_##name,
enum keyword { KEYWORDS(X) KEYWORD_COUNT };
#undef X
#define X(name, text) text,
static const char *const keyword_names[KEYWORD_COUNT] = {KEYWORDS(X)};
#undef X

struct simplifier {
    const cJSON *root;
    struct buf out;
    const char *why;
    size_t depth;
    size_t steps;
    const cJSON *open[JSON_SCHEMA_DEPTH_MAX]; /* references being written out, outermost first */
    size_t open_count;
};

/* A schema's keywords, with those of whatever it refers to. */
struct view {
    const cJSON *keys[KEYWORD_COUNT];
    bool recursive; /* leads back into itself */
};

static int fail(struct simplifier *s, int rc, const char *why)
{
    s->why = why;
    return rc;
}

static int spend(struct simplifier *s)
{
    return ++s->steps > STEPS_MAX ? fail(s, -E2BIG, "references multiply too far") : 0;
}

static int find_member(struct simplifier *s, const cJSON *parent, const char *name,
                       const cJSON **out)
{
    const cJSON *child;
    char *end;
    unsigned long index = strtoul(name, &end, 10);
    bool is_index = cJSON_IsArray(parent) && *name != '\0' && *end == '\0';

    *out = NULL;
    cJSON_ArrayForEach(child, parent)
    {
        if (spend(s) < 0)
            return -E2BIG;
        if (child->string != NULL ? strcmp(child->string, name) == 0 : is_index && index-- == 0)
            *out = child;
    }
    return 0;
}

/* One name of a JSON pointer, its escapes undone; returns what follows it, NULL if it is too long.
 */
static const char *read_token(const char *at, char token[TOKEN_MAX])
{
    size_t len = 0;

    while (*at != '\0' && *at != '/') {
        char c = *at++;

        if (c == '~' && (*at == '0' || *at == '1'))
            c = *at++ == '0' ? '~' : '/';
        if (len + 1 == TOKEN_MAX)
            return NULL;
        token[len++] = c;
    }
    token[len] = '\0';
    return at;
}

static int resolve(struct simplifier *s, const cJSON *reference, const cJSON **out)
{
    static const char nowhere[] = "a $ref leads nowhere";
    const char *at = reference->valuestring;
    char token[TOKEN_MAX];

    *out = s->root;
    if (*at++ != '#')
        return fail(s, -EINVAL, "a $ref leads out of the schema");
    while (*at == '/') {
        at = read_token(at + 1, token);
        if (at == NULL)
            return fail(s, -EINVAL, nowhere);
        if (find_member(s, *out, token, out) < 0)
            return -E2BIG;
        if (*out == NULL)
            return fail(s, -EINVAL, nowhere);
    }
    return *at == '\0' ? 0 : fail(s, -EINVAL, nowhere);
}

static bool is_open(const struct simplifier *s, const cJSON *target)
{
    for (size_t i = 0; i < s->open_count; i++)
        if (s->open[i] == target)
            return true;
    return false;
}

/* Adds the keywords that the view does not have yet: what stands nearer to the user of a reference
 * describes it better. */
static int add_keywords(struct simplifier *s, const cJSON *schema, struct view *v)
{
    const cJSON *found[KEYWORD_COUNT] = {NULL};
    const cJSON *member;

    cJSON_ArrayForEach(member, schema)
    {
        if (spend(s) < 0)
            return -E2BIG;
        if (member->string == NULL)
            break; /* an array is no schema: as if empty */
        for (size_t i = 0; i < KEYWORD_COUNT; i++)
            if (member->string[0] == keyword_names[i][0] &&
                strcmp(member->string, keyword_names[i]) == 0)
                found[i] = member;
    }
    for (size_t i = 0; i < KEYWORD_COUNT; i++)
        if (v->keys[i] == NULL)
            v->keys[i] = found[i];
    return 0;
}

static bool is_null_schema(const cJSON *schema)
{
    const char *type = json_string(schema, "type");

    return cJSON_IsNull(schema) || (type != NULL && strcmp(type, "null") == 0);
}

/* The first member of a union that is not null, NULL if there is none. */
static int first_variant(struct simplifier *s, const cJSON *variants, const cJSON **out)
{
    const cJSON *variant;

    *out = NULL;
    cJSON_ArrayForEach(variant, variants)
    {
        if (spend(s) < 0)
            return -E2BIG;
        if (!is_null_schema(variant)) {
            *out = variant;
            return 0;
        }
    }
    return 0;
}

static bool has_shape(const struct view *v)
{
    const char *type = cJSON_GetStringValue(v->keys[KEY_TYPE]);

    if (v->keys[KEY_PROPERTIES] != NULL || v->keys[KEY_ITEMS] != NULL ||
        v->keys[KEY_ENUM] != NULL || v->keys[KEY_CONST] != NULL)
        return true;
    /* A bare "object" next to a union says less than the union. */
    return v->keys[KEY_TYPE] != NULL && (type == NULL || strcmp(type, "object") != 0);
}

/* Where the schema goes on: what it refers to, or a member of its union; NULL if nowhere. Takes
 * these keywords off the view, so that the next schema's own count. */
static int next_schema(struct simplifier *s, struct view *v, const cJSON **out)
{
    static const enum keyword unions[] = {KEY_ANY_OF, KEY_ONE_OF, KEY_ALL_OF};
    const cJSON *reference = v->keys[KEY_REF];

    *out = NULL;
    v->keys[KEY_REF] = NULL;
    if (cJSON_IsString(reference)) {
        int rc = resolve(s, reference, out);

        if (rc < 0)
            return rc;
        if (is_open(s, *out)) {
            v->recursive = true;
            *out = NULL;
            return 0;
        }
        if (s->open_count == JSON_SCHEMA_DEPTH_MAX)
            return fail(s, -E2BIG, "references nest too deep");
        s->open[s->open_count++] = *out;
        return 0;
    }
    for (size_t i = 0; i < sizeof(unions) / sizeof(unions[0]) && *out == NULL; i++) {
        const cJSON *variants = v->keys[unions[i]];

        v->keys[unions[i]] = NULL;
        if (!has_shape(v) && first_variant(s, variants, out) < 0)
            return -E2BIG;
    }
    return 0;
}

/* Pushes what it opens on s->open; the caller pops it when the schema is written. */
static int make_view(struct simplifier *s, const cJSON *schema, struct view *v)
{
    memset(v, 0, sizeof(*v));
    while (schema != NULL) {
        int rc = add_keywords(s, schema, v);

        if (rc == 0)
            rc = next_schema(s, v, &schema);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool is_known_type(const char *type)
{
    static const char *const types[] = {"string",  "integer", "number",
                                        "boolean", "object",  "array"};

    for (size_t i = 0; type != NULL && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i], type) == 0)
            return true;
    return false;
}

/* The type that values given as examples have. */
static const char *type_of_sample(const cJSON *sample, const char *fallback)
{
    int64_t whole;

    if (cJSON_IsNumber(sample))
        return json_is_integer(sample, &whole) ? "integer" : "number";
    return cJSON_IsBool(sample) ? "boolean" : fallback;
}

static const char *type_of(const struct view *v, const char *fallback)
{
    const cJSON *type = v->keys[KEY_TYPE];

    if (type != NULL && cJSON_IsArray(type))
        type = type->child;
    for (size_t i = 0; i < TYPES_MAX && type != NULL; i++, type = type->next)
        if (is_known_type(cJSON_GetStringValue(type)))
            return type->valuestring;
    if (cJSON_IsObject(v->keys[KEY_PROPERTIES]) || v->recursive)
        return "object";
    if (v->keys[KEY_ITEMS] != NULL || v->keys[KEY_PREFIX_ITEMS] != NULL)
        return "array";
    if (v->keys[KEY_CONST] != NULL)
        return type_of_sample(v->keys[KEY_CONST], fallback);
    if (v->keys[KEY_ENUM] != NULL && cJSON_IsArray(v->keys[KEY_ENUM]))
        return type_of_sample(v->keys[KEY_ENUM]->child, fallback);
    return fallback;
}

static bool is_text_enum(struct simplifier *s, const cJSON *values)
{
    const cJSON *value;
    bool any = false;

    cJSON_ArrayForEach(value, values)
    {
        if (spend(s) < 0)
            return false; /* the next schema, or the end, meets the same limit and fails */
        if (!cJSON_IsString(value) && !cJSON_IsNull(value))
            return false;
        any = any || cJSON_IsString(value);
    }
    return any;
}

static void put_strings(struct simplifier *s, const char *name, const cJSON *values)
{
    const char *comma = "";
    const cJSON *value;

    json_put_key(&s->out, name);
    buf_byte(&s->out, '[');
    cJSON_ArrayForEach(value, values)
    {
        if (spend(s) < 0)
            break;
        if (!cJSON_IsString(value))
            continue;
        buf_str(&s->out, comma);
        json_put_text(&s->out, value->valuestring);
        comma = ",";
    }
    buf_byte(&s->out, ']');
}

static void put_enum(struct simplifier *s, const struct view *v)
{
    const cJSON *constant = v->keys[KEY_CONST];
    struct buf *out = &s->out;

    if (cJSON_IsArray(v->keys[KEY_ENUM]) && is_text_enum(s, v->keys[KEY_ENUM])) {
        put_strings(s, "enum", v->keys[KEY_ENUM]);
    } else if (cJSON_IsString(constant)) {
        json_put_key(out, "enum");
        buf_byte(out, '[');
        json_put_text(out, constant->valuestring);
        buf_byte(out, ']');
    }
}

static void put_format(struct buf *out, const cJSON *format)
{
    const char *text = cJSON_GetStringValue(format);

    if (text != NULL &&
        (strcmp(text, "date") == 0 || strcmp(text, "date-time") == 0 || strcmp(text, "time") == 0))
        json_put_field_text(out, "format", text);
}

static void put_plain(struct buf *out, const struct view *v)
{
    for (size_t i = KEY_TITLE; i < KEYWORD_COUNT; i++) {
        if (v->keys[i] == NULL || cJSON_IsNull(v->keys[i]))
            continue;
        json_put_key(out, keyword_names[i]);
        json_put_tree(out, v->keys[i]);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded by JSON_SCHEMA_DEPTH_MAX */
static int put_schema(struct simplifier *s, const cJSON *schema, const char *fallback);

/* NOLINTNEXTLINE(misc-no-recursion) */
static int put_properties(struct simplifier *s, const struct view *v)
{
    const cJSON *properties = v->keys[KEY_PROPERTIES];
    const cJSON *property;

    if (v->recursive || !cJSON_IsObject(properties))
        properties = NULL;
    json_put_key(&s->out, "properties");
    buf_byte(&s->out, '{');
    cJSON_ArrayForEach(property, properties)
    {
        int rc;

        json_put_key(&s->out, property->string);
        rc = put_schema(s, property, "string");
        if (rc < 0)
            return rc;
    }
    buf_byte(&s->out, '}');
    if (cJSON_IsArray(v->keys[KEY_REQUIRED]) && !v->recursive)
        put_strings(s, "required", v->keys[KEY_REQUIRED]);
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static int put_items(struct simplifier *s, const struct view *v)
{
    const cJSON *items = v->keys[KEY_ITEMS];

    if (items == NULL || cJSON_IsBool(items))
        items = v->keys[KEY_PREFIX_ITEMS];
    if (cJSON_IsArray(items)) /* a tuple: as if all were like its first */
        items = items->child;
    json_put_key(&s->out, "items");
    return put_schema(s, items, "string");
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static int put_view(struct simplifier *s, const struct view *v, const char *fallback)
{
    const char *type = type_of(v, fallback);
    int rc = 0;

    buf_byte(&s->out, '{');
    json_put_field_text(&s->out, "type", type);
    put_plain(&s->out, v);
    if (strcmp(type, "string") == 0) {
        put_enum(s, v);
        put_format(&s->out, v->keys[KEY_FORMAT]);
    } else if (strcmp(type, "object") == 0) {
        rc = put_properties(s, v);
    } else if (strcmp(type, "array") == 0) {
        rc = put_items(s, v);
    }
    buf_byte(&s->out, '}');
    return rc;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static int put_schema(struct simplifier *s, const cJSON *schema, const char *fallback)
{
    size_t open_count = s->open_count;
    struct view v;
    int rc;

    if (s->out.err == -EMSGSIZE)
        return fail(s, -E2BIG, "it is too large once its references are written out");
    if (s->out.err < 0)
        return s->out.err;
    if (s->depth == JSON_SCHEMA_DEPTH_MAX)
        return fail(s, -E2BIG, "it nests too deep");
    s->depth++;
    rc = make_view(s, schema, &v);
    if (rc == 0)
        rc = put_view(s, &v, fallback);
    s->depth--;
    s->open_count = open_count;
    return rc;
}

int json_schema_simplify(const cJSON *schema, struct buf *out, const char **why)
{
    struct simplifier s = {.root = schema, .why = ""};
    int rc;

    buf_init(&s.out, JSON_SCHEMA_BYTES_MAX);
    s.open[s.open_count++] = schema; /* "#" leads back to the whole */
    rc = put_schema(&s, schema, "object");
    if (rc == 0 && s.out.err == -EMSGSIZE)
        rc = fail(&s, -E2BIG, "it is too large once its references are written out");
    if (rc == 0)
        rc = s.out.err;
    if (rc == 0 && s.steps > STEPS_MAX)
        rc = -E2BIG;
    if (rc == 0)
        rc = buf_append(out, s.out.data, s.out.len);
    buf_clear(&s.out);
    *why = s.why;
    return rc;
}
