/* The strict scanner: one pass, no recursion, no memory of its own. */
#include "common/json.h"

#include <errno.h>
#include <string.h>

#include "common/utf8.h"

#define NUMBER_BYTES_MAX \
    63 /* cJSON 1.7.15 reads no more of a number and then trips over the rest */

struct scanner {
    const char *at;
    const char *end;
    const struct json_limits *limits;
    size_t elements;
    size_t depth;
    uint64_t is_object[JSON_DEPTH_MAX / 64]; /* one bit a level */
    const char *why;
};

enum expect { EXPECT_VALUE, EXPECT_KEY, EXPECT_SEPARATOR, EXPECT_NOTHING };

static int fail(struct scanner *s, int err, const char *why)
{
    s->why = why;
    return err;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four digits of a \u escape, or -1. */
static int32_t read_hex4(const char *at, const char *end)
{
    int32_t value = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool is_high_surrogate(int32_t unit)
{
    return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low_surrogate(int32_t unit)
{
    return unit >= 0xdc00 && unit <= 0xdfff;
}

/* at stands behind "\u". */
static int scan_unicode_escape(struct scanner *s)
{
    int32_t unit = read_hex4(s->at, s->end);

    if (unit < 0)
        return fail(s, -EINVAL, "invalid \\u escape");
    if (unit == 0)
        return fail(s, -EINVAL, "NUL character in a string");
    if (is_low_surrogate(unit))
        return fail(s, -EINVAL, "lone surrogate in a string");
    if (is_high_surrogate(unit)) {
        if (s->end - s->at < 10 || s->at[4] != '\\' || s->at[5] != 'u' ||
            !is_low_surrogate(read_hex4(s->at + 6, s->end)))
            return fail(s, -EINVAL, "lone surrogate in a string");
        s->at += 6;
    }
    s->at += 4;
    return 0;
}

/* at stands on the backslash. */
static int scan_escape(struct scanner *s)
{
    if (s->end - s->at < 2)
        return fail(s, -EINVAL, "unexpected end inside a string");
    switch (s->at[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        s->at += 2;
        return 0;
    case 'u':
        s->at += 2;
        return scan_unicode_escape(s);
    default:
        return fail(s, -EINVAL, "invalid escape in a string");
    }
}

/* Skips bytes that need no look: printable ASCII other than the quote and the backslash. Prompts
 * are mostly that, so eight at a time. */
static const char *skip_plain(const char *at, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = UINT64_C(0x8080808080808080);

    while (end - at >= 8) {
        uint64_t word, quote, backslash;

        memcpy(&word, at, sizeof(word));
        quote = word ^ (ones * '"');
        backslash = word ^ (ones * '\\');
        if (((word | (word - ones * 0x20) | (quote - ones) | (backslash - ones)) & high) != 0)
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' &&
           *at != '\\')
        at++;
    return at;
}

/* at stands on the opening quote. */
static int scan_string(struct scanner *s)
{
    s->at++;
    for (;;) {
        unsigned char c;
        size_t width;
        int rc;

        s->at = skip_plain(s->at, s->end);
        if (s->at == s->end)
            return fail(s, -EINVAL, "unexpected end inside a string");
        c = (unsigned char)*s->at;
        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c == '\\') {
            rc = scan_escape(s);
            if (rc < 0)
                return rc;
            continue;
        }
        if (c < 0x20)
            return fail(s, -EINVAL, c == 0 ? "NUL byte" : "control character in a string");
        do { /* other scripts than Latin come in long runs */
            width = utf8_width(s->at, (size_t)(s->end - s->at));
            if (width == 0)
                return fail(s, -EINVAL, "invalid UTF-8");
            s->at += width;
        } while (s->at < s->end && (unsigned char)*s->at >= 0x80);
    }
}

static const char *skip_digits(const char *at, const char *end)
{
    while (at < end && is_digit(*at))
        at++;
    return at;
}

static int scan_number(struct scanner *s)
{
    const char *start = s->at;
    const char *digits;

    if (*s->at == '-')
        s->at++;
    digits = s->at;
    s->at = skip_digits(s->at, s->end);
    if (s->at == digits)
        return fail(s, -EINVAL, "invalid number");
    if (*digits == '0' && s->at > digits + 1)
        return fail(s, -EINVAL, "number with a leading zero");
    if (s->at < s->end && *s->at == '.') {
        digits = ++s->at;
        s->at = skip_digits(s->at, s->end);
        if (s->at == digits)
            return fail(s, -EINVAL, "invalid number");
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        digits = s->at;
        s->at = skip_digits(s->at, s->end);
        if (s->at == digits)
            return fail(s, -EINVAL, "invalid number");
    }
    if (s->at - start > NUMBER_BYTES_MAX)
        return fail(s, -E2BIG, "number with too many digits");
    return 0;
}

static int scan_literal(struct scanner *s)
{
    static const char *const literals[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        size_t len = strlen(literals[i]);

        if ((size_t)(s->end - s->at) >= len && memcmp(s->at, literals[i], len) == 0) {
            s->at += len;
            return 0;
        }
    }
    return fail(s, -EINVAL, *s->at == '\0' ? "NUL byte" : "unexpected character");
}

static bool in_object(const struct scanner *s)
{
    size_t level = s->depth - 1;

    return s->depth > 0 && (s->is_object[level / 64] >> (level % 64) & 1) != 0;
}

static int open_container(struct scanner *s, bool is_object)
{
    size_t level = s->depth;
    uint64_t bit = UINT64_C(1) << (level % 64);

    if (level >= s->limits->depth || level >= JSON_DEPTH_MAX)
        return fail(s, -E2BIG, "nested too deeply");
    if (is_object)
        s->is_object[level / 64] |= bit;
    else
        s->is_object[level / 64] &= ~bit;
    s->depth++;
    s->at++;
    return 0;
}

/* Each step reads one thing at s->at, which is not the end and not white space, and says what must
 * follow. */
static int step_value(struct scanner *s, enum expect *next)
{
    char c = *s->at;
    int rc;

    if (++s->elements > s->limits->elements)
        return fail(s, -E2BIG, "too many values");
    if (c == '{' || c == '[') {
        rc = open_container(s, c == '{');
        if (rc < 0)
            return rc;
        s->at = skip_space(s->at, s->end);
        /* An empty one has neither key nor value: what is next is its own end. */
        if (s->at < s->end && *s->at == (c == '{' ? '}' : ']'))
            *next = EXPECT_SEPARATOR;
        else
            *next = c == '{' ? EXPECT_KEY : EXPECT_VALUE;
        return 0;
    }
    *next = s->depth == 0 ? EXPECT_NOTHING : EXPECT_SEPARATOR;
    if (c == '"')
        return scan_string(s);
    if (c == '-' || is_digit(c))
        return scan_number(s);
    return scan_literal(s);
}

static int step_key(struct scanner *s, enum expect *next)
{
    int rc;

    if (*s->at != '"')
        return fail(s, -EINVAL, "a name in quotes was expected");
    rc = scan_string(s);
    if (rc < 0)
        return rc;
    s->at = skip_space(s->at, s->end);
    if (s->at == s->end)
        return fail(s, -EINVAL, "unexpected end");
    if (*s->at != ':')
        return fail(s, -EINVAL, "a colon was expected");
    s->at++;
    *next = EXPECT_VALUE;
    return 0;
}

static int step_separator(struct scanner *s, enum expect *next)
{
    bool is_object = in_object(s);

    if (*s->at == ',') {
        s->at++;
        *next = is_object ? EXPECT_KEY : EXPECT_VALUE;
        return 0;
    }
    if (*s->at != (is_object ? '}' : ']'))
        return fail(s, -EINVAL, "a comma or the closing bracket was expected");
    s->at++;
    s->depth--;
    *next = s->depth == 0 ? EXPECT_NOTHING : EXPECT_SEPARATOR;
    return 0;
}

static int scan(struct scanner *s)
{
    enum expect expect = EXPECT_VALUE;
    int rc = 0;

    while (rc == 0) {
        s->at = skip_space(s->at, s->end);
        if (s->at == s->end)
            return expect == EXPECT_NOTHING ? 0 : fail(s, -EINVAL, "unexpected end");
        switch (expect) {
        case EXPECT_VALUE:
            rc = step_value(s, &expect);
            break;
        case EXPECT_KEY:
            rc = step_key(s, &expect);
            break;
        case EXPECT_SEPARATOR:
            rc = step_separator(s, &expect);
            break;
        case EXPECT_NOTHING:
            rc = fail(s, -EINVAL, *s->at == '\0' ? "NUL byte" : "text after the end of the value");
            break;
        }
    }
    return rc;
}

const char *json_string_end(const char *at, const char *end, bool *escaped)
{
    struct scanner s = {.at = at - 1, .end = end};

    if (scan_string(&s) < 0)
        return NULL;
    *escaped = memchr(at, '\\', (size_t)(s.at - 1 - at)) != NULL;
    return s.at - 1;
}

int json_check(const char *text, size_t len, const struct json_limits *limits, size_t *offset,
               const char **why)
{
    struct scanner s = {.at = text, .end = text + len, .limits = limits};
    int rc = scan(&s);

    if (rc < 0 && offset != NULL)
        *offset = (size_t)(s.at - text);
    if (rc < 0 && why != NULL)
        *why = s.why;
    return rc;
}
