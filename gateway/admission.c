#include "gateway/admission.h"

#include <errno.h>

#include "common/clock.h"
#include "common/container.h"

#define RETRY_MS 5

static int refuse_credits(const struct admission *a, enum account_word short_of, struct error *e)
{
    const struct reservation *reservation = &a->row->reservation;
    char amount[MONEY_TEXT_BYTES], resets_at[CLOCK_TEXT_BYTES];
    enum spend_period period;

    counter_inc(&a->worker->counters->credit_refusals_total);
    money_format(reservation->amount_nano, amount);
    if (short_of == ACCOUNT_BALANCE)
        return error_set(e, XR_ECREDITS, NULL,
                         "The key's credit balance does not cover this request, which may cost up "
                         "to %s; a smaller max_tokens costs less.",
                         amount);
    period = (enum spend_period)(short_of - ACCOUNT_DAY);
    clock_format(spend_period_start_ms(period, spend_period_number(period, reservation->at_ms) + 1),
                 resets_at);
    return error_set(e, XR_ECREDITS, NULL,
                     "What is left of the key's spending limit of this %s does not cover this "
                     "request, which may cost up to %s; it begins anew at %s.",
                     SPEND_PERIOD_NAMES[period], amount, resets_at);
}

static int try_once(struct admission *a, struct error *e)
{
    enum account_word short_of = ACCOUNT_BALANCE;
    int rc;

    /* The same moment for both: the row's and the event's periods must not differ. A wait may have
     * ended in a new day, and yesterday's words are gone. */
    a->row->event.created_at_ms = clock_now_at_ms();
    a->row->reservation.at_ms = a->row->event.created_at_ms;
    rc = inflight_admit(a->row, a->worker->setup->instance->accounts, &short_of);

    if (rc == XR_ECREDITS)
        return refuse_credits(a, short_of, e);
    a->is_admitted = rc == 0;
    return rc;
}

static int refuse_wait(struct error *e)
{
    return error_set(e, XR_EACCOUNTING, NULL, "The key's balance is being counted anew.");
}

static void on_timer(struct timer *t)
{
    struct admission *a = container_of(t, struct admission, timer);
    struct loop *loop = a->worker->loop;
    struct error e = {0};
    int rc = try_once(a, &e);

    if (rc == -EAGAIN && loop_now_ms(loop) < a->deadline_ms &&
        loop_timer_set(loop, &a->timer, RETRY_MS) == 0)
        return;
    if (rc == -EAGAIN)
        rc = refuse_wait(&e);
    a->on_decided(a, rc, &e);
}

int admission_take(struct admission *a, struct worker *w, struct error *e)
{
    a->worker = w;
    a->timer.on_timer = on_timer;
    if (w->draining)
        return error_set(e, XR_EDRAINING, NULL, "The gateway is shutting down.");
    if (!outbox_reserve(w->outbox))
        return error_set(e, XR_EACCOUNTING, NULL, "Usage cannot be recorded right now.");
    a->row = inflight_take(w->setup->instance->inflight, w->setup->slot);
    if (a->row == NULL) {
        outbox_release(w->outbox);
        return error_set(e, XR_EOVERLOADED, NULL, "This gateway serves %u requests at once.",
                         w->config->in_flight);
    }
    a->row->started_ms = loop_now_ms(w->loop);
    return 0;
}

int admission_reserve(struct admission *a, struct error *e)
{
    struct worker *w = a->worker;
    int rc = try_once(a, e);

    if (rc != -EAGAIN)
        return rc;
    a->deadline_ms = loop_now_ms(w->loop) + w->config->recount_wait_ms;
    return loop_timer_set(w->loop, &a->timer, RETRY_MS) == 0 ? 1 : refuse_wait(e);
}

bool admission_is_waiting(const struct admission *a)
{
    return a->row != NULL && !a->is_admitted;
}

void admission_cancel(struct admission *a)
{
    if (!admission_is_waiting(a))
        return;
    loop_timer_cancel(a->worker->loop, &a->timer);
    outbox_release(a->worker->outbox);
    inflight_free(a->worker->setup->instance->inflight, a->worker->setup->slot, a->row);
    a->row = NULL;
}
