/* counting.h - prompts being counted by a worker: one slice a turn, whoever waits, so that a long
 * prompt delays nobody but itself. */
#ifndef XROUTER_GATEWAY_COUNTING_H
#define XROUTER_GATEWAY_COUNTING_H

#include <stdbool.h>

#include "usage/prompt_tokens.h"

#define COUNTING_SLICE 16384 /* bytes: some 0.1 to 0.3 ms */

struct counting_job {            /* embedded; zero = not counting */
    struct prompt_tokens *count; /* borrowed */
    /* The count is done, or failed with rc (-EILSEQ). Never called from counting_start(). */
    void (*on_counted)(struct counting_job *job, int rc);
    struct counting_job *next, *prev; /* private */
    bool is_waiting;
};

struct counting { /* embedded in the worker; zero = nothing to do */
    struct counting_job *first, *last;
};

/* Counts the first slice at once. 0 (that was all), 1 (on_counted comes later), -EILSEQ. */
int counting_start(struct counting *c, struct counting_job *job);
void counting_cancel(struct counting *c, struct counting_job *job); /* not waiting is fine */
/* One turn's work: a slice of the job that has waited longest. True if more is to do. */
bool counting_turn(struct counting *c);

#endif
