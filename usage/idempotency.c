#include "usage/idempotency.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "common/versioned.h"

/* An entry is a word (state, owner, part of the key, and a tag that is new each time the place is
 * taken) and the facts behind it, which are written only in state WRITING. A key has two buckets it
 * may stand in; all processes look at their places in the same order, the key's probe order.
 *
 * Claiming: take a free place (FREE -> WRITING by compare-and-swap), write the facts, store
 * CLAIMING, look at all other places of the key, and go CLAIMING -> RUNNING by compare-and-swap.
 * Whoever meets, while looking, an entry of the same key that is RUNNING or later        takes its
 * own back, that is CLAIMING, before his    takes its own back, that is CLAIMING, behind his takes
 * that one away (CLAIMING -> FREE by compare-and-swap). All accesses to words are sequentially
 * consistent.
 *
 * Never two. Let A and B both have claimed the key, and A have stored CLAIMING first. B looks at
 * A's place after its own store, so it sees A's entry (an entry never moves) unless that has ended.
 *     A is RUNNING: B takes its own back.
 *     A is CLAIMING: B takes its own back, or takes A's away, and then A's swap to RUNNING fails;
 * or its attempt fails because A is RUNNING by now, and B takes its own back. A's entry is gone: it
 * was taken back or away, and A does not run; or A's run has ended. So once B has looked, A cannot
 * become RUNNING beside it.
 *
 * Never none. Who gives up has met a request that runs or ran, or an entry that was CLAIMING and
 * stood before his (he met it, or its process took his away). Following the second kind from one to
 * the next, places only go down, and a request takes part in this only once: the chain ends with
 * one that runs, ran, or met one of those. A process that stops in CLAIMING ends it too: then the
 * key is "in progress" until that process goes on, or dies and is reaped. Nobody waits for anybody.
 */

#define WAYS 16 /* places of a bucket */
#define BUCKETS_PER_KEY 2
#define PROBES (BUCKETS_PER_KEY * WAYS)
#define NOWHERE SIZE_MAX
#define WRITER_SLOT 0xfff /* no worker's */

#define STATE_MASK UINT64_C(0xf)
#define SLOT_SHIFT 4
#define PRINT_SHIFT 16
#define TAG_SHIFT 32

enum state { FREE, WRITING, CLAIMING, RUNNING, STORING, STORED, UNAVAILABLE };

struct facts {
    struct idempotency_key key;
    struct usage_id id;
    int64_t expires_at_ms; /* of STORED and UNAVAILABLE; stored by the owner before those */
};
#define FACT_WORDS VERSIONED_WORDS(sizeof(struct facts))
#define EXPIRES_WORD (offsetof(struct facts, expires_at_ms) / 8)
_Static_assert(sizeof(struct facts) % 8 == 0 && offsetof(struct facts, expires_at_ms) % 8 == 0,
               "facts are words");

struct bucket {
    _Alignas(64) _Atomic uint64_t words[WAYS];
    _Atomic uint64_t facts[WAYS][FACT_WORDS];
};

struct idempotency_region {
    _Alignas(64) uint64_t count; /* of buckets */
    struct bucket buckets[];
};

/* Where a key may stand. */
struct probe {
    size_t buckets[BUCKETS_PER_KEY];
    uint64_t print; /* shifted */
};

/* The fuller a bucket may be, the likelier both of a key's are full. With two to choose from, two
 * thirds full on average leaves that to chance in no table of a real size. */
static size_t bucket_count(size_t capacity)
{
    size_t count = (capacity + capacity / 2) / WAYS + 1;

    return count < BUCKETS_PER_KEY ? BUCKETS_PER_KEY : count;
}

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        WAYS,
        PROBES,
        FACT_WORDS,
        EXPIRES_WORD,
        SLOT_SHIFT,
        PRINT_SHIFT,
        TAG_SHIFT,
        UNAVAILABLE,
        sizeof(struct bucket),
        sizeof(struct facts),
        sizeof(struct idempotency_region),
        offsetof(struct bucket, facts),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec idempotency_region_spec(size_t capacity)
{
    return (struct shm_region_spec){
        .name = IDEMPOTENCY_REGION,
        .bytes = sizeof(struct idempotency_region) + bucket_count(capacity) * sizeof(struct bucket),
        .layout = region_layout(),
    };
}

void idempotency_region_init(struct idempotency_region *r, size_t capacity)
{
    r->count = bucket_count(capacity);
}

struct idempotency_region *idempotency_region_get(const struct shm *shm)
{
    size_t bytes;
    struct idempotency_region *r = shm_region(shm, IDEMPOTENCY_REGION, region_layout(), &bytes);

