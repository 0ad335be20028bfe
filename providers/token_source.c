#include "providers/token_source.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/log.h"

#define ACCOUNTS_KNOWN TOKEN_LEASES_MAX
#define POLL_MS 5              /* another worker fetches: how often we look */
#define FETCH_BODY_MAX 65536   /* a token answer is about 1.3 KB */
#define FETCH_TIMEOUT_MS 20000 /* of one token request, and so of the lease */
#define RETRY_AFTER_FAILURE_MS 500
#define FAILURES_MAX 3  /* so many failed fetches a caller waits through */
#define POISON_MS 30000 /* after a final refusal nobody asks the provider again for so long */

struct fetch {
    struct token_source *source;
    struct fetch *next;
    struct config *config; /* referenced: provider points into it */
    const struct provider_config *provider;
    const struct provider_ops *ops;
    struct upstream *upstream;
    struct buf body;
    unsigned status;
    int index;
};

struct token_source {
    struct loop *loop;
    struct upstreams *upstreams;
    struct token_lease_region *leases;
    struct counters *counters;
    struct fetch *fetches;
    struct token_wait *waits;
    struct timer poll;
    unsigned round;
    uint64_t known_generation; /* of the configuration that known belongs to */
    int known[ACCOUNTS_KNOWN]; /* lease of each account + 1, 0 = not looked up yet */
};

static void unlink_wait(struct token_source *s, struct token_wait *wait)
{
    for (struct token_wait **link = &s->waits; *link != NULL; link = &(*link)->next) {
        if (*link == wait) {
            *link = wait->next;
            return;
        }
    }
}

static void fetch_free(struct fetch *f)
{
    for (struct fetch **link = &f->source->fetches; *link != NULL; link = &(*link)->next) {
        if (*link == f) {
            *link = f->next;
            break;
        }
    }
    buf_wipe(&f->body);
    config_unref(f->config);
    free(f);
}

static int on_fetch_head(void *arg, const struct http1_head *head)
{
    struct fetch *f = arg;

    f->status = head->status;
    return 0;
}

static int on_fetch_body(void *arg, const char *data, size_t len)
{
    struct fetch *f = arg;

    return buf_append(&f->body, data, len) < 0 ? XR_EUPSTREAM : 0;
}

static void fail_fetch(struct fetch *f, int rc, const struct error *e)
{
    bool final = rc == XR_EUPSTREAMAUTH;
    struct buf fields;

    counter_inc(&f->source->counters->token_refresh_failures_total);
    for (struct token_wait *wait = f->source->waits; wait != NULL; wait = wait->next)
        wait->failures += wait->index == f->index;
    token_lease_fail(f->source->leases, f->index, final, clock_monotonic_ms(),
                     final ? POISON_MS : RETRY_AFTER_FAILURE_MS);
    buf_init(&fields, 512);
    buf_printf(&fields, "\"provider\":\"%s\",\"http_status\":%u", f->provider->name, f->status);
    log_event(final ? LOG_ERROR : LOG_WARN, "token_refresh_failed",
              buf_text(&fields) == NULL ? "" : buf_text(&fields), "no access token from %s: %s",
              f->provider->name,
              e != NULL && e->message[0] != '\0' ? e->message : error_info(rc)->text);
    buf_clear(&fields);
}

static void take_token(struct fetch *f)
{
    struct error e = {0};
    char *text = NULL;
    int64_t expires_at_ms = 0;
    int64_t now_at_ms = clock_now_at_ms();
    int rc = f->ops->decode_token(f->status, f->body.data, f->body.len, now_at_ms, &text,
                                  &expires_at_ms, &e);

    if (rc == 0) {
        rc = token_lease_publish(f->source->leases, f->index, text, expires_at_ms,
                                 clock_monotonic_ms(), now_at_ms);
        if (rc < 0)
            rc = error_set(&e, XR_EUPSTREAM, NULL, "the access token is longer than %d bytes",
                           TOKEN_TEXT_MAX - 1);
    }
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
    if (rc < 0)
        fail_fetch(f, rc, &e);
    else
        counter_inc(&f->source->counters->token_refreshes_total);
}

