#include "gateway/server_timing.h"

#define US_PER_TENTH 100 /* of a millisecond */

static void put_phase(struct buf *out, const char *name, int64_t us)
{
    int64_t tenths = us > 0 ? (us + US_PER_TENTH / 2) / US_PER_TENTH : 0;

    buf_str(out, out->len > 0 ? ", " : "");
    buf_str(out, name);
    buf_str(out, ";dur=");
    buf_i64(out, tenths / 10);
    buf_byte(out, '.');
    buf_i64(out, tenths % 10);
}

int server_timing_encode(struct buf *out, const struct server_timing *t, int64_t total_us)
{
    put_phase(out, "receive", t->receive_us);
    put_phase(out, "limit", t->limit_us);
    put_phase(out, "queue", t->queue_us);
    put_phase(out, "connect", t->connect_us);
    put_phase(out, "upstream", t->upstream_us - t->connect_us);
    put_phase(out, "gateway",
              total_us - t->receive_us - t->limit_us - t->queue_us - t->upstream_us);
    return out->err;
}

void server_timing_add(struct http_request *r, const struct server_timing *t, int64_t now_us)
{
    char memory[sizeof(r->headers[0].value)];
    struct buf text;

    buf_init_fixed(&text, memory, sizeof(memory));
    if (server_timing_encode(&text, t, now_us - r->started_us) == 0)
        http_add_header_text(r, "server-timing", text.data, text.len);
}
