/* control.h - writer.sock: xrouterctl's requests about keys and usage (common/frame.h).
 *
 * Connections are only read and noted by the loop; usage_control_turn() does the work, a slice of
 * each request a turn. What the requests mean is usage/control_ops.h's. */
#ifndef XROUTER_USAGE_CONTROL_H
#define XROUTER_USAGE_CONTROL_H

#include <stdbool.h>

#include "common/loop.h"
#include "usage/keystore.h"

struct usage_control; /* opaque */

/* Listens at path (mode 0600; only root's and our own uid are served). loop, path and keystore are
 * borrowed; the keystore's members may change between turns. 0 or -errno. */
int usage_control_open(struct loop *loop, const char *path, const struct keystore *keystore,
                       struct usage_control **out);
/* Ends all connections and removes the socket file. NULL is fine. */
void usage_control_close(struct usage_control *c);
/* No new connections from now on. */
void usage_control_stop(struct usage_control *c);
/* Serves what has come. */
void usage_control_turn(struct usage_control *c);
/* Whether a request is in the middle: call the turn again at once. */
bool usage_control_is_busy(const struct usage_control *c);

#endif
