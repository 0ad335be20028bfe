/* limiting.h - one request and the rate limits (usage/limits.h): its key's, its model's, and the
 * gateway's. */
#ifndef XROUTER_GATEWAY_LIMITING_H
#define XROUTER_GATEWAY_LIMITING_H

#include "common/error.h"
#include "gateway/httpd.h"
#include "usage/limits.h"

struct worker; /* gateway/worker.h */

struct limiting { /* embedded; zero = nothing is held */
    struct worker *worker;
    struct limit_claim claim;
    int model; /* its index in the counters, < 0 = it has none */
};

/* What a request asks for. */
struct limiting_request {
    const struct http_request *http;
    const struct model_config *model;
    int64_t prompt_tokens;
    int64_t output_most; /* tokens; 0 = there is none */
};

/* The key's limits, as the request goes by them. */
struct limit_scope limiting_key_scope(const struct limits_region *r, const struct key *key);
/* Whether a limit of tokens is in force for it: then the prompt is to be counted first. */
bool limiting_needs_tokens(const struct http_request *http, const struct model_config *model);
/* 0, or XR_ERATELIMIT with e; *retry_after_ms: when it is to be tried again, 0 = nobody knows, -1 =
 * never as it is. */
int limiting_take(struct limiting *l, struct worker *w, const struct limiting_request *request,
                  struct error *e, int64_t *retry_after_ms);
/* It is over, and has used so many tokens. */
void limiting_settle(struct limiting *l, int64_t tokens_input, int64_t tokens_output);
/* It has not even begun. After limiting_settle() nothing happens. */
void limiting_give_back(struct limiting *l);

#endif
