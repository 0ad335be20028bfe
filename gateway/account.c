#include "gateway/account.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "gateway/ask.h"
#include "gateway/query.h"
#include "gateway/worker.h"
#include "usage/generation.h"
#include "usage/report_query.h"

#define QUESTION_MAX 2048

/* What is asked, and which member of the answer the client gets. */
struct question {
    const char *op;
    const char *member;
    bool is_wrapped; /* in {"data":...}, as OpenRouter does */
};
static const struct question KEY = {"key.summary", "summary", true};
static const struct question USAGE = {"usage", "usage", false};
static const struct question PROVIDERS = {"provider.status", "providers", false};
static const struct question GENERATION = {"generation", "generation", true};

/* A request that waits for the usage-writer. */
struct lookup {
    struct http_request *request;
    const struct question *question;
    struct ask *ask; /* NULL once it is answered */
};

static void refuse(struct http_request *r, int number, const char *param, const char *message)
{
    struct error e = {0};

    if (message != NULL)
        error_set(&e, number, param, "%s", message);
    else
        error_set(&e, number, param, NULL);
    if (error_info(number)->retry)
        http_add_header(r, "retry-after", "1");
    http_answer_error(r, &e);
}

static void refuse_ask(struct http_request *r, int rc)
{
    if (rc == -EBUSY) {
        refuse(r, XR_EOVERLOADED, NULL, NULL);
        return;
    }
    if (rc == -EPROTO || rc == -ENOMEM) {
        log_request_event(LOG_ERROR, "ask_failed", r->id_text,
                          "the usage-writer was asked in vain: %s", strerror(-rc));
        refuse(r, XR_EINTERNAL, NULL, NULL);
        return;
    }
    refuse(r, XR_EACCOUNTING, NULL, "The ledger cannot be read right now.");
}

/* The usage-writer said no. */
static void pass_refusal(struct http_request *r, const struct ask_answer *answer)
{
    const char *message = json_string(json_get(answer->json, "error"), "message");

    if (strcmp(answer->error_code, "not_found") == 0)
        refuse(r, XR_ENOTFOUND, "id",
               "This key has no such request, or it is not recorded yet: that takes a moment.");
    else if (strcmp(answer->error_code, "too_many_rows") == 0)
        refuse(r, XR_EINVALID, "since", "The report has too many rows: choose a later since.");
    else if (strcmp(answer->error_code, "invalid_request") == 0)
        refuse(r, XR_EINVALID, NULL, message);
    else
        refuse(r, XR_EACCOUNTING, NULL, "The ledger cannot be read right now.");
}

static void on_answer(void *arg, const struct ask_answer *answer)
{
    struct lookup *l = arg;
    const char *value;
    struct buf body;
    size_t len;

    l->ask = NULL;
    if (answer->rc < 0) {
        refuse_ask(l->request, answer->rc);
        return;
    }
    if (answer->error_code != NULL) {
        pass_refusal(l->request, answer);
        return;
    }
    if (json_slice(answer->text, answer->len, l->question->member, &value, &len) < 0) {
        refuse_ask(l->request, -EPROTO);
        return;
    }
    buf_init(&body, SIZE_MAX);
    buf_str(&body, l->question->is_wrapped ? "{\"data\":" : "");
    buf_append(&body, value, len);
    buf_str(&body, l->question->is_wrapped ? "}" : "");
    http_add_header(l->request, "cache-control", "no-store");
    http_answer(l->request, 200, "application/json", &body);
}

static void on_gone(struct http_request *request)
{
    struct lookup *l = request->state;

    ask_cancel(l->ask);
    l->ask = NULL;
}

static void on_completed(struct http_request *request, bool delivered)
{
    struct lookup *l = request->state;

    ask_cancel(l->ask);
    free(l);
}

static const struct http_request_ops LOOKUP_OPS = {.on_gone = on_gone,
                                                   .on_completed = on_completed};

static void put_op(struct buf *json, const struct question *question, const struct http_request *r)
{
    char key[KEY_ID_TEXT_BYTES];

    key_id_format(r->key.id, key);
    buf_byte(json, '{');
    json_put_field_text(json, "op", question->op);
    json_put_field_text(json, "key", key);
}

/* json is the question, cleared here. */
static void look_up(struct worker *w, struct http_request *r, const struct question *question,
                    struct buf *json)
{
    struct lookup *l = calloc(1, sizeof(*l));
    int rc = l == NULL ? -ENOMEM : buf_byte(json, '}');

    if (rc == 0) {
        *l = (struct lookup){.request = r, .question = question};
        rc = ask_start(w->asker, json->data, json->len, ASK_TIMEOUT_MS, on_answer, l, &l->ask);
    }
    buf_clear(json);
    if (rc < 0) {
        free(l);
        refuse_ask(r, rc);
        return;
    }
    r->ops = &LOOKUP_OPS;
    r->state = l;
}

/* False after an answer: the query has what this address does not know. */
static bool take_query(struct http_request *r, struct query_param *params, size_t count)
{
    struct error e = {0};

    if (query_decode(r->target, params, count, &e) == 0)
        return true;
    http_answer_error(r, &e);
    return false;
}

static void ask_plainly(struct worker *w, struct http_request *r, const struct question *question)
{
    struct buf json;

    if (!take_query(r, NULL, 0))
        return;
    buf_init(&json, QUESTION_MAX);
    put_op(&json, question, r);
    look_up(w, r, question, &json);
}

void account_handle_key(void *arg, struct http_request *r)
{
    ask_plainly(arg, r, &KEY);
}

void account_handle_providers(void *arg, struct http_request *r)
{
    ask_plainly(arg, r, &PROVIDERS);
}

void account_handle_usage(void *arg, struct http_request *r)
{
    struct query_param params[] = {
        {.name = "since"}, {.name = "until"}, {.name = "by"}, {.name = "model"}};
    const size_t count = sizeof(params) / sizeof(params[0]);
    struct report_query checked;
    struct report_words words;
    struct error e = {0};
    struct buf json;

    if (!take_query(r, params, count))
        return;
    words = (struct report_words){.since = query_value(params, count, "since"),
                                  .until = query_value(params, count, "until"),
                                  .by = query_value(params, count, "by"),
                                  .model = query_value(params, count, "model")};
    if (report_query_decode(&words, clock_now_at_ms(), &checked, &e) < 0) {
        http_answer_error(r, &e);
        return;
    }
    buf_init(&json, QUESTION_MAX);
    put_op(&json, &USAGE, r);
    for (size_t i = 0; i < count; i++)
        json_put_field_text(&json, params[i].name, params[i].is_given ? params[i].value : NULL);
    look_up(arg, r, &USAGE, &json);
}

void account_handle_generation(void *arg, struct http_request *r)
{
    struct query_param param = {.name = "id"};
    struct usage_id id;
    struct buf json;

    if (!take_query(r, &param, 1))
        return;
    if (!param.is_given || generation_name_parse(param.value, &id) < 0) {
        refuse(r, XR_EINVALID, "id",
               "id must be a completion's id, \"chatcmpl-\" and 32 hexadecimal digits, or a "
               "request's x-request-id.");
        return;
    }
    buf_init(&json, QUESTION_MAX);
    put_op(&json, &GENERATION, r);
    json_put_field_text(&json, "id", param.value);
    look_up(arg, r, &GENERATION, &json);
}
