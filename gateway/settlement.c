#include "gateway/settlement.h"

#include <errno.h>
#include <stdlib.h>

#include "common/container.h"

#define RETRY_MS 5

static bool is_settled(struct inflight_row *row)
{
    return atomic_load_explicit(&row->state, memory_order_relaxed) == INFLIGHT_SETTLED;
}

/* Without memory for the timer the next row that waits sets it. */
static void wait_on(struct settlements *s)
{
    if (s->count > 0 && !timer_is_set(&s->timer))
        (void)loop_timer_set(s->loop, &s->timer, RETRY_MS);
}

static void on_timer(struct timer *t)
{
    struct settlements *s = container_of(t, struct settlements, timer);
    size_t left = 0;

    for (size_t i = 0; i < s->count; i++) {
        struct inflight_row *row = s->waiting[i];

        if (inflight_settle(row, s->accounts) == 0)
            inflight_free(s->inflight, s->slot, row);
        else
            s->waiting[left++] = row;
    }
    s->count = left;
    wait_on(s);
}

int settlements_init(struct settlements *s, struct loop *loop, struct inflight_region *inflight,
                     struct accounts_region *accounts, struct outbox *outbox, size_t slot)
{
    *s = (struct settlements){.loop = loop,
                              .inflight = inflight,
                              .accounts = accounts,
                              .outbox = outbox,
                              .slot = slot,
                              .timer = {.on_timer = on_timer}};
    /* As many as there are rows: there is always a place. */
    s->waiting = calloc(inflight_row_count(inflight), sizeof(struct inflight_row *));
    return s->waiting != NULL ? 0 : -ENOMEM;
}

void settlements_clear(struct settlements *s)
{
    if (s->loop != NULL)
        loop_timer_cancel(s->loop, &s->timer);
    free(s->waiting);
    *s = (struct settlements){0};
}

void settlement_finish(struct settlements *s, struct inflight_row *row)
{
    inflight_finish(row);
    outbox_append(s->outbox, &row->event);
    /* If the account is being counted anew, settlement_release() tries again. */
    (void)inflight_settle(row, s->accounts);
}

void settlement_release(struct settlements *s, struct inflight_row *row)
{
    if (is_settled(row) || inflight_settle(row, s->accounts) == 0) {
        inflight_free(s->inflight, s->slot, row);
        return;
    }
    s->waiting[s->count++] = row;
    wait_on(s);
}
