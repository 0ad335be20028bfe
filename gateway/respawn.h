/* respawn.h - how long a dead child stays dead.
 *
 * One that dies now and then is replaced at once. From the third death within a second the wait is
 * 100 ms and doubles, to 1 s, or to 5 s for a child that never got ready; a child that lived for a
 * second ends the series. */
#ifndef XROUTER_GATEWAY_RESPAWN_H
#define XROUTER_GATEWAY_RESPAWN_H

#include <stdbool.h>
#include <stdint.h>

#define RESPAWN_DELAY_FIRST_MS 100
#define RESPAWN_DELAY_MAX_MS 1000
#define RESPAWN_DELAY_UNREADY_MS 5000

/* All zero at first. */
struct respawn {
    int64_t deaths_ms[2]; /* the last two, the older one first */
    unsigned death_count; /* of those in deaths_ms */
    int64_t delay_ms;     /* the wait before the current life, 0 = none */
};

/* The child that started at started_ms has died at now_ms: how long to wait before the next start.
 */
int64_t respawn_delay_ms(struct respawn *r, int64_t started_ms, int64_t now_ms, bool was_ready);

#endif
