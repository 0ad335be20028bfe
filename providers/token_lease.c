#include "providers/token_lease.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/secret.h"
#include "common/versioned.h"

#define LINE 64
#define LIFE_MAX_MS (INT64_C(30) * 60 * 1000)   /* whatever the provider says */
#define LIFE_DOUBTFUL_MS (INT64_C(60) * 1000)   /* of a token that came expired: clocks disagree */
#define LIFE_SHORT_MS (INT64_C(10) * 60 * 1000) /* shorter ones are refreshed by shares of it */
#define LEAD_MS (INT64_C(60) * 1000)
#define LEAD_RANDOM_MS (INT64_C(120) * 1000)
#define STORE_MS 1000 /* how long a process may take to copy a token into its place */

struct stored_token {
    int64_t expires_at_ms;  /* wall clock */
    int64_t usable_till_ms; /* monotonic */
    int64_t lead_ms;        /* refreshed so long before either */
    uint32_t generation;    /* 0 = there has been none */
    uint32_t crc;           /* of the text */
    uint64_t len;
    char text[TOKEN_TEXT_MAX];
};

#define TOKEN_WORDS VERSIONED_WORDS(sizeof(struct stored_token))
_Static_assert(sizeof(struct stored_token) % 8 == 0, "copied word by word");
_Static_assert(offsetof(struct stored_token, text) % 8 == 0, "the text starts on a word");

/* Who may fetch, in one word: until when (40 bits of monotonic ms), who (22 bits of pid, as many as
 * Linux has), and what it is. After the deadline the word means nothing, whatever it says. */
enum hold { HOLD_NONE, HOLD_LEASE, HOLD_BACKOFF, HOLD_POISON };

struct lease_entry {
    _Alignas(LINE) _Atomic uint64_t credential; /* hash, 0 = unused */
    _Atomic uint64_t hold;
    _Atomic uint64_t storing; /* until when somebody copies a token in, monotonic ms */
    _Atomic uint32_t refused; /* the last generation that the API refused */
    uint32_t padding;
    _Atomic uint64_t version;
    _Atomic uint64_t copies[2 * TOKEN_WORDS];
};

struct token_lease_region {
    struct lease_entry entries[TOKEN_LEASES_MAX];
};

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the meaning of the words */
        sizeof(struct token_lease_region),
        sizeof(struct lease_entry),
        offsetof(struct lease_entry, hold),
        offsetof(struct lease_entry, storing),
        offsetof(struct lease_entry, refused),
        offsetof(struct lease_entry, version),
        offsetof(struct lease_entry, copies),
        sizeof(struct stored_token),
        offsetof(struct stored_token, usable_till_ms),
        offsetof(struct stored_token, lead_ms),
        offsetof(struct stored_token, generation),
        offsetof(struct stored_token, crc),
        offsetof(struct stored_token, len),
        offsetof(struct stored_token, text),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec token_lease_region_spec(void)
{
    return (struct shm_region_spec){
        .name = TOKEN_LEASE_REGION,
        .bytes = sizeof(struct token_lease_region),
        .layout = region_layout(),
    };
}

void token_lease_region_init(struct token_lease_region *r)
{
    memset(r, 0, sizeof(*r));
}

struct token_lease_region *token_lease_region_get(const struct shm *shm)
{
    size_t bytes;
    struct token_lease_region *r = shm_region(shm, TOKEN_LEASE_REGION, region_layout(), &bytes);

    return r != NULL && bytes >= sizeof(*r) ? r : NULL;
}

static struct lease_entry *entry_at(struct token_lease_region *r, int index)
{
    assert(index >= 0 && index < TOKEN_LEASES_MAX);
    return &r->entries[index];
}

/* 64 bits of SHA-256 over the three hashes, so that no text runs into the next. */
static int hash_credential(const char *auth_url, const char *credentials, const char *scope,
                           uint64_t *out)
{
    const char *parts[] = {auth_url, credentials, scope};
    uint8_t digests[3][DIGEST_BYTES];
    uint8_t digest[DIGEST_BYTES];
    int rc = 0;

    for (size_t i = 0; i < 3 && rc == 0; i++)
        rc = secret_sha256(parts[i], strlen(parts[i]), digests[i]);
    if (rc == 0)
        rc = secret_sha256(digests, sizeof(digests), digest);
    if (rc == 0) {
        memcpy(out, digest, sizeof(*out));
        if (*out == 0)
            *out = 1;
    }
    return rc;
}

int token_lease_find(struct token_lease_region *r, const char *auth_url, const char *credentials,
                     const char *scope)
{
    uint64_t wanted = 0;
    int rc = hash_credential(auth_url, credentials, scope, &wanted);

    if (rc < 0)
        return rc;
    for (int i = 0; i < TOKEN_LEASES_MAX; i++) {
        uint64_t there = 0;

        /* Fails where there is a name already, and tells which. */
        if (atomic_compare_exchange_strong(&r->entries[i].credential, &there, wanted) ||
            there == wanted)
            return i;
    }
    return -ENOSPC;
}

