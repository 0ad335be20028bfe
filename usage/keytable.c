/* The HMAC's two states after the padded key stand ready in the region: a lookup hashes two blocks
 * (0.2 us) instead of setting an HMAC up (2.5 us). Only the old SHA256_CTX is plain memory that can
 * live there, hence the deprecated calls. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "usage/keytable.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/error.h"
#include "common/versioned.h"

#define HMAC_BLOCK_BYTES 64
#define KEY_WORDS VERSIONED_WORDS(sizeof(struct key))
#define KEY_TEXT_RANDOM_BYTES 32

_Static_assert(sizeof(struct key) % 8 == 0, "copied word by word");
_Static_assert(KEY_PEPPER_BYTES <= HMAC_BLOCK_BYTES, "the pepper is not hashed first");

struct entry {
    uint8_t digest[DIGEST_BYTES]; /* never changes once the index points here */
    _Atomic uint64_t version;
    _Atomic uint64_t copies[2 * KEY_WORDS];
};

struct keytable_region {
    uint64_t capacity;
    uint64_t index_mask; /* the index is a power of two, at least twice the capacity */
    _Atomic uint64_t count;
    SHA256_CTX inner, outer; /* after the pepper and its pad */
    struct entry nobody;     /* what an unknown key finds: revoked */
    struct entry entries[];  /* and behind them the index: number of the entry + 1, 0 = empty */
};

