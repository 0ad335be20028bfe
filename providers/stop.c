#define _GNU_SOURCE 1 /* memmem */
#include "providers/stop.h"

#include <stdint.h>
#include <string.h>

void stop_init(struct stop_filter *f, const char *const *sequences, size_t count)
{
    memset(f, 0, sizeof(*f));
    buf_init(&f->held, SIZE_MAX / 2);
    f->sequences = sequences;
    f->count = count;
    for (size_t i = 0; i < count; i++) {
        f->lens[i] = strlen(sequences[i]);
        if (f->lens[i] > f->longest)
            f->longest = f->lens[i];
    }
}

void stop_clear(struct stop_filter *f)
{
    buf_clear(&f->held);
}

/* Where the sequence that ends first begins; of two that end together the longer one counts. */
static bool find_first(const struct stop_filter *f, size_t *start)
{
    size_t first_end = SIZE_MAX;

    for (size_t i = 0; i < f->count; i++) {
        const char *found = memmem(f->held.data, f->held.len, f->sequences[i], f->lens[i]);
        size_t at, end;

        if (found == NULL)
            continue;
        at = (size_t)(found - f->held.data);
        end = at + f->lens[i];
        if (end < first_end || (end == first_end && at < *start)) {
            first_end = end;
            *start = at;
        }
    }
    return first_end != SIZE_MAX;
}

static bool is_beginning(const struct stop_filter *f, const char *text, size_t len)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->lens[i] > len && memcmp(f->sequences[i], text, len) == 0)
            return true;
    return false;
}

/* How many bytes at the end may be the beginning of a sequence. A sequence begins with a whole
 * character, so what is left before them ends with one. */
static size_t suspect_bytes(const struct stop_filter *f)
{
    size_t len = f->longest - 1 < f->held.len ? f->longest - 1 : f->held.len;

    while (len > 0 && !is_beginning(f, f->held.data + f->held.len - len, len))
        len--;
    return len;
}

int stop_feed(struct stop_filter *f, const char *text, size_t len, struct buf *out)
{
    size_t start = 0;
    size_t certain;

    if (f->hit)
        return 1;
    if (len == 0)
        return 0;
    if (f->count == 0)
        return buf_append(out, text, len);
    if (buf_append(&f->held, text, len) < 0)
        return f->held.err;
    f->hit = find_first(f, &start);
    certain = f->hit ? start : f->held.len - suspect_bytes(f);
    if (buf_append(out, f->held.data, certain) < 0)
        return out->err;
    buf_drop(&f->held, f->hit ? f->held.len : certain);
    return f->hit ? 1 : 0;
}

int stop_finish(struct stop_filter *f, struct buf *out)
{
    int rc = 0;

    if (f->held.len > 0)
        rc = buf_append(out, f->held.data, f->held.len);
    buf_drop(&f->held, f->held.len);
    return rc;
}