/* ---- the word that says who may fetch ---- */

static uint64_t holder_bits(enum hold hold, pid_t pid)
{
    return ((uint64_t)pid & 0x3fffff) << 2 | hold;
}

static uint64_t hold_word(enum hold hold, int64_t until_ms)
{
    return (uint64_t)until_ms << 24 | holder_bits(hold, getpid());
}

static enum hold hold_kind(uint64_t word, int64_t now_ms)
{
    return (int64_t)(word >> 24) > now_ms ? (enum hold)(word & 3) : HOLD_NONE;
}

static bool is_lease_of(uint64_t word, pid_t pid)
{
    return (word & 0xffffff) == holder_bits(HOLD_LEASE, pid);
}

static bool is_mine(uint64_t word)
{
    return is_lease_of(word, getpid());
}

/* ---- the token ---- */

/* The token that counts; false if there is none or it is being torn: a process that was stopped
 * while it stored, and went on after its time, is seen by the CRC. */
static bool load_token(const struct lease_entry *e, struct stored_token *out)
{
    size_t head_bytes = offsetof(struct stored_token, text);
    size_t bytes = head_bytes;

    for (;;) {
        size_t needed;

        versioned_load(&e->version, e->copies, TOKEN_WORDS, out, bytes);
        if (out->generation == 0 || out->len >= TOKEN_TEXT_MAX)
            return false;
        needed = head_bytes + VERSIONED_WORDS(out->len + 1) * 8;
        if (needed <= bytes)
            break;
        bytes = needed; /* once more: head and text must come from one version */
    }
    if (crc32c(0, out->text, out->len) == out->crc)
        return true;
    explicit_bzero(out->text, bytes - head_bytes);
    return false;
}

static bool is_usable(const struct lease_entry *e, const struct stored_token *t, int64_t now_ms,
                      int64_t now_at_ms)
{
    return t->generation > atomic_load_explicit(&e->refused, memory_order_acquire) &&
           now_at_ms < t->expires_at_ms && now_ms < t->usable_till_ms;
}

static bool is_due(const struct stored_token *t, int64_t now_ms, int64_t now_at_ms)
{
    return now_at_ms >= t->expires_at_ms - t->lead_ms || now_ms >= t->usable_till_ms - t->lead_ms;
}

/* TOKEN_READY, TOKEN_REFRESH or TOKEN_FETCH: what the token alone says. */
static enum token_state look(const struct lease_entry *e, int64_t now_ms, int64_t now_at_ms,
                             struct token *out)
{
    struct stored_token t;
    enum token_state state = TOKEN_FETCH;

    if (!load_token(e, &t))
        return state;
    if (is_usable(e, &t, now_ms, now_at_ms)) {
        state = is_due(&t, now_ms, now_at_ms) ? TOKEN_REFRESH : TOKEN_READY;
        memcpy(out->text, t.text, t.len + 1);
        out->generation = t.generation;
    }
    explicit_bzero(t.text, t.len);
    return state;
}

static enum token_state without_lease(enum token_state wanted, enum hold hold)
{
    if (wanted == TOKEN_REFRESH)
        return TOKEN_READY;
    return hold == HOLD_POISON ? TOKEN_POISONED : TOKEN_WAIT;
}

enum token_state token_lease_get(struct token_lease_region *r, int index, int64_t now_ms,
                                 int64_t now_at_ms, int64_t lease_ms, struct token *out)
{
    struct lease_entry *e = entry_at(r, index);
    enum token_state state = look(e, now_ms, now_at_ms, out);
    uint64_t held;
    uint64_t mine;
    enum hold hold;

    if (state == TOKEN_READY)
        return state;
    held = atomic_load_explicit(&e->hold, memory_order_acquire);
    hold = hold_kind(held, now_ms);
    if (hold != HOLD_NONE)
        return without_lease(state, hold);
    mine = hold_word(HOLD_LEASE, now_ms + lease_ms);
    if (!atomic_compare_exchange_strong_explicit(&e->hold, &held, mine, memory_order_acq_rel,
                                                 memory_order_acquire))
        return without_lease(state, hold_kind(held, now_ms));
    /* Between the look and the lease its last holder may have published. */
    state = look(e, now_ms, now_at_ms, out);
    if (state == TOKEN_READY)
        atomic_compare_exchange_strong_explicit(&e->hold, &mine, 0, memory_order_release,
                                                memory_order_relaxed);
    return state;
}

/* How long before its end a token is refreshed: not all nodes of a fleet at one moment. */
static int64_t draw_lead_ms(int64_t life_ms)
{
    int64_t base = life_ms < LIFE_SHORT_MS ? life_ms / 10 : LEAD_MS;
    int64_t spread = life_ms < LIFE_SHORT_MS ? life_ms / 5 : LEAD_RANDOM_MS;
    uint32_t random;

    if (secret_random(&random, sizeof(random)) < 0)
        return base; /* only the spreading is lost */
    return base + (int64_t)(random % (uint64_t)(spread + 1));
}