static size_t index_words(size_t capacity)
{
    size_t words = 2;

    while (words < 2 * capacity)
        words *= 2;
    return words;
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the protocol between versions and copies */
        sizeof(struct keytable_region),
        offsetof(struct keytable_region, index_mask),
        offsetof(struct keytable_region, count),
        offsetof(struct keytable_region, inner),
        offsetof(struct keytable_region, outer),
        offsetof(struct keytable_region, nobody),
        offsetof(struct keytable_region, entries),
        sizeof(struct entry),
        offsetof(struct entry, version),
        offsetof(struct entry, copies),
        sizeof(struct key),
        offsetof(struct key, expires_at_ms),
        offsetof(struct key, revoked),
        offsetof(struct key, model_count),
        offsetof(struct key, models),
        offsetof(struct key, rpm),
        offsetof(struct key, rpd),
        offsetof(struct key, tpm),
        offsetof(struct key, tpd),
        offsetof(struct key, parallel),
        KEY_MODELS_MAX,
        sizeof(SHA256_CTX),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec keytable_region_spec(size_t capacity)
{
    return (struct shm_region_spec){
        .name = KEYTABLE_REGION,
        .bytes = sizeof(struct keytable_region) + capacity * sizeof(struct entry) +
                 index_words(capacity) * sizeof(uint32_t),
        .layout = region_layout(),
    };
}

static void init_state(SHA256_CTX *state, const uint8_t pepper[KEY_PEPPER_BYTES], uint8_t pad)
{
    uint8_t block[HMAC_BLOCK_BYTES];

    memset(block, pad, sizeof(block));
    for (size_t i = 0; i < KEY_PEPPER_BYTES; i++)
        block[i] ^= pepper[i];
    SHA256_Init(state);
    SHA256_Update(state, block, sizeof(block));
    explicit_bzero(block, sizeof(block));
}

static void store_key(struct entry *e, const struct key *key)
{
    versioned_store(&e->version, e->copies, KEY_WORDS, key, sizeof(*key));
}

static void load_key(const struct entry *e, struct key *out)
{
    versioned_load(&e->version, e->copies, KEY_WORDS, out, sizeof(*out));
}

void keytable_region_init(struct keytable_region *r, size_t capacity,
                          const uint8_t pepper[KEY_PEPPER_BYTES])
{
    struct key nobody = {.revoked = true};

    r->capacity = capacity;
    r->index_mask = index_words(capacity) - 1;
    init_state(&r->inner, pepper, 0x36);
    init_state(&r->outer, pepper, 0x5c);
    store_key(&r->nobody, &nobody);
}

struct keytable_region *keytable_region_get(const struct shm *shm)
{
    size_t bytes;
    struct keytable_region *r = shm_region(shm, KEYTABLE_REGION, region_layout(), &bytes);

    if (r == NULL || r->capacity > bytes / sizeof(struct entry) ||
        r->index_mask != index_words(r->capacity) - 1 ||
        keytable_region_spec(r->capacity).bytes > bytes)
        return NULL;
    return r;
}

static _Atomic uint32_t *index_of(const struct keytable_region *r)
{
    return (_Atomic uint32_t *)(r->entries + r->capacity);
}

/* The digest's entry, or NULL; *slot (NULL is fine) is the index word it is in or belongs in. */
static const struct entry *find_entry(const struct keytable_region *r,
                                      const uint8_t digest[DIGEST_BYTES], uint64_t *slot)
{
    const _Atomic uint32_t *index = index_of(r);
    const struct entry *found = NULL;
    uint64_t i;

    memcpy(&i, digest, sizeof(i));
    for (i &= r->index_mask;; i = (i + 1) & r->index_mask) {
        uint32_t number = atomic_load_explicit(&index[i], memory_order_acquire);

        if (number == 0)
            break;
        if (secret_equal(r->entries[number - 1].digest, digest, DIGEST_BYTES)) {
            found = &r->entries[number - 1];
            break;
        }
    }
    if (slot != NULL)
        *slot = i;
    return found;
}

static bool is_base64url(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static bool has_key_shape(const char *text, size_t len)
{
    const size_t prefix_len = sizeof(KEY_PREFIX) - 1;

    if (len != KEY_TEXT_LEN || memcmp(text, KEY_PREFIX, prefix_len) != 0)
        return false;
    for (size_t i = prefix_len; i < len; i++) {
        if (!is_base64url(text[i]))
            return false;
    }
    return true;
}

int keytable_lookup(const struct keytable_region *r, const char *text, size_t len,
                    int64_t now_at_ms, struct key *out)
{
    uint8_t digest[DIGEST_BYTES];
    const struct entry *e;
    int rc;

    if (!has_key_shape(text, len))
        return -EINVAL;
    rc = keytable_digest(r, text, len, digest);
    if (rc < 0)
        return rc;
    e = find_entry(r, digest, NULL);
    load_key(e != NULL ? e : &r->nobody, out);
    if (out->revoked)
        return XR_EAUTH;
    if (out->expires_at_ms != 0 && now_at_ms >= out->expires_at_ms)
        return XR_EEXPIRED;
    return 0;
}

uint64_t keytable_model_hash(const char *model, size_t len)
{
    return shm_layout_hash(0, model, len);
}

bool key_may_use_model(const struct key *key, const char *model)
{
    uint64_t hash = keytable_model_hash(model, strlen(model));

    if (key->model_count == 0)
        return true;
    for (size_t i = 0; i < key->model_count && i < KEY_MODELS_MAX; i++) {
        if (key->models[i] == hash)
            return true;
    }
    return false;
}

int keytable_put(struct keytable_region *r, const uint8_t digest[DIGEST_BYTES],
                 const struct key *key)
{
    uint64_t count = atomic_load_explicit(&r->count, memory_order_relaxed);
    uint64_t slot;
    const struct entry *found = find_entry(r, digest, &slot);
    struct entry *e;

    if (found != NULL) {
        store_key(&r->entries[found - r->entries], key);
        return 0;
    }
    if (key->revoked)
        return 0;
    if (count == r->capacity)
        return -ENOSPC;
    e = &r->entries[count];
    memcpy(e->digest, digest, DIGEST_BYTES);
    store_key(e, key);
    /* Counted before it can be found: a writer that dies here wastes an entry, the other way round
     * its successor would write over one in use. */
    atomic_store_explicit(&r->count, count + 1, memory_order_release);
    atomic_store_explicit(&index_of(r)[slot], (uint32_t)(count + 1), memory_order_release);
    return 0;
}

size_t keytable_count(const struct keytable_region *r)
{
    return atomic_load_explicit(&r->count, memory_order_relaxed);
}

void keytable_get(const struct keytable_region *r, size_t number, uint8_t digest[DIGEST_BYTES],
                  struct key *out)
{
    assert(number < keytable_count(r));
    memcpy(digest, r->entries[number].digest, DIGEST_BYTES);
    load_key(&r->entries[number], out);
}

int keytable_digest(const struct keytable_region *r, const char *text, size_t len,
                    uint8_t out[DIGEST_BYTES])
{
    SHA256_CTX state = r->inner;
    bool ok = SHA256_Update(&state, text, len) == 1 && SHA256_Final(out, &state) == 1;

    state = r->outer;
    ok = ok && SHA256_Update(&state, out, DIGEST_BYTES) == 1 && SHA256_Final(out, &state) == 1;
    explicit_bzero(&state, sizeof(state));
    return ok ? 0 : -ENOMEM;
}

int key_text_make(char out[KEY_TEXT_BYTES])
{
    uint8_t random[KEY_TEXT_RANDOM_BYTES];
    const size_t prefix_len = sizeof(KEY_PREFIX) - 1;
    char digits[4 * (KEY_TEXT_RANDOM_BYTES / 3) + 6];
    int rc = secret_random(random, sizeof(random));

    if (rc < 0)
        return rc;
    base64url_encode(random, sizeof(random), digits);
    memcpy(out, KEY_PREFIX, prefix_len);
    memcpy(out + prefix_len, digits, KEY_TEXT_LEN - prefix_len);
    out[KEY_TEXT_LEN] = '\0';
    explicit_bzero(random, sizeof(random));
    explicit_bzero(digits, sizeof(digits));
    return 0;
}

void key_id_format(uint64_t id, char out[KEY_ID_TEXT_BYTES])
{
    snprintf(out, KEY_ID_TEXT_BYTES, "key_%016llx", (unsigned long long)id);
}

int key_id_parse(const char *text, uint64_t *id)
{
    uint8_t bytes[8];
    uint64_t value = 0;

    if (strlen(text) != KEY_ID_TEXT_BYTES - 1 || memcmp(text, "key_", 4) != 0 ||
        hex_decode(text + 4, 16, bytes) < 0)
        return -EINVAL;
    for (size_t i = 0; i < sizeof(bytes); i++)
        value = value << 8 | bytes[i];
    *id = value;
    return 0;
}
