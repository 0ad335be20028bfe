/* control.h - writer.sock: xrouterctl's requests about keys and usage (common/frame.h).
 *
 * Connections are only read and noted by the loop; usage_control_turn() does the work, a slice of
 * each request a turn. What the requests mean is usage/control_ops.h's. */
#ifndef XROUTER_USAGE_CONTROL_H
#define XROUTER_USAGE_CONTROL_H

#include <stdbool.h>

#include "common/loop.h"
#include "usage/control_ops.h"

#define CONTROL_ASKS_MAX 16 /* connections that one request worker may have open */

struct usage_control; /* opaque */

/* Listens at path (mode 0600; only root's and our own uid are served). loop, path and context are
 * borrowed. 0 or -errno. */
int usage_control_open(struct loop *loop, const char *path, const struct control_context *context,
                       struct usage_control **out);
/* Ends all connections and removes the socket file. NULL is fine. */
void usage_control_close(struct usage_control *c);
/* No new connections from now on. */
void usage_control_stop(struct usage_control *c);
/* Serves what has come. */
void usage_control_turn(struct usage_control *c);
/* When the turn has something to do next, monotonic; -1 = not before something comes. */
int64_t usage_control_next_ms(const struct usage_control *c);

#endif
