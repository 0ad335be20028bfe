/* utf8.h - where one character of UTF-8 ends. */
#ifndef XROUTER_COMMON_UTF8_H
#define XROUTER_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>

static inline bool utf8_is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* How many of the len (> 0) bytes at text are its first character: 1 to 4, or 0 if they are no
 * valid UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
static inline size_t utf8_width(const char *text, size_t len)
{
    unsigned char lead = (unsigned char)text[0];
    unsigned char least = 0x80, most = 0xbf; /* what the second byte may be */
    size_t width;

    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    width = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead == 0xe0)
        least = 0xa0;
    else if (lead == 0xed)
        most = 0x9f;
    else if (lead == 0xf0)
        least = 0x90;
    else if (lead == 0xf4)
        most = 0x8f;
    if (len < width || (unsigned char)text[1] < least || (unsigned char)text[1] > most)
        return 0;
    for (size_t i = 2; i < width; i++)
        if (!utf8_is_continuation(text[i]))
            return 0;
    return width;
}

/* The largest length up to len that does not end in the middle of a character: for text that was
 * cut to fit. Text that is no UTF-8 to begin with keeps its len. */
static inline size_t utf8_cut(const char *text, size_t len)
{
    size_t start = len;
    unsigned char lead;
    size_t width;

    while (start > 0 && len - start < 3 && utf8_is_continuation(text[start - 1]))
        start--;
    if (start == 0)
        return len;
    lead = (unsigned char)text[--start];
    width = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return len - start < width ? start : len;
}

#endif
