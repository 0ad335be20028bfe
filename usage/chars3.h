/* chars3.h - the tokenizer that needs no vocabulary: three code points are a token. */
#ifndef XROUTER_USAGE_CHARS3_H
#define XROUTER_USAGE_CHARS3_H

#include <stddef.h>
#include <stdint.h>

/* The code points of UTF-8 text. All bytes but those that go on with a character are counted, so
 * pieces may be cut anywhere, and text that is broken counts as something, too. */
size_t chars3_characters(const char *text, size_t len);

/* A third of the code points, rounded up. */
static inline int64_t chars3_tokens(int64_t characters)
{
    return characters / 3 + (characters % 3 != 0);
}

#endif