static void set_life(struct stored_token *t, int64_t expires_at_ms, int64_t now_ms,
                     int64_t now_at_ms)
{
    int64_t life_ms = LIFE_DOUBTFUL_MS;

    t->expires_at_ms = INT64_MAX;
    if (expires_at_ms > now_at_ms) {
        t->expires_at_ms = expires_at_ms;
        life_ms = expires_at_ms - now_at_ms;
        if (life_ms > LIFE_MAX_MS)
            life_ms = LIFE_MAX_MS;
    }
    t->usable_till_ms = now_ms + life_ms;
    t->lead_ms = draw_lead_ms(life_ms);
}

/* The right to store is apart from the lease: one that ran out may still come back with a token. */
static bool begin_store(struct lease_entry *e, int64_t now_ms, uint64_t *till_ms)
{
    uint64_t busy = atomic_load_explicit(&e->storing, memory_order_acquire);

    *till_ms = (uint64_t)(now_ms + STORE_MS);
    return busy <= (uint64_t)now_ms &&
           atomic_compare_exchange_strong_explicit(&e->storing, &busy, *till_ms,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static void end_store(struct lease_entry *e, uint64_t till_ms)
{
    atomic_compare_exchange_strong_explicit(&e->storing, &till_ms, 0, memory_order_release,
                                            memory_order_relaxed);
}

/* Everything but somebody else's lease: a token has come, nobody need wait. */
static void end_hold(struct lease_entry *e, int64_t now_ms)
{
    uint64_t held = atomic_load_explicit(&e->hold, memory_order_acquire);

    while (hold_kind(held, now_ms) != HOLD_LEASE || is_mine(held)) {
        if (atomic_compare_exchange_weak_explicit(&e->hold, &held, 0, memory_order_release,
                                                  memory_order_acquire))
            return;
    }
}

int token_lease_publish(struct token_lease_region *r, int index, const char *text,
                        int64_t expires_at_ms, int64_t now_ms, int64_t now_at_ms)
{
    struct lease_entry *e = entry_at(r, index);
    struct stored_token t;
    size_t len = strlen(text);
    uint64_t till_ms;

    if (len >= TOKEN_TEXT_MAX)
        return -EMSGSIZE;
    if (!begin_store(e, now_ms, &till_ms))
        return 0; /* another process stores one as fresh at this very moment */
    memset(&t, 0, sizeof(t));
    versioned_load(&e->version, e->copies, TOKEN_WORDS, &t, offsetof(struct stored_token, text));
    t.generation++;
    set_life(&t, expires_at_ms, now_ms, now_at_ms);
    t.len = len;
    t.crc = crc32c(0, text, len);
    memcpy(t.text, text, len);
    versioned_store(&e->version, e->copies, TOKEN_WORDS, &t, sizeof(t));
    versioned_wipe_old(&e->version, e->copies, TOKEN_WORDS);
    explicit_bzero(t.text, sizeof(t.text));
    end_store(e, till_ms);
    end_hold(e, now_ms);
    return 0;
}

void token_lease_fail(struct token_lease_region *r, int index, bool final, int64_t now_ms,
                      int64_t wait_ms)
{
    struct lease_entry *e = entry_at(r, index);
    uint64_t held = atomic_load_explicit(&e->hold, memory_order_acquire);
    uint64_t next = hold_word(final ? HOLD_POISON : HOLD_BACKOFF, now_ms + wait_ms);

    /* Another worker's lease stands: ours had run out, and its result is still to come. */
    while (hold_kind(held, now_ms) != HOLD_LEASE || is_mine(held)) {
        if (atomic_compare_exchange_weak_explicit(&e->hold, &held, next, memory_order_acq_rel,
                                                  memory_order_acquire))
            return;
    }
}

void token_lease_reap(struct token_lease_region *r, pid_t pid)
{
    for (size_t i = 0; i < TOKEN_LEASES_MAX; i++) {
        struct lease_entry *e = &r->entries[i];
        uint64_t held = atomic_load_explicit(&e->hold, memory_order_acquire);

        /* Should it have run out, and be another's by now, that one keeps it. */
        if (is_lease_of(held, pid))
            atomic_compare_exchange_strong_explicit(&e->hold, &held, 0, memory_order_release,
                                                    memory_order_relaxed);
    }
}

void token_lease_invalidate(struct token_lease_region *r, int index, uint32_t generation)
{
    struct lease_entry *e = entry_at(r, index);
    uint32_t refused = atomic_load_explicit(&e->refused, memory_order_relaxed);

    while (generation > refused) {
        if (atomic_compare_exchange_weak_explicit(&e->refused, &refused, generation,
                                                  memory_order_release, memory_order_relaxed))
            return;
    }
}
