#include "providers/sse.h"

#include <string.h>

enum value {
    VALUE_NONE, /* still in the field's name */
    VALUE_DATA_START,
    VALUE_NAME_START,
    VALUE_DATA,
    VALUE_NAME,
    VALUE_IGNORED
};

#define BOM_PAST 4
#define FIELD_UNKNOWN 0xff

static const unsigned char BOM[3] = {0xef, 0xbb, 0xbf};

static void begin_line(struct sse *s)
{
    s->value = VALUE_NONE;
    s->field_len = 0;
}

static void begin_event(struct sse *s)
{
    buf_reset(&s->data);
    s->name_len = 0;
    s->has_data = false;
    s->delivered = false;
}

static bool field_is(const struct sse *s, const char *name, size_t len)
{
    return s->field_len == len && memcmp(s->field, name, len) == 0;
}

static void add_data_line(struct sse *s)
{
    if (s->has_data)
        buf_byte(&s->data, '\n');
    s->has_data = true;
}

/* The field's name is complete: decides where its value goes. */
static void begin_value(struct sse *s)
{
    if (field_is(s, "data", 4)) {
        add_data_line(s);
        s->value = VALUE_DATA_START;
    } else if (field_is(s, "event", 5)) {
        s->name_len = 0; /* the last one of an event counts */
        s->value = VALUE_NAME_START;
    } else {
        s->value = VALUE_IGNORED;
    }
}

static void add_name(struct sse *s, const char *text, size_t len)
{
    size_t room = sizeof(s->name) - 1 - s->name_len;
    size_t n = len < room ? len : room;

    memcpy(s->name + s->name_len, text, n);
    s->name_len = (unsigned char)(s->name_len + n);
}

static void take_field_byte(struct sse *s, char c)
{
    if (c == ':')
        begin_value(s);
    else if (s->field_len < sizeof(s->field))
        s->field[s->field_len++] = c;
    else
        s->field_len = FIELD_UNKNOWN;
}

/* A stretch without line ends. */
static void take_text(struct sse *s, const char *text, size_t len)
{
    while (len > 0 && s->value < VALUE_DATA) {
        if (s->value == VALUE_NONE) {
            take_field_byte(s, *text);
        } else {
            s->value = s->value == VALUE_DATA_START ? VALUE_DATA : VALUE_NAME;
            if (*text != ' ') /* one space after the colon is not part of the value */
                break;
        }
        text++;
        len--;
    }
    if (len == 0)
        return;
    if (s->value == VALUE_DATA)
        buf_append(&s->data, text, len);
    else if (s->value == VALUE_NAME)
        add_name(s, text, len);
}

/* A line ended. True when that completes an event. */
static bool end_line(struct sse *s)
{
    bool is_empty = s->value == VALUE_NONE && s->field_len == 0;

    if (s->value == VALUE_NONE && !is_empty)
        begin_value(s); /* a field without colon has an empty value */
    begin_line(s);
    if (!is_empty)
        return false;
    if (s->has_data)
        return true;
    s->name_len = 0; /* an event without data is none */
    return false;
}

/* Skips a byte-order mark at the very beginning; returns how many bytes it took. */
static size_t skip_bom(struct sse *s, const char *in, size_t len)
{
    size_t at = 0;

    while (s->bom < sizeof(BOM) && at < len && (unsigned char)in[at] == BOM[s->bom]) {
        s->bom++;
        at++;
    }
    if (s->bom == sizeof(BOM)) {
        s->bom = BOM_PAST;
    } else if (at < len) {
        if (s->bom > 0)
            s->field_len = FIELD_UNKNOWN; /* a piece of a mark: part of a name we do not know */
        s->bom = BOM_PAST;
    }
    return at;
}

static size_t find_line_end(const char *in, size_t len)
{
    const char *lf = memchr(in, '\n', len);
    size_t n = lf == NULL ? len : (size_t)(lf - in);
    const char *cr = memchr(in, '\r', n);

    return cr == NULL ? n : (size_t)(cr - in);
}

void sse_init(struct sse *s)
{
    memset(s, 0, sizeof(*s));
    buf_init(&s->data, SSE_EVENT_MAX);
}

void sse_clear(struct sse *s)
{
    buf_clear(&s->data);
    sse_init(s);
}

int sse_feed(struct sse *s, const char *in, size_t len, size_t *used, struct event *out)
{
    size_t at = 0;

    *used = 0;
    if (s->data.err != 0)
        return s->data.err;
    if (s->delivered)
        begin_event(s);
    if (s->bom != BOM_PAST)
        at = skip_bom(s, in, len);
    while (at < len) {
        if (s->after_cr) {
            s->after_cr = false;
            if (in[at] == '\n') {
                at++;
                continue;
            }
        }
        size_t n = find_line_end(in + at, len - at);

        take_text(s, in + at, n);
        at += n;
        if (s->data.err != 0)
            break;
        if (at == len)
            break;
        s->after_cr = in[at++] == '\r';
        if (!end_line(s))
            continue;
        if (s->data.err != 0)
            break;
        s->name[s->name_len] = '\0';
        s->delivered = true;
        *out = (struct event){
            .name = s->name, .data = s->data.len > 0 ? s->data.data : "", .len = s->data.len};
        *used = at;
        return 1;
    }
    *used = at;
    return s->data.err;
}
