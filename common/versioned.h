/* versioned.h - a value in shared memory that one process stores and any process reads, with no
 * lock: two copies and a version whose lowest bit says which copy counts.
 *
 * A storer that is killed anywhere leaves the old value whole. A reader never waits for a storer
 * that stands still; it only reads again when the value was replaced under its hands. The words
 * are atomics, so that a copy made while they change is merely old, not undefined. */
#ifndef XROUTER_COMMON_VERSIONED_H
#define XROUTER_COMMON_VERSIONED_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Words that hold n bytes. */
#define VERSIONED_WORDS(n) (((n) + 7) / 8)

/* Relaxed word-by-word copies; bytes is a multiple of 8 and the ordinary side may be unaligned. */
void words_store(_Atomic uint64_t *to, const void *from, size_t bytes);
void words_load(void *to, const _Atomic uint64_t *from, size_t bytes);

/* copies are two arrays of stride words each; bytes (a multiple of 8) is at most 8 * stride. All
 * zero is a valid start: version 0, a value of zeros.
 * One storer at a time: who that is, the caller arranges. */
void versioned_store(_Atomic uint64_t *version, _Atomic uint64_t *copies, size_t stride,
                     const void *value, size_t bytes);
/* The first bytes of the value that counts. */
void versioned_load(const _Atomic uint64_t *version, const _Atomic uint64_t *copies, size_t stride,
                    void *value, size_t bytes);
/* Storer only: zeroes the copy that no longer counts (it held a secret). */
void versioned_wipe_old(_Atomic uint64_t *version, _Atomic uint64_t *copies, size_t stride);

#endif
