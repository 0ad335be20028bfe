#include "common/versioned.h"

#include <string.h>

void words_store(_Atomic uint64_t *to, const void *from, size_t bytes)
{
    const char *p = from;

    for (size_t i = 0; i < bytes / 8; i++) {
        uint64_t word;

        memcpy(&word, p + 8 * i, sizeof(word));
        atomic_store_explicit(&to[i], word, memory_order_relaxed);
    }
}

void words_load(void *to, const _Atomic uint64_t *from, size_t bytes)
{
    char *p = to;

    for (size_t i = 0; i < bytes / 8; i++) {
        uint64_t word = atomic_load_explicit(&from[i], memory_order_relaxed);

        memcpy(p + 8 * i, &word, sizeof(word));
    }
}

void versioned_store(_Atomic uint64_t *version, _Atomic uint64_t *copies, size_t stride,
                     const void *value, size_t bytes)
{
    uint64_t next = atomic_load_explicit(version, memory_order_relaxed) + 1;

    /* The last version stands before the copy it retired is written over: whoever reads a new word
     * there also reads that version and knows that its copy is stale. */
    atomic_thread_fence(memory_order_release);
    words_store(copies + (next & 1) * stride, value, bytes);
    atomic_store_explicit(version, next, memory_order_release);
}

void versioned_load(const _Atomic uint64_t *version, const _Atomic uint64_t *copies, size_t stride,
                    void *value, size_t bytes)
{
    uint64_t before = atomic_load_explicit(version, memory_order_acquire);

    for (;;) {
        uint64_t after;

        words_load(value, copies + (before & 1) * stride, bytes);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(version, memory_order_relaxed);
        if (after == before)
            return;
        before = atomic_load_explicit(version, memory_order_acquire);
    }
}

void versioned_wipe_old(_Atomic uint64_t *version, _Atomic uint64_t *copies, size_t stride)
{
    uint64_t current = atomic_load_explicit(version, memory_order_relaxed);
    _Atomic uint64_t *old = copies + ((current + 1) & 1) * stride;

    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < stride; i++)
        atomic_store_explicit(&old[i], 0, memory_order_relaxed);
}
