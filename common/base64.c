#include "common/base64.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>

#define SLICE 3072 /* bytes; EVP's functions take an int */
#define SLICE_TEXT (SLICE / 3 * 4)

int base64_put(struct buf *out, const void *data, size_t len)
{
    const unsigned char *bytes = data;

    for (size_t at = 0; at < len && out->err == 0; at += SLICE) {
        size_t n = len - at < SLICE ? len - at : SLICE;
        char *room = buf_room(out, (n + 2) / 3 * 4 + 1); /* EVP ends its output with a NUL */

        if (room != NULL)
            buf_commit(out, (size_t)EVP_EncodeBlock((unsigned char *)room, bytes + at, (int)n));
    }
    return out->err;
}

static bool is_digit(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

/* EVP_DecodeBlock() counts padding as zeros, accepts white space at the ends and padding anywhere.
 */
static int check(const char *text, size_t len, size_t *padding)
{
    bool is_good = true;

    *padding = 0;
    if (len % 4 != 0)
        return -EINVAL;
    while (*padding < 2 && *padding < len && text[len - 1 - *padding] == '=')
        ++*padding;
    for (size_t i = 0; i < len - *padding; i++) /* without a branch: images have millions */
        is_good &= is_digit((unsigned char)text[i]);
    return is_good ? 0 : -EINVAL;
}

int base64_decode(struct buf *out, const char *text, size_t len)
{
    size_t padding;
    int rc = check(text, len, &padding);

    for (size_t at = 0; at < len && rc == 0; at += SLICE_TEXT) {
        size_t n = len - at < SLICE_TEXT ? len - at : SLICE_TEXT;
        char *room = buf_room(out, n / 4 * 3);
        int got;

        if (room == NULL)
            return out->err;
        got = EVP_DecodeBlock((unsigned char *)room, (const unsigned char *)text + at, (int)n);
        if (got < 0)
            return -EINVAL;
        buf_commit(out, (size_t)got - (at + n == len ? padding : 0));
    }
    return rc;
}
