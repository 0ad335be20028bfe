/* startup.h - from a checked config to an instance that serves, step by step; and what a step took,
 * given back. */
#ifndef XROUTER_GATEWAY_STARTUP_H
#define XROUTER_GATEWAY_STARTUP_H

#include "gateway/master.h"

/* 0, -ECANCELED (told to stop meanwhile), or -errno with the reason in m->why. Children may run
 * then. */
int startup_run(struct master *m);
/* Gives back all that stands, after the children have ended. keep_memory leaves the shared memory
 * for the next start to recover. */
void startup_undo(struct master *m, bool keep_memory);

#endif
