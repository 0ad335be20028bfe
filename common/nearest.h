/* nearest.h - "did you mean": of the names that exist, the one most like the one that was asked. */
#ifndef XROUTER_COMMON_NEAREST_H
#define XROUTER_COMMON_NEAREST_H

#include <stddef.h>

#define NEAREST_NAME_MAX 64 /* longer names are never near anything */

struct nearest {
    const char *asked;               /* borrowed */
    char name[NEAREST_NAME_MAX + 1]; /* the best so far, "" = none is near enough */
    size_t distance;
};

void nearest_init(struct nearest *n, const char *asked);
/* Considers one name of len bytes (no NUL needed). */
void nearest_offer(struct nearest *n, const char *name, size_t len);

#endif
