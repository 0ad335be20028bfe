#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "gateway/auth.h"
#include "gateway/framing.h"
#include "gateway/httpd_private.h"
#include "gateway/rate_headers.h"

#define ANSWER_BUFFERED_MAX (16 * 1024) /* larger answers go in pieces, so that progress shows */
#define STREAM_BLOCK 1024               /* libmicrohttpd's unused buffer of a chunked stream */
#define NO_DEADLINE_MS (INT64_C(365) * 86400 * 1000)
#define LOGGED_TARGET_MAX 256

void *on_request_begin(void *arg, const char *target, struct MHD_Connection *connection)
{
    struct httpd *h = arg;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct client *c = info == NULL ? NULL : info->socket_context;
    struct http_request *r = c == NULL ? NULL : calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL; /* on_request() closes the connection */
    c->daemon->worked = true;
    c->request = r;
    r->client = c;
    r->listener = c->daemon->listener;
    r->config = config_ref(h->config);
    r->started_us = clock_monotonic_us();
    r->target = strndup(target, HTTP_TARGET_MAX);
    buf_init(&r->body, r->config->body_bytes);
    buf_init(&r->answer, SIZE_MAX);
    usage_id_next(h->setup.ids, (uint16_t)h->setup.slot, clock_now_at_ms(), &r->id);
    memcpy(r->id_text, "req_", sizeof("req_"));
    usage_id_format(&r->id, r->id_text + 4);
    if (r->listener != LISTENER_OPS) {
        counter_inc(&h->setup.counters->requests_total);
        h->open_requests++;
    }
    client_set_deadline(c, r->config->header_ms);
    return r;
}

static bool path_matches(const struct endpoint *e, const char *path, size_t len)
{
    size_t endpoint_len = strlen(e->path);

    if (e->path[endpoint_len - 1] == '/' && endpoint_len > 1)
        return len > endpoint_len && memcmp(path, e->path, endpoint_len) == 0;
    return len == endpoint_len && memcmp(path, e->path, len) == 0;
}

static bool is_get(const char *method)
{
    return strcmp(method, MHD_HTTP_METHOD_GET) == 0;
}

