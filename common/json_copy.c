#include "common/json_copy.h"

static void flush(struct json_copy *c, const char *until)
{
    buf_append(c->out, c->run, (size_t)(until - c->run));
    c->run = until;
}

void json_copy_open(struct json_copy *c, struct json_span value, struct buf *out)
{
    json_walk_begin(&c->walk, value);
    c->out = out;
    c->end = value.at + value.len;
    for (c->run = value.at; c->run < c->end && (unsigned char)*c->run <= ' ';)
        c->run++;
    while (c->end > c->run && (unsigned char)c->end[-1] <= ' ')
        c->end--;
    c->safe = c->walk.at;
    c->last = c->walk.at;
    c->gap = c->walk.at;
    c->has_members = false;
}

bool json_copy_next(struct json_copy *c, struct json_member *m)
{
    c->gap = c->last;
    if (!json_walk_next(&c->walk, m))
        return false;
    c->last = m->value.at + m->value.len;
    return true;
}

/* The member belongs to the copy. If some before it do not, what is in between is left out, but for
 * the comma. */
static void take(struct json_copy *c, const struct json_member *m)
{
    if (c->safe != c->gap) {
        flush(c, c->safe);
        c->run = c->has_members ? c->gap : m->at;
    }
    c->safe = c->last;
    c->has_members = true;
}

void json_copy_keep(struct json_copy *c, const struct json_member *m)
{
    take(c, m);
}

static struct buf *begin_value(struct json_copy *c, const struct json_member *m)
{
    flush(c, m->value.at);
    c->run = c->last;
    return c->out;
}

struct buf *json_copy_value(struct json_copy *c, const struct json_member *m)
{
    take(c, m);
    return begin_value(c, m);
}

struct buf *json_copy_renamed(struct json_copy *c, const struct json_member *m, const char *name)
{
    take(c, m);
    flush(c, m->at);
    json_put_text(c->out, name);
    c->run = m->name.at + m->name.len + 1;
    return begin_value(c, m);
}

struct buf *json_copy_add(struct json_copy *c, const char *name)
{
    flush(c, c->safe);
    c->run = c->last;
    c->safe = c->last;
    if (c->has_members)
        buf_byte(c->out, ',');
    c->has_members = true;
    json_put_text(c->out, name);
    buf_byte(c->out, ':');
    return c->out;
}

int json_copy_close(struct json_copy *c)
{
    if (c->safe != c->last) {
        flush(c, c->safe);
        c->run = c->last;
    }
    flush(c, c->end);
    return c->out->err;
}