    if (r == NULL || r->count < BUCKETS_PER_KEY ||
        r->count > (bytes - sizeof(*r)) / sizeof(struct bucket))
        return NULL;
    return r;
}

/* ---- one entry ---- */

static _Atomic uint64_t *word_at(const struct idempotency_region *r, size_t place)
{
    return (_Atomic uint64_t *)&r->buckets[place / WAYS].words[place % WAYS];
}

static _Atomic uint64_t *facts_at(const struct idempotency_region *r, size_t place)
{
    return (_Atomic uint64_t *)r->buckets[place / WAYS].facts[place % WAYS];
}

static enum state state_of(uint64_t word)
{
    return (enum state)(word & STATE_MASK);
}

static uint64_t with_state(uint64_t word, enum state state)
{
    return (word & ~STATE_MASK) | state;
}

/* False: somebody else has changed the entry. */
static bool change(struct idempotency_region *r, size_t place, uint64_t word, enum state to)
{
    return atomic_compare_exchange_strong(word_at(r, place), &word, with_state(word, to));
}

static int64_t load_expires(const struct idempotency_region *r, size_t place)
{
    return (int64_t)atomic_load_explicit(&facts_at(r, place)[EXPIRES_WORD], memory_order_relaxed);
}

static void store_expires(struct idempotency_region *r, size_t place, int64_t at_ms)
{
    atomic_store_explicit(&facts_at(r, place)[EXPIRES_WORD], (uint64_t)at_ms, memory_order_relaxed);
}

static bool is_over(const struct idempotency_region *r, size_t place, uint64_t word,
                    int64_t now_at_ms)
{
    return (state_of(word) == STORED || state_of(word) == UNAVAILABLE) &&
           load_expires(r, place) <= now_at_ms;
}

/* The entry's word, with facts that belong to it; FREE also for one that is not the key's. */
static uint64_t read_entry(const struct idempotency_region *r, size_t place,
                           const struct probe *probe, const uint8_t key[USAGE_DIGEST_BYTES],
                           struct facts *out)
{
    for (;;) {
        uint64_t word = atomic_load(word_at(r, place));
        uint64_t again;

        if (state_of(word) <= WRITING || (word & (UINT64_C(0xffff) << PRINT_SHIFT)) != probe->print)
            return FREE;
        words_load(out, facts_at(r, place), sizeof(*out));
        atomic_thread_fence(memory_order_acquire);
        again = atomic_load(word_at(r, place));
        if (again >> TAG_SHIFT != word >> TAG_SHIFT)
            continue; /* the place was taken anew meanwhile */
        if (state_of(again) <= WRITING || memcmp(out->key.key, key, USAGE_DIGEST_BYTES) != 0)
            return FREE;
        return again;
    }
}

/* ---- a key's places ---- */

static struct probe probe_of(const struct idempotency_region *r,
                             const uint8_t key[USAGE_DIGEST_BYTES])
{
    uint64_t halves[2];
    struct probe p;

    memcpy(halves, key, sizeof(halves)); /* of a digest: as good as random */
    p.buckets[0] = halves[0] % r->count;
    p.buckets[1] = (halves[1] & UINT32_MAX) % r->count;
    if (p.buckets[1] == p.buckets[0])
        p.buckets[1] = (p.buckets[0] + 1) % r->count;
    p.print = halves[1] >> 48 << PRINT_SHIFT;
    return p;
}

static size_t place_at(const struct probe *p, size_t position)
{
    return p->buckets[position / WAYS] * WAYS + position % WAYS;
}

/* The place of the entry of this very request, NOWHERE if there is none. */
static size_t find(const struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                   const struct usage_id *id, uint64_t *word)
{
    const struct probe probe = probe_of(r, key);
    struct facts facts;

    for (size_t i = 0; i < PROBES; i++) {
        size_t place = place_at(&probe, i);

        *word = read_entry(r, place, &probe, key, &facts);
        if (*word != FREE && memcmp(&facts.id, id, sizeof(*id)) == 0)
            return place;
    }
    return NOWHERE;
}

static enum idempotency_state answer_for(uint64_t word, const struct facts *facts,
                                         const struct idempotency_key *key)
{
    if (memcmp(facts->key.request, key->request, sizeof(key->request)) != 0)
        return IDEMPOTENCY_REUSED;
    switch (state_of(word)) {
    case FREE:
    case WRITING:
        return IDEMPOTENCY_ABSENT;
    case CLAIMING:
    case RUNNING:
        return IDEMPOTENCY_RUNNING;
    case STORING:
        return IDEMPOTENCY_STORING;
    case STORED:
        return IDEMPOTENCY_STORED;
    case UNAVAILABLE:
        return IDEMPOTENCY_UNAVAILABLE;
    }
    return IDEMPOTENCY_ABSENT;
}

