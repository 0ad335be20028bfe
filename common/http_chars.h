/* http_chars.h - which bytes HTTP allows where (RFC 9110 5.5, 5.6.2). */
#ifndef XROUTER_COMMON_HTTP_CHARS_H
#define XROUTER_COMMON_HTTP_CHARS_H

#include <stdbool.h>
#include <stdint.h>

/* What names and methods are made of: letters, digits and !#$%&'*+-.^_`|~ */
static inline bool is_token_char(char c)
{
    static const uint64_t bits[4] = {UINT64_C(0x03ff6cfa00000000), UINT64_C(0x57ffffffc7fffffe)};
    unsigned char u = (unsigned char)c;

    return (bits[u >> 6] >> (u & 63) & 1) != 0;
}

/* What a received value may hold: no control byte but the tab; bytes over 0x7f are let through. */
static inline bool is_value_char(char c)
{
    unsigned char u = (unsigned char)c;

    return u == '\t' || (u >= 0x20 && u != 0x7f);
}

#endif
