#define _GNU_SOURCE 1 /* asprintf */
#include "common/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/json.h"
#include "common/money.h"
#include "common/secret.h"
#include "common/utf8.h"

#define SECRET_WHY_BYTES 160

/* What a type can do. Setters get the text of one value and a field to put it in; they store
 * nothing unless they return 0. */
struct type_ops {
    const char *name; /* as in config.h's lists, in lower case */
    enum node_type node;
    int (*set)(const struct option *o, void *field, const char *text,
               const struct option_context *context, char why[OPTION_WHY_BYTES]);
    void (*put)(const struct option *o, const void *field, struct buf *out);
    bool (*is_equal)(const void *a, const void *b);
    void (*clear)(void *field); /* NULL: owns nothing */
};

static int refuse(char why[OPTION_WHY_BYTES], const char *text)
{
    snprintf(why, OPTION_WHY_BYTES, "%s", text);
    return -EINVAL;
}

static int refuse_range(const struct option *o, char why[OPTION_WHY_BYTES])
{
    struct buf range;

    buf_init(&range, OPTION_WHY_BYTES);
    option_describe_range(o, &range);
    snprintf(why, OPTION_WHY_BYTES, "must be %.*s", (int)range.len, range.data);
    buf_clear(&range);
    return -EINVAL;
}

/* Whether text is among words "a|b|c". */
static bool is_word(const char *words, const char *text)
{
    size_t len = strlen(text);

    while (*words != '\0') {
        size_t n = strcspn(words, "|");

        if (n == len && memcmp(words, text, n) == 0)
            return true;
        words += words[n] == '|' ? n + 1 : n;
    }
    return false;
}

/* Valid UTF-8 without control characters: CR and LF would travel on into log lines and HTTP
 * headers, broken UTF-8 would not survive config_encode(). */
static bool is_clean(const char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        size_t width = utf8_width(text, len);

        if (width == 0 || iscntrl((unsigned char)*text))
            return false;
        text += width;
        len -= width;
    }
    return true;
}

static int read_integer(const struct option *o, const char *text, int64_t *value,
                        char why[OPTION_WHY_BYTES])
{
    size_t digits = strspn(text + (*text == '-' ? 1 : 0), "0123456789");
    long long number;

    if (digits == 0 || text[digits + (*text == '-' ? 1 : 0)] != '\0')
        return refuse(why, "must be a whole number, written with digits only");
    errno = 0;
    number = strtoll(text, NULL, 10);
    if (errno == ERANGE || number < o->min || number > o->max)
        return refuse_range(o, why);
    *value = number;
    return 0;
}

static int set_u32(const struct option *o, void *field, const char *text,
                   const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    int64_t value;
    int rc = read_integer(o, text, &value, why);

    if (rc == 0)
        *(uint32_t *)field = (uint32_t)value;
    return rc;
}

static int set_i64(const struct option *o, void *field, const char *text,
                   const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    return read_integer(o, text, field, why);
}

static int set_u64(const struct option *o, void *field, const char *text,
                   const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    int64_t value;
    int rc = read_integer(o, text, &value, why);

    if (rc == 0)
        *(uint64_t *)field = (uint64_t)value;
    return rc;
}

static int set_bool(const struct option *o, void *field, const char *text,
                    const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return refuse(why, "must be true or false");
    *(bool *)field = text[0] == 't';
    return 0;
}

static int set_price(const struct option *o, void *field, const char *text,
                     const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    int64_t nano;
    int rc = money_parse(text, &nano);

    if (rc == -ERANGE ||
        (rc == 0 && (nano < o->min * NANO_PER_CREDIT || nano > o->max * NANO_PER_CREDIT)))
        return refuse_range(o, why);
    if (rc < 0)
        return refuse(why, "must be a decimal number with at most 9 places, like \"0.5\"");
    *(int64_t *)field = nano;
    return 0;
}

static int set_date(const struct option *o, void *field, const char *text,
                    const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    if (clock_parse(text, field) < 0)
        return refuse(why, "must be a date (\"2026-02-01\") or a moment in UTC "
                           "(\"2026-02-01T12:00:00Z\")");
    return 0;
}

/* The field takes over text; NULL means that there was no memory for it. */
static int take_text(void *field, char *text)
{
    char **p = field;

    if (text == NULL)
        return -ENOMEM;
    free(*p);
    *p = text;
    return 0;
}

static int check_text(const struct option *o, const char *text, char why[OPTION_WHY_BYTES])
{
    size_t len = strlen(text);

    if (!is_clean(text))
        return refuse(why, "must be UTF-8 without control characters");
    if (len == 0 && o->min > 0)
        return refuse(why, "must not be empty");
    if (len < (size_t)o->min || (o->max > 0 && len > (size_t)o->max))
        return refuse_range(o, why);
    return 0;
}

static int set_text(const struct option *o, void *field, const char *text,
                    const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    int rc = check_text(o, text, why);

    if (rc < 0)
        return rc;
    if (o->unit[0] != '\0' && !is_word(o->unit, text))
        return refuse_range(o, why);
    return take_text(field, strdup(text));
}

