/* inquiry.h - asks providers, every facts_ms, which models they have and what their accounts have
 * left, and keeps the answers in shared memory (router/facts.h).
 *
 * Of all workers the one that takes an account's turn asks. An inquiry holds a slot of the account;
 * where none is free, or the provider is switched off, it comes later. */
#ifndef XROUTER_ROUTER_INQUIRY_H
#define XROUTER_ROUTER_INQUIRY_H

#include "common/config.h"
#include "router/engine.h"
#include "router/facts.h"
#include "router/targets.h"

struct inquirer; /* a worker's; opaque */

struct inquirer_setup { /* all borrowed until inquirer_free() */
    struct engine *engine;
    struct facts_region *facts;
    struct targets_region *targets;
    struct config *const *config; /* the worker's, which changes with a reload */
};

/* 0 or -ENOMEM. */
int inquirer_new(const struct inquirer_setup *setup, struct inquirer **out);
void inquirer_free(struct inquirer *q); /* gives up what it asks; NULL is fine */

#endif
