#include "gateway/replay.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/secret.h"
#include "gateway/playback.h"
#include "usage/handover.h"

#define HEADER_NAME "Idempotency-Key"

struct replay {
    struct worker *worker;
    struct idempotency_key key;
    struct idempotency_claim claim;
    struct usage_id id;
    int64_t ttl_ms;
    struct buf answer;
    bool is_too_large; /* answer is empty then */
};

static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    return true;
}

/* The first bytes of SHA-256 over both parts. 0 or -ENOMEM. */
static int digest(const void *a, size_t a_len, const void *b, size_t b_len,
                  uint8_t out[USAGE_DIGEST_BYTES])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t whole[DIGEST_BYTES];
    bool ok = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(context, a, a_len) == 1 &&
              EVP_DigestUpdate(context, b, b_len) == 1 &&
              EVP_DigestFinal_ex(context, whole, NULL) == 1;

    EVP_MD_CTX_free(context);
    if (!ok)
        return -ENOMEM;
    memcpy(out, whole, USAGE_DIGEST_BYTES);
    return 0;
}

/* Two keys of one client are two namespaces; a query does not make another request. */
static int make_key(const struct http_request *request, struct idempotency_key *out)
{
    uint64_t owner = htobe64(request->key.id);
    struct buf head;
    int rc;

    buf_init(&head, HTTP_TARGET_MAX + 64);
    buf_str(&head, request->method);
    buf_byte(&head, ' ');
    buf_append(&head, request->target, strcspn(request->target, "?"));
    buf_byte(&head, '\n');
    rc = head.err;
    if (rc == 0)
        rc = digest(head.data, head.len, request->body.data, request->body.len, out->request);
    if (rc == 0)
        rc = digest(&owner, sizeof(owner), request->idempotency_key, request->idempotency_key_len,
                    out->key);
    buf_clear(&head);
    return rc;
}

static int conflict(struct worker *w, struct http_request *request, int number, struct error *e)
{
    counter_inc(&w->counters->idempotency_conflicts_total);
    if (number == XR_EINPROGRESS)
        http_add_header(request, "retry-after", "1");
    return error_set(e, number, HEADER_NAME, NULL);
}

static int claim(struct replay *r, struct http_request *request, struct error *e)
{
    struct worker *w = r->worker;
    const struct child_setup *setup = w->setup;

    switch (idempotency_claim(setup->instance->idempotency, &r->key, setup->slot, &request->id,
                              clock_now_at_ms(), &r->claim)) {
    case IDEMPOTENCY_CLAIMED:
        return 0;
    case IDEMPOTENCY_STORING:
    case IDEMPOTENCY_STORED:
        return playback_start(w, request, &r->key, e);
    case IDEMPOTENCY_ABSENT:
    case IDEMPOTENCY_RUNNING:
        return conflict(w, request, XR_EINPROGRESS, e);
    case IDEMPOTENCY_REUSED:
        return conflict(w, request, XR_EKEYREUSED, e);
    case IDEMPOTENCY_UNAVAILABLE:
        return conflict(w, request, XR_ENOREPLAY, e);
    case IDEMPOTENCY_FULL:
        break;
    }
    return error_set(e, XR_EOVERLOADED, NULL,
                     "This gateway cannot remember more Idempotency-Keys now "
                     "(limits.idempotency_keys).");
}

int replay_begin(struct replay **out, struct worker *w, struct http_request *request,
                 struct error *e)
{
    struct replay *r;
    int rc;

    *out = NULL;
    if (request->idempotency_key == NULL)
        return 0;
    if (request->idempotency_key_len == 0 || request->idempotency_key_len > REPLAY_KEY_MAX ||
        !is_printable(request->idempotency_key, request->idempotency_key_len))
        return error_set(e, XR_EINVALID, HEADER_NAME,
                         HEADER_NAME " must be 1 to %d printable ASCII characters.",
                         REPLAY_KEY_MAX);
    r = calloc(1, sizeof(*r));
    if (r == NULL || make_key(request, &r->key) < 0) {
        free(r);
        return error_set(e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    }
    r->worker = w;
    r->id = request->id;
    r->ttl_ms = request->config->answer_ttl_ms;
    buf_init(&r->answer, request->config->answer_bytes);
    rc = claim(r, request, e);
    if (rc != 0) {
        free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void replay_mark(const struct replay *r, struct usage_event *event)
{
    if (r == NULL)
        return;
    memcpy(event->idempotency_key, r->key.key, sizeof(event->idempotency_key));
    memcpy(event->request_digest, r->key.request, sizeof(event->request_digest));
}

static void drop_answer(struct replay *r)
{
    r->worker->collected_bytes -= r->answer.len;
    buf_clear(&r->answer);
}

void replay_note(struct replay *r, const void *bytes, size_t len)
{
    if (r == NULL || r->is_too_large || len == 0)
        return;
    if (r->worker->collected_bytes + len <= REPLAY_COLLECTED_MAX &&
        buf_append(&r->answer, bytes, len) == 0) {
        r->worker->collected_bytes += len;
        return;
    }
    drop_answer(r);
    r->is_too_large = true;
}

static void hand_over(struct replay *r, const struct usage_event *event, unsigned status,
                      enum answer_type type, int64_t expires_at_ms)
{
    const struct handover_answer answer = {.key = r->key,
                                           .id = r->id,
                                           .ended_at_ms = usage_event_ended_at_ms(event),
                                           .status = status,
                                           .type = type};

    idempotency_begin_storing(r->worker->setup->instance->idempotency, &r->claim, expires_at_ms);
    r->worker->collected_bytes -= r->answer.len;
    handover_add(r->worker->handover, &answer, &r->answer);
}

void replay_end(struct replay *r, const struct usage_event *event, bool is_complete,
                unsigned status, const char *content_type)
{
    struct idempotency_region *table;
    int64_t expires_at_ms;
    enum answer_type type;

    if (r == NULL)
        return;
    table = r->worker->setup->instance->idempotency;
    expires_at_ms = clock_now_at_ms() + r->ttl_ms + IDEMPOTENCY_GRACE_MS;
    if (event == NULL || !usage_event_is_remembered(event))
        idempotency_release(table, &r->claim);
    else if (is_complete && !r->is_too_large && answer_type_parse(content_type, &type) == 0)
        hand_over(r, event, status, type, expires_at_ms);
    else
        idempotency_give_up(table, &r->claim, expires_at_ms);
    drop_answer(r);
    free(r);
}

/* As inflight_reap() will: a row that ran and had no byte of an answer used nothing. */
static bool has_used(struct inflight_row *row)
{
    switch ((enum inflight_state)atomic_load_explicit(&row->state, memory_order_acquire)) {
    case INFLIGHT_FREE:
    case INFLIGHT_RESERVING:
        return false;
    case INFLIGHT_RUNNING:
        return atomic_load_explicit(&row->has_answer, memory_order_relaxed) != 0;
    case INFLIGHT_FINAL:
    case INFLIGHT_SETTLING:
    case INFLIGHT_SETTLED:
        return row->event.source != USAGE_BY_NOBODY;
    }
    return true;
}

void replay_reap(struct instance *instance, size_t slot, int64_t expires_at_ms)
{
    for (size_t i = 0; i < inflight_row_count(instance->inflight); i++) {
        struct inflight_row *row = inflight_row_at(instance->inflight, slot, i);

        if (has_used(row))
            idempotency_keep(instance->idempotency, row->event.idempotency_key, &row->event.id,
                             expires_at_ms);
    }
    idempotency_reap(instance->idempotency, slot);
}
