#define _GNU_SOURCE 1 /* asprintf */
#include "usage/group.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "usage/dead_letters.h"

#define RECORDS_MAX_BYTES (2 * (size_t)GROUP_FULL_BYTES) /* full is looked at between packets */
#define LETTERS_MAX_BYTES (2 * RECORDS_MAX_BYTES)        /* base64 and a frame */
#define NO_SLOT SIZE_MAX

_Static_assert(GROUP_COMMIT_RECORDS <= LEDGER_BATCH_MAX, "a transaction fits the ledger's batch");

/* A run of records from one source, and what to do once they are committed. */
struct part {
    size_t len; /* bytes */
    size_t records;
    size_t slot;   /* NO_SLOT = from a file */
    uint64_t next; /* position to ack */
    char *path;    /* of a file that ends here, or NULL */
    bool is_bad;   /* keep that file under another name */
};

/* What the next transaction takes from the front: whole parts, or some records of the first one. */
struct batch {
    size_t parts, records, bytes;
};

/* What a transaction amounted to; becomes counters only if it was committed. */
struct tally {
    uint64_t inserted, duplicate, dead;
};

struct group {
    struct group_setup setup;
    struct buf records; /* of all parts, one after the other */
    struct part *parts;
    size_t part_count, part_capacity;
    size_t record_count;
    size_t batch_records;   /* in the next transaction at most */
    uint64_t dropped;       /* bytes taken from the front of records since the start */
    uint64_t letters_until; /* in the same count: dead letters before it are on disk already */
    struct buf letters;
    uint64_t *positions; /* by slot: the last part's next */
};

struct group *group_new(const struct group_setup *setup)
{
    struct group *g = calloc(1, sizeof(*g));

    if (g == NULL)
        return NULL;
    g->setup = *setup;
    g->batch_records = GROUP_COMMIT_RECORDS;
    buf_init(&g->records, RECORDS_MAX_BYTES);
    buf_init(&g->letters, LETTERS_MAX_BYTES);
    g->positions = calloc(outbox_slot_count(setup->outbox), sizeof(*g->positions));
    if (g->positions == NULL) {
        group_free(g);
        return NULL;
    }
    return g;
}

void group_free(struct group *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; i < g->part_count; i++)
        free(g->parts[i].path);
    free(g->parts);
    free(g->positions);
    buf_clear(&g->records);
    buf_clear(&g->letters);
    free(g);
}

/* The next record's length. What does not look like one is taken as one, whole: nothing behind it
 * can be told apart. */
static size_t record_length(const uint8_t *data, size_t len)
{
    size_t n = len >= 8 ? usage_record_length(data) : 0;

    return n == 0 || n > len ? len : n;
}

static size_t count_records(const uint8_t *data, size_t len)
{
    size_t count = 0;

    for (size_t at = 0; at < len; at += record_length(data + at, len - at))
        count++;
    return count;
}

static int add(struct group *g, const struct part *part, const uint8_t *records)
{
    if (g->part_count == g->part_capacity) {
        size_t capacity = g->part_capacity == 0 ? 256 : 2 * g->part_capacity;
        struct part *grown = reallocarray(g->parts, capacity, sizeof(*grown));

        if (grown == NULL)
            return -ENOMEM;
        g->parts = grown;
        g->part_capacity = capacity;
    }
    if (part->len > 0 && buf_append(&g->records, records, part->len) < 0) {
        g->records.err = 0; /* an append is all or nothing, so what is there stays good */
        return -ENOMEM;
    }
    g->parts[g->part_count++] = *part;
    g->record_count += part->records;
    return 0;
}

int group_add(struct group *g, size_t slot, uint64_t next, const uint8_t *records, size_t len)
{
    struct part part = {
        .len = len, .records = count_records(records, len), .slot = slot, .next = next};
    int rc = add(g, &part, records);

    if (rc == 0 && next > g->positions[slot])
        g->positions[slot] = next;
    return rc;
}

int group_add_spooled(struct group *g, const uint8_t *record, size_t len)
{
    struct part part = {.len = len, .records = count_records(record, len), .slot = NO_SLOT};

    return add(g, &part, record);
}

int group_add_file(struct group *g, const char *path, bool is_bad)
{
    struct part part = {.slot = NO_SLOT, .path = strdup(path), .is_bad = is_bad};
    int rc = part.path != NULL ? add(g, &part, NULL) : -ENOMEM;

    if (rc < 0)
        free(part.path);
    return rc;
}

bool group_is_empty(const struct group *g)
{
    return g->part_count == 0;
}

bool group_is_full(const struct group *g)
{
    return g->records.len >= GROUP_FULL_BYTES;
}

size_t group_records(const struct group *g)
{
    return g->record_count;
}

uint64_t group_position(const struct group *g, size_t slot)
{
    uint64_t tail = outbox_tail(outbox_slot(g->setup.outbox, slot));

    return g->positions[slot] > tail ? g->positions[slot] : tail;
}

static int bury(struct group *g, uint64_t offset, const char *reason, const struct usage_id *id,
                const uint8_t *record, size_t len, struct tally *tally)
{
    tally->dead++;
    if (offset < g->letters_until)
        return 0;
    return dead_letter_put(&g->letters, clock_now_at_ms(), reason, id, record, len);
}

static int insert(struct group *g, uint64_t offset, const uint8_t *record, size_t len,
                  struct tally *tally)
{
    struct usage_event event;
    size_t used;
    int rc = usage_event_decode(record, len, &event, &used);