static void serve_waits(struct token_source *s);

static void on_fetch_end(void *arg, int rc, const struct error *e)
{
    struct fetch *f = arg;
    struct token_source *s = f->source;

    f->upstream = NULL;
    if (rc < 0)
        fail_fetch(f, rc, e);
    else
        take_token(f);
    fetch_free(f);
    serve_waits(s);
}

static const struct upstream_callbacks fetch_callbacks = {
    .on_head = on_fetch_head,
    .on_body = on_fetch_body,
    .on_end = on_fetch_end,
};

/* The lease is ours: ask the provider. A failure to begin is a failed fetch like any other. */
static void start_fetch(struct token_source *s, const struct token_wait *wait)
{
    const struct provider_config *p = wait->provider;
    struct upstream_target target = {.url = p->auth_url,
                                     .ca_bundle_file = p->ca_bundle_file,
                                     .connect_ms = p->connect_ms,
                                     .first_byte_ms = FETCH_TIMEOUT_MS,
                                     .idle_ms = FETCH_TIMEOUT_MS,
                                     .total_ms = FETCH_TIMEOUT_MS};
    struct upstream_request request;
    struct error e = {0};
    struct fetch *f = calloc(1, sizeof(*f));

    if (f == NULL) {
        token_lease_fail(s->leases, wait->index, false, clock_monotonic_ms(),
                         RETRY_AFTER_FAILURE_MS);
        return;
    }
    f->source = s;
    f->config = config_ref(wait->config);
    f->provider = p;
    f->ops = wait->ops;
    f->index = wait->index;
    buf_init(&f->body, FETCH_BODY_MAX);
    f->next = s->fetches;
    s->fetches = f;
    upstream_request_init(&request);
    if (f->ops->encode_token(p, &request, &e) == 0)
        f->upstream = upstream_start(s->upstreams, &target, &request.head, &request.body,
                                     &fetch_callbacks, f, &e);
    buf_wipe(&request.head);
    upstream_request_clear(&request);
    if (f->upstream == NULL) {
        fail_fetch(f, e.number != 0 ? e.number : XR_EINTERNAL, &e);
        fetch_free(f);
    }
}

static void answer(struct token_source *s, struct token_wait *wait, int rc,
                   const struct token *token, const struct error *e)
{
    if (wait->waiting)
        unlink_wait(s, wait);
    wait->waiting = false;
    wait->on_token(wait, rc, token, e);
}

/* One look at the lease for one caller; true when the caller has got its answer. */
static bool look(struct token_source *s, struct token_wait *wait)
{
    struct token token;
    struct error e = {0};
    enum token_state state = token_lease_get(s->leases, wait->index, clock_monotonic_ms(),
                                             clock_now_at_ms(), FETCH_TIMEOUT_MS, &token);

    if (state == TOKEN_REFRESH || state == TOKEN_FETCH)
        start_fetch(s, wait);
    if (state == TOKEN_READY || state == TOKEN_REFRESH) {
        answer(s, wait, 0, &token, NULL);
        explicit_bzero(token.text, strlen(token.text));
        return true;
    }
    if (state == TOKEN_POISONED) {
        error_set(&e, XR_EUPSTREAMAUTH, NULL,
                  "The provider refused the gateway's credentials: its operator must check them.");
        answer(s, wait, e.number, NULL, &e);
        return true;
    }
    if (wait->failures >= FAILURES_MAX) {
        error_set(&e, XR_EUPSTREAM, NULL, "The provider issued no access token.");
        answer(s, wait, e.number, NULL, &e);
        return true;
    }
    if (wait->deadline_ms <= loop_now_ms(s->loop)) {
        error_set(&e, XR_ETIMEOUT, NULL, "The provider issued no access token in time.");
        answer(s, wait, e.number, NULL, &e);
        return true;
    }
    return false;
}

