#include "providers/http1.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/ascii.h"
#include "common/http_chars.h"
#include "providers/chunked.h"

enum state {
    STATE_STATUS_LINE,
    STATE_HEADERS,
    STATE_HEAD_DONE, /* the head was handed out, the body not yet looked at */
    STATE_SIZED,     /* `left` bytes of body to come */
    STATE_UNTIL_CLOSE,
    STATE_CHUNKED,
    STATE_END
};

struct http1 {
    enum state state;
    int failed;      /* -EBADMSG and the like, 0 = none */
    const char *why; /* a literal */
    bool begun;
    bool is_http10;
    bool has_length;
    bool is_chunked;
    bool says_close;
    bool says_keep_alive;
    unsigned interim_count;
    uint64_t length; /* Content-Length */
    uint64_t left;   /* of it, still to come */
    struct chunked chunked;
    size_t line_at;  /* where the head's unfinished line begins in text */
    struct buf text; /* the head */
    struct http1_head head;
};

static bool is_named(const char *text, size_t len, const char *name, size_t name_len)
{
    return len == name_len && strncasecmp(text, name, len) == 0;
}

static int fail(struct http1 *h, int rc, const char *why)
{
    h->failed = rc;
    h->why = why;
    return rc;
}

static int fail_bad(struct http1 *h, const char *why)
{
    return fail(h, -EBADMSG, why);
}

/* The head, line by line. Each works on the text without its CRLF. */

static int parse_status_line(struct http1 *h, const char *line, size_t len)
{
    unsigned status = 0;

    if (len < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
        line[8] != ' ')
        return fail_bad(h, "bad status line");
    for (size_t i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return fail_bad(h, "bad status code");
        status = status * 10 + (unsigned)(line[i] - '0');
    }
    /* The space before an empty reason is left out by many servers: nothing ambiguous in that. */
    if ((len > 12 && line[12] != ' ') || status < 100 || status > 599)
        return fail_bad(h, "bad status code");
    if (status == 101)
        return fail_bad(h, "unwanted switch of protocols");
    for (size_t i = 12; i < len; i++)
        if (!is_value_char(line[i]))
            return fail_bad(h, "control character in the status line");
    h->is_http10 = line[7] == '0';
    h->head.status = status;
    h->state = STATE_HEADERS;
    return 0;
}

static int note_length(struct http1 *h, const char *value, size_t len)
{
    uint64_t length = 0;

    if (len == 0)
        return fail_bad(h, "bad content-length");
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9' || __builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, (uint64_t)(value[i] - '0'), &length))
            return fail_bad(h, "bad content-length");
    }
    if (h->has_length && h->length != length)
        return fail_bad(h, "differing content-lengths");
    h->has_length = true;
    h->length = length;
    return 0;
}

static void note_connection(struct http1 *h, const char *value, size_t len)
{
    const char *end = value + len;

    while (value < end) {
        const char *comma = memchr(value, ',', (size_t)(end - value));
        const char *stop = comma == NULL ? end : comma;

        while (value < stop && (*value == ' ' || *value == '\t'))
            value++;
        while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        if (is_named(value, (size_t)(stop - value), "close", 5))
            h->says_close = true;
        else if (is_named(value, (size_t)(stop - value), "keep-alive", 10))
            h->says_keep_alive = true;
        value = comma == NULL ? end : comma + 1;
    }
}

/* Headers that frame the response. */
static int note_header(struct http1 *h, const struct http1_header *header)
{
    /* Most names are told apart by their length alone. */
    switch (header->name_len) {
    case 10:
        if (is_named(header->name, 10, "connection", 10))
            note_connection(h, header->value, header->value_len);
        return 0;
    case 14:
        if (is_named(header->name, 14, "content-length", 14))
            return note_length(h, header->value, header->value_len);
        return 0;
    case 17:
        if (!is_named(header->name, 17, "transfer-encoding", 17))
            return 0;
        if (h->is_chunked || h->is_http10 ||
            !is_named(header->value, header->value_len, "chunked", 7))
            return fail_bad(h, "unsupported transfer-encoding");
        h->is_chunked = true;
        return 0;
    default:
        return 0;
    }
}

static int parse_header_line(struct http1 *h, const char *line, size_t len)
{
    struct http1_header header = {.name = line};
    const char *end = line + len;
    const char *p = line;

    while (p < end && is_token_char(*p))
        p++;
    if (p == line)
        return fail_bad(h, *line == ' ' || *line == '\t' ? "folded header" : "bad header name");
    if (p == end || *p != ':')
        return fail_bad(h, "bad header name");
    header.name_len = (size_t)(p - line);
    p++;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    header.value = p;
    header.value_len = (size_t)(end - p);
    for (; p < end; p++)
        if (!is_value_char(*p))
            return fail_bad(h, "control character in a header");
    if (h->head.header_count == HTTP1_HEADERS_MAX)
        return fail(h, -EMSGSIZE, "too many headers");
    h->head.headers[h->head.header_count++] = header;
    return note_header(h, &header);
}

