#include "tests/sim/sim.h"

#include "common/clock.h"

#define SEEDED_CREATED_AT_S 1790000000

int64_t sim_created_at_s(const struct sim *sim)
{
    return sim->config.seed != 0 ? SEEDED_CREATED_AT_S : clock_now_at_ms() / 1000;
}

struct buf *sim_scratch(struct buf *b)
{
    if (b->cap > SIM_TEXT_KEEP_BYTES)
        buf_clear(b);
    buf_reset(b);
    return b;
}