static char *join_path(const char *base_dir, const char *path)
{
    char *joined = NULL;

    while (path[0] == '.' && path[1] == '/')
        path += 2 + strspn(path + 2, "/");
    if (strcmp(path, ".") == 0 || path[0] == '\0')
        return strdup(base_dir);
    if (asprintf(&joined, "%s%s%s", base_dir, strcmp(base_dir, "/") == 0 ? "" : "/", path) == -1)
        return NULL;
    return joined;
}

static int set_path(const struct option *o, void *field, const char *text,
                    const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    int rc = check_text(o, text, why);

    if (rc < 0)
        return rc;
    if (text[0] == '\0' || text[0] == '/' || context->base_dir == NULL || is_word(o->unit, text))
        return take_text(field, strdup(text));
    return take_text(field, join_path(context->base_dir, text));
}

/* The rest of "host:port" behind a host that is a name, a number or in brackets; NULL if the host
 * is none of them. */
static const char *skip_host(const char *text)
{
    size_t n;

    if (*text == '[') {
        n = strspn(text + 1, "0123456789abcdefABCDEF:.");
        return n >= 2 && text[n + 1] == ']' ? text + n + 2 : NULL;
    }
    n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
    return n > 0 && n < 256 ? text + n : NULL;
}

/* Whether text is a decimal port from min on, and nothing else up to its length. */
static bool is_port(const char *text, size_t len, long min)
{
    size_t digits = strspn(text, "0123456789");

    return digits == len && len > 0 && len < 6 && strtol(text, NULL, 10) >= min &&
           strtol(text, NULL, 10) <= 65535;
}

static int set_address(const struct option *o, void *field, const char *text,
                       const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    const char *rest = skip_host(text);

    if (text[0] != '\0' &&
        (rest == NULL || rest[0] != ':' || !is_port(rest + 1, strlen(rest + 1), 0)))
        return refuse(why, "must be \"host:port\" with a port from 0 (any free one) to 65535, "
                           "like \"127.0.0.1:8080\" or \"[::1]:8080\", or \"\" for off");
    return take_text(field, strdup(text));
}

static bool is_url(const char *text)
{
    size_t scheme = strncmp(text, "http://", 7) == 0    ? 7
                    : strncmp(text, "https://", 8) == 0 ? 8
                                                        : 0;
    const char *rest = scheme > 0 ? skip_host(text + scheme) : NULL;
    size_t port_len;

    if (rest == NULL)
        return false;
    if (*rest == ':') {
        port_len = strcspn(rest + 1, "/");
        if (!is_port(rest + 1, port_len, 1))
            return false;
        rest += 1 + port_len;
    }
    if (*rest != '\0' && *rest != '/')
        return false;
    for (; *rest != '\0'; rest++) /* what may stand in a request line as it is */
        if (!isgraph((unsigned char)*rest) || strchr("\"<>\\^`{|}?#", *rest) != NULL)
            return false;
    return true;
}

static int set_url(const struct option *o, void *field, const char *text,
                   const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    if (!is_url(text) && (text[0] != '\0' || o->min > 0))
        return refuse(why, "must be a URL of http or https with a host and without user, query or "
                           "fragment, like \"https://api.giga.chat\"");
    return take_text(field, strdup(text));
}

static int read_secret(const char *text, const struct option_context *context, char **secret,
                       char why[OPTION_WHY_BYTES])
{
    char reason[SECRET_WHY_BYTES] = "cannot be read";
    bool is_literal = false;
    int rc;

    if (text[0] == '\0' || context->secrets == SECRETS_SKIPPED)
        text = "";
    if (text[0] == '\0' || context->secrets == SECRETS_LITERAL) {
        *secret = strdup(text);
        return *secret != NULL ? 0 : -ENOMEM;
    }
    rc = secret_read(text, context->base_dir, secret, &is_literal, reason);
    if (rc == -ENOMEM)
        return rc;
    if (rc < 0)
        return refuse(why, reason);
    if (is_literal && context->is_shared)
        return refuse(why, "the secret itself stands in a file that group or others may read: "
                           "chmod 600 the file, or point to it with env:NAME or file:PATH");
    return 0;
}

static void clear_secret(void *field)
{
    char **p = field;

    secret_free(*p);
    *p = NULL;
}

static int set_secret(const struct option *o, void *field, const char *text,
                      const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    char *secret = NULL;
    int rc = read_secret(text, context, &secret, why);

    if (rc == 0 && !is_clean(secret))
        rc = refuse(why, "the secret must be UTF-8 without control characters");
    if (rc < 0) {
        secret_free(secret);
        return rc;
    }
    clear_secret(field);
    *(char **)field = secret;
    return 0;
}

static void put_u32(const struct option *o, const void *field, struct buf *out)
{
    buf_u64(out, *(const uint32_t *)field);
}

static void put_i64(const struct option *o, const void *field, struct buf *out)
{
    buf_i64(out, *(const int64_t *)field);
}

static void put_u64(const struct option *o, const void *field, struct buf *out)
{
    buf_u64(out, *(const uint64_t *)field);
}

