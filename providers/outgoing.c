#include "providers/outgoing.h"

#define JOIN_MAX 16384 /* head and body up to this size leave in one piece */

static void move_buf(struct buf *to, struct buf *from)
{
    bool is_secret = from->secret;
    size_t max = from->max;

    *to = *from;
    if (is_secret)
        buf_init_secret(from, max);
    else
        buf_init(from, max);
}

static int join(struct outgoing *o)
{
    size_t len = o->head.len + o->body.len;
    struct buf both;

    buf_init_secret(&both, len);
    if (buf_room(&both, len) == NULL) /* one allocation for all */
        return both.err;
    buf_append(&both, o->head.data, o->head.len);
    buf_append(&both, o->body.data, o->body.len);
    outgoing_clear(o);
    o->head = both;
    return both.err;
}

int outgoing_take(struct outgoing *o, struct buf *head, struct buf *body)
{
    move_buf(&o->head, head);
    move_buf(&o->body, body);
    o->sent = 0;
    if (o->head.err != 0 || o->body.err != 0)
        return o->head.err != 0 ? o->head.err : o->body.err;
    if (o->body.len == 0 || o->head.len + o->body.len > JOIN_MAX)
        return 0;
    return join(o);
}

void outgoing_clear(struct outgoing *o)
{
    buf_wipe(&o->head);
    buf_clear(&o->body);
}

const char *outgoing_next(const struct outgoing *o, size_t *len)
{
    if (o->sent < o->head.len) {
        *len = o->head.len - o->sent;
        return o->head.data + o->sent;
    }
    *len = o->head.len + o->body.len - o->sent;
    return *len == 0 ? NULL : o->body.data + (o->sent - o->head.len);
}

void outgoing_advance(struct outgoing *o, size_t n)
{
    o->sent += n;
}

void outgoing_rewind(struct outgoing *o)
{
    o->sent = 0;
}
