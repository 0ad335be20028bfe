/* vocabulary.h - how a vocabulary lies in the binary: a perfect hash table from the bytes of a
 * token to its rank.
 *
 * usage/vocabularies/expand.c makes the table when xrouter is built; at run time it is read-only
 * data of the executable, so it takes no time to load and all processes share its pages. Only
 * usage/bpe.c and expand.c know this layout. */
#ifndef XROUTER_USAGE_VOCABULARY_H
#define XROUTER_USAGE_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VOCABULARY_ALIGNMENT 64
#define VOCABULARY_INLINE_MAX 12 /* longer tokens lie behind the table */
#define VOCABULARY_TOKEN_MAX 255
#define VOCABULARY_PADDING 7
#define VOCABULARY_PAIRS 65536
#define VOCABULARY_NONE UINT32_MAX /* the rank of what is no token */

/* The head of the table. The parts are where their offsets (from the head) say. */
struct vocabulary {
    uint32_t ranks; /* tokens, numbered from 0 on */
    uint32_t slot_count;
    uint32_t bucket_count;
    uint32_t slots_at; /* struct vocabulary_slot[slot_count] */
    uint32_t seeds_at; /* uint16_t[bucket_count] */
    uint32_t pairs_at; /* uint32_t[65536]: the ranks of the tokens of two bytes, by these bytes */
    uint32_t long_at;  /* the bytes of the long tokens */
    uint32_t size;     /* of everything */
    uint32_t longest;  /* bytes of the longest token */
};

struct vocabulary_slot {
    uint64_t head; /* the first 8 bytes of the token; its hash if it is a long one */
    uint32_t rest; /* the bytes behind them; a long one's offset from long_at */
    uint32_t tag;  /* rank * 256 + length, 0 = nobody's slot */
};

static inline uint16_t vocabulary_load2(const char *bytes)
{
    uint16_t word;

    memcpy(&word, bytes, sizeof(word));
    return word;
}

static inline uint32_t vocabulary_load4(const char *bytes)
{
    uint32_t word;

    memcpy(&word, bytes, sizeof(word));
    return word;
}

static inline uint64_t vocabulary_load8(const char *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* The len (1 to 8) bytes as a number, without looking at a byte more. */
static inline uint64_t vocabulary_load(const char *bytes, size_t len)
{
    uint64_t word;

    if (len == 8)
        return vocabulary_load8(bytes);
    if (len >= 4) /* two halves that may overlap: the same bytes meet there */
        return vocabulary_load4(bytes) | (uint64_t)vocabulary_load4(bytes + len - 4)
                                             << (8 * (len - 4));
    word = (unsigned char)bytes[0];
    if (len > 1)
        word |= (uint64_t)(unsigned char)bytes[1] << 8;
    if (len > 2)
        word |= (uint64_t)(unsigned char)bytes[2] << 16;
    return word;
}

static inline uint64_t vocabulary_mix(uint64_t hash)
{
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

/* The same where 8 bytes can be read: without a branch. */
static inline uint64_t vocabulary_load_padded(const char *bytes, size_t len)
{
    return vocabulary_load8(bytes) & UINT64_MAX >> (64 - 8 * len);
}

/* len > 0. is_padded: VOCABULARY_PADDING bytes behind them can be read. */
static inline uint64_t vocabulary_hash(const char *bytes, size_t len, bool is_padded)
{
    uint64_t hash = len * UINT64_C(0xff51afd7ed558ccd);

    for (; len > 8; bytes += 8, len -= 8)
        hash = vocabulary_mix(hash ^ vocabulary_load8(bytes));
    return vocabulary_mix(
        hash ^ (is_padded ? vocabulary_load_padded(bytes, len) : vocabulary_load(bytes, len)));
}

/* The high half of number scaled from 2^32 down to count. */
static inline uint32_t vocabulary_scale(uint64_t number, uint32_t count)
{
    return (uint32_t)((number >> 32) * count >> 32);
}

/* A hash falls into a bucket; the bucket's seed sends each of its hashes to a slot of its own. */
static inline uint32_t vocabulary_bucket_of(uint64_t hash, uint32_t bucket_count)
{
    return vocabulary_scale(hash, bucket_count);
}

static inline uint32_t vocabulary_slot_of(uint64_t hash, uint16_t seed, uint32_t slot_count)
{
    uint64_t number = hash ^ (seed + UINT64_C(1)) * UINT64_C(0xc4ceb9fe1a85ec53);

    return vocabulary_scale(vocabulary_mix(number) * UINT64_C(0xd6e8feb86659fd93), slot_count);
}

#endif
