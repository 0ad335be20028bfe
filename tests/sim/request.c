#include "tests/sim/request.h"

#include <string.h>
#include <strings.h>

#define HEAD_BYTES_MAX (64 * 1024)
#define BODY_BYTES_MAX (64 * 1024 * 1024)
#define CHUNK_LINE_BYTES_MAX 128

struct header_row {
    const char *name;
    size_t offset; /* of a span in struct http_request */
};

static const struct header_row header_rows[] = {
    {"user-agent", offsetof(struct http_request, user_agent)},
    {"authorization", offsetof(struct http_request, authorization)},
    {"x-api-key", offsetof(struct http_request, api_key)},
    {"anthropic-version", offsetof(struct http_request, anthropic_version)},
    {"content-type", offsetof(struct http_request, content_type)},
    {"x-request-id", offsetof(struct http_request, request_id)},
    {"x-client-request-id", offsetof(struct http_request, client_request_id)},
    {"x-session-id", offsetof(struct http_request, session_id)},
    {"rquid", offsetof(struct http_request, rquid)},
};

/* What frames the body. */
struct framing {
    struct span length;
    struct span coding;
    struct span expect;
    struct span connection;
    unsigned hosts;
    bool is_http10;
};

static bool span_is(struct span span, const char *text)
{
    return span.len == strlen(text) && strncasecmp(span.data, text, span.len) == 0;
}

static struct span trim(const char *data, size_t len)
{
    while (len > 0 && (*data == ' ' || *data == '\t')) {
        data++;
        len--;
    }
    while (len > 0 && (data[len - 1] == ' ' || data[len - 1] == '\t'))
        len--;
    return (struct span){data, len};
}

static bool set_once(struct span *span, struct span value)
{
    if (span->data != NULL)
        return false;
    *span = value;
    return true;
}

static bool read_header(struct http_request *request, struct framing *framing, struct span name,
                        struct span value)
{
    if (span_is(name, "host"))
        return ++framing->hosts == 1;
    if (span_is(name, "content-length"))
        return set_once(&framing->length, value);
    if (span_is(name, "transfer-encoding"))
        return set_once(&framing->coding, value);
    if (span_is(name, "expect"))
        return set_once(&framing->expect, value);
    if (span_is(name, "connection"))
        return set_once(&framing->connection, value);
    for (size_t i = 0; i < sizeof(header_rows) / sizeof(header_rows[0]); i++) {
        if (span_is(name, header_rows[i].name))
            return set_once((struct span *)((char *)request + header_rows[i].offset), value);
    }
    return true;
}

static bool read_request_line(struct http_request *request, struct framing *framing,
                              const char *line, size_t len)
{
    const char *first = memchr(line, ' ', len);
    const char *second = first == NULL ? NULL : memrchr(line, ' ', len);
    const char *query;

    if (first == NULL || second == first || (size_t)(line + len - second) != 9)
        return false;
    if (memcmp(second, " HTTP/1.", 8) != 0 || (second[8] != '0' && second[8] != '1'))
        return false;
    framing->is_http10 = second[8] == '0';
    request->method = (struct span){line, (size_t)(first - line)};
    request->path = (struct span){first + 1, (size_t)(second - first - 1)};
    if (request->path.len == 0 || first[1] != '/' ||
        memchr(first + 1, ' ', request->path.len) != NULL)
        return false;
    query = memchr(request->path.data, '?', request->path.len);
    if (query != NULL) {
        request->query = (struct span){query + 1, (size_t)(second - query - 1)};
        request->path.len = (size_t)(query - request->path.data);
    }
    /* The legacy host has /api in front of the same paths. */
    if (request->path.len > 8 && memcmp(request->path.data, "/api/v1/", 8) == 0)
        request->path = (struct span){request->path.data + 4, request->path.len - 4};
    return true;
}

/* Characters of a header name, as RFC 9110 has them. */
static bool is_token_byte(unsigned char c)
{
    static const uint32_t allowed[4] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};

    return c < 0x80 && (allowed[c / 32] >> (c % 32) & 1) != 0;
}

static bool is_token(struct span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!is_token_byte((unsigned char)name.data[i]))
            return false;
    }
    return name.len > 0;
}

/* Eight bytes a step: the access token alone is 1,233 bytes of every request. */
static bool has_control(const char *text, size_t len)
{
    const uint64_t ones = 0x0101010101010101U;
    const uint64_t highs = 0x8080808080808080U;
    size_t i = 0;

    for (; i + 8 <= len; i += 8) {
        uint64_t word, below_space, deleted;

        memcpy(&word, text + i, sizeof(word));
        below_space = (word - ones * ' ') & ~word & highs;
        deleted = word ^ (ones * 0x7f);
        deleted = (deleted - ones) & ~deleted & highs;
        if ((below_space | deleted) != 0)
            break; /* or a tab: looked at below */
    }
    for (; i < len; i++) {
        if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
            return true;
    }
    return false;
}

