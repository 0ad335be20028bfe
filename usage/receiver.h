/* receiver.h - the writer's end of usage.sock: packets from the workers, records into the group,
 * answers to where they are kept.
 *
 * A readable connection is only noted; receiver_drain() reads all that have something at once. So a
 * burst of small packets costs one wake-up, and what is not read waits in the sockets and rings. */
#ifndef XROUTER_USAGE_RECEIVER_H
#define XROUTER_USAGE_RECEIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/loop.h"
#include "usage/answers.h"
#include "usage/group.h"
#include "usage/outbox.h"

struct receiver; /* opaque */

struct receiver_setup { /* all borrowed */
    struct loop *loop;
    const char *path; /* of the socket, mode 0600; only root's and our own uid are heard */
    struct outbox_region *outbox;
    struct group *group;
    const uint8_t *start_id; /* packets about other shared memory are refused */
    struct answers *answers; /* NULL: packets with answers are refused */
};

int receiver_open(const struct receiver_setup *setup, struct receiver **out); /* 0 or -errno */
/* Ends all connections and removes the socket file. NULL is fine. */
void receiver_close(struct receiver *r);
/* No new connections from now on. */
void receiver_stop(struct receiver *r);
/* Since when (loop_now_ms()) something waits to be read, -1 = nothing does. */
int64_t receiver_ready_ms(const struct receiver *r);
/* Reads until nothing waits or the group is full. */
void receiver_drain(struct receiver *r);

#endif
