#include "gateway/token_count.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/container.h"
#include "common/json.h"
#include "gateway/metering.h"
#include "providers/count_request.h"
#include "router/provider_count.h"

/* One request, from its parsed body to the answer. */
struct token_count {
    struct worker *worker;
    struct http_request *request;
    struct count_request parsed;
    struct route route;
    const struct model_config *model; /* in the request's configuration */
    struct counting_job job;
    struct provider_count *asked; /* NULL: the provider is not asked */
    int64_t tokens;               /* for the log; -1 = not known */
};

static void refuse(struct http_request *r, const struct error *e)
{
    if (error_info(e->number)->http_status == 503)
        http_add_header(r, "retry-after", "1");
    http_answer_error(r, e);
}

static void refuse_for(struct http_request *r, int rc)
{
    struct error e = {0};

    if (rc == -ENOMEM)
        error_set(&e, XR_EINTERNAL, NULL, "The gateway is out of memory.");
    else if (rc == -EMSGSIZE)
        error_set(&e, XR_EINVALID, "tools", "The tools' schemas are too large to be counted.");
    else
        error_set(&e, XR_EINTERNAL, NULL, NULL);
    refuse(r, &e);
}

static void end_count(struct token_count *t)
{
    counting_cancel(&t->worker->counting, &t->job);
    prompt_tokens_free(t->job.count);
    t->job.count = NULL;
    provider_count_free(t->asked);
    t->asked = NULL;
}

static void answer(struct token_count *t, int64_t tokens, const char *method)
{
    struct buf body;

    t->tokens = tokens;
    buf_init(&body, SIZE_MAX);
    buf_byte(&body, '{');
    json_put_field_text(&body, "object", "tokens");
    json_put_field_text(&body, "model",
                        t->parsed.model[0] != '\0' ? t->parsed.model : t->model->id);
    json_put_field_i64(&body, "tokens", tokens);
    json_put_field_i64(&body, "characters", prompt_tokens_characters(t->job.count));
    json_put_field_text(&body, "method", method);
    buf_byte(&body, '}');
    http_answer(t->request, 200, "application/json", &body);
}

static void answer_locally(struct token_count *t)
{
    struct token_estimate estimate;

    prompt_tokens_result(t->job.count, metering_ratio(t->worker, t->model), &estimate);
    answer(t, estimate.tokens, TOKEN_METHOD_NAMES[estimate.method]);
}

static void on_provider_counted(void *arg, int rc, int64_t tokens)
{
    struct token_count *t = arg;

    if (rc == 0)
        answer(t, tokens, "provider");
    else
        answer_locally(t);
    end_count(t);
}

/* True: its provider will tell. */
static bool ask_provider(struct token_count *t)
{
    const struct provider_count_setup setup = {.config = t->request->config,
                                               .route = &t->route,
                                               .input = t->parsed.input,
                                               .request_id = t->request->id_text,
                                               .key_id = t->request->key.id,
                                               .on_end = on_provider_counted,
                                               .arg = t};

    return t->parsed.by_provider &&
           provider_count_start(&t->worker->dispatcher, &setup, &t->asked) == 0;
}

static void on_counted(struct counting_job *job, int rc)
{
    struct token_count *t = container_of(job, struct token_count, job);

    if (rc == 0 && ask_provider(t))
        return;
    if (rc < 0)
        refuse_for(t->request, rc);
    else
        answer_locally(t);
    end_count(t);
}

static void on_gone(struct http_request *request)
{
    end_count(request->state);
}

static void on_completed(struct http_request *request, bool delivered)
{
    struct token_count *t = request->state;

    end_count(t);
    count_request_clear(&t->parsed);
    free(t);
}

static const struct http_request_ops token_count_ops = {.on_gone = on_gone,
                                                        .on_completed = on_completed};

static void log_fields(const struct http_request *request, struct buf *out)
{
    const struct token_count *t = request->state;

    json_put_field_text(out, "model", t->model->id);
    if (t->tokens >= 0)
        json_put_field_i64(out, "tokens", t->tokens);
}

static int begin_count(struct token_count *t)
{
    const struct count_request *parsed = &t->parsed;
    int rc;

    if (parsed->input != NULL)
        rc = prompt_tokens_new_text(t->model, parsed->input, &t->job.count);
    else
        rc = prompt_tokens_new(t->model, parsed->messages, parsed->tools, &t->job.count);
    return rc < 0 ? rc : counting_start(&t->worker->counting, &t->job);
}

/* Parsed, and its model found; NULL: the request is answered. */
static struct token_count *token_count_new(struct worker *w, struct http_request *request)
{
    struct token_count *t = calloc(1, sizeof(*t));
    struct error e = {0};
    int rc;

    if (t == NULL) {
        refuse_for(request, -ENOMEM);
        return NULL;
    }
    rc = count_request_parse(request->body.data, request->body.len, &t->parsed, &e);
    if (rc == 0)
        rc = route_find(request->config, t->parsed.model, &request->key, clock_now_at_ms(),
                        &t->route, &e);
    if (rc != 0) {
        count_request_clear(&t->parsed);
        free(t);
        refuse(request, &e);
        return NULL;
    }
    t->worker = w;
    t->request = request;
    t->model = t->route.model;
    t->job.on_counted = on_counted;
    t->tokens = -1;
    return t;
}

void token_count_handle(void *arg, struct http_request *request)
{
    struct token_count *t = token_count_new(arg, request);
    int rc;

    if (t == NULL)
        return;
    request->ops = &token_count_ops;
    request->state = t;
    request->log_fields = log_fields;
    rc = begin_count(t);
    if (rc != 1) /* 1: it goes on */
        on_counted(&t->job, rc);
}