    if (rc < 0)
        return bury(g, offset, "not a usage record", NULL, record, len, tally);
    rc = ledger_insert(g->setup.ledger, &event);
    if (rc < 0)
        return rc;
    switch ((enum ledger_result)rc) {
    case LEDGER_INSERTED:
        tally->inserted++;
        return 0;
    case LEDGER_DUPLICATE:
        tally->duplicate++;
        return 0;
    case LEDGER_DIFFERS:
        return bury(g, offset, "differs from the row with the same id", &event.id, record, len,
                    tally);
    case LEDGER_REFUSED:
        return bury(g, offset, ledger_reason(g->setup.ledger), &event.id, record, len, tally);
    }
    return -EINVAL;
}

static void cut_first_part(const struct group *g, struct batch *b)
{
    const uint8_t *data = (const uint8_t *)g->records.data;
    size_t len = g->parts[0].len;

    for (; b->records < g->batch_records; b->records++)
        b->bytes += record_length(data + b->bytes, len - b->bytes);
}

static struct batch choose_batch(const struct group *g)
{
    struct batch b = {0};

    while (b.parts < g->part_count && g->parts[b.parts].records <= g->batch_records - b.records) {
        b.records += g->parts[b.parts].records;
        b.bytes += g->parts[b.parts].len;
        b.parts++;
    }
    if (b.parts == 0)
        cut_first_part(g, &b);
    return b;
}

static int insert_all(struct group *g, size_t bytes, struct tally *tally)
{
    const uint8_t *data = (const uint8_t *)g->records.data;
    size_t n;

    for (size_t at = 0; at < bytes; at += n) {
        int rc;

        n = record_length(data + at, bytes - at);
        rc = insert(g, g->dropped + at, data + at, n, tally);
        if (rc < 0)
            return rc;
    }
    if (g->letters.len == 0)
        return 0;
    return dead_letters_write(g->setup.dead_letters, &g->letters);
}

static int put_away(const char *path)
{
    char *bad;
    int rc;

    if (asprintf(&bad, "%s.bad", path) == -1)
        return -ENOMEM;
    rc = rename(path, bad) == -1 ? -errno : 0;
    free(bad);
    return rc;
}

static void finish_file(const struct part *part)
{
    int rc;

    if (part->is_bad)
        rc = put_away(part->path);
    else
        rc = unlink(part->path) == -1 ? -errno : 0;
    if (rc < 0 && rc != -ENOENT)
        log_event(LOG_ERROR, "spool_file_stays", "", "cannot remove %s: %s", part->path,
                  strerror(-rc));
}

static void finish_part(struct group *g, struct part *part)
{
    if (part->slot != NO_SLOT)
        outbox_set_committed(outbox_slot(g->setup.outbox, part->slot), part->next);
    if (part->path != NULL)
        finish_file(part);
    free(part->path);
}

static void drop_batch(struct group *g, const struct batch *b)
{
    for (size_t i = 0; i < b->parts; i++)
        finish_part(g, &g->parts[i]);
    g->part_count -= b->parts;
    memmove(g->parts, g->parts + b->parts, g->part_count * sizeof(*g->parts));
    if (b->parts == 0) {
        g->parts[0].len -= b->bytes;
        g->parts[0].records -= b->records;
    }
    g->record_count -= b->records;
    if (b->bytes > 0)
        buf_drop(&g->records, b->bytes);
    g->dropped += b->bytes;
}

static void count_tally(struct group *g, const struct tally *tally)
{
    struct counters *c = g->setup.counters;

    counter_inc(&c->ledger_commits_total);
    counter_add(&c->events_committed_total, tally->inserted);
    counter_add(&c->events_duplicate_total, tally->duplicate);
    counter_add(&c->events_dead_total, tally->dead);
    if (tally->dead > 0)
        log_event(LOG_ERROR, "events_dead", "",
                  "%llu usage records could not be stored and were set aside in %s",
                  (unsigned long long)tally->dead, g->setup.dead_letters);
}

static int commit(struct group *g, const struct batch *b)
{
    struct tally tally = {0};
    int rc;

    if (b->bytes == 0) { /* nothing to write, only positions and files */
        drop_batch(g, b);
        return 0;
    }
    buf_reset(&g->letters);
    rc = ledger_begin(g->setup.ledger);
    if (rc == 0)
        rc = insert_all(g, b->bytes, &tally);
    if (rc == 0) {
        /* They are on disk, whatever becomes of the commit: not again at the next attempt. */
        if (g->letters.len > 0)
            g->letters_until = g->dropped + b->bytes;
        rc = ledger_commit(g->setup.ledger);
    }
    if (rc < 0) {
        ledger_rollback(g->setup.ledger);
        return rc;
    }
    drop_batch(g, b);
    count_tally(g, &tally);
    return 0;
}

/* The next transactions are likely to be like this one: it may grow a little from time to time, so
 * that few attempts are in vain. */
static void grow(struct group *g)
{
    g->batch_records += g->batch_records / 16 + 1;
    if (g->batch_records > GROUP_COMMIT_RECORDS)
        g->batch_records = GROUP_COMMIT_RECORDS;
}

int group_commit(struct group *g)
{
    if (group_is_empty(g))
        return 0;
    for (;;) {
        struct batch b = choose_batch(g);
        int rc = commit(g, &b);

        if (rc == 0)
            grow(g);
        if (rc != -EFBIG || b.records == 1)
            return rc;
        g->batch_records = b.records / 2;
    }
}