enum idempotency_state idempotency_look(const struct idempotency_region *r,
                                        const struct idempotency_key *key, int64_t now_at_ms)
{
    const struct probe probe = probe_of(r, key->key);
    struct facts facts;

    for (size_t i = 0; i < PROBES; i++) {
        size_t place = place_at(&probe, i);
        uint64_t word = read_entry(r, place, &probe, key->key, &facts);

        if (word != FREE && !is_over(r, place, word, now_at_ms))
            return answer_for(word, &facts, key);
    }
    return IDEMPOTENCY_ABSENT;
}

static size_t count_free(const struct idempotency_region *r, size_t bucket)
{
    size_t count = 0;

    for (size_t i = 0; i < WAYS; i++)
        count += state_of(atomic_load(&r->buckets[bucket].words[i])) == FREE;
    return count;
}

/* Takes one place of the bucket: a free one, or, with expired, one whose time is over. */
static size_t take_in(struct idempotency_region *r, const struct probe *probe, size_t which,
                      size_t slot, bool expired, int64_t now_at_ms, uint64_t *word)
{
    for (size_t i = 0; i < WAYS; i++) {
        size_t position = which * WAYS + i, place = place_at(probe, position);
        uint64_t old = atomic_load(word_at(r, place));

        if (expired ? !is_over(r, place, old, now_at_ms) : state_of(old) != FREE)
            continue;
        *word = ((old >> TAG_SHIFT) + 1) << TAG_SHIFT | probe->print |
                (uint64_t)slot << SLOT_SHIFT | WRITING;
        if (atomic_compare_exchange_strong(word_at(r, place), &old, *word))
            return position;
    }
    return NOWHERE;
}

/* The emptier bucket first. */
static size_t take(struct idempotency_region *r, const struct probe *probe, size_t slot,
                   int64_t now_at_ms, uint64_t *word)
{
    size_t first = count_free(r, probe->buckets[1]) > count_free(r, probe->buckets[0]) ? 1 : 0;
    size_t position = NOWHERE;

    for (int expired = 0; expired < 2 && position == NOWHERE; expired++) {
        position = take_in(r, probe, first, slot, expired != 0, now_at_ms, word);
        if (position == NOWHERE)
            position = take_in(r, probe, 1 - first, slot, expired != 0, now_at_ms, word);
    }
    return position;
}

/* What the own entry at position, CLAIMING, must give way to; ABSENT = nothing, others have been
 * taken away. */
static enum idempotency_state find_rival(struct idempotency_region *r, const struct probe *probe,
                                         const struct idempotency_key *key, size_t own,
                                         int64_t now_at_ms)
{
    struct facts facts;

    for (size_t i = 0; i < PROBES; i++) {
        size_t place = place_at(probe, i);
        uint64_t word;

        if (i == own)
            continue;
        do {
            word = read_entry(r, place, probe, key->key, &facts);
        } while (state_of(word) == CLAIMING && i > own && !change(r, place, word, FREE));
        if (word == FREE || (state_of(word) == CLAIMING && i > own) ||
            is_over(r, place, word, now_at_ms))
            continue;
        return answer_for(word, &facts, key);
    }
    return IDEMPOTENCY_ABSENT;
}

/* CLAIMED: the entry has come to state `to`. */
static enum idempotency_state enter(struct idempotency_region *r, const struct facts *facts,
                                    size_t slot, enum state to, int64_t now_at_ms,
                                    struct idempotency_claim *out)
{
    const struct probe probe = probe_of(r, facts->key.key);
    enum idempotency_state rival;
    uint64_t word;
    size_t own = take(r, &probe, slot, now_at_ms, &word);

    if (own == NOWHERE)
        return IDEMPOTENCY_FULL;
    out->place = place_at(&probe, own);
    out->word = with_state(word, to);
    /* A reader that sees one of these facts must also see the word that says WRITING. */
    atomic_thread_fence(memory_order_seq_cst);
    words_store(facts_at(r, out->place), facts, sizeof(*facts));
    atomic_store(word_at(r, out->place), with_state(word, CLAIMING));
    rival = find_rival(r, &probe, &facts->key, own, now_at_ms);
    if (rival != IDEMPOTENCY_ABSENT) {
        (void)change(r, out->place, with_state(word, CLAIMING), FREE); /* or it was taken away */
        return rival;
    }
    return change(r, out->place, with_state(word, CLAIMING), to) ? IDEMPOTENCY_CLAIMED
                                                                 : IDEMPOTENCY_RUNNING;
}

/* ---- workers ---- */

enum idempotency_state idempotency_claim(struct idempotency_region *r,
                                         const struct idempotency_key *key, size_t slot,
                                         const struct usage_id *id, int64_t now_at_ms,
                                         struct idempotency_claim *out)
{
    const struct facts facts = {.key = *key, .id = *id};
    enum idempotency_state found = idempotency_look(r, key, now_at_ms);

