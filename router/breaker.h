/* breaker.h - whether a target is worth a try: a circuit breaker in shared memory, one for each
 * provider's model, the same for all workers.
 *
 *   closed     tries pass. It opens after breaker.failures failures in a row, or when at least
 *              breaker.requests tries of the last breaker.window_ms have ended and
 *              breaker.error_percent of them failed
 *   open       no try passes for breaker.open_ms
 *   half-open  then one try at a time does, the probe: its success closes, its failure opens again
 *
 * All words change by compare-and-swap. A worker that dies with the probe in its hands does not
 * hold it for ever: after breaker.open_ms another one may take it. */
#ifndef XROUTER_ROUTER_BREAKER_H
#define XROUTER_ROUTER_BREAKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
extern const char *const BREAKER_STATE_NAMES[]; /* "closed", "open", "half_open" */

struct breaker {             /* in shared memory; zero = closed; private */
    _Atomic uint64_t state;  /* enum breaker_state, and since when (monotonic ms) */
    _Atomic uint64_t streak; /* failures in a row */
    /* Two halves of the window: the one that fills, and the one before. */
    _Atomic uint64_t window[2]; /* start, tries and failures packed */
    _Atomic uint64_t opened_total;
};

/* May a try begin? True also makes it the probe of a half-open one. now_ms: monotonic, the same
 * clock in all processes. */
bool breaker_allows(struct breaker *b, const struct config *config, int64_t now_ms);
/* A try that breaker_allows() let through is over. is_failure: the provider's fault (connect
 * errors, timeouts, 5xx, broken answers); its 4xx and a client that leaves are none. Returns true
 * if this one has changed the state (for the log). */
bool breaker_note(struct breaker *b, const struct config *config, bool is_failure, int64_t now_ms);
/* A try was given up without a verdict (the client left): gives a probe back. */
void breaker_forget(struct breaker *b);
enum breaker_state breaker_state_now(const struct breaker *b, const struct config *config,
                                     int64_t now_ms);
/* The same as it was when something last happened to it. */
enum breaker_state breaker_state_seen(const struct breaker *b);
/* How long until a try may pass; 0 = now. */
int64_t breaker_wait_ms(const struct breaker *b, const struct config *config, int64_t now_ms);

#endif
