#include "gateway/counting.h"

static void append(struct counting *c, struct counting_job *job)
{
    job->prev = c->last;
    job->next = NULL;
    if (c->last != NULL)
        c->last->next = job;
    else
        c->first = job;
    c->last = job;
    job->is_waiting = true;
}

int counting_start(struct counting *c, struct counting_job *job)
{
    int rc = prompt_tokens_step(job->count, COUNTING_SLICE);

    if (rc == 1)
        append(c, job);
    return rc;
}

void counting_cancel(struct counting *c, struct counting_job *job)
{
    if (!job->is_waiting)
        return;
    if (job->prev != NULL)
        job->prev->next = job->next;
    else
        c->first = job->next;
    if (job->next != NULL)
        job->next->prev = job->prev;
    else
        c->last = job->prev;
    job->is_waiting = false;
}

bool counting_turn(struct counting *c)
{
    struct counting_job *job = c->first;
    int rc;

    if (job == NULL)
        return false;
    counting_cancel(c, job);
    rc = prompt_tokens_step(job->count, COUNTING_SLICE);
    if (rc == 1)
        append(c, job); /* behind the others */
    else
        job->on_counted(job, rc); /* may start or cancel others, and free the job */
    return c->first != NULL;
}
