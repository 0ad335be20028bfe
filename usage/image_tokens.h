/* image_tokens.h - what an image in a chat request costs, by OpenAI's tile formula.
 *
 * With detail "low" it is the base. Otherwise the image is made to fit 2048 x 2048, then its
 * shorter side 768 (never enlarged), and each tile of 512 x 512 that it touches costs on top of the
 * base. */
#ifndef XROUTER_USAGE_IMAGE_TOKENS_H
#define XROUTER_USAGE_IMAGE_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_TILES_MAX 8 /* 2048 x 768: what an image of unknown size is counted as */

struct image_rules {
    uint32_t base;
    uint32_t tile;
};

/* Finds width and height of a "data:image/...;base64," URL, in the header of a PNG, JPEG, GIF or
 * WebP. Looks at few bytes, however long it is. Returns 0 or -ENOENT: an address, another format,
 * or not what it claims to be. */
int image_size_lookup(const char *url, size_t len, uint32_t *width, uint32_t *height);

/* 1 to IMAGE_TILES_MAX; width and height > 0. */
uint32_t image_tiles(uint32_t width, uint32_t height);

/* detail is "low", "high", "auto" or NULL; all but "low" count as "high". *is_known says whether
 * the size was found; if not, the answer is the highest there is. */
size_t image_tokens(const struct image_rules *rules, const char *url, size_t len,
                    const char *detail, bool *is_known);

#endif
