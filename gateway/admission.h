/* admission.h - whether a request may begin: space for its event, a row, and credits for what it
 * may cost at most, all or nothing.
 *
 * While the key's account is being counted anew (usage/recount.h) a request waits, by a timer, for
 * at most timeouts.recount_wait_ms. */
#ifndef XROUTER_GATEWAY_ADMISSION_H
#define XROUTER_GATEWAY_ADMISSION_H

#include "common/error.h"
#include "gateway/worker.h"

struct admission { /* embedded */
    struct worker *worker;
    struct inflight_row *row; /* NULL: nothing is held */
    bool is_admitted;         /* the row is RUNNING or further: an event is owed */
    struct timer timer;
    int64_t deadline_ms;
    /* The wait is over: 0 = admitted, or XR_E... with e. */
    void (*on_decided)(struct admission *a, int rc, struct error *e);
};

/* Takes a row and space for its event; the caller then fills the row's event and reservation, but
 * for their times.
 * 0, or XR_E... with e. */
int admission_take(struct admission *a, struct worker *w, struct error *e);
/* Reserves what the row says. 0 = admitted; 1 = waits, on_decided() will be called; XR_ECREDITS
 * with e. After a failure admission_cancel() is still due. */
int admission_reserve(struct admission *a, struct error *e);
bool admission_is_waiting(const struct admission *a);
/* Gives back what was taken for a request that is not admitted, and ends its wait. */
void admission_cancel(struct admission *a);

#endif