/* Whatever can be got has a head: libmicrohttpd leaves the body away. */
static bool is_head(const char *method)
{
    return strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

/* Returns 0 with r->endpoint set, XR_ENOTFOUND or XR_EMETHOD (with the Allow header added). */
static int find_endpoint(struct httpd *h, struct http_request *r, struct error *e)
{
    size_t len = strcspn(r->target, "?");
    char allow[64] = "";

    for (const struct endpoint *ep = h->setup.endpoints; ep->path != NULL; ep++) {
        size_t used = strlen(allow);

        if (ep->is_public != (r->listener != LISTENER_OPS) || !path_matches(ep, r->target, len))
            continue;
        if (strcmp(ep->method, r->method) == 0 || (is_get(ep->method) && is_head(r->method))) {
            r->endpoint = ep;
            r->rest = r->target + strlen(ep->path);
            return 0;
        }
        (void)snprintf(allow + used, sizeof(allow) - used, "%s%s%s", used > 0 ? ", " : "",
                       ep->method, is_get(ep->method) ? ", HEAD" : "");
    }
    if (allow[0] == '\0')
        return error_set(e, XR_ENOTFOUND, NULL, "There is nothing at %s %.*s.", r->method,
                         (int)(len > 200 ? 200 : len), r->target);
    http_add_header(r, MHD_HTTP_HEADER_ALLOW, "%s", allow);
    return error_set(e, XR_EMETHOD, NULL, "%.*s does not accept %s, only %s.",
                     (int)(len > 200 ? 200 : len), r->target, r->method, allow);
}

/* A right key is never refused for the wrong ones of its neighbours: it is looked up first. */
static int refuse_key(struct httpd *h, struct http_request *r, int rc, struct error *e)
{
    int64_t wait_ms = 0;

    counter_inc(&h->setup.counters->auth_failures_total);
    if (rc == XR_EAUTH)
        wait_ms = visitor_note_wrong_key(r->client->visitor, r->config->wrong_keys,
                                         loop_now_ms(h->setup.loop));
    if (wait_ms == 0) {
        http_add_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
        return rc;
    }
    counter_inc(&h->setup.counters->wrong_key_refusals_total);
    r->close_after = true;
    r->is_quiet = true; /* a flood must not fill the log */
    http_add_header(r, "retry-after", "%lld", (long long)(wait_ms + 999) / 1000);
    http_add_header(r, "retry-after-ms", "%lld", (long long)wait_ms);
    return error_set(e, XR_ERATELIMIT, NULL,
                     "Too many requests with a wrong API key have come from this address.");
}

/* Everything that can be said before a byte of the body is read. */
static int check_head(struct httpd *h, struct http_request *r, const char *version, struct error *e)
{
    struct request_headers headers;
    int rc;

    if (r->target == NULL)
        return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    rc = framing_check(r->client->connection, r->method, r->target, version, &headers, e);
    if (rc < 0) {
        r->close_after = true;
        return rc;
    }
    r->idempotency_key = headers.idempotency_key;
    r->idempotency_key_len = headers.idempotency_key_len;
    if (headers.timeout_ms > 0)
        /* Rounded up: a client's patience never ends before the time that it has named. */
        r->deadline_ms = (r->started_us + 999) / 1000 + (int64_t)headers.timeout_ms;
    if (strlen(r->target) >= HTTP_TARGET_MAX)
        return error_set(e, XR_EURITOOLONG, NULL, "The request's target is longer than %d bytes.",
                         HTTP_TARGET_MAX);
    rc = find_endpoint(h, r, e);
    if (rc < 0)
        return rc;
    if (r->endpoint->needs_key) {
        rc = auth_check(h->setup.keys, headers.authorization, headers.authorization_len,
                        clock_now_at_ms(), &r->key, e);
        if (rc < 0)
            return refuse_key(h, r, rc, e);
    }
    if (headers.has_length && headers.length > r->body.max)
        return error_set(e, XR_ETOOLARGE, NULL,
                         "The request body has %llu bytes; this gateway accepts %zu.",
                         (unsigned long long)headers.length, r->body.max);
    return 0;
}

static ssize_t on_read(void *arg, uint64_t position, char *dst, size_t max)
{
    struct http_request *r = arg;
    ssize_t n;

    r->client->daemon->worked = true;
    if (r->aborted)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (!r->streaming) {
        n = (ssize_t)buf_take(&r->answer, dst, max);
        if (n == 0)
            return MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        n = r->ops->read(r, dst, max);
    }
    if (n == HTTP_STREAM_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n < 0) {
        r->aborted = true;
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    if (n == 0) {
        /* All that was there has been taken by the client: what follows is the provider's silence,
         * which has deadlines of its own. */
        client_set_deadline(r->client, NO_DEADLINE_MS);
        r->suspended = true;
        MHD_suspend_connection(r->client->connection);
        if (r->client->gone)
            request_client_gone(r);
        return 0;
    }
    if (r->first_byte_us == 0)
        r->first_byte_us = clock_monotonic_us();
    r->bytes_sent += (uint64_t)n;
    client_set_deadline(r->client, r->config->write_stall_ms);
    return n;
}

static struct MHD_Response *make_response(struct http_request *r)
{
    struct MHD_Response *response;
    char *bytes = r->answer.base;

    if (r->streaming)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_read, r, NULL);
    if (r->answer.len > ANSWER_BUFFERED_MAX)
        return MHD_create_response_from_callback(r->answer.len, ANSWER_BUFFERED_MAX, on_read, r,
                                                 NULL);
    r->first_byte_us = clock_monotonic_us();
    r->bytes_sent = is_head(r->method) ? 0 : r->answer.len;
    if (r->answer.len == 0 || r->answer.data != bytes)
        return MHD_create_response_from_buffer(r->answer.len, r->answer.data,
                                               MHD_RESPMEM_MUST_COPY);
    response = MHD_create_response_from_buffer_with_free_callback(r->answer.len, bytes, free);
    if (response != NULL)
        buf_init(&r->answer, SIZE_MAX); /* the bytes are the response's now */
    return response;
}

static enum MHD_Result add_headers(const struct httpd *h, const struct http_request *r,
                                   struct MHD_Response *response)
{
    enum MHD_Result ok = MHD_YES;

    ok &= MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    ok &= MHD_add_response_header(response, "x-request-id", r->id_text);
    if (r->streaming)
        ok &= MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    if (r->close_after)
        ok &= MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    for (size_t i = 0; i < r->header_count; i++)
        ok &= MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
    if (r->listener != LISTENER_OPS)
        ok &= rate_headers_add(response, h->setup.limits, &r->key);
    return ok;
}

static enum MHD_Result queue_answer(struct httpd *h, struct http_request *r)
{
    struct MHD_Response *response;
    enum MHD_Result ok = MHD_NO;

    if (h->draining && r->listener != LISTENER_OPS)
        r->close_after = true;
    response = make_response(r);
    if (response == NULL)
        return MHD_NO;
    r->queued = true;
    client_set_deadline(r->client, r->config->write_stall_ms);
    if (add_headers(h, r, response) == MHD_YES)
        ok = MHD_queue_response(r->client->connection, r->status, response);
    MHD_destroy_response(response);
    return ok;
}

/* The next step after a handler ran or the connection was resumed. */
static enum MHD_Result move_on(struct httpd *h, struct http_request *r)
{
    if (r->aborted)
        return MHD_NO;
    if (r->answered)
        return queue_answer(h, r);
    r->suspended = true;
    MHD_suspend_connection(r->client->connection);
    if (r->client->gone)
        request_client_gone(r);
    return MHD_YES;
}

static enum MHD_Result on_head(struct httpd *h, struct http_request *r, const char *version)
{
    struct error e = {0};

    r->headers_seen = true;
    if (check_head(h, r, version, &e) < 0) {
        http_answer_error(r, &e);
        return queue_answer(h, r);
    }
    client_set_deadline(r->client, r->config->body_ms);
    return MHD_YES;
}

enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                           const char *method, const char *version, const char *upload,
                           size_t *upload_len, void **context)
{
    struct httpd *h = arg;
    struct http_request *r = *context;

    if (r == NULL || r->queued)
        return r == NULL ? MHD_NO : MHD_YES;
    r->client->daemon->worked = true;
    r->method = method;
    if (!r->headers_seen)
        return on_head(h, r, version);
    if (*upload_len > 0) {
        /* A chunked body has no announced length, and nothing can be answered in the middle of an
         * upload: over the limit the connection is cut. */
        if (buf_append(&r->body, upload, *upload_len) < 0) {
            error_set(&r->error, r->body.err == -EMSGSIZE ? XR_ETOOLARGE : XR_EINTERNAL, NULL,
                      NULL);
            return MHD_NO;
        }
        *upload_len = 0;
        return MHD_YES;
    }
    if (!r->answered && !r->aborted && r->ops == NULL) {
        /* From here on the handler's own deadlines count. */
        client_set_deadline(r->client, NO_DEADLINE_MS);
        r->endpoint->handle(h->setup.arg, r);
    }
    return move_on(h, r);
}

