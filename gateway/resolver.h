/* resolver.h - the helper's look-ups: a thread for each, so that a dead DNS server delays nobody
 * but the names it serves. Names come from the addresses region, results go there. */
#ifndef XROUTER_GATEWAY_RESOLVER_H
#define XROUTER_GATEWAY_RESOLVER_H

#include "common/counters.h"
#include "common/loop.h"
#include "providers/addresses.h"

#define RESOLVER_REFRESH_MS 60000 /* a name that was found */
#define RESOLVER_RETRY_MS 2000    /* one that was not */

struct resolver; /* opaque */

/* All borrowed; counters is the helper's own slot. NULL on failure, see errno. */
struct resolver *resolver_new(struct loop *loop, struct addresses_region *addresses,
                              struct counters *counters);
/* Begins to look up the names that are new in the region, or all of them again. A name whose
 * look-up still runs is left alone. */
void resolver_look(struct resolver *r, bool all);
/* Look-ups that still run go on and publish: the region must outlive the process. NULL is fine. */
void resolver_free(struct resolver *r);

#endif
