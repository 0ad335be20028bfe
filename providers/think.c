#include "providers/think.h"

#include <string.h>

static const char opening[] = "<think>";
static const char closing[] = "</think>";

/* Takes bytes of the tag off the text; *whole = the tag is complete. */
static size_t match(struct think_splitter *t, const char *tag, const char *text, size_t len,
                    bool *whole)
{
    size_t used = 0;

    while (used < len && tag[t->matched] != '\0' && text[used] == tag[t->matched]) {
        used++;
        t->matched++;
    }
    *whole = tag[t->matched] == '\0';
    return used;
}

/* The opening tag must be the first thing; any other byte settles that there is none. */
static size_t feed_beginning(struct think_splitter *t, const char *text, size_t len,
                             struct buf *answer)
{
    bool whole;
    size_t used = match(t, opening, text, len, &whole);

    if (whole) {
        t->state = THINK_INSIDE;
        t->matched = 0;
    } else if (used < len) {
        buf_append(answer, opening, t->matched);
        t->state = THINK_AFTER;
        t->matched = 0;
    }
    return used;
}

static size_t feed_inside(struct think_splitter *t, const char *text, size_t len,
                          struct buf *reasoning)
{
    const char *tag;
    bool whole;
    size_t used = match(t, closing, text, len, &whole);

    if (whole) {
        t->state = THINK_AFTER;
        t->matched = 0;
        return used;
    }
    if (used == len)
        return used;
    /* '<' is nowhere but at the tag's beginning: what has matched so far is plain text. */
    buf_append(reasoning, closing, t->matched);
    t->matched = 0;
    tag = memchr(text + used, '<', len - used);
    if (tag == NULL)
        tag = text + len;
    buf_append(reasoning, text + used, (size_t)(tag - text) - used);
    return (size_t)(tag - text);
}

int think_feed(struct think_splitter *t, const char *text, size_t len, struct buf *reasoning,
               struct buf *answer)
{
    size_t at = 0;

    if (len == 0) /* then text may be NULL */
        return 0;
    while (at < len && t->state == THINK_BEGINNING)
        at += feed_beginning(t, text + at, len - at, answer);
    while (at < len && t->state == THINK_INSIDE)
        at += feed_inside(t, text + at, len - at, reasoning);
    buf_append(answer, text + at, len - at);
    return reasoning->err < 0 ? reasoning->err : answer->err;
}

int think_finish(struct think_splitter *t, struct buf *reasoning, struct buf *answer)
{
    if (t->state == THINK_BEGINNING)
        buf_append(answer, opening, t->matched);
    else if (t->state == THINK_INSIDE)
        buf_append(reasoning, closing, t->matched);
    t->matched = 0;
    t->state = THINK_AFTER;
    return reasoning->err < 0 ? reasoning->err : answer->err;
}

bool think_is_over(const struct think_splitter *t)
{
    return t->state == THINK_AFTER;
}
