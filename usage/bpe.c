#include "usage/bpe.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "usage/vocabulary.h"

#define SHORT_PIECE 32 /* up to here looking through all pairs beats a heap */
#ifndef WINDOW_MARGIN  /* its test sets it lower */
#define WINDOW_MARGIN 256
#endif
#define WINDOW_RETRIES 3

/* A window always holds several tokens, so that it can move on. */
_Static_assert((BPE_WINDOW >> WINDOW_RETRIES) > VOCABULARY_TOKEN_MAX, "window");

extern const struct vocabulary vocabulary_o200k;
extern const struct vocabulary vocabulary_cl100k;

static const struct {
    const char *name;
    const struct vocabulary *vocabulary;
    enum pretokenize_split split;
} encodings[] = {
    [BPE_O200K] = {"o200k_base", &vocabulary_o200k, PRETOKENIZE_O200K},
    [BPE_CL100K] = {"cl100k_base", &vocabulary_cl100k, PRETOKENIZE_CL100K},
};

#define ENCODING_COUNT (sizeof(encodings) / sizeof(encodings[0]))

static const void *part(const struct vocabulary *v, uint32_t offset)
{
    return (const char *)v + offset;
}

static inline bool is_slot_of(const struct vocabulary *v, const struct vocabulary_slot *slot,
                              uint64_t hash, const char *bytes, size_t len, bool is_padded)
{
    if ((slot->tag & 0xff) != len)
        return false;
    if (len <= 8)
        return slot->head ==
               (is_padded ? vocabulary_load_padded(bytes, len) : vocabulary_load(bytes, len));
    if (len <= VOCABULARY_INLINE_MAX)
        return slot->head == vocabulary_load8(bytes) &&
               slot->rest == vocabulary_load(bytes + 8, len - 8);
    return slot->head == hash &&
           memcmp((const char *)part(v, v->long_at) + slot->rest, bytes, len) == 0;
}

static inline __attribute__((always_inline)) uint32_t
look_up(const struct vocabulary *v, const char *bytes, size_t len, bool is_padded)
{
    const uint16_t *seeds = part(v, v->seeds_at);
    const struct vocabulary_slot *slot = part(v, v->slots_at);
    uint64_t hash;

    if (len > v->longest)
        return VOCABULARY_NONE;
    hash = vocabulary_hash(bytes, len, is_padded);
    slot +=
        vocabulary_slot_of(hash, seeds[vocabulary_bucket_of(hash, v->bucket_count)], v->slot_count);
    return is_slot_of(v, slot, hash, bytes, len, is_padded) ? slot->tag >> 8 : VOCABULARY_NONE;
}

/* The rank of the token that is these bytes, or VOCABULARY_NONE. */
static uint32_t rank_of(const struct vocabulary *v, const char *bytes, size_t len)
{
    return look_up(v, bytes, len, false);
}

/* The same, faster, where VOCABULARY_PADDING bytes more can be read. */
static uint32_t rank_of_padded(const struct vocabulary *v, const char *bytes, size_t len)
{
    return look_up(v, bytes, len, true);
}

static uint32_t rank_of_two(const struct vocabulary *v, const char *bytes)
{
    const uint32_t *pairs = part(v, v->pairs_at);

    return pairs[vocabulary_load2(bytes)];
}

/* Byte pair encoding: of all neighbours that together are a token, those with the lowest rank (the
 * leftmost of these) are joined, until none is left. Both ways of doing it write where the tokens
 * end and return how many there are. */
static size_t merge_short(const struct vocabulary *v, const char *piece, size_t len,
                          uint16_t ends[BPE_WINDOW])
{
    char bytes[SHORT_PIECE + VOCABULARY_PADDING] = {0};
    uint8_t next[SHORT_PIECE + 1];   /* where the part that begins here ends */
    uint8_t before[SHORT_PIECE + 1]; /* where the part before it begins */
    uint32_t ranks[SHORT_PIECE + 1]; /* of it and its next together */
    size_t count = 0;

    memcpy(bytes, piece, len);
    for (size_t i = 0; i < len; i++) {
        next[i] = (uint8_t)(i + 1);
        before[i + 1] = (uint8_t)i;
        ranks[i] = i + 1 < len ? rank_of_two(v, bytes + i) : VOCABULARY_NONE;
    }
    for (;;) {
        uint32_t lowest = VOCABULARY_NONE;
        size_t at = 0, end;

        for (size_t i = 0; i + 1 < len; i++) {
            if (ranks[i] < lowest) {
                lowest = ranks[i];
                at = i;
            }
        }
        if (lowest == VOCABULARY_NONE)
            break;
        ranks[next[at]] = VOCABULARY_NONE;
        end = next[next[at]];
        next[at] = (uint8_t)end;
        before[end] = (uint8_t)at;
        ranks[at] = end < len ? rank_of_padded(v, bytes + at, next[end] - at) : VOCABULARY_NONE;
        if (at > 0)
            ranks[before[at]] = rank_of_padded(v, bytes + before[at], end - before[at]);
    }
    for (size_t end = 0; end < len; count++) {
        end = next[end];
        ends[count] = (uint16_t)end;
    }
    return count;
}