/* Without the query: people put keys there. */
static size_t logged_length(const char *target)
{
    size_t len = target == NULL ? 0 : strcspn(target, "?");

    return len < LOGGED_TARGET_MAX ? len : LOGGED_TARGET_MAX;
}

static void log_request(const struct http_request *r, bool delivered, int64_t duration_us)
{
    char memory[LOG_LINE_MAX];
    struct buf line;
    char time[CLOCK_TEXT_BYTES];
    int64_t first_us = r->first_byte_us > 0 ? r->first_byte_us - r->started_us : 0;

    buf_init_fixed(&line, memory, sizeof(memory));
    clock_format(clock_now_at_ms(), time);
    buf_byte(&line, '{');
    json_put_field_text(&line, "ts", time);
    json_put_field_text(&line, "request_id", r->id_text);
    json_put_field_text(&line, "client", r->client->peer);
    json_put_field_text(&line, "method", r->headers_seen ? r->method : "");
    json_put_key(&line, "path");
    json_put_string(&line, r->target, logged_length(r->target));
    json_put_field_u64(&line, "status", r->status);
    json_put_field_bool(&line, "delivered", delivered);
    json_put_field_u64(&line, "bytes", r->bytes_sent);
    json_put_field_i64(&line, "duration_us", duration_us);
    json_put_field_i64(&line, "first_byte_us", first_us);
    if (r->key.id != 0) {
        char id[KEY_ID_TEXT_BYTES];

        key_id_format(r->key.id, id);
        json_put_field_text(&line, "key", id);
    }
    if (r->error.number != 0)
        json_put_field_text(&line, "error", error_info(r->error.number)->code);
    if (r->log_fields != NULL)
        r->log_fields(r, &line);
    buf_byte(&line, '}');
    log_access(&line);
}

static void count_request(struct counters *c, const struct http_request *r, bool left,
                          int64_t duration_us)
{
    if (r->status >= 500)
        counter_inc(&c->responses_5xx_total);
    else if (r->status >= 400)
        counter_inc(&c->responses_4xx_total);
    else if (r->status >= 200)
        counter_inc(&c->responses_2xx_total);
    if (left)
        counter_inc(&c->clients_gone_total);
    if (r->error.number != 0) {
        switch (error_info(r->error.number)->domain) {
        case DOMAIN_CLIENT:
            counter_inc(&c->errors_client_total);
            break;
        case DOMAIN_POLICY:
            counter_inc(&c->errors_policy_total);
            break;
        case DOMAIN_PROVIDER:
            counter_inc(&c->errors_provider_total);
            break;
        case DOMAIN_GATEWAY:
            counter_inc(&c->errors_gateway_total);
            break;
        case DOMAIN_OTHER:
            counter_inc(&c->errors_other_total);
            break;
        }
    }
    histogram_observe_us(&c->request_duration_ms, duration_us);
    if (r->first_byte_us > 0)
        histogram_observe_us(&c->first_byte_ms, r->first_byte_us - r->started_us);
}

