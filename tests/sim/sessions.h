/* sessions.h - the prompt cache: what the previous request of a session began with. Bounded and
 * forgetful: a newer session may take the place of an older one. */
#ifndef XROUTER_SIM_SESSIONS_H
#define XROUTER_SIM_SESSIONS_H

#include <stddef.h>
#include <stdint.h>

#include "common/json.h"

struct sessions; /* opaque */

struct sessions *sessions_new(void); /* NULL when out of memory */
void sessions_free(struct sessions *sessions);
void sessions_reset(struct sessions *sessions);

/* The tokens of the leading messages that the session's previous request had too (role and content
 * equal, at most the first 64 messages). Remembers these messages for the next one. */
uint64_t sessions_cached_tokens(struct sessions *sessions, const char *id, size_t id_len,
                                const cJSON *messages);

#endif
