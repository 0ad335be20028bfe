/* addresses.h - the providers' addresses, looked up by the helper, read by the workers.
 *
 * The names come from the config (at most ADDRESSES_HOSTS_MAX, registered by the master); the
 * helper publishes, readers copy under a version. No worker ever resolves a name. */
#ifndef XROUTER_PROVIDERS_ADDRESSES_H
#define XROUTER_PROVIDERS_ADDRESSES_H

#include <stddef.h>
#include <stdint.h>

#include "common/shm.h"

#define ADDRESSES_REGION "addresses"
#define ADDRESSES_HOSTS_MAX 64
#define ADDRESSES_PER_HOST 8
#define ADDRESS_TEXT_BYTES 46 /* INET6_ADDRSTRLEN */
#define ADDRESS_HOST_BYTES 256

struct addresses_region; /* in shared memory; opaque */

struct address_list {
    char text[ADDRESSES_PER_HOST][ADDRESS_TEXT_BYTES]; /* numeric, the resolver's order */
    size_t count;                                      /* 0 = the look-up failed */
    int64_t looked_up_ms;                              /* monotonic; 0 = never */
    int error;                                         /* EAI_... of the last failure, 0 = none */
};

struct shm_region_spec addresses_region_spec(void);
void addresses_region_init(struct addresses_region *r);
struct addresses_region *addresses_region_get(const struct shm *shm);

/* Master: adds a name (numeric addresses need none). 0 (also when known) or -ENOSPC, -ENAMETOOLONG.
 */
int addresses_register(struct addresses_region *r, const char *host);
/* Reader. 0, -ENOENT (not registered), -EAGAIN (not looked up yet). A failed look-up keeps the
 * older addresses, if there were any. */
int addresses_lookup(const struct addresses_region *r, const char *host, struct address_list *out);
/* Helper: name by index (NULL past the last), and the result of a look-up. */
const char *addresses_host(const struct addresses_region *r, size_t index);
void addresses_publish(struct addresses_region *r, size_t index, const struct address_list *list);

#endif
