#include "usage/outbox.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "common/versioned.h"

#define LINE 64 /* words with different storers lie on different cache lines */
/* Records lie in one piece: this word fills the end of the ring where the next one did not fit. */
#define WRAP_WORD UINT64_C(0x5057525f58554f58)
#define EVENTS_MIN 16

struct outbox {
    _Alignas(LINE) _Atomic uint64_t head;
    _Atomic uint32_t owner;
    _Atomic uint32_t reserved; /* events */
    _Alignas(LINE) _Atomic uint64_t committed;
    _Alignas(LINE) _Atomic uint64_t spooled;
    _Alignas(LINE) uint64_t capacity; /* bytes */
    _Alignas(LINE) _Atomic uint64_t words[];
};

struct outbox_region {
    _Alignas(LINE) uint64_t slots;
    uint64_t capacity; /* of a ring */
    uint64_t stride;   /* from one ring to the next */
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t ring_capacity(size_t ring_bytes)
{
    size_t least = (size_t)EVENTS_MIN * USAGE_EVENT_MAX;

    return round_up(ring_bytes < least ? least : ring_bytes, 8);
}

static size_t ring_stride(size_t ring_bytes)
{
    return round_up(sizeof(struct outbox) + ring_capacity(ring_bytes), LINE);
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        USAGE_RECORD_VERSION,
        USAGE_EVENT_MAX,
        WRAP_WORD,
        sizeof(struct outbox_region),
        offsetof(struct outbox_region, capacity),
        offsetof(struct outbox_region, stride),
        sizeof(struct outbox),
        offsetof(struct outbox, owner),
        offsetof(struct outbox, reserved),
        offsetof(struct outbox, committed),
        offsetof(struct outbox, spooled),
        offsetof(struct outbox, capacity),
        offsetof(struct outbox, words),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec outbox_region_spec(size_t slots, size_t ring_bytes)
{
    return (struct shm_region_spec){
        .name = OUTBOX_REGION,
        .bytes = sizeof(struct outbox_region) + slots * ring_stride(ring_bytes),
        .layout = region_layout(),
    };
}

void outbox_region_init(struct outbox_region *r, size_t slots, size_t ring_bytes)
{
    r->slots = slots;
    r->capacity = ring_capacity(ring_bytes);
    r->stride = ring_stride(ring_bytes);
    for (size_t i = 0; i < slots; i++)
        outbox_slot(r, i)->capacity = r->capacity;
}

struct outbox_region *outbox_region_get(const struct shm *shm)
{
    size_t bytes;
    struct outbox_region *r = shm_region(shm, OUTBOX_REGION, region_layout(), &bytes);

    /* A region found after a crash may hold anything. */
    if (r == NULL || r->capacity % 8 != 0 || r->capacity < EVENTS_MIN * USAGE_EVENT_MAX ||
        r->capacity > bytes || r->stride != ring_stride(r->capacity) ||
        r->slots > (bytes - sizeof(*r)) / r->stride)
        return NULL;
    return r;
}

size_t outbox_slot_count(const struct outbox_region *r)
{
    return r->slots;
}

struct outbox *outbox_slot(struct outbox_region *r, size_t slot)
{
    assert(slot < r->slots);
    return (struct outbox *)((char *)r + sizeof(*r) + slot * r->stride);
}

bool outbox_is_sane(const struct outbox *ob)
{
    /* In this order a ring that is in use is sane too: no cursor was ever past a later head, and no
     * head a capacity past a later tail. */
    uint64_t committed = outbox_committed(ob);
    uint64_t spooled = atomic_load_explicit(&ob->spooled, memory_order_acquire);
    uint64_t head = outbox_head(ob);
    uint64_t tail = outbox_tail(ob);

    return ob->capacity % 8 == 0 && ob->capacity >= EVENTS_MIN * USAGE_EVENT_MAX && head % 8 == 0 &&
           committed % 8 == 0 && spooled % 8 == 0 && committed <= head && spooled <= head &&
           (tail >= head || head - tail <= ob->capacity);
}

void outbox_set_owner(struct outbox *ob, uint32_t pid)
{
    atomic_store_explicit(&ob->owner, pid, memory_order_release);
}

uint32_t outbox_owner(const struct outbox *ob)
{
    return atomic_load_explicit(&ob->owner, memory_order_acquire);
}

/* How many of the largest events the free space takes, whatever smaller ones come between: those
 * before the end of the ring and those after it, counted apart. Appending any one event lowers it
 * by one at most, and a moving tail never lowers it. */
static uint64_t room_events(const struct outbox *ob)
{
    uint64_t head = atomic_load_explicit(&ob->head, memory_order_relaxed);
    uint64_t free_bytes = ob->capacity - (head - outbox_tail(ob));
    uint64_t before_end = ob->capacity - head % ob->capacity;

    if (before_end > free_bytes)
        before_end = free_bytes;
    return before_end / USAGE_EVENT_MAX + (free_bytes - before_end) / USAGE_EVENT_MAX;
}

bool outbox_reserve(struct outbox *ob)
{
    uint32_t reserved = atomic_load_explicit(&ob->reserved, memory_order_relaxed);

    /* One to spare: a worker may die with an event appended and its row not yet freed, and then the
     * reaper appends that event again. */
    if (room_events(ob) < (uint64_t)reserved + 2)
        return false;
    atomic_store_explicit(&ob->reserved, reserved + 1, memory_order_relaxed);
    return true;
}

bool outbox_has_room(const struct outbox *ob)
{
    return room_events(ob) > 0;
}

void outbox_append(struct outbox *ob, const struct usage_event *event)
{
    uint8_t record[USAGE_EVENT_MAX];
    size_t len = usage_event_encode(event, record);
    uint64_t head = atomic_load_explicit(&ob->head, memory_order_relaxed);
    uint64_t before_end = ob->capacity - head % ob->capacity;

    assert(outbox_has_room(ob));
    /* Whoever still reads what is written over here must find the tail beyond it afterwards. */
    atomic_thread_fence(memory_order_release);
    if (len > before_end) {
        atomic_store_explicit(&ob->words[head % ob->capacity / 8], WRAP_WORD, memory_order_relaxed);
        head += before_end;
    }
    words_store(&ob->words[head % ob->capacity / 8], record, len);
    atomic_store_explicit(&ob->head, head + len, memory_order_release);
    outbox_release(ob);
}

void outbox_release(struct outbox *ob)
{
    uint32_t reserved = atomic_load_explicit(&ob->reserved, memory_order_relaxed);

    if (reserved > 0) /* the reaper may append one more than were reserved */
        atomic_store_explicit(&ob->reserved, reserved - 1, memory_order_release);
}

void outbox_reset_reservations(struct outbox *ob)
{
    atomic_store_explicit(&ob->reserved, 0, memory_order_release);
}

uint64_t outbox_head(const struct outbox *ob)
{
    return atomic_load_explicit(&ob->head, memory_order_acquire);
}

uint64_t outbox_tail(const struct outbox *ob)
{
    uint64_t committed = outbox_committed(ob);
    uint64_t spooled = atomic_load_explicit(&ob->spooled, memory_order_acquire);

    return committed > spooled ? committed : spooled;
}

uint64_t outbox_committed(const struct outbox *ob)
{
    return atomic_load_explicit(&ob->committed, memory_order_acquire);
}

size_t outbox_capacity(const struct outbox *ob)
{
    return ob->capacity;
}

unsigned outbox_fill_percent(const struct outbox *ob)
{
    uint64_t tail = outbox_tail(ob);
    uint64_t used = outbox_head(ob) - tail; /* of two moments: maybe more than there is */

    return used >= ob->capacity ? 100 : (unsigned)(used * 100 / ob->capacity);
}

bool outbox_is_tight(const struct outbox *ob)
{
    uint64_t reserved = atomic_load_explicit(&ob->reserved, memory_order_relaxed);
    uint64_t spare = ob->capacity / USAGE_EVENT_MAX / 8;

    return outbox_head(ob) > outbox_tail(ob) && room_events(ob) < reserved + 2 + spare;
}

/* The length of the record at position, 0 if there is none that could end by head. */
static size_t record_length(const struct outbox *ob, uint64_t position, uint64_t head)
{
    uint64_t offset = position % ob->capacity;
    uint8_t header[8];
    size_t len;

    words_load(header, &ob->words[offset / 8], sizeof(header));
    len = usage_record_length(header);
    if (len > head - position || len > ob->capacity - offset)
        return 0;
    return len;
}

/* As outbox_read(), without looking whether the tail has passed meanwhile. */
static ssize_t read_once(const struct outbox *ob, uint64_t from, uint64_t head, uint8_t *out,
                         size_t max, uint64_t *next)
{
    size_t copied = 0;
    uint64_t position = from;

    *next = from;
    while (position < head) {
        uint64_t offset = position % ob->capacity;
        size_t len;

        if (atomic_load_explicit(&ob->words[offset / 8], memory_order_relaxed) == WRAP_WORD) {
            position += ob->capacity - offset;
            offset = 0;
        }
        len = position < head ? record_length(ob, position, head) : 0;
        if (len == 0) {
            if (copied > 0)
                break;
            *next = head;
            return -EBADMSG;
        }
        if (len > max - copied)
            break;
        words_load(out + copied, &ob->words[offset / 8], len);
        copied += len;
        position += len;
        *next = position;
    }
    return (ssize_t)copied;
}

ssize_t outbox_read(const struct outbox *ob, uint64_t from, uint8_t *out, size_t max,
                    uint64_t *next)
{
    for (;;) {
        uint64_t tail = outbox_tail(ob);
        uint64_t head = outbox_head(ob);
        ssize_t n;

        if (from < tail)
            from = tail;
        n = read_once(ob, from, head, out, max, next);
        /* What lies before the tail may be written over: a copy counts only if the tail had not
         * reached it when it was complete. */
        atomic_thread_fence(memory_order_acquire);
        if (outbox_tail(ob) <= from)
            return n;
    }
}

static void advance(_Atomic uint64_t *cursor, const struct outbox *ob, uint64_t position)
{
    if (position > atomic_load_explicit(cursor, memory_order_relaxed) &&
        position <= outbox_head(ob) && position % 8 == 0)
        atomic_store_explicit(cursor, position, memory_order_release);
}

void outbox_set_committed(struct outbox *ob, uint64_t position)
{
    advance(&ob->committed, ob, position);
}

void outbox_set_spooled(struct outbox *ob, uint64_t position)
{
    advance(&ob->spooled, ob, position);
}
