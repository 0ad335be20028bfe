/* chunked.h - the chunked transfer coding (RFC 9112 7.1), read strictly, cut anywhere.
 *
 * Extensions are skipped, trailers checked and dropped. */
#ifndef XROUTER_PROVIDERS_CHUNKED_H
#define XROUTER_PROVIDERS_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

#define CHUNKED_TRAILERS_MAX (64 * 1024) /* bytes of all trailers */

enum chunked_step {
    CHUNKED_MORE, /* everything given was used; give more */
    CHUNKED_BODY, /* *data, *data_len is the next piece of the body, inside the input */
    CHUNKED_END   /* the body is complete; bytes behind it are not used */
};

struct chunked { /* private */
    int state;
    uint64_t left;   /* of the chunk */
    size_t line_len; /* of the chunk-size line, or of all trailers */
};

void chunked_init(struct chunked *c);
/* Returns enum chunked_step, -EBADMSG or -EMSGSIZE (trailers too large), with *why a literal. After
 * a failure it must not be called again. */
int chunked_feed(struct chunked *c, const char *in, size_t len, size_t *used, const char **data,
                 size_t *data_len, const char **why);

#endif
