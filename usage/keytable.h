/* keytable.h - who is calling: API keys in shared memory, found by the HMAC of their text.
 * Only the usage-writer changes the table; a lookup takes no lock and makes no system call.
 * Two copies an entry and an atomic version: a writer that dies in the middle leaves the old one
 * readable. */
#ifndef XROUTER_USAGE_KEYTABLE_H
#define XROUTER_USAGE_KEYTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/secret.h"
#include "common/shm.h"

#define KEYTABLE_REGION "keytable"
#define KEY_PREFIX "sk-xr-"
#define KEY_TEXT_LEN 49      /* the prefix and 43 base64url digits of 32 random bytes */
#define KEY_TEXT_BYTES 50    /* and a NUL */
#define KEY_ID_TEXT_BYTES 21 /* "key_" and 16 hex digits and a NUL */
#define KEY_MODELS_MAX 16
#define KEY_PEPPER_BYTES 32

struct key {
    uint64_t id;
    int64_t expires_at_ms; /* 0 = never */
    uint32_t account;      /* usage/accounts.h */
    bool revoked;
    uint8_t model_count;                   /* 0 = all models */
    uint64_t models[KEY_MODELS_MAX];       /* keytable_model_hash() of the public ids it may use */
    uint32_t rpm, rpd, tpm, tpd, parallel; /* 0 = no limit */
};

struct keytable_region; /* in shared memory; opaque. The pepper (the HMAC's key) lives in it too. */

/* init expects zeroed memory. */
struct shm_region_spec keytable_region_spec(size_t capacity);
void keytable_region_init(struct keytable_region *r, size_t capacity,
                          const uint8_t pepper[KEY_PEPPER_BYTES]);
struct keytable_region *keytable_region_get(const struct shm *shm);

/* Finds the key whose text is the len bytes at text (no NUL needed, never logged).
 * On 0, *out is a copy that stays whole while the writer changes the entry. Unknown and revoked
 * keys take the same path and time.
 * Returns 0, -EINVAL (not shaped like a key), XR_EAUTH (unknown, revoked), XR_EEXPIRED (with *out
 * filled), -ENOMEM. */
int keytable_lookup(const struct keytable_region *r, const char *text, size_t len,
                    int64_t now_at_ms, struct key *out);
uint64_t keytable_model_hash(const char *model, size_t len);
bool key_may_use_model(const struct key *key, const char *model);

/* Writer only. Puts or replaces the entry of that digest. 0 or -ENOSPC (capacity reached).
 * A revoked key keeps its entry, and one that is not in the table is not added (nobody finds it
 * either way): so loading puts all keys, and a revocation that a dead writer had committed but not
 * published takes effect. */
int keytable_put(struct keytable_region *r, const uint8_t digest[DIGEST_BYTES],
                 const struct key *key);
size_t keytable_count(const struct keytable_region *r);
/* The entry of that number, below keytable_count(). */
void keytable_get(const struct keytable_region *r, size_t number, uint8_t digest[DIGEST_BYTES],
                  struct key *out);

/* The digest of a key's text under the pepper: what the database stores as key_hash. 0 or -ENOMEM.
 */
int keytable_digest(const struct keytable_region *r, const char *text, size_t len,
                    uint8_t out[DIGEST_BYTES]);

/* A new random key's text. 0 or -errno. */
int key_text_make(char out[KEY_TEXT_BYTES]);
void key_id_format(uint64_t id, char out[KEY_ID_TEXT_BYTES]);
int key_id_parse(const char *text, uint64_t *id); /* 0 or -EINVAL */

#endif
