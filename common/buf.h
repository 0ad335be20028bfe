/* buf.h - bytes being built or waiting to be read: one growing array with a hard limit.
 *
 * A buf is embedded in a struct and starts with buf_init(). Appending never needs a check of its
 * own: the first failure is kept in `err` and every later append does nothing, so a writer appends
 * ten times and looks once. Reading from the front is cheap: the live bytes are data[0..len). */
#ifndef XROUTER_COMMON_BUF_H
#define XROUTER_COMMON_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf {
    char *data; /* first live byte; moves when bytes are taken, never NUL-terminated by itself */
    size_t len; /* live bytes */
    size_t max; /* len never grows past this */
    int err;    /* 0, -ENOMEM or -EMSGSIZE (over max): the first failure since buf_init/buf_reset */
    char *base; /* private: what malloc gave */
    size_t cap; /* private */
    bool secret; /* private: whatever memory it leaves is wiped */
    bool fixed;  /* private: base is the caller's */
};

/* An empty buf that may hold up to max bytes. Allocates nothing yet. */
void buf_init(struct buf *b, size_t max);
/* The same for secrets: memory is wiped whenever it is left, by growing and by buf_clear() too. */
void buf_init_secret(struct buf *b, size_t max);
/* An empty buf on size (> 0) bytes of the caller's memory, which outlives it: holds up to size - 1
 * bytes and never allocates. buf_clear() leaves it without room. */
void buf_init_fixed(struct buf *b, char *memory, size_t size);
/* Frees the memory; the buf is empty and usable again with the same max. */
void buf_clear(struct buf *b);
/* Wipes the memory before freeing it: for a buf of buf_init() that turned out to hold a secret. */
void buf_wipe(struct buf *b);
/* Empties it and forgets err, but keeps the memory. */
void buf_reset(struct buf *b);

/* Appenders. Each returns b->err. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_str(struct buf *b, const char *text);
int buf_byte(struct buf *b, char c);
int buf_u64(struct buf *b, uint64_t value);
int buf_i64(struct buf *b, int64_t value);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *format, va_list args);

/* Room for n more bytes at the end, NULL on failure (err says why). Not part of the buf until
 * buf_commit(), which may commit fewer than n. Valid until the next call on this buf. */
char *buf_room(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

/* Copies up to max bytes from the front to dst and drops them; returns how many. */
size_t buf_take(struct buf *b, char *dst, size_t max);
/* Drops n bytes (n <= len) from the front. */
void buf_drop(struct buf *b, size_t n);
/* The content as a C string (a NUL is put behind the live bytes and not counted), NULL on failure,
 * an earlier append's too: half a text is never taken for a whole one.
 * Owned by the buf, valid until the next call on it. */
const char *buf_text(struct buf *b);

#endif
