#include "usage/image_tokens.h"

#include <errno.h>
#include <string.h>

#define FIT_SIDE 2048
#define SHORT_SIDE 768
#define TILE_SIDE 512
#define JPEG_SEGMENTS_MAX 256 /* the size comes behind thumbnails and colour profiles */

/* The bytes behind base64 text, each decoded when it is asked for. */
struct bytes {
    const char *text;
    size_t len; /* of the text */
};

/* The value of a digit, -1 if it is none. */
static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* -1 behind the end or in what is not base64. */
static int byte_at(const struct bytes *b, size_t at)
{
    size_t place = at / 3 * 4 + at % 3;
    int high, low;

    if (at > SIZE_MAX / 2 || place + 1 >= b->len)
        return -1;
    high = digit(b->text[place]);
    low = digit(b->text[place + 1]);
    if (high < 0 || low < 0)
        return -1;
    switch (at % 3) {
    case 0:
        return high << 2 | low >> 4;
    case 1:
        return (high & 15) << 4 | low >> 2;
    default:
        return (high & 3) << 6 | low;
    }
}

/* count (up to 4) bytes as a number; false if they are not all there. */
static bool number_at(const struct bytes *b, size_t at, size_t count, bool is_big_endian,
                      uint32_t *number)
{
    uint32_t n = 0;

    for (size_t i = 0; i < count; i++) {
        int byte = byte_at(b, is_big_endian ? at + i : at + count - 1 - i);

        if (byte < 0)
            return false;
        n = n << 8 | (uint32_t)byte;
    }
    *number = n;
    return true;
}

static bool is_at(const struct bytes *b, size_t at, const char *expected, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (byte_at(b, at + i) != (unsigned char)expected[i])
            return false;
    return true;
}

static bool size_of_png(const struct bytes *b, uint32_t *width, uint32_t *height)
{
    return is_at(b, 0, "\x89PNG\r\n\x1a\n", 8) && is_at(b, 12, "IHDR", 4) &&
           number_at(b, 16, 4, true, width) && number_at(b, 20, 4, true, height);
}

static bool size_of_gif(const struct bytes *b, uint32_t *width, uint32_t *height)
{
    return is_at(b, 0, "GIF8", 4) && number_at(b, 6, 2, false, width) &&
           number_at(b, 8, 2, false, height);
}

static bool size_of_webp(const struct bytes *b, uint32_t *width, uint32_t *height)
{
    uint32_t bits;

    if (!is_at(b, 0, "RIFF", 4) || !is_at(b, 8, "WEBPVP8", 7))
        return false;
    switch (byte_at(b, 15)) {
    case ' ':
        if (!is_at(b, 23, "\x9d\x01\x2a", 3) || !number_at(b, 26, 2, false, width) ||
            !number_at(b, 28, 2, false, height))
            return false;
        *width &= 0x3fff; /* above: how a player should enlarge it */
        *height &= 0x3fff;
        return true;
    case 'L':
        if (byte_at(b, 20) != 0x2f || !number_at(b, 21, 4, false, &bits))
            return false;
        *width = (bits & 0x3fff) + 1;
        *height = (bits >> 14 & 0x3fff) + 1;
        return true;
    case 'X':
        if (!number_at(b, 24, 3, false, width) || !number_at(b, 27, 3, false, height))
            return false;
        ++*width;
        ++*height;
        return true;
    default:
        return false;
    }
}

/* The start of a frame is the segment that has the size; C4, C8 and CC are others among them. */
static bool is_frame(uint32_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

static bool size_of_jpeg(const struct bytes *b, uint32_t *width, uint32_t *height)
{
    size_t at = 2;

    if (!is_at(b, 0, "\xff\xd8\xff", 3))
        return false;
    for (int i = 0; i < JPEG_SEGMENTS_MAX; i++) {
        uint32_t head, len;

        if (!number_at(b, at, 2, true, &head) || head >> 8 != 0xff)
            return false;
        if (head == 0xffff) { /* fill */
            at++;
            continue;
        }
        if (is_frame(head & 0xff))
            return number_at(b, at + 5, 2, true, height) && number_at(b, at + 7, 2, true, width);
        if (!number_at(b, at + 2, 2, true, &len) || len < 2)
            return false;
        at += 2 + len;
    }
    return false;
}

int image_size_lookup(const char *url, size_t len, uint32_t *width, uint32_t *height)
{
    static const char scheme[] = "data:image/";
    static const char marker[] = ";base64,";
    const size_t head_max = 64; /* "data:image/svg+xml;charset=..." and the like */
    const char *data;
    struct bytes b;

    if (len < sizeof(scheme) - 1 || memcmp(url, scheme, sizeof(scheme) - 1) != 0)
        return -ENOENT;
    data = memmem(url, len < head_max ? len : head_max, marker, sizeof(marker) - 1);
    if (data == NULL)
        return -ENOENT;
    b.text = data + sizeof(marker) - 1;
    b.len = len - (size_t)(b.text - url);
    if (!size_of_png(&b, width, height) && !size_of_jpeg(&b, width, height) &&
        !size_of_gif(&b, width, height) && !size_of_webp(&b, width, height))
        return -ENOENT;
    return *width > 0 && *height > 0 ? 0 : -ENOENT;
}

static uint32_t tiles_of_side(uint64_t side, uint64_t scale, uint64_t divisor)
{
    return (uint32_t)((side * scale + divisor * TILE_SIDE - 1) / (divisor * TILE_SIDE));
}

uint32_t image_tiles(uint32_t width, uint32_t height)
{
    uint64_t longer = width > height ? width : height;
    uint64_t shorter = width > height ? height : width;
    uint64_t scale = 1, divisor = 1;

    /* Of both limits the one that makes it smaller, as a fraction: no rounding in between. */
    if (longer * SHORT_SIDE > shorter * FIT_SIDE) {
        if (longer > FIT_SIDE) {
            scale = FIT_SIDE;
            divisor = longer;
        }
    } else if (shorter > SHORT_SIDE) {
        scale = SHORT_SIDE;
        divisor = shorter;
    }
    return tiles_of_side(width, scale, divisor) * tiles_of_side(height, scale, divisor);
}

size_t image_tokens(const struct image_rules *rules, const char *url, size_t len,
                    const char *detail, bool *is_known)
{
    uint32_t tiles = IMAGE_TILES_MAX;
    uint32_t width, height;

    *is_known = true;
    if (detail != NULL && strcmp(detail, "low") == 0)
        return rules->base;
    if (image_size_lookup(url, len, &width, &height) == 0)
        tiles = image_tiles(width, height);
    else
        *is_known = false;
    return rules->base + (size_t)rules->tile * tiles;
}