static void clear_head(struct http1 *h)
{
    buf_reset(&h->text);
    h->line_at = 0;
    h->is_http10 = h->has_length = h->is_chunked = h->says_close = h->says_keep_alive = false;
    h->length = 0;
    h->head.header_count = 0;
    h->head.status = 0;
    h->state = STATE_STATUS_LINE;
}

/* The empty line came. 0 for an interim head, else HTTP1_HEAD. */
static int finish_head(struct http1 *h)
{
    struct http1_head *head = &h->head;
    bool is_bodiless = head->status == 204 || head->status == 304;

    if (h->has_length && h->is_chunked)
        return fail_bad(h, "content-length with chunked");
    if (head->status < 200) {
        if (h->has_length || h->is_chunked)
            return fail_bad(h, "interim response with a body");
        if (++h->interim_count > HTTP1_INTERIM_MAX)
            return fail_bad(h, "too many interim responses");
        clear_head(h);
        return 0;
    }
    head->keep_alive = !h->says_close && (!h->is_http10 || h->says_keep_alive);
    if (head->status == 204 && (h->is_chunked || h->length != 0))
        head->keep_alive = false; /* the server may be about to send what it must not */
    if (!is_bodiless && !h->has_length && !h->is_chunked)
        head->keep_alive = false;
    h->left = is_bodiless ? 0 : h->length;
    if (is_bodiless)
        h->is_chunked = false;
    h->state = STATE_HEAD_DONE;
    return HTTP1_HEAD;
}

/* text moved: the slices follow. */
static void rebase(struct http1 *h, const char *old, const char *now)
{
    for (size_t i = 0; i < h->head.header_count; i++) {
        struct http1_header *header = &h->head.headers[i];

        header->name = now + (header->name - old);
        header->value = now + (header->value - old);
    }
}

static int append_text(struct http1 *h, const char *in, size_t len)
{
    const char *old = h->text.data;

    if (buf_append(&h->text, in, len) != 0)
        return fail(h, h->text.err, "response head too large");
    if (h->text.data != old && h->head.header_count > 0)
        rebase(h, old, h->text.data);
    return 0;
}

/* Fails at the first byte that cannot begin a response, instead of waiting for the line's end. */
static int check_beginning(struct http1 *h)
{
    size_t len = h->text.len < 7 ? h->text.len : 7;

    return memcmp(h->text.data, "HTTP/1.", len) == 0 ? 0 : fail_bad(h, "not HTTP/1");
}

/* One line is complete in text. 0 to go on, HTTP1_HEAD or an error. */
static int take_line(struct http1 *h)
{
    const char *line = h->text.data + h->line_at;
    size_t len = h->text.len - h->line_at - 1;

    if (len == 0 || line[len - 1] != '\r')
        return fail_bad(h, "bare line feed in the head");
    len--;
    h->line_at = h->text.len;
    if (h->state == STATE_STATUS_LINE)
        return parse_status_line(h, line, len);
    return len == 0 ? finish_head(h) : parse_header_line(h, line, len);
}

static int feed_head(struct http1 *h, const char *in, size_t len, size_t *used)
{
    size_t at = 0;

    while (at < len) {
        const char *lf = memchr(in + at, '\n', len - at);
        size_t n = lf == NULL ? len - at : (size_t)(lf - in) + 1 - at;
        size_t room = HTTP1_HEAD_MAX - h->text.len;
        bool is_over = n > room;
        int rc;

        rc = append_text(h, in + at, is_over ? room : n);
        if (rc == 0 && h->state == STATE_STATUS_LINE && h->text.len > 0)
            rc = check_beginning(h);
        if (rc == 0 && is_over)
            rc = fail(h, -EMSGSIZE, "response head too large");
        at += n;
        if (rc == 0 && lf != NULL)
            rc = take_line(h);
        if (rc != 0) {
            *used = at;
            return rc;
        }
    }
    *used = len;
    return HTTP1_MORE;
}

static int feed_chunked(struct http1 *h, const char *in, size_t len, size_t *used,
                        const char **data, size_t *data_len)
{
    const char *why = NULL;
    int rc = chunked_feed(&h->chunked, in, len, used, data, data_len, &why);

    if (rc < 0)
        return fail(h, rc, why);
    if (rc == CHUNKED_BODY)
        return HTTP1_BODY;
    if (rc == CHUNKED_MORE)
        return HTTP1_MORE;
    h->state = STATE_END;
    return HTTP1_END;
}

static int feed_sized(struct http1 *h, const char *in, size_t len, size_t *used, const char **data,
                      size_t *data_len)
{
    size_t n = h->left < len ? (size_t)h->left : len;

    if (h->left == 0) {
        h->state = STATE_END;
        return HTTP1_END;
    }
    if (n == 0)
        return HTTP1_MORE;
    h->left -= n;
    *data = in;
    *data_len = n;
    *used = n;
    return HTTP1_BODY;
}

