#include "router/side_call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/container.h"

#define ANSWER_MAX ((size_t)1024 * 1024)

struct side_call {
    struct engine *engine;
    struct side_call_setup setup;
    struct token_wait token_wait;
    uint32_t token_generation;
    struct upstream *upstream;
    struct buf body;
    struct error error;
    int64_t deadline_ms;
    unsigned status;
    bool refreshed, starting, ended;
};

static int64_t left_ms(const struct side_call *c)
{
    int64_t left = c->deadline_ms - loop_now_ms(c->engine->loop);

    return left > 1 ? left : 1;
}

static void finish(struct side_call *c, int rc)
{
    if (c->ended)
        return;
    c->ended = true;
    if (rc < 0 && c->error.number == 0)
        error_set(&c->error, rc, NULL, NULL);
    if (!c->starting) /* else side_call_start() tells */
        c->setup.on_end(c->setup.arg, rc, &c->body, rc < 0 ? &c->error : NULL);
}

static bool needs_token(const struct side_call *c)
{
    const struct provider_ops *ops = c->setup.ops;

    return ops->encode_token != NULL &&
           (ops->needs_token == NULL || ops->needs_token(c->setup.provider));
}

static int on_head(void *arg, const struct http1_head *head)
{
    struct side_call *c = arg;

    c->status = head->status;
    return 0;
}

static int on_body(void *arg, const char *data, size_t len)
{
    struct side_call *c = arg;

    return buf_append(&c->body, data, len) < 0
               ? error_set(&c->error, XR_EUPSTREAM, NULL, "The provider's answer is too large.")
               : 0;
}

static void ask_for_token(struct side_call *c);

static void on_upstream_end(void *arg, int rc, const struct error *e)
{
    struct side_call *c = arg;
    bool stale = false;

    c->upstream = NULL;
    if (rc < 0 && c->error.number == 0 && e != NULL)
        c->error = *e;
    if (rc == 0 && c->status != 200) {
        rc = c->setup.ops->map_error(c->status, c->body.data, c->body.len, &stale, &c->error);
        if (stale && !c->refreshed && needs_token(c)) {
            c->refreshed = true;
            token_source_invalidate(c->engine->tokens, c->setup.config, c->setup.provider,
                                    c->token_generation);
            buf_reset(&c->body);
            memset(&c->error, 0, sizeof(c->error));
            ask_for_token(c);
            return;
        }
    }
    finish(c, rc);
}

static const struct upstream_callbacks callbacks = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_upstream_end,
};

static int send_request(struct side_call *c, const char *token)
{
    const struct upstream_call call = {.token = token, .request_id = c->setup.request_id};
    const struct upstream_target target = upstream_target_of(c->setup.provider, left_ms(c));
    struct upstream_request request;
    int rc;

    upstream_request_init(&request);
    rc = c->setup.encode(c->setup.arg, &call, &request, &c->error);
    if (rc == 0) {
        c->status = 0;
        c->upstream = upstream_start(c->engine->upstreams, &target, &request.head, &request.body,
                                     &callbacks, c, &c->error);
        if (c->upstream == NULL)
            rc = c->error.number != 0 ? c->error.number : XR_EINTERNAL;
    }
    buf_wipe(&request.head); /* it holds the token */
    upstream_request_clear(&request);
    return rc;
}

static void on_token(struct token_wait *wait, int rc, const struct token *token,
                     const struct error *e)
{
    struct side_call *c = container_of(wait, struct side_call, token_wait);

    if (rc == 0) {
        c->token_generation = token->generation;
        rc = send_request(c, token->text);
    } else {
        c->error = *e;
    }
    if (rc < 0)
        finish(c, rc);
}

static void ask_for_token(struct side_call *c)
{
    c->token_wait.on_token = on_token;
    token_source_get(c->engine->tokens, c->setup.config, c->setup.provider, c->setup.ops,
                     left_ms(c), &c->token_wait);
}

int side_call_start(struct engine *engine, const struct side_call_setup *setup,
                    struct side_call **out, struct error *e)
{
    struct side_call *c = calloc(1, sizeof(*c));
    int rc = 0;

    *out = NULL;
    if (c == NULL)
        return error_set(e, -ENOMEM, NULL, NULL);
    c->engine = engine;
    c->setup = *setup;
    c->deadline_ms = loop_now_ms(engine->loop) + setup->timeout_ms;
    buf_init(&c->body, ANSWER_MAX);
    c->starting = true;
    if (needs_token(c))
        ask_for_token(c);
    else
        rc = send_request(c, NULL);
    if (rc < 0)
        finish(c, rc);
    c->starting = false;
    if (!c->ended) {
        *out = c;
        return 0;
    }
    *e = c->error;
    side_call_free(c);
    return e->number;
}

void side_call_free(struct side_call *c)
{
    if (c == NULL)
        return;
    token_source_cancel(c->engine->tokens, &c->token_wait);
    if (c->upstream != NULL)
        upstream_cancel(c->upstream);
    buf_clear(&c->body);
    free(c);
}

unsigned side_call_status(const struct side_call *c)
{
    return c->status;
}
