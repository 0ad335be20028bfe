/* facts_view.h - what providers say of themselves (router/facts.h), as text. facts NULL: an object
 * without that region, nothing is known. */
#ifndef XROUTER_ROUTER_FACTS_VIEW_H
#define XROUTER_ROUTER_FACTS_VIEW_H

#include "common/buf.h"
#include "common/counters.h"
#include "router/facts.h"

/* The members "models_offered" (how many, or null) and "balances" (one of each account and model
 * that has one). */
void facts_put_provider(const struct facts_region *facts, size_t provider, struct buf *out);
/* The member "offered": true or false, null = not known. */
void facts_put_offered(const struct facts_models *models, const char *model, struct buf *out);
/* Gauges, with the labels provider, account and model; names has the providers' names. */
void facts_put_prometheus(const struct facts_region *facts, const struct counters_region *names,
                          struct buf *out);

#endif
