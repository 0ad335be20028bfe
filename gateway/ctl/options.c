#include "gateway/ctl/ctl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/nearest.h"

enum option_type { OPTION_FLAG, OPTION_TEXT, OPTION_COUNT };

struct option_row {
    const char *name;
    char letter; /* 0 = long form only */
    enum option_type type;
    size_t offset; /* in struct ctl_options */
    const char *argument;
    const char *help;
};

#define X(type, field, option, letter, argument, help) \
    {option, letter, OPTION_##type, offsetof(struct ctl_options, field), argument, help},
static const struct option_row option_rows[] = {CTL_OPTIONS(X)};
#undef X

/* Known to every verb, with or without one. */
static const struct option_row common_rows[] = {
    {"config", 'c', OPTION_TEXT, offsetof(struct ctl_options, config_file), "FILE",
     "the server's configuration"},
    {"help", 'h', OPTION_FLAG, offsetof(struct ctl_options, help), "", "print this help"},
    {"version", 'v', OPTION_FLAG, offsetof(struct ctl_options, version), "", "print the version"},
};

#define COMMON_COUNT (sizeof(common_rows) / sizeof(common_rows[0]))

static bool is_named(const struct option_row *row, const char *name, size_t len)
{
    if (len == 1)
        return row->letter == name[0];
    return strlen(row->name) == len && memcmp(row->name, name, len) == 0;
}

static const struct option_row *find_row(uint64_t takes, const char *name, size_t len)
{
    for (size_t i = 0; i < COMMON_COUNT; i++)
        if (is_named(&common_rows[i], name, len))
            return &common_rows[i];
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++)
        if ((takes >> i & 1) != 0 && is_named(&option_rows[i], name, len))
            return &option_rows[i];
    return NULL;
}

static int complain_unknown(uint64_t takes, const char *name, size_t len)
{
    char asked[NEAREST_NAME_MAX + 1];
    struct nearest nearest;

    if (len >= sizeof(asked))
        len = sizeof(asked) - 1;
    memcpy(asked, name, len);
    asked[len] = '\0';
    nearest_init(&nearest, asked);
    for (size_t i = 0; i < COMMON_COUNT; i++)
        nearest_offer(&nearest, common_rows[i].name, strlen(common_rows[i].name));
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++)
        if ((takes >> i & 1) != 0)
            nearest_offer(&nearest, option_rows[i].name, strlen(option_rows[i].name));
    if (nearest.name[0] != '\0')
        ctl_complain("unknown option \"%s\"; did you mean --%s?", asked, nearest.name);
    else
        ctl_complain("unknown option \"%s\"", asked);
    return -EINVAL;
}

static int parse_count(const char *text, int64_t *out)
{
    int64_t value = 0;

    if (*text == '\0')
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        value = value * 10 + (*text - '0');
        if (value > UINT32_MAX)
            return -EINVAL;
    }
    *out = value;
    return 0;
}

static int store(const struct option_row *row, struct ctl_options *o, const char *value)
{
    void *field = (char *)o + row->offset;

    switch (row->type) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)field = value;
        return 0;
    case OPTION_COUNT:
        if (parse_count(value, field) == 0)
            return 0;
        ctl_complain("--%s: \"%s\" is not a whole number from 0 to %u", row->name, value,
                     UINT32_MAX);
        return -EINVAL;
    }
    return -EINVAL;
}

void ctl_options_init(struct ctl_options *o)
{
    memset(o, 0, sizeof(*o));
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++)
        if (option_rows[i].type == OPTION_COUNT)
            *(int64_t *)((char *)o + option_rows[i].offset) = -1;
}

int ctl_option_read(struct ctl_options *o, uint64_t takes, int argc, char *const argv[], int *at)
{
    const char *text = argv[(*at)++];
    bool is_long = text[1] == '-';
    const char *name = text + (is_long ? 2 : 1);
    size_t len = is_long ? strcspn(name, "=") : 1;
    const struct option_row *row = is_long && len == 1 ? NULL : find_row(takes, name, len);
    const char *value = NULL;

    if (row == NULL)
        return complain_unknown(takes, name, is_long ? len : strlen(name));
    if (name[len] != '\0') /* --name=VALUE or -cVALUE */
        value = name + len + (is_long ? 1 : 0);
    if (row->type == OPTION_FLAG && value != NULL) {
        ctl_complain("--%s takes no value", row->name);
        return -EINVAL;
    }
    if (row->type != OPTION_FLAG && value == NULL) {
        if (*at == argc) {
            ctl_complain("--%s needs a value: %s", row->name, row->argument);
            return -EINVAL;
        }
        value = argv[(*at)++];
    }
    return store(row, o, value);
}

static void put_row_help(const struct option_row *row, struct buf *out)
{
    size_t start = out->len;

    buf_str(out, "  ");
    if (row->letter != 0)
        buf_printf(out, "-%c, ", row->letter);
    else
        buf_str(out, "    ");
    buf_printf(out, "--%s%s%s", row->name, row->argument[0] != '\0' ? " " : "", row->argument);
    while (out->err == 0 && out->len < start + 26)
        buf_byte(out, ' ');
    buf_printf(out, " %s\n", row->help);
}

void ctl_options_help(uint64_t takes, struct buf *out)
{
    for (size_t i = 0; i < CTL_OPTION_COUNT; i++)
        if ((takes >> i & 1) != 0)
            put_row_help(&option_rows[i], out);
    for (size_t i = 0; i < COMMON_COUNT; i++)
        put_row_help(&common_rows[i], out);
}

/* "90s", "12h": a number that fits an option's and one letter. */
static int parse_span(const char *text, int64_t *span_ms)
{
    static const struct {
        char letter;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}, {'w', 604800000}};
    char digits[12];
    size_t len = strlen(text);
    int64_t count;

    if (len < 2 || len > sizeof(digits))
        return -EINVAL;
    memcpy(digits, text, len - 1);
    digits[len - 1] = '\0';
    if (parse_count(digits, &count) < 0)
        return -EINVAL;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (units[i].letter == text[len - 1]) {
            *span_ms = count * units[i].ms;
            return 0;
        }
    }
    return -EINVAL;
}

int ctl_when_parse(const char *text, int sign, int64_t now_at_ms, int64_t *at_ms)
{
    int64_t span_ms;

    if (parse_span(text, &span_ms) < 0)
        return clock_parse(text, at_ms);
    *at_ms = now_at_ms + sign * span_ms;
    return 0;
}