/* The parts of a window as a list, and a heap of the pairs that can be joined. */
struct merge {
    const struct vocabulary *vocabulary;
    char bytes[BPE_WINDOW + VOCABULARY_PADDING];
    uint16_t len;
    uint16_t next[BPE_WINDOW];     /* where the part that begins here ends */
    uint16_t before[BPE_WINDOW];   /* where the part before it begins */
    uint32_t ranks[BPE_WINDOW];    /* of it and its next together */
    uint64_t heap[2 * BPE_WINDOW]; /* rank << 32 | begin: the lowest is what is joined next */
    size_t heap_len;
};

static void sift_down(struct merge *m, size_t at)
{
    uint64_t entry = m->heap[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= m->heap_len)
            break;
        if (child + 1 < m->heap_len && m->heap[child + 1] < m->heap[child])
            child++;
        if (m->heap[child] >= entry)
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = entry;
}

static void push(struct merge *m, uint64_t entry)
{
    size_t at = m->heap_len++;

    while (at > 0 && m->heap[(at - 1) / 2] > entry) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = entry;
}

static uint64_t pop(struct merge *m)
{
    uint64_t entry = m->heap[0];

    m->heap[0] = m->heap[--m->heap_len];
    if (m->heap_len > 0)
        sift_down(m, 0);
    return entry;
}

/* The rank of the part that begins here and its next. */
static uint32_t pair_rank(const struct merge *m, uint16_t begin)
{
    uint16_t middle = m->next[begin];

    if (middle == m->len)
        return VOCABULARY_NONE;
    return rank_of_padded(m->vocabulary, m->bytes + begin, (size_t)(m->next[middle] - begin));
}

static void renew_pair(struct merge *m, uint16_t begin)
{
    m->ranks[begin] = pair_rank(m, begin);
    if (m->ranks[begin] != VOCABULARY_NONE)
        push(m, (uint64_t)m->ranks[begin] << 32 | begin);
}

static void merge_init(struct merge *m, const struct vocabulary *v, const char *bytes, uint16_t len)
{
    m->vocabulary = v;
    memcpy(m->bytes, bytes, len);
    memset(m->bytes + len, 0, VOCABULARY_PADDING);
    m->len = len;
    m->heap_len = 0;
    for (uint16_t i = 0; i < len; i++) {
        m->next[i] = i + 1;
        m->before[i] = i == 0 ? 0 : i - 1;
    }
    for (uint16_t i = 0; i < len; i++) {
        m->ranks[i] = i + 1 < len ? rank_of_two(v, bytes + i) : VOCABULARY_NONE;
        if (m->ranks[i] != VOCABULARY_NONE)
            m->heap[m->heap_len++] = (uint64_t)m->ranks[i] << 32 | i;
    }
    for (size_t i = m->heap_len / 2; i > 0; i--)
        sift_down(m, i - 1);
}

/* Each join takes an entry out and puts at most two in, so there are never more than two a byte. */
static size_t merge_long(const struct vocabulary *v, const char *bytes, size_t len,
                         uint16_t ends[BPE_WINDOW])
{
    struct merge m;
    size_t count = 0;

    merge_init(&m, v, bytes, (uint16_t)len);
    while (m.heap_len > 0) {
        uint64_t entry = pop(&m);
        uint16_t begin = (uint16_t)entry;
        uint16_t middle = m.next[begin];

        /* A pair that has changed since has left its entry behind. */
        if (m.ranks[begin] != entry >> 32)
            continue;
        m.next[begin] = m.next[middle];
        m.ranks[middle] = VOCABULARY_NONE;
        if (m.next[begin] < m.len)
            m.before[m.next[begin]] = begin;
        renew_pair(&m, begin);
        if (begin > 0)
            renew_pair(&m, m.before[begin]);
    }
    for (size_t end = 0; end < len; count++) {
        end = m.next[end];
        ends[count] = (uint16_t)end;
    }
    return count;
}

static size_t merge(const struct vocabulary *v, const char *bytes, size_t len,
                    uint16_t ends[BPE_WINDOW])
{
    assert(len > 0 && len <= BPE_WINDOW);
    return len <= SHORT_PIECE ? merge_short(v, bytes, len, ends) : merge_long(v, bytes, len, ends);
}

/* Counts the first count of the tokens that end there, and writes their numbers if wanted. */
static int take(struct bpe_counter *c, const char *bytes, const uint16_t *ends, size_t count)
{
    size_t begin = 0;

    if (c->ids != NULL) {
        if (count > c->max - c->tokens)
            return -ENOSPC;
        for (size_t i = 0; i < count; i++) {
            c->ids[c->tokens + i] = rank_of(c->vocabulary, bytes + begin, ends[i] - begin);
            begin = ends[i];
        }
    }
    c->tokens += count;
    return 0;
}

static int take_one(struct bpe_counter *c, uint32_t id)
{
    if (c->ids != NULL) {
        if (c->tokens == c->max)
            return -ENOSPC;
        c->ids[c->tokens] = id;
    }
    c->tokens++;
    return 0;
}

