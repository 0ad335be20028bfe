/* ids.h - the simulator's chance: one seeded generator, so that a seed fixes every id and token. */
#ifndef XROUTER_SIM_IDS_H
#define XROUTER_SIM_IDS_H

#include <stddef.h>
#include <stdint.h>

#define UUID_BYTES 37 /* 36 characters and the NUL */

struct random_source {
    uint64_t state;
};

void random_init(struct random_source *random, uint64_t seed);
uint64_t random_next(struct random_source *random);
/* Fills out with len characters of base64url; no NUL. */
void random_text(struct random_source *random, char *out, size_t len);
/* The same of letters and digits only, as ids of other dialects are. */
void random_alnum(struct random_source *random, char *out, size_t len);
/* A version 4 UUID in canonical form, NUL-terminated. */
void random_uuid(struct random_source *random, char out[UUID_BYTES]);

/* A 64-bit hash for tables that forget; not for secrets. Chain calls through seed. */
uint64_t hash_bytes(uint64_t seed, const void *data, size_t len);

#endif
