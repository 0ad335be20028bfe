/* http1.h - strict HTTP/1.1 response framing (RFC 9112), bytes in, slices out.
 *
 * Accepts what a correct server sends and refuses everything ambiguous: two differing lengths,
 * length with chunked, any transfer coding but exactly chunked, bare CR, bare LF, NUL, folded
 * headers, white space before a colon, bad chunk sizes, more header bytes than the limit. 1xx heads
 * are skipped (at most HTTP1_INTERIM_MAX). No allocation but the head's own buffer. Responses to
 * HEAD and CONNECT are not for this parser. */
#ifndef XROUTER_PROVIDERS_HTTP1_H
#define XROUTER_PROVIDERS_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define HTTP1_HEAD_MAX (64 * 1024) /* bytes of one head */
#define HTTP1_HEADERS_MAX 128
#define HTTP1_INTERIM_MAX 16

struct http1_header {
    const char *name; /* not NUL-terminated; inside the head's buffer */
    size_t name_len;
    const char *value; /* trimmed */
    size_t value_len;
};

struct http1_head {
    unsigned status; /* 200..599 */
    bool keep_alive; /* the connection may be used again once the body has ended */
    struct http1_header headers[HTTP1_HEADERS_MAX];
    size_t header_count;
};

enum http1_step {
    HTTP1_MORE, /* everything given was used; give more */
    HTTP1_HEAD, /* the final head is complete: http1_get_head() */
    HTTP1_BODY, /* *data, *data_len is the next piece of the body, inside the input */
    HTTP1_END   /* the response is complete; bytes behind it are not used */
};

struct http1; /* opaque: one response */

struct http1 *http1_new(void);    /* NULL when out of memory */
void http1_free(struct http1 *h); /* NULL is fine */
/* Ready for the next response; keeps the head's buffer. */
void http1_reset(struct http1 *h);

/* Looks at up to len bytes, uses *used of them, and says what they amounted to (enum http1_step).
 * Call again with the rest until it says HTTP1_MORE or HTTP1_END: after HTTP1_HEAD and HTTP1_BODY
 * also when nothing is left (len 0), because that may be the end. The steps do not depend on how
 * the bytes were cut. Returns -EBADMSG (*why: a literal), -EMSGSIZE (too many header bytes),
 * -ENOMEM; a failed parser stays failed. */
int http1_feed(struct http1 *h, const char *in, size_t len, size_t *used, const char **data,
               size_t *data_len, const char **why);
/* The connection ended: HTTP1_END if that completes the response (close-delimited body), else
 * -EBADMSG. */
int http1_eof(struct http1 *h, const char **why);
/* After HTTP1_HEAD, until http1_reset() or http1_free(). */
const struct http1_head *http1_get_head(const struct http1 *h);
/* Whether any byte of a response has been seen. */
bool http1_has_begun(const struct http1 *h);

/* The header's value with *len, by case-insensitive name; NULL if absent. The first one if
 * repeated. */
const char *http1_header(const struct http1_head *head, const char *name, size_t *len);

/* Request writing: every name and value is checked, because libcurl and a socket both send CR and
 * LF as they are. A value may hold printable ASCII, space and tab; anything else is -EINVAL (kept
 * in out->err). The target is the path and query. The caller adds the empty line. */
int http1_put_request_line(struct buf *out, const char *method, const char *target);
int http1_put_header(struct buf *out, const char *name, const char *value);

#endif
