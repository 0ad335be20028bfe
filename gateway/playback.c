#include "gateway/playback.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/clock.h"
#include "common/container.h"
#include "common/json.h"
#include "common/secret.h"
#include "gateway/ask.h"
#include "usage/answers.h"

#define WAIT_MS 5 /* between two looks at the table, and two tries to ask */
#define GIVE_UP_MS 2000

struct playback {
    struct worker *worker;
    struct http_request *request;
    struct idempotency_key key;
    struct timer timer;
    struct ask *ask; /* NULL = none is open */
    int64_t give_up_at_ms;
};

static void refuse(struct playback *p, int number, const char *message)
{
    struct error e = {0};

    if (number == XR_EACCOUNTING) {
        error_set(&e, number, NULL, "%s", message);
    } else {
        counter_inc(&p->worker->counters->idempotency_conflicts_total);
        error_set(&e, number, "Idempotency-Key", NULL);
    }
    if (error_info(number)->retry)
        http_add_header(p->request, "retry-after", "1");
    http_answer_error(p->request, &e);
}

static void refuse_for_now(struct playback *p)
{
    refuse(p, XR_EACCOUNTING, "The stored answer cannot be read right now.");
}

/* The bytes as they were. 0 or -EINVAL, -ENOMEM. */
static int send_answer(struct playback *p, const cJSON *json)
{
    const char *type_text = json_string(json, "content_type");
    const char *text = json_string(json, "answer");
    enum answer_type type;
    struct buf body;
    int64_t status;
    int rc;

    if (type_text == NULL || text == NULL || answer_type_parse(type_text, &type) < 0 ||
        json_get_i64(json, "status", &status) < 0 || status < 200 || status > 599)
        return -EINVAL;
    buf_init(&body, ANSWER_MAX_BYTES);
    rc = base64_decode(&body, text, strlen(text));
    if (rc < 0) {
        buf_clear(&body);
        return rc;
    }
    counter_inc(&p->worker->counters->idempotent_replays_total);
    http_add_header(p->request, "idempotent-replayed", "true");
    if (type == ANSWER_EVENT_STREAM)
        http_add_header(p->request, "cache-control", "no-cache");
    http_answer(p->request, (unsigned)status, answer_type_text(type), &body);
    return 0;
}

static void on_answer(void *arg, const struct ask_answer *answer)
{
    struct playback *p = arg;

    p->ask = NULL;
    if (answer->rc == 0 && answer->error_code == NULL && send_answer(p, answer->json) == 0)
        return;
    if (answer->error_code != NULL && strcmp(answer->error_code, "answer_not_found") == 0)
        refuse(p, XR_ENOREPLAY, NULL); /* dropped for want of room, a moment ago */
    else
        refuse_for_now(p);
}

static int ask_for_answer(struct playback *p)
{
    char digest[2 * USAGE_DIGEST_BYTES + 1], request[2 * USAGE_DIGEST_BYTES + 1];
    char memory[160];
    struct buf json;

    hex_encode(p->key.key, USAGE_DIGEST_BYTES, digest);
    hex_encode(p->key.request, USAGE_DIGEST_BYTES, request);
    buf_init_fixed(&json, memory, sizeof(memory));
    buf_printf(&json, "{\"op\":\"answer.get\",\"digest\":\"%s\",\"request\":\"%s\"}", digest,
               request);
    return ask_start(p->worker->asker, json.data, json.len, ASK_TIMEOUT_MS, on_answer, p, &p->ask);
}

/* Again soon, unless it has taken too long already. */
static void look_again(struct playback *p, void (*give_up)(struct playback *p))
{
    if (loop_now_ms(p->worker->loop) >= p->give_up_at_ms ||
        loop_timer_set(p->worker->loop, &p->timer, WAIT_MS) < 0)
        give_up(p);
}

static void refuse_in_progress(struct playback *p)
{
    refuse(p, XR_EINPROGRESS, NULL);
}

static void step(struct playback *p)
{
    switch (idempotency_look(p->worker->setup->instance->idempotency, &p->key, clock_now_at_ms())) {
    case IDEMPOTENCY_STORING:
        look_again(p, refuse_in_progress);
        return;
    case IDEMPOTENCY_STORED:
        if (ask_for_answer(p) < 0) /* the usage-writer is away, or has too many questions */
            look_again(p, refuse_for_now);
        return;
    case IDEMPOTENCY_UNAVAILABLE:
        refuse(p, XR_ENOREPLAY, NULL);
        return;
    case IDEMPOTENCY_REUSED:
        refuse(p, XR_EKEYREUSED, NULL);
        return;
    case IDEMPOTENCY_ABSENT: /* its time has ended meanwhile: a new try will run */
    case IDEMPOTENCY_CLAIMED:
    case IDEMPOTENCY_RUNNING:
    case IDEMPOTENCY_FULL:
        refuse_in_progress(p);
        return;
    }
}

static void on_timer(struct timer *t)
{
    step(container_of(t, struct playback, timer));
}

static void on_gone(struct http_request *request)
{
    struct playback *p = request->state;

    loop_timer_cancel(p->worker->loop, &p->timer);
    ask_cancel(p->ask);
    p->ask = NULL;
}

static void on_completed(struct http_request *request, bool delivered)
{
    on_gone(request);
    free(request->state);
}

static const struct http_request_ops playback_ops = {
    .on_gone = on_gone,
    .on_completed = on_completed,
};

int playback_start(struct worker *w, struct http_request *request,
                   const struct idempotency_key *key, struct error *e)
{
    struct playback *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    p->worker = w;
    p->request = request;
    p->key = *key;
    p->timer.on_timer = on_timer;
    p->give_up_at_ms = loop_now_ms(w->loop) + GIVE_UP_MS;
    request->state = p;
    request->ops = &playback_ops;
    step(p);
    return 1;
}