/* libmicrohttpd may see the client leave before we do. */
static bool is_departure(enum MHD_RequestTerminationCode why)
{
    return why == MHD_REQUEST_TERMINATED_CLIENT_ABORT || why == MHD_REQUEST_TERMINATED_READ_ERROR;
}

void on_request_completed(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_RequestTerminationCode why)
{
    struct httpd *h = arg;
    struct http_request *r = *context;
    bool delivered = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    int64_t duration_us;

    if (r == NULL)
        return;
    *context = NULL;
    r->client->daemon->worked = true;
    if (r->ops != NULL && !delivered && !r->gone_told) {
        r->gone_told = true;
        r->ops->on_gone(r);
    }
    duration_us = clock_monotonic_us() - r->started_us;
    if (r->listener != LISTENER_OPS) {
        if (!r->is_quiet)
            log_request(r, delivered, duration_us);
        count_request(h->setup.counters, r, !delivered && (r->client->gone || is_departure(why)),
                      duration_us);
        h->open_requests--;
    }
    if (r->ops != NULL)
        r->ops->on_completed(r, delivered);
    r->client->request = NULL;
    client_set_deadline(r->client, r->config->keepalive_ms);
    config_unref(r->config);
    buf_clear(&r->body);
    buf_clear(&r->answer);
    free(r->target);
    free(r);
}

static void resume(struct http_request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    r->client->daemon->resumed = true;
    MHD_resume_connection(r->client->connection);
}

void request_client_gone(struct http_request *r)
{
    if (!r->suspended && r->ops == NULL)
        return; /* libmicrohttpd is reading or writing and sees it by itself */
    if (r->ops != NULL && !r->gone_told) {
        r->gone_told = true;
        r->ops->on_gone(r);
    }
    http_abort(r);
}

void http_abort(struct http_request *r)
{
    r->aborted = true;
    resume(r);
}

void http_wake(struct http_request *r)
{
    resume(r);
}

void http_add_header(struct http_request *r, const char *name, const char *format, ...)
{
    struct http_header *header = &r->headers[r->header_count];
    va_list args;

    if (r->header_count == HTTP_HEADERS_MAX)
        return;
    va_start(args, format);
    if (vsnprintf(header->value, sizeof(header->value), format, args) > 0) {
        header->name = name;
        r->header_count++;
    }
    va_end(args);
}

void http_add_header_text(struct http_request *r, const char *name, const char *text, size_t len)
{
    struct http_header *header = &r->headers[r->header_count];

    if (r->header_count == HTTP_HEADERS_MAX || len == 0)
        return;
    if (len > sizeof(header->value) - 1)
        len = sizeof(header->value) - 1;
    memcpy(header->value, text, len);
    header->value[len] = '\0';
    header->name = name;
    r->header_count++;
}

void http_answer(struct http_request *r, unsigned status, const char *content_type,
                 struct buf *body)
{
    if (body->err != 0) {
        struct error e = {0};

        buf_clear(body);
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        http_answer_error(r, &e);
        return;
    }
    buf_clear(&r->answer);
    r->answer = *body;
    buf_init(body, body->max);
    r->status = status;
    r->content_type = content_type;
    r->answered = true;
    resume(r);
}

void http_answer_error(struct http_request *r, const struct error *e)
{
    const struct error_info *info = error_info(e->number);
    struct buf body;

    r->error = *e;
    buf_init(&body, SIZE_MAX);
    error_encode(e, &body);
    http_add_header(r, "x-should-retry", "%s", info->retry && !r->is_hopeless ? "true" : "false");
    if (body.err != 0) {
        /* Not even a message: an empty 500 is all that is left to say. */
        buf_clear(&body);
        buf_init(&body, SIZE_MAX);
    }
    http_answer(r, body.len == 0 ? 500 : info->http_status, "application/json", &body);
}

void http_answer_stream(struct http_request *r, unsigned status, const char *content_type)
{
    r->status = status;
    r->content_type = content_type;
    r->streaming = true;
    r->answered = true;
    resume(r);
}

const char *http_peer(const struct http_request *r)
{
    return r->client->peer;
}
