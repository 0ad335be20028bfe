#define _GNU_SOURCE 1 /* pipe2 */
#include "gateway/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define STACK_BYTES ((size_t)512 * 1024) /* NSS modules want some */

/* What a thread says when it is done; one write, so it arrives whole. */
struct outcome {
    uint32_t index;
    int32_t error; /* EAI_... */
};

struct host_state {
    struct resolver *resolver;
    size_t index;
    struct timer timer;
    bool is_known; /* has been looked at once */
    bool is_running;
    int last_error; /* EAI_..., 0 = found */
};

struct resolver {
    struct loop *loop;
    struct addresses_region *addresses;
    struct counters *counters;
    struct event_source source;
    int done[2]; /* threads write outcomes */
    size_t running;
    struct host_state hosts[ADDRESSES_HOSTS_MAX];
};

/* Owned by its thread. */
struct look_up {
    struct addresses_region *addresses;
    size_t index;
    int done;
    char host[ADDRESS_HOST_BYTES];
};

static void collect(const struct addrinfo *found, struct address_list *list)
{
    for (; found != NULL && list->count < ADDRESSES_PER_HOST; found = found->ai_next)
        if (getnameinfo(found->ai_addr, found->ai_addrlen, list->text[list->count],
                        ADDRESS_TEXT_BYTES, NULL, 0, NI_NUMERICHOST) == 0)
            list->count++;
}

static void *look_up_main(void *arg)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct look_up *job = arg;
    struct address_list list = {0};
    struct addrinfo *found = NULL;
    struct outcome outcome = {.index = (uint32_t)job->index};

    list.error = getaddrinfo(job->host, NULL, &hints, &found);
    if (list.error == 0) {
        collect(found, &list);
        freeaddrinfo(found);
        if (list.count == 0)
            list.error = EAI_NONAME;
    }
    list.looked_up_ms = clock_monotonic_ms();
    addresses_publish(job->addresses, job->index, &list);
    outcome.error = list.error;
    while (write(job->done, &outcome, sizeof(outcome)) == -1 && errno == EINTR)
        ;
    free(job);
    return NULL;
}

static int start_thread(struct look_up *job)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc = pthread_attr_init(&attr);

    if (rc != 0)
        return -rc;
    rc = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (rc == 0)
        rc = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (rc == 0)
        rc = pthread_create(&thread, &attr, look_up_main, job);
    pthread_attr_destroy(&attr);
    return -rc;
}

static void again_later(struct host_state *h, int64_t delay_ms)
{
    if (loop_timer_set(h->resolver->loop, &h->timer, delay_ms) < 0)
        log_event(LOG_ERROR, "resolver_failed", "", "out of memory: %s is not looked up again",
                  addresses_host(h->resolver->addresses, h->index));
}

static int begin(struct host_state *h)
{
    struct resolver *r = h->resolver;
    struct look_up *job = calloc(1, sizeof(*job));
    int rc;

    if (job == NULL)
        return -ENOMEM;
    job->addresses = r->addresses;
    job->index = h->index;
    job->done = r->done[1];
    snprintf(job->host, sizeof(job->host), "%s", addresses_host(r->addresses, h->index));
    rc = start_thread(job);
    if (rc < 0) {
        free(job);
        return rc;
    }
    h->is_running = true;
    r->running++;
    counter_inc(&r->counters->resolves_total);
    return 0;
}

static void begin_or_retry(struct host_state *h)
{
    int rc;

    h->is_known = true;
    loop_timer_cancel(h->resolver->loop, &h->timer);
    if (h->is_running)
        return;
    rc = begin(h);
    if (rc == 0)
        return;
    log_event(LOG_ERROR, "resolver_failed", "", "a look-up cannot start: %s", strerror(-rc));
    again_later(h, RESOLVER_RETRY_MS);
}

static void on_host_timer(struct timer *t)
{
    begin_or_retry((struct host_state *)(void *)((char *)t - offsetof(struct host_state, timer)));
}

static void end(struct resolver *r, const struct outcome *outcome)
{
    struct host_state *h = &r->hosts[outcome->index];
    const char *name = addresses_host(r->addresses, h->index);

    h->is_running = false;
    r->running--;
    if (outcome->error != 0) {
        counter_inc(&r->counters->resolve_failures_total);
        if (h->last_error != outcome->error)
            log_event(LOG_ERROR, "resolve_failed", "", "%s cannot be looked up: %s", name,
                      gai_strerror(outcome->error));
    } else if (h->last_error != 0) {
        log_event(LOG_INFO, "resolved", "", "%s can be looked up again", name);
    }
    h->last_error = outcome->error;
    again_later(h, outcome->error != 0 ? RESOLVER_RETRY_MS : RESOLVER_REFRESH_MS);
}

static void on_done(struct event_source *src, uint32_t events)
{
    struct resolver *r =
        (struct resolver *)(void *)((char *)src - offsetof(struct resolver, source));
    struct outcome outcome;

    while (read(r->done[0], &outcome, sizeof(outcome)) == (ssize_t)sizeof(outcome))
        end(r, &outcome);
}

struct resolver *resolver_new(struct loop *loop, struct addresses_region *addresses,
                              struct counters *counters)
{
    struct resolver *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return NULL;
    r->loop = loop;
    r->addresses = addresses;
    r->counters = counters;
    r->source.on_event = on_done;
    for (size_t i = 0; i < ADDRESSES_HOSTS_MAX; i++) {
        r->hosts[i].resolver = r;
        r->hosts[i].index = i;
        r->hosts[i].timer.on_timer = on_host_timer;
    }
    if (pipe2(r->done, O_CLOEXEC) == -1) {
        free(r);
        return NULL;
    }
    /* Only the reading end must not block: a thread may wait, and holds up to 64 words. */
    rc = fcntl(r->done[0], F_SETFL, O_NONBLOCK) == -1 ? -errno : 0;
    if (rc == 0)
        rc = loop_add(loop, r->done[0], EPOLLIN, &r->source);
    if (rc == 0)
        return r;
    close(r->done[0]);
    close(r->done[1]);
    free(r);
    errno = -rc;
    return NULL;
}

void resolver_look(struct resolver *r, bool all)
{
    for (size_t i = 0; i < ADDRESSES_HOSTS_MAX && addresses_host(r->addresses, i) != NULL; i++)
        if (all || !r->hosts[i].is_known)
            begin_or_retry(&r->hosts[i]);
}

void resolver_free(struct resolver *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < ADDRESSES_HOSTS_MAX; i++)
        loop_timer_cancel(r->loop, &r->hosts[i].timer);
    loop_remove(r->loop, r->done[0], &r->source);
    /* Threads that still run must not find another file under their descriptor's number. */
    if (r->running == 0) {
        close(r->done[0]);
        close(r->done[1]);
    }
    free(r);
}
