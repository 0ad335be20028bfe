/* ascii.h - looking at eight bytes at once, for texts that are copied on every request. */
#ifndef XROUTER_COMMON_ASCII_H
#define XROUTER_COMMON_ASCII_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ASCII_ONES UINT64_C(0x0101010101010101)
#define ASCII_HIGH (ASCII_ONES * 0x80)

static inline uint64_t ascii_word(const char *text)
{
    uint64_t word;

    memcpy(&word, text, sizeof(word));
    return word;
}

/* Whether all eight bytes are in 0x20..0x7f. A byte under 0x20 borrows into its high bit, a byte
 * over 0x7f has it already; a borrow into a neighbour can only report too much. */
static inline bool ascii_word_is_printable(uint64_t word)
{
    return ((word | (word - ASCII_ONES * 0x20)) & ASCII_HIGH) == 0;
}

/* Whether none of the eight bytes is c (too much may be reported behind one that is). */
static inline bool ascii_word_lacks(uint64_t word, char c)
{
    uint64_t mixed = word ^ (ASCII_ONES * (unsigned char)c);

    return ((mixed - ASCII_ONES) & ~mixed & ASCII_HIGH) == 0;
}

#endif
