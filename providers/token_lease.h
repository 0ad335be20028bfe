/* token_lease.h - providers' access tokens, one refresh for all workers.
 *
 * Lives in the secret shared-memory object. A token is read without a lock; the right to fetch a
 * new one is a lease with a deadline, taken by compare-and-swap, so that a dead worker's lease runs
 * out by itself. */
#ifndef XROUTER_PROVIDERS_TOKEN_LEASE_H
#define XROUTER_PROVIDERS_TOKEN_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/shm.h"

#define TOKEN_LEASE_REGION "tokens"
#define TOKEN_LEASES_MAX 64
#define TOKEN_TEXT_MAX 8192

struct token_lease_region; /* in shared memory; opaque */

struct shm_region_spec token_lease_region_spec(void);
void token_lease_region_init(struct token_lease_region *r);
struct token_lease_region *token_lease_region_get(const struct shm *shm);

/* The entry of a credential (auth URL, key, scope: only a hash of them is kept), made when absent.
 * Index, -ENOSPC or -ENOMEM. An index stays what it is for the life of the instance. */
int token_lease_find(struct token_lease_region *r, const char *auth_url, const char *credentials,
                     const char *scope);

struct token {
    char text[TOKEN_TEXT_MAX]; /* NUL-terminated; wipe after use */
    uint32_t generation;       /* which token this is, for token_lease_invalidate() */
};

enum token_state {
    TOKEN_READY,   /* *out is usable */
    TOKEN_REFRESH, /* *out is usable, and the caller has just got the lease: fetch a newer one */
    TOKEN_FETCH,   /* none usable, the caller has got the lease: fetch one, then ask again */
    TOKEN_WAIT,    /* none usable, another worker fetches: ask again in a few ms */
    TOKEN_POISONED /* the provider refused the credential a moment ago: fail, XR_EUPSTREAMAUTH */
};
/* lease_ms: how long the caller may take to fetch. A token is due for refresh 60 s before its
 * expiry less a random 0-120 s (drawn once a token; for lives under 10 min, a tenth and a fifth of
 * the life), and unusable at its expiry. Wall clock for expiry, capped at 30 min from receipt on
 * the monotonic clock. */
enum token_state token_lease_get(struct token_lease_region *r, int index, int64_t now_ms,
                                 int64_t now_at_ms, int64_t lease_ms, struct token *out);
/* The lease holder's result. A token that has expired on arrival (the clocks disagree) is used for
 * a minute, so that it is not fetched in a loop. -EMSGSIZE: it does not fit (the lease stands: fail
 * it). */
int token_lease_publish(struct token_lease_region *r, int index, const char *text,
                        int64_t expires_at_ms, int64_t now_ms, int64_t now_at_ms);
/* The fetch failed. Does nothing if the lease ran out and is another process's by now. final:
 * nobody asks again for poison_ms; else the next caller may try after backoff_ms. */
void token_lease_fail(struct token_lease_region *r, int index, bool final, int64_t now_ms,
                      int64_t wait_ms);
/* The process is dead: whoever waits for what it was fetching need not wait for its deadline. */
void token_lease_reap(struct token_lease_region *r, pid_t pid);
/* The API answered 401 to the token of that generation: unusable, unless it has been replaced. */
void token_lease_invalidate(struct token_lease_region *r, int index, uint32_t generation);

#endif
