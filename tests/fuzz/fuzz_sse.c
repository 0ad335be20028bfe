/* Any bytes as an event stream: no crash, and the same events given whole, byte by byte, and cut at
 * a place the input chooses. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "providers/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Writes the events down, each with its lengths. */
static void feed_piece(struct sse *s, const char *in, size_t len, struct buf *out)
{
    int rc = 1;

    while (rc == 1) {
        struct event event;
        size_t used;

        rc = sse_feed(s, in, len, &used, &event);
        require(rc >= 0 && used <= len);
        in += used;
        len -= used;
        if (rc == 1) {
            require(strlen(event.name) < sizeof(s->name));
            buf_printf(out, "%zu %zu ", strlen(event.name), event.len);
            buf_str(out, event.name);
            buf_append(out, event.data, event.len);
        }
    }
    require(len == 0);
}

static void feed_in_steps(const char *text, size_t len, size_t first, size_t step, struct buf *out)
{
    size_t n = first < len ? first : len;
    struct sse s;

    sse_init(&s);
    buf_init(out, 64 * len + 64);
    while (len > 0) {
        feed_piece(&s, text, n, out);
        text += n;
        len -= n;
        n = step < len ? step : len;
    }
    require(out->err == 0);
    sse_clear(&s);
}

static void require_same(const struct buf *a, struct buf *b)
{
    require(a->len == b->len);
    if (a->len > 0)
        require(memcmp(a->data, b->data, a->len) == 0);
    buf_clear(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct buf whole, other;
    size_t cut;

    if (size == 0 || size > SSE_EVENT_MAX)
        return 0;
    cut = data[0]; /* the first byte chooses where to cut */
    text++;
    size--;
    feed_in_steps(text, size, size, 1, &whole);
    feed_in_steps(text, size, 1, 1, &other);
    require_same(&whole, &other);
    feed_in_steps(text, size, cut, size, &other);
    require_same(&whole, &other);
    feed_in_steps(text, size, cut, cut + 1, &other);
    require_same(&whole, &other);
    buf_clear(&whole);
    return 0;
}
