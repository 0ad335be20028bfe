#include "common/json.h"

#include <errno.h>
#include <string.h>

#include "common/ascii.h"
#include "common/clock.h"
#include "common/utf8.h"

#define EXACT_MAX INT64_C(9007199254740992) /* 2^53 */

const struct json_limits JSON_LIMITS_DEFAULT = {.depth = 64, .elements = 200000};

/* The escape of an ASCII byte, NULL if it stands for itself; the other control bytes go as \u00XX.
 */
static const char *short_escape(char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    default:
        return NULL;
    }
}

/* How many bytes at text may be copied as they are. */
/* Whether all eight bytes can be copied as they are. */
static inline bool is_plain_word(uint64_t word)
{
    return ascii_word_is_printable(word) && ascii_word_lacks(word, '"') &&
           ascii_word_lacks(word, '\\');
}

/* How many bytes at the front can be copied as they are. */
static size_t plain_run(const char *text, size_t len)
{
    size_t at = 0;

    while (at < len) {
        unsigned char c;
        size_t width;

        while (len - at >= sizeof(uint64_t) && is_plain_word(ascii_word(text + at)))
            at += sizeof(uint64_t);
        if (at == len)
            break;
        c = (unsigned char)text[at];

        if (c < 0x20 || c == '"' || c == '\\')
            break;
        width = utf8_width(text + at, len - at);
        if (width == 0)
            break;
        at += width;
    }
    return at;
}

cJSON *json_parse(const char *text, size_t len, const struct json_limits *limits, size_t *offset,
                  const char **why)
{
    cJSON *tree;

    if (json_check(text, len, limits, offset, why) < 0)
        return NULL;
    tree = cJSON_ParseWithLength(text, len);
    if (tree == NULL) {
        if (offset != NULL)
            *offset = 0;
        if (why != NULL)
            *why = "out of memory";
    }
    return tree;
}

const cJSON *json_get(const cJSON *object, const char *name)
{
    const cJSON *found = NULL;
    const cJSON *item;

    if (!cJSON_IsObject(object))
        return NULL;
    cJSON_ArrayForEach(item, object)
    {
        if (strcmp(item->string, name) == 0)
            found = item;
    }
    return found;
}

const char *json_string(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(json_get(object, name));
}

bool json_is_integer(const cJSON *item, int64_t *value)
{
    double number;

    if (!cJSON_IsNumber(item))
        return false;
    number = item->valuedouble;
    if (!(number >= (double)-EXACT_MAX && number <= (double)EXACT_MAX))
        return false;
    *value = (int64_t)number;
    return (double)*value >= number && (double)*value <= number;
}

int json_get_i64(const cJSON *object, const char *name, int64_t *value)
{
    const cJSON *item = json_get(object, name);
    int64_t number;

    if (item == NULL || cJSON_IsNull(item))
        return -ENOENT;
    if (!json_is_integer(item, &number))
        return -EINVAL;
    *value = number;
    return 0;
}

int json_get_bool(const cJSON *object, const char *name, bool *value)
{
    const cJSON *item = json_get(object, name);

    if (item == NULL || cJSON_IsNull(item))
        return -ENOENT;
    if (!cJSON_IsBool(item))
        return -EINVAL;
    *value = cJSON_IsTrue(item);
    return 0;
}

int json_put_string(struct buf *out, const char *text, size_t len)
{
    size_t at = 0;

    buf_byte(out, '"');
    while (at < len) {
        size_t run = plain_run(text + at, len - at);
        const char *escape;

        buf_append(out, text + at, run);
        at += run;
        if (at == len)
            break;
        escape = short_escape(text[at]);
        if (escape != NULL)
            buf_str(out, escape);
        else if ((unsigned char)text[at] < 0x20)
            buf_printf(out, "\\u%04x", (unsigned)text[at]);
        else
            buf_str(out, "\xef\xbf\xbd"); /* U+FFFD */
        at++;
    }
    return buf_byte(out, '"');
}

int json_put_text(struct buf *out, const char *text)
{
    if (text == NULL)
        return buf_str(out, "null");
    return json_put_string(out, text, strlen(text));
}

int json_put_key(struct buf *out, const char *name)
{
    if (out->len > 0 && out->data[out->len - 1] != '{' && out->data[out->len - 1] != '[')
        buf_byte(out, ',');
    json_put_text(out, name);
    return buf_byte(out, ':');
}

int json_put_field_text(struct buf *out, const char *name, const char *text)
{
    json_put_key(out, name);
    return json_put_text(out, text);
}

int json_put_field_i64(struct buf *out, const char *name, int64_t value)
{
    json_put_key(out, name);
    return buf_i64(out, value);
}

int json_put_field_u64(struct buf *out, const char *name, uint64_t value)
{
    json_put_key(out, name);
    return buf_u64(out, value);
}

int json_put_field_bool(struct buf *out, const char *name, bool value)
{
    json_put_key(out, name);
    return buf_str(out, value ? "true" : "false");
}

int json_put_field_time(struct buf *out, const char *name, int64_t at_ms)
{
    char text[CLOCK_TEXT_BYTES];

    if (at_ms == 0)
        return json_put_field_text(out, name, NULL);
    clock_format(at_ms, text);
    return json_put_field_text(out, name, text);
}

int json_put_tree(struct buf *out, const cJSON *tree)
{
    char *text;

    if (cJSON_IsString(tree)) /* most trees are */
        return json_put_text(out, tree->valuestring);
    text = cJSON_PrintUnformatted(tree);
    if (text == NULL) {
        if (out->err == 0)
            out->err = -ENOMEM;
        return out->err;
    }
    buf_str(out, text);
    cJSON_free(text);
    return out->err;
}