    assert(slot < WRITER_SLOT);
    if (found != IDEMPOTENCY_ABSENT)
        return found;
    return enter(r, &facts, slot, RUNNING, now_at_ms, out);
}

/* Only the owner changes a RUNNING entry, or its reaper. */
static void end_claim(struct idempotency_region *r, const struct idempotency_claim *claim,
                      enum state to)
{
    bool was_ours = change(r, claim->place, claim->word, to);

    assert(was_ours);
    (void)was_ours;
}

void idempotency_release(struct idempotency_region *r, const struct idempotency_claim *claim)
{
    end_claim(r, claim, FREE);
}

void idempotency_begin_storing(struct idempotency_region *r, const struct idempotency_claim *claim,
                               int64_t expires_at_ms)
{
    store_expires(r, claim->place, expires_at_ms);
    end_claim(r, claim, STORING);
}

void idempotency_give_up(struct idempotency_region *r, const struct idempotency_claim *claim,
                         int64_t expires_at_ms)
{
    store_expires(r, claim->place, expires_at_ms);
    end_claim(r, claim, UNAVAILABLE);
}

/* ---- by key and id ---- */

void idempotency_keep(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                      const struct usage_id *id, int64_t expires_at_ms)
{
    uint64_t word;
    size_t place = find(r, key, id, &word);

    if (place == NOWHERE || state_of(word) != RUNNING)
        return;
    store_expires(r, place, expires_at_ms);
    (void)change(r, place, word, UNAVAILABLE);
}

static void reap_entry(struct idempotency_region *r, size_t place, size_t slot)
{
    uint64_t word = atomic_load(word_at(r, place));

    if ((word >> SLOT_SHIFT & WRITER_SLOT) != slot)
        return;
    switch (state_of(word)) {
    case FREE:
    case STORED:
    case UNAVAILABLE:
        return;
    case WRITING:
    case CLAIMING:
    case RUNNING:
        (void)change(r, place, word, FREE); /* if not, a rival or the usage-writer was faster */
        return;
    case STORING:
        (void)change(r, place, word, UNAVAILABLE);
        return;
    }
}

void idempotency_reap(struct idempotency_region *r, size_t slot)
{
    for (size_t place = 0; place < r->count * WAYS; place++)
        reap_entry(r, place, slot);
}

void idempotency_reap_writer(struct idempotency_region *r)
{
    idempotency_reap(r, WRITER_SLOT);
}

void idempotency_lose(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                      const struct usage_id *id)
{
    uint64_t word;
    size_t place;

    do {
        place = find(r, key, id, &word);
    } while (place != NOWHERE && (state_of(word) == STORING || state_of(word) == STORED) &&
             !change(r, place, word, UNAVAILABLE));
}

bool idempotency_is_storing(const struct idempotency_region *r,
                            const uint8_t key[USAGE_DIGEST_BYTES], const struct usage_id *id)
{
    uint64_t word;

    return find(r, key, id, &word) != NOWHERE && state_of(word) == STORING;
}

/* ---- the usage-writer ---- */

/* Whether the table has that request already. */
static bool put_on(struct idempotency_region *r, const struct idempotency_key *key,
                   const struct usage_id *id, bool stored)
{
    uint64_t word;
    size_t place;

    do {
        place = find(r, key->key, id, &word);
    } while (place != NOWHERE && stored &&
             (state_of(word) == STORING || state_of(word) == UNAVAILABLE) &&
             !change(r, place, word, STORED));
    return place != NOWHERE;
}

int idempotency_put(struct idempotency_region *r, const struct idempotency_key *key,
                    const struct usage_id *id, bool stored, int64_t now_at_ms,
                    int64_t expires_at_ms)
{
    const struct facts facts = {.key = *key, .id = *id, .expires_at_ms = expires_at_ms};
    struct idempotency_claim claim;

    if (put_on(r, key, id, stored) || expires_at_ms <= now_at_ms ||
        idempotency_look(r, key, now_at_ms) != IDEMPOTENCY_ABSENT)
        return 0;
    return enter(r, &facts, WRITER_SLOT, stored ? STORED : UNAVAILABLE, now_at_ms, &claim) ==
                   IDEMPOTENCY_FULL
               ? -ENOSPC
               : 0;
}

void idempotency_forget(struct idempotency_region *r, const uint8_t key[USAGE_DIGEST_BYTES],
                        const struct usage_id *id)
{
    uint64_t word;
    size_t place = find(r, key, id, &word);

    if (place != NOWHERE && (state_of(word) == STORED || state_of(word) == UNAVAILABLE))
        (void)change(r, place, word, FREE);
}
