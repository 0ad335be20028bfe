#include "tests/sim/stats.h"

#include <string.h>

#include "common/clock.h"
#include "common/json.h"

static const char *const route_names[] = {
#define X(name, path) [name] = path,
    STATS_ROUTES(X)
#undef X
};

void stats_init(struct stats *stats)
{
    *stats = (struct stats){0};
    for (size_t i = 0; i < STATS_RECENT; i++) {
        buf_init(&stats->recent[i].head, STATS_HEAD_BYTES_MAX);
        buf_init(&stats->recent[i].body, STATS_BODY_BYTES_MAX);
    }
}

void stats_clear(struct stats *stats)
{
    for (size_t i = 0; i < STATS_RECENT; i++) {
        buf_clear(&stats->recent[i].head);
        buf_clear(&stats->recent[i].body);
    }
}

void stats_reset(struct stats *stats)
{
    uint64_t in_flight = stats->in_flight;
    uint64_t connections_open = stats->connections_open;

    stats_clear(stats);
    stats_init(stats);
    stats->in_flight = stats->max_in_flight = in_flight;
    stats->connections_open = connections_open;
}

void stats_answer(struct stats *stats, enum route route, int status)
{
    stats->answers[route][status < 600 ? status : 0]++;
}

static void keep(struct buf *out, const char *data, size_t len, size_t max)
{
    buf_reset(out);
    buf_append(out, data, len < max ? len : max);
}

void stats_keep_request(struct stats *stats, const char *head, size_t head_len, const char *body,
                        size_t body_len)
{
    struct recent_request *recent = &stats->recent[stats->recent_count++ % STATS_RECENT];

    recent->at_ms = clock_now_at_ms();
    recent->head_bytes = head_len;
    recent->body_bytes = body_len;
    keep(&recent->head, head, head_len, STATS_HEAD_BYTES_MAX);
    keep(&recent->body, body, body_len, STATS_BODY_BYTES_MAX);
}

static size_t line_end(const char *text, size_t len)
{
    const char *end = memchr(text, '\n', len);

    return end == NULL ? len : (size_t)(end - text) + 1;
}

static size_t trimmed(const char *text, size_t len)
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' '))
        len--;
    return len;
}

/* Header names in lower case. One that came twice is there twice: tests look for that. */
static void put_headers(struct buf *out, const char *text, size_t len)
{
    buf_byte(out, '{');
    while (len > 0) {
        size_t n = line_end(text, len);
        const char *colon = memchr(text, ':', n);

        if (colon != NULL) {
            const char *value = colon + 1;
            char name[128];
            size_t name_len = 0;

            while (value < text + n && *value == ' ')
                value++;
            for (const char *p = text; p < colon && name_len < sizeof(name) - 1; p++)
                name[name_len++] = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
            name[name_len] = '\0';
            json_put_key(out, name);
            json_put_string(out, value, trimmed(value, (size_t)(text + n - value)));
        }
        text += n;
        len -= n;
    }
    buf_byte(out, '}');
}

static void put_recent(struct buf *out, const struct recent_request *recent)
{
    size_t n = line_end(recent->head.data, recent->head.len);

    buf_byte(out, '{');
    json_put_field_i64(out, "at_ms", recent->at_ms);
    json_put_key(out, "line");
    json_put_string(out, recent->head.data, trimmed(recent->head.data, n));
    json_put_key(out, "headers");
    put_headers(out, recent->head.data + n, recent->head.len - n);
    json_put_field_u64(out, "body_bytes", recent->body_bytes);
    json_put_key(out, "body");
    json_put_string(out, recent->body.len == 0 ? "" : recent->body.data, recent->body.len);
    buf_byte(out, '}');
}

static void put_answers(struct buf *out, const struct stats *stats)
{
    buf_byte(out, '{');
    for (unsigned route = 0; route < ROUTE_SIM; route++) {
        json_put_key(out, route_names[route]);
        buf_byte(out, '{');
        for (int status = 0; status < 600; status++) {
            char name[4] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                            (char)('0' + status % 10), '\0'};

            if (stats->answers[route][status] > 0)
                json_put_field_u64(out, status == 0 ? "0" : name, stats->answers[route][status]);
        }
        buf_byte(out, '}');
    }
    buf_byte(out, '}');
}

void stats_render(const struct stats *stats, size_t script_pending, size_t files_held,
                  struct buf *out)
{
    uint64_t first = stats->recent_count > STATS_RECENT ? stats->recent_count - STATS_RECENT : 0;

    buf_byte(out, '{');
    json_put_key(out, "requests");
    put_answers(out, stats);
    json_put_field_u64(out, "tokens_issued", stats->tokens_issued);
    json_put_field_u64(out, "in_flight", stats->in_flight);
    json_put_field_u64(out, "max_in_flight", stats->max_in_flight);
    json_put_field_u64(out, "aborted_by_client", stats->aborted_by_client);
    json_put_field_i64(out, "last_abort_at_ms", stats->last_abort_at_ms);
    json_put_field_u64(out, "bytes_sent", stats->bytes_sent);
    json_put_field_u64(out, "connections_opened", stats->connections_opened);
    json_put_field_u64(out, "connections_open", stats->connections_open);
    json_put_field_u64(out, "script_pending", script_pending);
    json_put_field_u64(out, "files_held", files_held);
    json_put_key(out, "last_requests");
    buf_byte(out, '[');
    for (uint64_t i = first; i < stats->recent_count; i++) {
        if (i > first)
            buf_byte(out, ',');
        put_recent(out, &stats->recent[i % STATS_RECENT]);
    }
    buf_str(out, "]}\n");
}
