/* Walking checked text without a tree: what json_check() has accepted needs no second look. */
#include "common/json.h"

#include <errno.h>
#include <string.h>

#include "common/ascii.h"

struct span {
    const char *at;
    const char *end;
};

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* at stands on the opening quote; returns what follows the closing one. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++;; at++) {
        while (end - at >= 8 && ascii_word_lacks(ascii_word(at), '"') &&
               ascii_word_lacks(ascii_word(at), '\\'))
            at += 8;
        if (at >= end || *at == '"')
            break;
        if (*at == '\\')
            at++;
    }
    return at < end ? at + 1 : end;
}

static bool ends_scalar(char c)
{
    return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* at stands on a value's first byte; returns what follows the value. */
static const char *skip_value(const char *at, const char *end)
{
    size_t depth = 0;

    if (at < end && *at != '"' && *at != '{' && *at != '[') {
        while (at < end && !ends_scalar(*at))
            at++;
        return at;
    }
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
        } else {
            if (*at == '{' || *at == '[')
                depth++;
            else if (*at == '}' || *at == ']')
                depth--;
            at++;
        }
        if (depth == 0)
            break;
    }
    return at;
}

static unsigned hex4(const char *at)
{
    unsigned value = 0;

    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)at[i] | 0x20; /* digits keep their value, letters go small */

        value = value * 16 + (c >= 'a' ? c - 'a' + 10 : c - '0');
    }
    return value;
}

static size_t put_utf8(unsigned point, char out[4])
{
    size_t width = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0x00, 0xc0, 0xe0, 0xf0};

    for (size_t i = width - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    out[0] = (char)(lead[width] | point);
    return width;
}

/* Decodes the character at *at, which it moves behind it. */
static size_t take_character(const char **at, char out[4])
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *c = *at;
    const char *named;
    unsigned point;

    if (*c != '\\') {
        out[0] = *c;
        *at = c + 1;
        return 1;
    }
    if (c[1] != 'u') {
        named = strchr(from, c[1]);
        out[0] = named == NULL ? c[1] : to[named - from];
        *at = c + 2;
        return 1;
    }
    point = hex4(c + 2);
    c += 6;
    if (point >= 0xd800 && point <= 0xdbff) {
        point = 0x10000 + ((point - 0xd800) << 10) + (hex4(c + 2) - 0xdc00);
        c += 6;
    }
    *at = c;
    return put_utf8(point, out);
}

/* Whether the string between its quotes spells name: a name may be written with escapes. */
static bool is_name(const char *at, const char *end, const char *name, size_t len)
{
    while (at < end) {
        char bytes[4];
        size_t width = take_character(&at, bytes);

        if (width > len || memcmp(bytes, name, width) != 0)
            return false;
        name += width;
        len -= width;
    }
    return len == 0;
}

/* The last member of that name: of duplicates the last one counts. */
static int find_member(struct span *value, const char *name, size_t len)
{
    const char *at = skip_space(value->at + 1, value->end);
    struct span found = {NULL, NULL};

    while (at < value->end && *at == '"') {
        const char *key = at + 1;
        const char *key_end = skip_string(at, value->end);
        const char *start = skip_space(skip_space(key_end, value->end) + 1, value->end);

        at = skip_value(start, value->end);
        if (is_name(key, key_end - 1, name, len))
            found = (struct span){start, at};
        at = skip_space(at, value->end);
        if (at < value->end && *at == ',')
            at = skip_space(at + 1, value->end);
    }
    if (found.at == NULL)
        return -ENOENT;
    *value = found;
    return 0;
}

static int find_element(struct span *value, const char *name, size_t len)
{
    const char *at = skip_space(value->at + 1, value->end);
    size_t index = 0;

    for (size_t i = 0; i < len; i++) {
        if (name[i] < '0' || name[i] > '9' || index > 99999999)
            return -ENOENT;
        index = index * 10 + (size_t)(name[i] - '0');
    }
    while (at < value->end && *at != ']') {
        const char *end = skip_value(at, value->end);

        if (index-- == 0) {
            *value = (struct span){at, end};
            return 0;
        }
        at = skip_space(end, value->end);
        if (at < value->end && *at == ',')
            at = skip_space(at + 1, value->end);
    }
    return -ENOENT;
}

int json_slice(const char *text, size_t len, const char *path, const char **value,
               size_t *value_len)
{
    struct span here = {skip_space(text, text + len), text + len};

    here.end = skip_value(here.at, here.end);
    for (;;) {
        size_t name_len = strcspn(path, ".");
        int rc = -ENOENT;

        if (name_len > 0 && here.at < here.end && *here.at == '{')
            rc = find_member(&here, path, name_len);
        else if (name_len > 0 && here.at < here.end && *here.at == '[')
            rc = find_element(&here, path, name_len);
        if (rc < 0)
            return rc;
        path += name_len;
        if (*path == '\0')
            break;
        path++;
    }
    *value = here.at;
    *value_len = (size_t)(here.end - here.at);
    return 0;
}

void json_walk_begin(struct json_walk *w, struct json_span value)
{
    w->end = value.at + value.len;
    w->at = skip_space(value.at, w->end);
    w->in_object = w->at < w->end && *w->at == '{';
    if (w->at < w->end && (*w->at == '{' || *w->at == '['))
        w->at = skip_space(w->at + 1, w->end);
    else
        w->at = w->end;
}

bool json_walk_next(struct json_walk *w, struct json_member *m)
{
    const char *at = w->at;

    if (at >= w->end || *at == '}' || *at == ']')
        return false;
    m->at = at;
    m->name = (struct json_span){at, 0};
    if (w->in_object) {
        const char *name_end = skip_string(at, w->end);

        m->name = (struct json_span){at + 1, (size_t)(name_end - at) - 2};
        at = skip_space(skip_space(name_end, w->end) + 1, w->end);
    }
    m->value.at = at;
    at = skip_value(at, w->end);
    m->value.len = (size_t)(at - m->value.at);
    at = skip_space(at, w->end);
    if (at < w->end && *at == ',')
        at = skip_space(at + 1, w->end);
    w->at = at;
    return true;
}

bool json_name_is(struct json_span name, const char *text)
{
    return is_name(name.at, name.at + name.len, text, strlen(text));
}

int json_unescape(struct buf *out, const char *text, size_t len)
{
    const char *end = text + len;

    while (text < end) {
        const char *escape = memchr(text, '\\', (size_t)(end - text));
        char bytes[4];

        if (escape == NULL)
            escape = end;
        buf_append(out, text, (size_t)(escape - text));
        text = escape;
        if (text < end)
            buf_append(out, bytes, take_character(&text, bytes));
    }
    return out->err;
}

int json_minify(struct buf *out, const char *text, size_t len)
{
    const char *end = text + len;
    const char *at = skip_space(text, end);

    while (at < end) {
        const char *start = at;

        while (at < end && skip_space(at, end) == at)
            at = *at == '"' ? skip_string(at, end) : at + 1;
        buf_append(out, start, (size_t)(at - start));
        at = skip_space(at, end);
    }
    return out->err;
}
