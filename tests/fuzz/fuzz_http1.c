/* Any bytes as a response: no crash, and the same outcome given whole, byte by byte, and cut at a
 * place the input chooses. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "providers/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    int end; /* HTTP1_END, HTTP1_MORE (input used up), an error */
    int eof; /* what the connection's end made of it */
    unsigned heads;
    unsigned status;
    bool keep_alive;
    size_t headers;
    size_t used; /* up to the end or the error */
    struct buf body;
};

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_head(const struct http1_head *head)
{
    require(head->status >= 200 && head->status <= 599);
    for (size_t i = 0; i < head->header_count; i++) {
        const struct http1_header *header = &head->headers[i];

        require(header->name_len > 0);
        require(memchr(header->name, ':', header->name_len) == NULL);
        require(memchr(header->value, '\n', header->value_len) == NULL);
        require(memchr(header->value, '\r', header->value_len) == NULL);
        require(memchr(header->value, '\0', header->value_len) == NULL);
    }
}

/* False when the response is over. */
static bool feed_piece(struct http1 *h, const char *in, size_t len, struct outcome *o)
{
    for (;;) {
        const char *piece, *why;
        size_t used, piece_len;
        int step = http1_feed(h, in, len, &used, &piece, &piece_len, &why);

        require(used <= len);
        in += used;
        len -= used;
        o->used += used;
        o->end = step;
        if (step < 0)
            require(why != NULL);
        if (step < 0 || step == HTTP1_END)
            return false;
        if (step == HTTP1_MORE) {
            require(len == 0);
            return true;
        }
        if (step == HTTP1_HEAD) {
            const struct http1_head *head = http1_get_head(h);

            check_head(head);
            o->heads++;
            o->status = head->status;
            o->keep_alive = head->keep_alive;
            o->headers = head->header_count;
        } else {
            require(step == HTTP1_BODY && piece_len > 0);
            buf_append(&o->body, piece, piece_len);
        }
    }
}

static void feed_in_steps(const char *text, size_t len, size_t first, size_t step,
                          struct outcome *o)
{
    struct http1 *h = http1_new();
    const char *why;
    size_t n = first < len ? first : len;

    require(h != NULL);
    memset(o, 0, sizeof(*o));
    buf_init(&o->body, len);
    while (feed_piece(h, text, n, o) && len > n) {
        text += n;
        len -= n;
        n = step < len ? step : len;
    }
    if (o->end == HTTP1_MORE)
        o->eof = http1_eof(h, &why);
    http1_free(h);
}

static void require_same(struct outcome *a, struct outcome *b)
{
    require(a->end == b->end && a->eof == b->eof && a->heads == b->heads);
    require(a->status == b->status && a->keep_alive == b->keep_alive && a->headers == b->headers);
    if (a->end == HTTP1_END)
        require(a->used == b->used);
    require(a->body.len == b->body.len);
    if (a->body.len > 0)
        require(memcmp(a->body.data, b->body.data, a->body.len) == 0);
    buf_clear(&b->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, other;
    const char *text = (const char *)data;
    size_t cut;

    if (size == 0)
        return 0;
    cut = data[0]; /* the first byte chooses where to cut */
    text++;
    size--;
    feed_in_steps(text, size, size, 1, &whole);
    require(whole.heads <= 1);
    feed_in_steps(text, size, 1, 1, &other);
    require_same(&whole, &other);
    feed_in_steps(text, size, cut, size, &other);
    require_same(&whole, &other);
    feed_in_steps(text, size, cut, cut + 1, &other);
    require_same(&whole, &other);
    buf_clear(&whole.body);
    return 0;
}
