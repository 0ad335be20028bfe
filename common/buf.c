#include "common/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_BYTES 256

static int fail(struct buf *b, int err)
{
    if (b->err == 0)
        b->err = err;
    return b->err;
}

static size_t gap(const struct buf *b)
{
    return b->base == NULL ? 0 : (size_t)(b->data - b->base);
}

static size_t tail_room(const struct buf *b)
{
    return b->cap - gap(b) - b->len;
}

static void move_to_front(struct buf *b)
{
    memmove(b->base, b->data, b->len);
    b->data = b->base;
}

/* The next size for need bytes: doubled, so that appending byte by byte stays linear, but not
 * past what max (and the NUL of buf_text) can use. */
static size_t grown(const struct buf *b, size_t need)
{
    size_t most = b->max == SIZE_MAX ? SIZE_MAX : b->max + 1;
    size_t cap = b->cap < BUF_FIRST_BYTES ? BUF_FIRST_BYTES : b->cap;

    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? SIZE_MAX : cap * 2;
    return cap > most && most >= need ? most : cap;
}

static int grow(struct buf *b, size_t need)
{
    size_t cap = grown(b, need);
    char *base;

    if (b->data == b->base && !b->secret) {
        base = realloc(b->base, cap);
        if (base == NULL)
            return fail(b, -ENOMEM);
    } else {
        base = malloc(cap);
        if (base == NULL)
            return fail(b, -ENOMEM);
        if (b->len > 0)
            memcpy(base, b->data, b->len);
        if (b->secret && b->base != NULL)
            explicit_bzero(b->base, b->cap);
        free(b->base);
    }
    b->base = base;
    b->data = base;
    b->cap = cap;
    return 0;
}

/* The usual case, in a few instructions: the bytes and a NUL fit behind the live ones. */
static inline bool fits(const struct buf *b, size_t n)
{
    return b->err == 0 && b->base != NULL && tail_room(b) > n && b->len <= b->max &&
           n <= b->max - b->len;
}

/* Room for n bytes and a NUL behind the live ones. */
static int ensure(struct buf *b, size_t n)
{
    size_t total, need;

    assert((b->base == NULL) == (b->data == NULL) && (b->base != NULL || b->len == 0));
    if (b->err != 0)
        return b->err;
    if (__builtin_add_overflow(b->len, n, &total) || total > b->max ||
        __builtin_add_overflow(total, (size_t)1, &need))
        return fail(b, -EMSGSIZE);
    if (b->base != NULL && tail_room(b) > n)
        return 0;
    /* Moving is worth it when it frees at least what it copies, else a queue that stays nearly
     * full would be copied again and again; at the largest size there is no other way. */
    if (b->base != NULL && b->cap >= need && (gap(b) >= b->len || b->cap > b->max)) {
        move_to_front(b);
        return 0;
    }
    if (b->cap >= need)
        need = b->cap + 1;
    return grow(b, need);
}

void buf_init(struct buf *b, size_t max)
{
    memset(b, 0, sizeof(*b));
    b->max = max;
}

void buf_init_secret(struct buf *b, size_t max)
{
    buf_init(b, max);
    b->secret = true;
}

void buf_init_fixed(struct buf *b, char *memory, size_t size)
{
    assert(size > 0);
    buf_init(b, size - 1);
    b->base = memory;
    b->data = memory;
    b->cap = size; /* one more than max: so ensure() always finds room or a text too long */
    b->fixed = true;
}

void buf_clear(struct buf *b)
{
    bool secret = b->secret;
    size_t max = b->fixed ? 0 : b->max;

    if (secret && b->base != NULL)
        explicit_bzero(b->base, b->cap);
    if (!b->fixed)
        free(b->base);
    buf_init(b, max);
    b->secret = secret;
}

void buf_wipe(struct buf *b)
{
    if (b->base != NULL)
        explicit_bzero(b->base, b->cap);
    buf_clear(b);
}

void buf_reset(struct buf *b)
{
    b->data = b->base;
    b->len = 0;
    b->err = 0;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0 || (!fits(b, len) && ensure(b, len) < 0))
        return b->err;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int buf_str(struct buf *b, const char *text)
{
    return buf_append(b, text, strlen(text));
}

int buf_byte(struct buf *b, char c)
{
    if (!fits(b, 1) && ensure(b, 1) < 0)
        return b->err;
    b->data[b->len++] = c;
    return 0;
}

int buf_u64(struct buf *b, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = "0123456789"[value % 10];
        value /= 10;
    } while (value > 0);
    return buf_append(b, digits + at, sizeof(digits) - at);
}

int buf_i64(struct buf *b, int64_t value)
{
    if (value >= 0)
        return buf_u64(b, (uint64_t)value);
    buf_byte(b, '-');
    return buf_u64(b, 0 - (uint64_t)value);
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    buf_vprintf(b, format, args);
    va_end(args);
    return b->err;
}

int buf_vprintf(struct buf *b, const char *format, va_list args)
{
    va_list again;
    int n;

    if (ensure(b, 0) < 0)
        return b->err;
    va_copy(again, args);
    n = vsnprintf(b->data + b->len, tail_room(b), format, args);
    if (n < 0) { /* the text would be longer than INT_MAX */
        fail(b, -EMSGSIZE);
    } else if ((size_t)n < tail_room(b)) {
        if ((size_t)n > b->max - b->len)
            fail(b, -EMSGSIZE);
        else
            b->len += (size_t)n;
    } else if (ensure(b, (size_t)n) == 0) {
        vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return b->err;
}

char *buf_room(struct buf *b, size_t n)
{
    return ensure(b, n) < 0 ? NULL : b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
    assert(n <= tail_room(b) && n <= b->max - b->len);
    b->len += n;
}

size_t buf_take(struct buf *b, char *dst, size_t max)
{
    size_t n = b->len < max ? b->len : max;

    if (n > 0)
        memcpy(dst, b->data, n);
    buf_drop(b, n);
    return n;
}

void buf_drop(struct buf *b, size_t n)
{
    assert(n <= b->len);
    b->len -= n;
    if (b->len == 0)
        b->data = b->base;
    else
        b->data += n;
}

const char *buf_text(struct buf *b)
{
    if (ensure(b, 0) < 0)
        return NULL;
    b->data[b->len] = '\0';
    return b->data;
}
