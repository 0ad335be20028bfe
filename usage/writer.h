/* writer.h - the usage-writer: the only process that opens the database.
 *
 * Owns usage.sock (events from workers), writer.sock (keys, credits, usage reports:
 * common/frame.h), the key table's contents and what the accounts are counted anew with. Commits in
 * groups, acks through the outbox' committed cursors after COMMIT, drains the rings that have no
 * live worker, and takes over spool files. A database that is busy, full or failing only delays:
 * nothing is acked, the group is tried again. */
#ifndef XROUTER_USAGE_WRITER_H
#define XROUTER_USAGE_WRITER_H

#include "common/config.h"
#include "common/counters.h"
#include "common/loop.h"
#include "usage/calibration.h"
#include "usage/idempotency.h"
#include "usage/keytable.h"
#include "usage/outbox.h"
#include "usage/recount.h"

struct writer;

struct writer_setup { /* all borrowed */
    const struct config *config;
    struct loop *loop;
    struct outbox_region *outbox;
    struct keytable_region *keys;
    struct accounts_region *accounts;       /* NULL: no key is limited */
    struct idempotency_region *idempotency; /* NULL: no answers are kept */
    struct calibration_region *calibration; /* NULL: no token ratios are kept */
    const struct open_requests *requests;   /* NULL: nothing is counted anew */
    struct counters *counters;              /* the writer's own slot */
    const uint8_t *start_id;
    const struct counters_region *region; /* all processes'; NULL: no provider_status is written,
                                             and no token ratios are kept */
};

/* Opens the database (made and migrated when needed), loads the key table, opens the sockets.
 * Returns 0 or -errno with the reason logged. */
int writer_open(const struct writer_setup *setup, struct writer **out);
void writer_close(struct writer *w); /* rolls an open group back; NULL is fine */
/* To call once a loop turn: commits what is due, serves control requests. Never waits. */
void writer_turn(struct writer *w);
/* How long the loop may sleep before writer_turn() has work by time, -1 = no limit. */
int64_t writer_next_ms(const struct writer *w);
void writer_set_config(struct writer *w, const struct config *config);
/* Stop: no more new connections; commit all that the rings hold. True when nothing is left
 * (or can be committed: the rest must be spooled by the helper). */
bool writer_drain(struct writer *w);

/* Drains every ring and spool file of a crashed instance into the database and returns: the
 * recovery step of a start, before anything is re-created. *events = how many were inserted.
 * 0 or -errno. */
int writer_recover(const struct config *config, struct outbox_region *outbox, uint64_t *events);

#endif
