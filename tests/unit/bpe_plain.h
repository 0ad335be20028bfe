/* Byte pair encoding the plain way, quadratic, over the whole piece: what ours must equal. */
#ifndef XROUTER_TESTS_UNIT_BPE_PLAIN_H
#define XROUTER_TESTS_UNIT_BPE_PLAIN_H

#include <stdlib.h>
#include <string.h>

#include "usage/bpe.h"

static inline uint32_t plain_rank(enum bpe_encoding encoding, const char *bytes, size_t len)
{
    uint32_t id;

    return bpe_token_lookup(encoding, bytes, len, &id) == 0 ? id : UINT32_MAX;
}

/* Appends the tokens of one piece to ids; returns how many, or 0 if out of memory. */
static inline size_t plain_encode_piece(enum bpe_encoding encoding, const char *piece, size_t len,
                                        uint32_t *ids)
{
    size_t *begins = malloc((len + 1) * sizeof(*begins));
    uint32_t *ranks = malloc((len + 1) * sizeof(*ranks));
    size_t count = len;

    if (begins == NULL || ranks == NULL) {
        free(begins);
        free(ranks);
        return 0;
    }
    for (size_t i = 0; i <= len; i++) {
        begins[i] = i;
        ranks[i] = i + 2 <= len ? plain_rank(encoding, piece + i, 2) : UINT32_MAX;
    }
    ids[0] = plain_rank(encoding, piece, len);
    if (ids[0] != UINT32_MAX)
        count = 1;
    while (count > 1) {
        size_t best = 0;

        for (size_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == UINT32_MAX)
            break;
        memmove(begins + best + 1, begins + best + 2, (count - best - 1) * sizeof(*begins));
        memmove(ranks + best + 1, ranks + best + 2, (count - best - 1) * sizeof(*ranks));
        count--;
        for (size_t i = best > 0 ? best - 1 : 0; i <= best; i++)
            ranks[i] = i + 2 <= count
                           ? plain_rank(encoding, piece + begins[i], begins[i + 2] - begins[i])
                           : UINT32_MAX;
    }
    for (size_t i = 0; count > 1 && i < count; i++)
        ids[i] = plain_rank(encoding, piece + begins[i], begins[i + 1] - begins[i]);
    free(begins);
    free(ranks);
    return count;
}

#endif