static int count_piece(struct bpe_counter *c, const char *piece, size_t len)
{
    uint16_t ends[BPE_WINDOW];
    uint32_t rank = rank_of(c->vocabulary, piece, len);

    if (rank != VOCABULARY_NONE)
        return take_one(c, rank);
    return take(c, piece, ends, merge(c->vocabulary, piece, len, ends));
}

static void enter_long_piece(struct bpe_counter *c, const char *piece, size_t len)
{
    c->begin = piece;
    c->end = piece + len;
    c->previous = NULL;
    c->expected = 0;
    c->retries = 0;
}

/* How many of the tokens to keep before the window moves on to the one behind them. The joins near
 * its end may lack what follows, so some are left; more with each retry. */
static size_t tokens_to_keep(const uint16_t *ends, size_t count, unsigned retries)
{
    size_t limit = (BPE_WINDOW - WINDOW_MARGIN) >> retries;
    size_t keep = 1;

    while (keep + 1 < count && ends[keep] <= limit)
        keep++;
    return keep;
}

/* One window of a long piece.
 *
 * Two neighbours of an encoded text, taken alone, are encoded as these two; and tokens of which all
 * neighbours have that property are the encoding of the whole. So if a window begins with the token
 * that the window before saw there, the tokens of both make up the encoding of their bytes. */
static int count_window(struct bpe_counter *c)
{
    uint16_t ends[BPE_WINDOW] = {0};
    size_t left = (size_t)(c->end - c->begin);
    size_t len = left < BPE_WINDOW ? left : BPE_WINDOW;
    size_t count = merge(c->vocabulary, c->begin, len, ends);
    size_t keep;
    int rc;

    if (c->expected != 0 && ends[0] != c->expected && c->retries < WINDOW_RETRIES) {
        c->retries++;
        c->begin = c->previous;
        c->tokens = c->previous_tokens;
        c->expected = 0;
        return 0;
    }
    if (len == left) {
        c->begin = NULL;
        return take(c, c->end - len, ends, count);
    }
    if (c->expected != 0)
        c->retries = 0;
    keep = tokens_to_keep(ends, count, c->retries);
    assert(keep < count); /* the window is longer than any token */
    c->previous = c->begin;
    c->previous_tokens = c->tokens;
    rc = take(c, c->begin, ends, keep);
    c->begin += ends[keep - 1];
    c->expected = (size_t)(ends[keep] - ends[keep - 1]);
    return rc;
}

const char *bpe_encoding_name(enum bpe_encoding encoding)
{
    return encodings[encoding].name;
}

int bpe_encoding_lookup(const char *name, enum bpe_encoding *encoding)
{
    for (size_t i = 0; i < ENCODING_COUNT; i++) {
        if (strcmp(encodings[i].name, name) == 0) {
            *encoding = (enum bpe_encoding)i;
            return 0;
        }
    }
    return -ENOENT;
}

int bpe_token_lookup(enum bpe_encoding encoding, const char *bytes, size_t len, uint32_t *id)
{
    if (len == 0)
        return -ENOENT;
    *id = rank_of(encodings[encoding].vocabulary, bytes, len);
    return *id == VOCABULARY_NONE ? -ENOENT : 0;
}

void bpe_counter_init(struct bpe_counter *c, enum bpe_encoding encoding, const char *text,
                      size_t len)
{
    *c = (struct bpe_counter){.vocabulary = encodings[encoding].vocabulary};
    pretokenize_init(&c->split, encodings[encoding].split, text, len);
}

int bpe_counter_step(struct bpe_counter *c, size_t budget)
{
    while (budget > 0) {
        const char *piece;
        size_t len;
        int rc;

        if (c->begin != NULL) {
            rc = count_window(c);
            if (rc < 0)
                return rc;
            budget = budget > BPE_WINDOW ? budget - BPE_WINDOW : 0;
            continue;
        }
        rc = pretokenize_next(&c->split, &budget, &piece, &len);
        if (rc == -EAGAIN)
            break;
        if (rc <= 0)
            return rc;
        if (len > BPE_WINDOW) {
            enter_long_piece(c, piece, len);
            continue;
        }
        rc = count_piece(c, piece, len);
        if (rc < 0)
            return rc;
    }
    return 1;
}

/* All at once. */
static int run(struct bpe_counter *c, size_t *tokens)
{
    int rc;

    do {
        rc = bpe_counter_step(c, SIZE_MAX);
    } while (rc == 1);
    *tokens = c->tokens;
    return rc;
}

int bpe_count(enum bpe_encoding encoding, const char *text, size_t len, size_t *tokens)
{
    struct bpe_counter c;

    bpe_counter_init(&c, encoding, text, len);
    return run(&c, tokens);
}

int bpe_encode(enum bpe_encoding encoding, const char *text, size_t len, uint32_t *ids, size_t max,
               size_t *tokens)
{
    struct bpe_counter c;

    bpe_counter_init(&c, encoding, text, len);
    c.ids = ids;
    c.max = max;
    return run(&c, tokens);
}
