/* outbox.h - usage events that are not in the ledger yet: a ring in shared memory per worker slot.
 *
 * The ring outlives its worker. Positions are bytes since the ring was made and never go back.
 * head: stored (release) by the owner, the live worker or, after its death, the reaper.
 * committed: stored by the usage-writer after COMMIT. spooled: stored by the helper after fsync.
 * What lies before the larger of the two is free. The socket to the writer is how events travel;
 * the ring is what makes them survive. A record is dropped by its id, never by its position. */
#ifndef XROUTER_USAGE_OUTBOX_H
#define XROUTER_USAGE_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/shm.h"
#include "usage/event.h"

#define OUTBOX_REGION "outbox"

struct outbox_region; /* in shared memory; opaque */
struct outbox;        /* one ring; opaque, in shared memory */

/* A ring's capacity is ring_bytes rounded up to 8, at least 16 events of the largest size. init
 * expects zeroed memory. */
struct shm_region_spec outbox_region_spec(size_t slots, size_t ring_bytes);
void outbox_region_init(struct outbox_region *r, size_t slots, size_t ring_bytes);
struct outbox_region *outbox_region_get(const struct shm *shm); /* NULL if absent or other layout */
size_t outbox_slot_count(const struct outbox_region *r);
struct outbox *outbox_slot(struct outbox_region *r, size_t slot);
/* Whether the cursors make sense: of a ring found after a crash, or of one in use. */
bool outbox_is_sane(const struct outbox *ob);

/* Who may append: the worker when it starts, the reaper (0) when it has settled a dead one. A ring
 * with owner 0 is drained by the writer itself. */
void outbox_set_owner(struct outbox *ob, uint32_t pid);
uint32_t outbox_owner(const struct outbox *ob);

/* Admission: room for one more event of the largest size, besides what is reserved already and one
 * to spare. False = the ring is full: refuse the request. Owner only. An empty ring takes
 * capacity / USAGE_EVENT_MAX - 1 reservations. */
bool outbox_reserve(struct outbox *ob);
/* Whether an event of the largest size fits right now, reserved or not: the reaper asks before it
 * appends, because one that died may have used the spare. */
bool outbox_has_room(const struct outbox *ob);
/* Appends the event under an earlier reservation (or outbox_has_room()), which it gives back.
 * Cannot fail. Owner only. */
void outbox_append(struct outbox *ob, const struct usage_event *event);
/* Gives a reservation back without an event. Owner only. */
void outbox_release(struct outbox *ob);
/* The reaper forgets the dead worker's reservations after appending: back to none. */
void outbox_reset_reservations(struct outbox *ob);

uint64_t outbox_head(const struct outbox *ob); /* acquire */
uint64_t outbox_tail(const struct outbox *ob); /* max(committed, spooled) */
uint64_t outbox_committed(const struct outbox *ob);
size_t outbox_capacity(const struct outbox *ob);
/* Fill level in percent, open reservations not counted. */
unsigned outbox_fill_percent(const struct outbox *ob);
/* Whether the events it holds will soon be in the way of reservations: less room is left, besides
 * what is reserved, than an eighth of the ring. Any process may ask. */
bool outbox_is_tight(const struct outbox *ob);

/* Copies whole records from position `from` (the tail, if that is further) up to head, at most max
 * bytes (at least USAGE_EVENT_MAX), into out. *next is the position after the last one copied.
 * Returns the bytes copied; 0 = nothing there. Only the framing is checked here, the CRC by
 * usage_event_decode(). A record whose framing makes no sense ends the copy; if it is the first,
 * -EBADMSG and *next is head. Any process may read while the tail moves. */
ssize_t outbox_read(const struct outbox *ob, uint64_t from, uint8_t *out, size_t max,
                    uint64_t *next);
/* Smaller positions and those past the head are ignored. */
void outbox_set_committed(struct outbox *ob, uint64_t position); /* writer only */
void outbox_set_spooled(struct outbox *ob, uint64_t position);   /* helper only */

/* The packet on usage.sock (SOCK_SEQPACKET): this header, then whole records. */
#define OUTBOX_PACKET_MAX (64 * 1024)
struct outbox_packet {
    uint32_t magic; /* OUTBOX_PACKET_MAGIC */
    uint16_t version;
    uint16_t slot;
    uint64_t next; /* ring position after the last record: what to store as committed */
    uint8_t start_id[SHM_START_ID_BYTES]; /* of the shared memory the position belongs to */
};
#define OUTBOX_PACKET_MAGIC UINT32_C(0x58525550)
#define OUTBOX_PACKET_VERSION 1

#endif
