#include "gateway/spooler.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "gateway/identity.h"
#include "usage/spool.h"

struct spooler {
    char *dir;
    struct outbox_region *rings;
    bool *was_over; /* by slot, at the last look; the thread's own */
    int last_error; /* of spooling, reported when it changes; the thread's own */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool finish; /* under the mutex */
    atomic_bool done;
};

static void report(struct spooler *s, size_t slot, int rc)
{
    if (rc == s->last_error)
        return;
    s->last_error = rc;
    if (rc < 0)
        log_event(LOG_ERROR, "spool_failed", "", "usage events of slot %zu cannot be spooled: %s",
                  slot, strerror(-rc));
    else
        log_event(LOG_INFO, "spool_works", "", "usage events can be spooled again");
}

static void spool(struct spooler *s, size_t slot)
{
    int rc = identity_make_dir(s->dir, 0700);
    ssize_t n = rc < 0 ? rc : spool_write(s->dir, slot, outbox_slot(s->rings, slot));

    report(s, slot, n < 0 ? (int)n : 0);
    if (n > 0)
        log_event(LOG_WARN, "spooled", "",
                  "%zd bytes of usage events of slot %zu went to the spool", n, slot);
}

static void look(struct spooler *s)
{
    for (size_t i = 0; i < outbox_slot_count(s->rings); i++) {
        const struct outbox *ob = outbox_slot(s->rings, i);
        /* Open requests have reserved room, too: with many of them half is too late. */
        bool is_over = outbox_fill_percent(ob) > SPOOLER_FILL_PERCENT || outbox_is_tight(ob);

        if (is_over && s->was_over[i])
            spool(s, i);
        s->was_over[i] = is_over;
    }
}

static void spool_rest(struct spooler *s)
{
    for (size_t i = 0; i < outbox_slot_count(s->rings); i++) {
        const struct outbox *ob = outbox_slot(s->rings, i);

        if (outbox_head(ob) > outbox_tail(ob))
            spool(s, i);
    }
}

/* True when it is time to finish. */
static bool wait_for_look(struct spooler *s)
{
    struct timespec until;
    bool finish;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SPOOLER_LOOK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&s->mutex);
    while (!s->finish && rc == 0)
        rc = pthread_cond_timedwait(&s->changed, &s->mutex, &until);
    finish = s->finish;
    pthread_mutex_unlock(&s->mutex);
    return finish;
}

static void *spooler_main(void *arg)
{
    struct spooler *s = arg;

    while (!wait_for_look(s))
        look(s);
    spool_rest(s);
    atomic_store(&s->done, true);
    return NULL;
}

static int init_sync(struct spooler *s)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);

    if (rc != 0)
        return rc;
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0)
        rc = pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (rc != 0)
        return rc;
    rc = pthread_mutex_init(&s->mutex, NULL);
    if (rc != 0)
        pthread_cond_destroy(&s->changed);
    return rc;
}

static void free_memory(struct spooler *s)
{
    free(s->was_over);
    free(s->dir);
    free(s);
}

struct spooler *spooler_new(const char *dir, struct outbox_region *rings)
{
    struct spooler *s = calloc(1, sizeof(*s));
    int rc = ENOMEM;

    if (s == NULL)
        return NULL;
    s->rings = rings;
    s->dir = strdup(dir);
    s->was_over = calloc(outbox_slot_count(rings), sizeof(bool));
    if (s->dir != NULL && s->was_over != NULL)
        rc = init_sync(s);
    if (rc == 0) {
        rc = pthread_create(&s->thread, NULL, spooler_main, s);
        if (rc == 0)
            return s;
        pthread_mutex_destroy(&s->mutex);
        pthread_cond_destroy(&s->changed);
    }
    free_memory(s);
    errno = rc;
    return NULL;
}

void spooler_finish(struct spooler *s)
{
    pthread_mutex_lock(&s->mutex);
    s->finish = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

bool spooler_is_done(const struct spooler *s)
{
    return atomic_load(&s->done);
}

void spooler_free(struct spooler *s)
{
    if (s == NULL || !spooler_is_done(s))
        return;
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->changed);
    free_memory(s);
}