/* Every waiter looks once. A callback may add and cancel waiters, so after each answer the list is
 * read from its head again; round marks who has had its turn. */
static void serve_waits(struct token_source *s)
{
    struct token_wait *wait = s->waits;

    s->round++;
    while (wait != NULL) {
        if (wait->round == s->round) {
            wait = wait->next;
            continue;
        }
        wait->round = s->round;
        wait = look(s, wait) ? s->waits : wait->next;
    }
    if (s->waits != NULL && !timer_is_set(&s->poll))
        (void)loop_timer_set(s->loop, &s->poll, POLL_MS); /* the heap has held it before */
}

static void on_poll(struct timer *t)
{
    serve_waits(container_of(t, struct token_source, poll));
}

struct token_source *token_source_new(struct loop *loop, struct upstreams *upstreams,
                                      struct token_lease_region *leases, struct counters *counters)
{
    struct token_source *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->loop = loop;
    s->upstreams = upstreams;
    s->leases = leases;
    s->counters = counters;
    s->poll.on_timer = on_poll;
    return s;
}

void token_source_free(struct token_source *s)
{
    if (s == NULL)
        return;
    loop_timer_cancel(s->loop, &s->poll);
    while (s->fetches != NULL) {
        struct fetch *f = s->fetches;

        if (f->upstream != NULL)
            upstream_cancel(f->upstream);
        /* Another worker may begin at once, not when our lease runs out. */
        token_lease_fail(s->leases, f->index, false, clock_monotonic_ms(), 0);
        fetch_free(f);
    }
    free(s);
}

/* The lease of the credential: a key and its scope, or a password and its user. Finding it hashes
 * the credential, so the place is remembered for as long as the configuration is the same. */
static int find_lease(struct token_source *s, const struct config *config,
                      const struct provider_config *p)
{
    uint32_t account = p->account_index;
    int found;

    if (s->known_generation != config->generation) {
        memset(s->known, 0, sizeof(s->known));
        s->known_generation = config->generation;
    }
    if (account < ACCOUNTS_KNOWN && s->known[account] != 0)
        return s->known[account] - 1;
    if (p->credentials[0] != '\0')
        found = token_lease_find(s->leases, p->auth_url, p->credentials, p->scope);
    else
        found = token_lease_find(s->leases, p->auth_url, p->password, p->user);
    if (account < ACCOUNTS_KNOWN && found >= 0)
        s->known[account] = found + 1;
    return found;
}

void token_source_get(struct token_source *s, struct config *config,
                      const struct provider_config *p, const struct provider_ops *ops,
                      int64_t timeout_ms, struct token_wait *wait)
{
    struct error e = {0};

    wait->config = config;
    wait->provider = p;
    wait->ops = ops;
    wait->deadline_ms = loop_now_ms(s->loop) + timeout_ms;
    wait->waiting = false;
    wait->failures = 0;
    wait->index = find_lease(s, config, p);
    if (wait->index < 0) {
        error_set(&e, XR_EINTERNAL, NULL, "There are more than %d provider credentials.",
                  TOKEN_LEASES_MAX);
        wait->on_token(wait, e.number, NULL, &e);
        return;
    }
    if (look(s, wait))
        return;
    if (!timer_is_set(&s->poll) && loop_timer_set(s->loop, &s->poll, POLL_MS) < 0) {
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
        wait->on_token(wait, e.number, NULL, &e);
        return;
    }
    wait->waiting = true;
    wait->round = s->round;
    wait->next = s->waits;
    s->waits = wait;
}

void token_source_cancel(struct token_source *s, struct token_wait *wait)
{
    if (wait->waiting)
        unlink_wait(s, wait);
    wait->waiting = false;
}

void token_source_invalidate(struct token_source *s, const struct config *config,
                             const struct provider_config *p, uint32_t generation)
{
    int index = find_lease(s, config, p);

    if (index >= 0)
        token_lease_invalidate(s->leases, index, generation);
}
