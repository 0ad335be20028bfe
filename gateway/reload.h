/* reload.h - a new configuration for a running instance. */
#ifndef XROUTER_GATEWAY_RELOAD_H
#define XROUTER_GATEWAY_RELOAD_H

#include "common/buf.h"
#include "gateway/master.h"

/* Reads the config file again and hands it to every child. Options that count only after a restart
 * keep their old values; those that differ are named in *restart ("a, b"). What is wrong with a bad
 * file goes to *why; nothing has changed then. Logged and counted. 0 or -errno. */
int master_reload(struct master *m, struct buf *restart, struct buf *why);

#endif
