#include "tests/sim/ids.h"

#include <string.h>

static const char BASE64URL[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char HEX[] = "0123456789abcdef";

void random_init(struct random_source *random, uint64_t seed)
{
    random->state = seed;
}

/* splitmix64: tiny, fast, and every seed is a good one. */
uint64_t random_next(struct random_source *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

void random_text(struct random_source *random, char *out, size_t len)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < len; i++) {
        if (i % 10 == 0)
            bits = random_next(random);
        out[i] = BASE64URL[bits & 63];
        bits >>= 6;
    }
}

void random_alnum(struct random_source *random, char *out, size_t len)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < len; i++) {
        if (i % 10 == 0)
            bits = random_next(random);
        out[i] = BASE64URL[bits % 62]; /* without its last two, '-' and '_' */
        bits /= 62;
    }
}

void random_uuid(struct random_source *random, char out[UUID_BYTES])
{
    uint64_t half[2] = {random_next(random), random_next(random)};
    size_t at = 0;

    half[0] = (half[0] & ~0xf000ULL) | 0x4000ULL;
    half[1] = (half[1] & ~(3ULL << 62)) | (1ULL << 63);
    for (unsigned byte = 0; byte < 16; byte++) {
        unsigned value = (unsigned)(half[byte / 8] >> (56 - 8 * (byte % 8))) & 0xff;

        if (byte == 4 || byte == 6 || byte == 8 || byte == 10)
            out[at++] = '-';
        out[at++] = HEX[value >> 4];
        out[at++] = HEX[value & 15];
    }
    out[at] = '\0';
}

uint64_t hash_bytes(uint64_t seed, const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t h = seed ^ (len * 0x9e3779b97f4a7c15U);

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        h = (h ^ word) * 0xbf58476d1ce4e5b9U;
        h ^= h >> 29;
    }
    for (; len > 0; p++, len--)
        h = (h ^ *p) * 0x100000001b3U;
    return h ^ (h >> 32);
}
