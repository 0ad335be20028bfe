/* sender.h - the worker's end of usage.sock: carries the ring's records to the usage-writer, and
 * the answers that are to be kept (usage/handover.h).
 *
 * Nothing here blocks or loses: what is not committed stays in the ring, and after a lost
 * connection sending starts again at the ring's tail. */
#ifndef XROUTER_USAGE_SENDER_H
#define XROUTER_USAGE_SENDER_H

#include "common/loop.h"
#include "usage/handover.h"
#include "usage/outbox.h"

struct usage_sender;

/* path is usage.sock, start_id the shared memory's; loop, ob and path are borrowed. Connects at
 * once and whenever the connection is lost (every 20 ms, then 100 ms). NULL: see errno (ENOMEM,
 * ENAMETOOLONG). */
struct usage_sender *usage_sender_new(struct loop *loop, const char *path, struct outbox *ob,
                                      uint16_t slot, const uint8_t start_id[SHM_START_ID_BYTES]);
void usage_sender_free(struct usage_sender *s);
/* Answers to carry as well; borrowed, NULL = none. */
void usage_sender_set_handover(struct usage_sender *s, struct handover *handover);
/* Sends what the ring and the handover hold and the socket takes; call once a turn, last. No system
 * call when there is nothing new. A few events may wait 5 ms for others to share their packet. */
void usage_sender_flush(struct usage_sender *s);
/* Whether everything in the ring is committed or spooled. */
bool usage_sender_is_drained(const struct usage_sender *s);

#endif
