#include "usage/chars3.h"

#include <string.h>

#include "common/utf8.h"

#define ONES UINT64_C(0x0101010101010101)

/* Eight bytes a step: in each, bit 7 without bit 6 is what a continuation has. The product's
 * highest byte is the sum of all bytes. */
size_t chars3_characters(const char *text, size_t len)
{
    size_t at = 0;
    size_t continuations = 0;

    for (; len - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, text + at, sizeof(word));
        continuations += ((word >> 7 & ~(word >> 6) & ONES) * ONES) >> 56;
    }
    for (; at < len; at++)
        continuations += utf8_is_continuation(text[at]);
    return len - continuations;
}