/* head without the empty line at its end. */
static bool read_head(struct http_request *request, struct framing *framing, const char *head,
                      size_t len)
{
    bool is_first = true;

    while (len > 0) {
        const char *end = memchr(head, '\r', len);
        size_t n = end == NULL ? len : (size_t)(end - head);
        const char *colon;

        if (has_control(head, n) || (end != NULL && (n + 1 >= len || end[1] != '\n')))
            return false;
        if (is_first) {
            if (!read_request_line(request, framing, head, n))
                return false;
        } else {
            struct span name;

            colon = memchr(head, ':', n);
            if (colon == NULL)
                return false;
            name = (struct span){head, (size_t)(colon - head)};
            if (!is_token(name) ||
                !read_header(request, framing, name, trim(colon + 1, n - name.len - 1)))
                return false;
        }
        is_first = false;
        n += end == NULL ? 0 : 2;
        head += n;
        len -= n;
    }
    return !is_first;
}

/* Returns 0, -400 or -413. */
static int read_length(struct span text, size_t *length)
{
    size_t sum = 0;

    if (text.len == 0)
        return -400;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -400;
        sum = sum * 10 + (size_t)(text.data[i] - '0');
        if (sum > BODY_BYTES_MAX)
            return -413;
    }
    *length = sum;
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The size on the line [line, end), extensions ignored; false if there is none. */
static bool read_chunk_size(const char *line, const char *end, size_t *size)
{
    const char *p = line;

    *size = 0;
    while (p < end && hex_value(*p) >= 0 && p - line < 8)
        *size = *size * 16 + (size_t)hex_value(*p++);
    return p > line && (p == end || *p == ';' || *p == ' ');
}

/* Moves whole chunks from conn->in to conn->chunked_body. Returns 1 at the end of the body. */
static int read_chunks(struct conn *conn)
{
    for (;;) {
        const char *line = conn->in.data + conn->chunk_at;
        size_t left = conn->in.len - conn->chunk_at;
        const char *end = memchr(line, '\r', left);
        size_t size, line_bytes;

        if (end == NULL || (size_t)(end - line) + 2 > left)
            return left > CHUNK_LINE_BYTES_MAX && end == NULL ? -400 : 0;
        line_bytes = (size_t)(end - line) + 2;
        if (end[1] != '\n' || !read_chunk_size(line, end, &size))
            return -400;
        if (size > BODY_BYTES_MAX || conn->chunked_body.len + size > BODY_BYTES_MAX)
            return -413;
        if (left < line_bytes + size + 2)
            return 0;
        /* Trailers are refused: nobody here sends any. */
        if (memcmp(line + line_bytes + size, "\r\n", 2) != 0)
            return -400;
        buf_append(&conn->chunked_body, line + line_bytes, size);
        conn->chunk_at += line_bytes + size + 2;
        if (size == 0)
            return conn->chunked_body.err == 0 ? 1 : -500;
    }
}

/* Line by line: the C library's memmem() is slower over a few hundred bytes. */
static size_t head_length(struct conn *conn)
{
    const char *data = conn->in.data;
    size_t at = conn->scanned_bytes;

    for (;;) {
        const char *end = memchr(data + at, '\n', conn->in.len - at);

        if (end == NULL) {
            conn->scanned_bytes = conn->in.len;
            return 0;
        }
        at = (size_t)(end - data) + 1;
        if (at >= 4 && memcmp(end - 3, "\r\n\r\n", 4) == 0)
            break;
    }
    conn->scanned_bytes = at - 1;
    return at;
}

static int read_body(struct conn *conn, const struct framing *framing, size_t head_bytes,
                     bool *wants_continue)
{
    struct http_request *request = &conn->request;
    size_t length = 0;
    int rc;

    if (framing->coding.data != NULL) {
        if (framing->length.data != NULL || framing->is_http10 ||
            !span_is(framing->coding, "chunked"))
            return -400;
        if (conn->chunk_at == 0)
            conn->chunk_at = head_bytes;
        rc = read_chunks(conn);
        *wants_continue = rc == 0 && framing->expect.data != NULL;
        request->body = (struct span){conn->chunked_body.data, conn->chunked_body.len};
        conn->request_bytes = conn->chunk_at;
        return rc;
    }
    rc = framing->length.data == NULL ? 0 : read_length(framing->length, &length);
    if (rc < 0)
        return rc;
    conn->needed_bytes = conn->request_bytes = head_bytes + length;
    if (conn->in.len < conn->needed_bytes) {
        *wants_continue = framing->expect.data != NULL;
        return 0;
    }
    request->body = (struct span){conn->in.data + head_bytes, length};
    return 1;
}

int request_parse(struct conn *conn, bool *wants_continue)
{
    struct http_request *request = &conn->request;
    struct framing framing = {0};
    size_t head_bytes;

    *wants_continue = false;
    if (conn->in.len == 0 || conn->in.len < conn->needed_bytes)
        return 0;
    head_bytes = head_length(conn);
    if (head_bytes == 0)
        return conn->in.len > HEAD_BYTES_MAX ? -431 : 0;
    if (head_bytes > HEAD_BYTES_MAX)
        return -431;
    *request = (struct http_request){0};
    request->head = (struct span){conn->in.data, head_bytes};
    if (!read_head(request, &framing, conn->in.data, head_bytes - 4))
        return -400;
    if (framing.hosts == 0 && !framing.is_http10)
        return -400;
    request->keep_alive =
        framing.is_http10
            ? framing.connection.data != NULL && span_is(framing.connection, "keep-alive")
            : framing.connection.data == NULL || !span_is(framing.connection, "close");
    return read_body(conn, &framing, head_bytes, wants_continue);
}
