/* container.h - from an embedded member back to the struct it lives in: how callbacks of timers and
 * event sources find their owner. */
#ifndef XROUTER_COMMON_CONTAINER_H
#define XROUTER_COMMON_CONTAINER_H

#include <stddef.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