static enum state body_state(const struct http1 *h)
{
    if (h->is_chunked)
        return STATE_CHUNKED;
    if (h->has_length || h->head.status == 204 || h->head.status == 304)
        return STATE_SIZED;
    return STATE_UNTIL_CLOSE;
}

struct http1 *http1_new(void)
{
    /* Not calloc: the table of headers is large and filled as it is used. */
    struct http1 *h = malloc(sizeof(*h));

    if (h == NULL)
        return NULL;
    buf_init(&h->text, HTTP1_HEAD_MAX);
    http1_reset(h);
    return h;
}

void http1_free(struct http1 *h)
{
    if (h == NULL)
        return;
    buf_clear(&h->text);
    free(h);
}

void http1_reset(struct http1 *h)
{
    clear_head(h);
    h->head.keep_alive = false;
    h->failed = 0;
    h->why = NULL;
    h->begun = false;
    h->interim_count = 0;
    h->left = 0;
    chunked_init(&h->chunked);
}

int http1_feed(struct http1 *h, const char *in, size_t len, size_t *used, const char **data,
               size_t *data_len, const char **why)
{
    int rc = HTTP1_END;

    *used = 0;
    *data = NULL;
    *data_len = 0;
    *why = h->why;
    if (h->failed != 0)
        return h->failed;
    h->begun = h->begun || len > 0;
    if (h->state == STATE_HEAD_DONE)
        h->state = body_state(h);
    switch (h->state) {
    case STATE_STATUS_LINE:
    case STATE_HEADERS:
    case STATE_HEAD_DONE:
        rc = feed_head(h, in, len, used);
        break;
    case STATE_SIZED:
        rc = feed_sized(h, in, len, used, data, data_len);
        break;
    case STATE_UNTIL_CLOSE:
        *data = in;
        *data_len = *used = len;
        rc = len > 0 ? HTTP1_BODY : HTTP1_MORE;
        break;
    case STATE_END:
        break;
    case STATE_CHUNKED:
        rc = feed_chunked(h, in, len, used, data, data_len);
        break;
    }
    *why = h->why;
    return rc;
}

int http1_eof(struct http1 *h, const char **why)
{
    *why = h->why;
    if (h->failed != 0)
        return h->failed;
    if (h->state == STATE_HEAD_DONE)
        h->state = body_state(h);
    if (h->state == STATE_UNTIL_CLOSE || h->state == STATE_END ||
        (h->state == STATE_SIZED && h->left == 0)) {
        h->state = STATE_END;
        return HTTP1_END;
    }
    fail_bad(h, h->state == STATE_STATUS_LINE || h->state == STATE_HEADERS
                    ? "connection closed before the response head"
                    : "connection closed inside the response body");
    *why = h->why;
    return h->failed;
}

const struct http1_head *http1_get_head(const struct http1 *h)
{
    return &h->head;
}

bool http1_has_begun(const struct http1 *h)
{
    return h->begun;
}

const char *http1_header(const struct http1_head *head, const char *name, size_t *len)
{
    size_t name_len = strlen(name);

    *len = 0;
    for (size_t i = 0; i < head->header_count; i++) {
        const struct http1_header *header = &head->headers[i];

        if (is_named(header->name, header->name_len, name, name_len)) {
            *len = header->value_len;
            return header->value;
        }
    }
    return NULL;
}

static int refuse(struct buf *out)
{
    if (out->err == 0)
        out->err = -EINVAL;
    return out->err;
}

static bool is_token(const char *text)
{
    if (*text == '\0')
        return false;
    while (is_token_char(*text))
        text++;
    return *text == '\0';
}

int http1_put_request_line(struct buf *out, const char *method, const char *target)
{
    if (!is_token(method) || *target != '/')
        return refuse(out);
    for (const char *p = target; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~')
            return refuse(out);
    buf_str(out, method);
    buf_byte(out, ' ');
    buf_str(out, target);
    return buf_str(out, " HTTP/1.1\r\n");
}

/* Printable ASCII and tabs; an access token has more than a thousand bytes. */
static bool is_sendable(const char *text, size_t len)
{
    size_t i = 0;

    while (i < len) {
        if (len - i >= sizeof(uint64_t)) {
            uint64_t word = ascii_word(text + i);

            if (ascii_word_is_printable(word) && ascii_word_lacks(word, 0x7f)) {
                i += sizeof(uint64_t);
                continue;
            }
        }
        if ((text[i] < ' ' || text[i] > '~') && text[i] != '\t')
            return false;
        i++;
    }
    return true;
}

int http1_put_header(struct buf *out, const char *name, const char *value)
{
    size_t len = strlen(value);

    if (!is_token(name))
        return refuse(out);
    if (!is_sendable(value, len))
        return refuse(out);
    buf_str(out, name);
    buf_str(out, ": ");
    buf_append(out, value, len);
    return buf_str(out, "\r\n");
}
