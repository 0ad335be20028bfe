/* text.h - C strings in fields of fixed size. */
#ifndef XROUTER_COMMON_TEXT_H
#define XROUTER_COMMON_TEXT_H

#include <stddef.h>
#include <string.h>

/* Copies text with its NUL; what does not fit into size bytes is cut. */
static inline void text_copy(char *out, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);

    memcpy(out, text, len);
    out[len] = '\0';
}

#endif
