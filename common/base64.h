/* base64.h - bytes as text inside JSON: the alphabet of RFC 4648 section 4, padded. */
#ifndef XROUTER_COMMON_BASE64_H
#define XROUTER_COMMON_BASE64_H

#include <stddef.h>

#include "common/buf.h"

/* Appends the text; needs no escaping in JSON. data may be NULL when len is 0. Returns out->err. */
int base64_put(struct buf *out, const void *data, size_t len);
/* Appends the bytes. 0, -EINVAL (not base64; part of the bytes may have been appended), or
 * out->err.
 */
int base64_decode(struct buf *out, const char *text, size_t len);

#endif