static void put_bool(const struct option *o, const void *field, struct buf *out)
{
    buf_str(out, *(const bool *)field ? "true" : "false");
}

static void put_price(const struct option *o, const void *field, struct buf *out)
{
    char text[MONEY_TEXT_BYTES];

    money_format(*(const int64_t *)field, text);
    json_put_text(out, text);
}

static void put_date(const struct option *o, const void *field, struct buf *out)
{
    char text[CLOCK_TEXT_BYTES];

    clock_format(*(const int64_t *)field, text);
    json_put_text(out, text);
}

static void put_text(const struct option *o, const void *field, struct buf *out)
{
    json_put_text(out, *(char *const *)field);
}

static bool is_equal_bool(const void *a, const void *b)
{
    return *(const bool *)a == *(const bool *)b;
}

static bool is_equal_u32(const void *a, const void *b)
{
    return *(const uint32_t *)a == *(const uint32_t *)b;
}

static bool is_equal_64(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(uint64_t)) == 0;
}

static bool is_equal_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b) == 0;
}

static void clear_text(void *field)
{
    char **p = field;

    free(*p);
    *p = NULL;
}

static const struct type_ops types[] = {
    [OPTION_U32] = {"number", NODE_NUMBER, set_u32, put_u32, is_equal_u32, NULL},
    [OPTION_MS] = {"number", NODE_NUMBER, set_i64, put_i64, is_equal_64, NULL},
    [OPTION_BYTES] = {"number", NODE_NUMBER, set_u64, put_u64, is_equal_64, NULL},
    [OPTION_BOOL] = {"true/false", NODE_BOOL, set_bool, put_bool, is_equal_bool, NULL},
    [OPTION_TEXT] = {"text", NODE_STRING, set_text, put_text, is_equal_text, clear_text},
    [OPTION_PATH] = {"path", NODE_STRING, set_path, put_text, is_equal_text, clear_text},
    [OPTION_ADDRESS] = {"address", NODE_STRING, set_address, put_text, is_equal_text, clear_text},
    [OPTION_URL] = {"URL", NODE_STRING, set_url, put_text, is_equal_text, clear_text},
    [OPTION_SECRET] = {"secret", NODE_STRING, set_secret, put_text, is_equal_text, clear_secret},
    [OPTION_PRICE] = {"decimal", NODE_STRING, set_price, put_price, is_equal_64, NULL},
    [OPTION_DATE] = {"date", NODE_STRING, set_date, put_date, is_equal_64, NULL},
};

static void *field_of(const struct option *o, void *section)
{
    return (char *)section + o->offset;
}

static const void *field_in(const struct option *o, const void *section)
{
    return (const char *)section + o->offset;
}

const char *option_type_name(enum option_type type)
{
    return types[type].name;
}

enum node_type option_node_type(const struct option *o)
{
    return types[o->type].node;
}

int option_set(const struct option *o, void *section, const char *text,
               const struct option_context *context, char why[OPTION_WHY_BYTES])
{
    why[0] = '\0';
    return types[o->type].set(o, field_of(o, section), text, context, why);
}

int options_set_defaults(const struct option_table *table, void *section,
                         const struct option_context *context)
{
    char why[OPTION_WHY_BYTES];

    for (size_t i = 0; i < table->count; i++) {
        const struct option *o = &table->options[i];
        int rc = o->standard != NULL ? option_set(o, section, o->standard, context, why) : 0;

        if (rc < 0)
            return rc;
    }
    return 0;
}

void options_clear(const struct option_table *table, void *section)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option *o = &table->options[i];

        if (types[o->type].clear != NULL)
            types[o->type].clear(field_of(o, section));
    }
}

void option_encode(const struct option *o, const void *section, bool with_secrets, struct buf *out)
{
    const void *field = field_in(o, section);

    if (o->type == OPTION_SECRET && !with_secrets && **(char *const *)field != '\0')
        json_put_text(out, "***");
    else
        types[o->type].put(o, field, out);
}

bool option_is_equal(const struct option *o, const void *a, const void *b)
{
    return types[o->type].is_equal(field_in(o, a), field_in(o, b));
}

static void describe_words(const char *words, struct buf *out)
{
    while (*words != '\0') {
        size_t n = strcspn(words, "|");
        bool is_last = words[n] == '\0';

        buf_append(out, words, n);
        words += is_last ? n : n + 1;
        if (!is_last)
            buf_str(out, strchr(words, '|') != NULL ? ", " : " or ");
    }
}

void option_describe_range(const struct option *o, struct buf *out)
{
    enum node_type node = option_node_type(o);

    if (node == NODE_NUMBER || o->type == OPTION_PRICE) {
        buf_printf(out, "%lld to %lld", (long long)o->min, (long long)o->max);
        if (o->unit[0] != '\0')
            buf_printf(out, " %s", o->unit);
    } else if (o->type == OPTION_TEXT && o->unit[0] != '\0') {
        describe_words(o->unit, out);
    } else if (o->max > 0) {
        buf_printf(out, "%lld to %lld bytes long", (long long)o->min, (long long)o->max);
    } else if (o->min > 0) {
        buf_str(out, "not empty");
    }
}
