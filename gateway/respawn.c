#include "gateway/respawn.h"

#define SERIES_MS 1000

static bool is_series(const struct respawn *r, int64_t started_ms, int64_t now_ms, bool was_ready)
{
    if (r->death_count == 2 && now_ms - r->deaths_ms[0] <= SERIES_MS)
        return true;
    /* The waits themselves pull the deaths apart: a series goes on until a child holds. */
    return r->delay_ms > 0 && (!was_ready || now_ms - started_ms < SERIES_MS);
}

int64_t respawn_delay_ms(struct respawn *r, int64_t started_ms, int64_t now_ms, bool was_ready)
{
    int64_t max_ms = was_ready ? RESPAWN_DELAY_MAX_MS : RESPAWN_DELAY_UNREADY_MS;
    bool series = is_series(r, started_ms, now_ms, was_ready);

    if (r->death_count == 2)
        r->deaths_ms[0] = r->deaths_ms[1];
    else
        r->death_count++;
    r->deaths_ms[r->death_count - 1] = now_ms;
    if (!series)
        r->delay_ms = 0;
    else if (r->delay_ms == 0)
        r->delay_ms = RESPAWN_DELAY_FIRST_MS;
    else
        r->delay_ms = r->delay_ms * 2 < max_ms ? r->delay_ms * 2 : max_ms;
    return r->delay_ms;
}
