#include <stdio.h>
#include <string.h>

#include "tests/sim/dialect.h"
#include "tests/sim/http.h"
#include "tests/sim/ids.h"
#include "tests/sim/sim.h"

#define BIG_HEADER_LINE_BYTES 1024

struct reason {
    int status;
    const char *text;
};

static const struct reason reasons[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Payload Too Large"},
    {422, "Unprocessable Entity"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {529, "Overloaded"},
};

const char *http_reason(int status)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status)
            return reasons[i].text;
    }
    return "Status";
}

const char *http_answer_id(struct conn *conn)
{
    if (conn->answer_id[0] == '\0') {
        memcpy(conn->answer_id, "req_", 4);
        random_alnum(&conn->sim->random, conn->answer_id + 4, ANSWER_ID_BYTES - 5);
        conn->answer_id[ANSWER_ID_BYTES - 1] = '\0';
    }
    return conn->answer_id;
}

bool span_equals(struct span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.data, text, span.len) == 0;
}

static void put_big_headers(struct buf *out, int64_t kilobytes)
{
    for (int64_t i = 0; i < kilobytes; i++) {
        buf_str(out, "X-Big-");
        buf_i64(out, i);
        buf_str(out, ": ");
        for (int n = 0; n < BIG_HEADER_LINE_BYTES - 16; n++)
            buf_byte(out, 'b');
        buf_str(out, "\r\n");
    }
}

static void put_framing(struct conn *conn, int64_t length)
{
    conn->is_chunked = length == HTTP_CHUNKED;
    if (length == HTTP_CHUNKED) {
        buf_str(&conn->out, "Transfer-Encoding: chunked\r\n");
    } else if (length >= 0) {
        buf_str(&conn->out, "Content-Length: ");
        buf_i64(&conn->out, length);
        buf_str(&conn->out, "\r\n");
    } else {
        conn->request.keep_alive = false;
    }
    if (!conn->request.keep_alive)
        buf_str(&conn->out, "Connection: close\r\n");
}

void http_begin(struct conn *conn, int status, const char *type, const char *extra, int64_t length)
{
    struct buf *out = &conn->out;

    conn->status = status;
    stats_answer(&conn->sim->stats, conn->route, status);
    if (plan_has(&conn->plan, PLAN(INTERIM))) {
        for (int64_t i = 0; i < conn->plan.interim_count; i++)
            buf_str(out, "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
    }
    if (status == 200)
        buf_str(out, "HTTP/1.1 200 OK\r\n");
    else
        buf_printf(out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    buf_str(out, conn->dialect->headers);
    if (type[0] != '\0') {
        buf_str(out, "Content-Type: ");
        buf_str(out, type);
        buf_str(out, "\r\n");
    }
    conn->dialect->put_ids(conn, out);
    buf_str(out, extra);
    if (plan_has(&conn->plan, PLAN(BIG_HEADER)))
        put_big_headers(out, conn->plan.big_header_kb);
    put_framing(conn, length);
    buf_append(out, "\r\n", 2);
}

static void put_chunk_size(struct buf *out, size_t size)
{
    char digits[16];
    size_t at = sizeof(digits);

    for (; size > 0; size >>= 4)
        digits[--at] = "0123456789abcdef"[size & 15];
    buf_append(out, digits + at, sizeof(digits) - at);
    buf_append(out, "\r\n", 2);
}

void http_body(struct conn *conn, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (conn->is_chunked)
        put_chunk_size(&conn->out, len);
    buf_append(&conn->out, data, len);
    if (conn->is_chunked)
        buf_append(&conn->out, "\r\n", 2);
}

void http_body_end(struct conn *conn)
{
    if (conn->is_chunked)
        buf_append(&conn->out, "0\r\n\r\n", 5);
}

void http_produce(struct conn *conn, http_produce_fn produce)
{
    conn->produce = produce;
    conn->step = STEP_MORE;
}

void http_broken_chunk(struct conn *conn, const void *data, size_t len)
{
    buf_str(&conn->out, "zz\r\n");
    buf_append(&conn->out, data, len);
    buf_str(&conn->out, "\r\n");
}

void http_reply(struct conn *conn, int status, const char *type, const char *extra,
                const void *body, size_t len)
{
    bool until_close = plan_has(&conn->plan, PLAN(CLOSE_DELIMITED));

    http_begin(conn, status, type, extra, until_close ? HTTP_UNTIL_CLOSE : (int64_t)len);
    http_body(conn, body, len);
}

void http_reply_verdict(struct conn *conn, const struct verdict *verdict)
{
    struct buf *body = sim_scratch(&conn->sim->body);
    char extra[64] = "";

    if (verdict->status == 429 && plan_has(&conn->plan, PLAN(RETRY_AFTER)))
        snprintf(extra, sizeof(extra), "Retry-After: %lld\r\n",
                 (long long)conn->plan.retry_after_s);
    else if (verdict->status == 429 && conn->sim->config.retry_after > 0)
        snprintf(extra, sizeof(extra), "Retry-After: %u\r\n", conn->sim->config.retry_after);
    conn->dialect->put_error(conn, body, verdict);
    http_reply(conn, verdict->status, conn->dialect->json_type, extra, body->data, body->len);
}

void http_reply_error(struct conn *conn, int status, const char *message)
{
    struct verdict verdict;

    verdict_refuse(&verdict, status, "%s", message);
    http_reply_verdict(conn, &verdict);
}

void http_reply_html(struct conn *conn, int status, const char *extra)
{
    struct buf *body = sim_scratch(&conn->sim->body);

    buf_printf(body,
               "<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n"
               "<center><h1>%d %s</h1></center>\r\n<hr><center>nginx</center>\r\n"
               "</body>\r\n</html>\r\n",
               status, http_reason(status), status, http_reason(status));
    http_reply(conn, status, HTTP_TYPE_HTML, extra, body->data, body->len);
}
