#include "gateway/query.h"

#include <assert.h>
#include <string.h>

#include "common/utf8.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* NULL, or what is wrong. */
static const char *unescape(const char *text, size_t len, char out[QUERY_VALUE_BYTES])
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i] == '+' ? ' ' : text[i];

        if (c == '%') {
            int high = len - i > 2 ? hex_value(text[i + 1]) : -1;
            int low = high < 0 ? -1 : hex_value(text[i + 2]);

            if (low < 0)
                return "has a '%' that is not followed by two hexadecimal digits";
            c = (char)(high * 16 + low);
            i += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f)
            return "has a control character";
        if (n + 1 == QUERY_VALUE_BYTES)
            return "is too long";
        out[n++] = c;
    }
    out[n] = '\0';
    for (size_t i = 0; i < n;) {
        size_t width = utf8_width(out + i, n - i);

        if (width == 0)
            return "is not valid UTF-8";
        i += width;
    }
    return NULL;
}

static struct query_param *find(struct query_param *params, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(params[i].name, name) == 0)
            return &params[i];
    return NULL;
}

/* is_complete: a name that is not in params is wrong; else it is left alone, whatever it is. */
static int decode_pair(const char *text, size_t len, struct query_param *params, size_t count,
                       bool is_complete, struct error *e)
{
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals != NULL ? (size_t)(equals - text) : len;
    struct query_param *param;
    char name[QUERY_VALUE_BYTES];
    const char *wrong = unescape(text, name_len, name);

    param = wrong != NULL ? NULL : find(params, count, name);
    if (param == NULL && !is_complete)
        return 0;
    if (wrong != NULL)
        return error_set(e, XR_EINVALID, NULL, "The name of a query parameter %s.", wrong);
    if (param == NULL)
        return error_set(e, XR_EINVALID, name, "There is no query parameter '%s' here.", name);
    if (param->is_given)
        return error_set(e, XR_EINVALID, name, "The query parameter '%s' is given twice.", name);
    param->is_given = true;
    param->value[0] = '\0';
    if (equals != NULL)
        wrong = unescape(equals + 1, len - name_len - 1, param->value);
    if (wrong != NULL)
        return error_set(e, XR_EINVALID, name, "The query parameter '%s' %s.", name, wrong);
    return 0;
}

static int decode(const char *target, struct query_param *params, size_t count, bool is_complete,
                  struct error *e)
{
    const char *at = strchr(target, '?');
    size_t left;

    for (size_t i = 0; i < count; i++)
        params[i].is_given = false;
    if (at == NULL)
        return 0;
    at++;
    left = strcspn(at, "#");
    while (left > 0) {
        const char *end = memchr(at, '&', left);
        size_t len = end != NULL ? (size_t)(end - at) : left;
        int rc = len > 0 ? decode_pair(at, len, params, count, is_complete, e) : 0;

        if (rc < 0)
            return rc;
        at += len;
        left -= len;
        if (left > 0) { /* the '&' */
            at++;
            left--;
        }
    }
    return 0;
}

int query_decode(const char *target, struct query_param *params, size_t count, struct error *e)
{
    return decode(target, params, count, true, e);
}

int query_pick(const char *target, struct query_param *param, struct error *e)
{
    return decode(target, param, 1, false, e);
}

const char *query_value(const struct query_param *params, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(params[i].name, name) == 0)
            return params[i].is_given ? params[i].value : NULL;
    assert(false);
    return NULL;
}
