#include "router/route.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "router/filter.h"
#include "router/ranking.h"

/* The model of that name, if the key may use it; param is where the request names it. NULL with *e
 * filled if not. */
static const struct model_config *find_model(const struct config *config, const char *name,
                                             const struct key *key, const char *param,
                                             struct error *e)
{
    const struct model_config *found = config_model(config, name, strlen(name));

    if (found == NULL)
        error_set(e, XR_EMODEL, param,
                  "The model \"%s\" does not exist; GET /v1/models lists those that do.", name);
    else if (!key_may_use_model(key, found->id))
        error_set(e, XR_EMODELDENIED, param, "This API key may not use the model \"%s\".",
                  found->id);
    else if (found->candidate_count == 0)
        error_set(e, XR_ENOPROVIDER, param, "No provider serves the model \"%s\".", found->id);
    else
        return found;
    return NULL;
}

/* In the file's order. */
static void add_candidates(const struct config *config, const struct model_config *model,
                           int64_t now_at_ms, struct route *out)
{
    for (size_t i = 0; i < model->candidate_count; i++) {
        const struct candidate_config *candidate = &model->candidates[i];

        assert(out->candidate_count < ROUTE_CANDIDATES_MAX);
        out->candidates[out->candidate_count++] =
            (struct route_candidate){.model = model,
                                     .config = candidate,
                                     .provider = &config->providers[candidate->provider_index],
                                     .price = candidate_price_at(model, candidate, now_at_ms)};
    }
}

static bool has_model(const struct route *route, const struct model_config *model)
{
    for (size_t i = 0; i < route->candidate_count; i++)
        if (route->candidates[i].model == model)
            return true;
    return false;
}

/* All models that the request names, once each. */
static int add_models(const struct route_setup *setup, struct route *out, struct error *e)
{
    const struct model_request *request = setup->request;
    const cJSON *models = request->wishes.models, *item;
    size_t index = 0;

    out->candidate_count = 0;
    if (request->model[0] != '\0' || models == NULL) {
        int rc = route_find(setup->config, request->model, setup->key, setup->now_at_ms, out, e);

        if (rc < 0)
            return rc;
    }
    cJSON_ArrayForEach(item, models)
    {
        const struct model_config *model;
        char param[32];

        snprintf(param, sizeof(param), "models[%zu]", index++);
        model = find_model(setup->config, item->valuestring, setup->key, param, e);
        if (model == NULL)
            return e->number;
        if (out->candidate_count == 0)
            out->model = model;
        if (!has_model(out, model))
            add_candidates(setup->config, model, setup->now_at_ms, out);
    }
    return 0;
}

/* How many candidates from there on are of one model. */
static size_t count_of_model(const struct route *route, size_t from)
{
    size_t end = from + 1;

    while (end < route->candidate_count &&
           route->candidates[end].model == route->candidates[from].model)
        end++;
    return end - from;
}

/* Without fallbacks: of each model those that the request has put in order, else the first. */
static void drop_fallbacks(struct route *route)
{
    size_t kept = 0, count;

    for (size_t i = 0; i < route->candidate_count; i += count) {
        count = count_of_model(route, i);
        route->candidates[kept++] = route->candidates[i];
    }
    route->candidate_count = kept;
}

int route_make(const struct route_setup *setup, struct route *out, struct error *e)
{
    const struct chat_wishes *wishes = &setup->request->wishes;
    uint64_t random = setup->random;
    int rc = filter_check_wishes(setup->config, wishes, e);
    size_t count;

    if (rc == 0)
        rc = add_models(setup, out, e);
    if (rc == 0)
        rc = filter_apply(setup->request, out, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < out->candidate_count; i += count) {
        count = count_of_model(out, i);
        ranking_order(setup, &out->candidates[i], count, &random);
    }
    if (wishes->no_fallbacks && wishes->order == NULL)
        drop_fallbacks(out);
    return 0;
}

int route_find(const struct config *config, const char *model, const struct key *key,
               int64_t now_at_ms, struct route *out, struct error *e)
{
    if (model[0] == '\0')
        model = config->default_model;
    if (model[0] == '\0')
        return error_set(e, XR_EINVALID, "model",
                         "'model': expected a string of 1 to %d bytes, found nothing.",
                         CHAT_MODEL_BYTES - 1);
    out->model = find_model(config, model, key, "model", e);
    if (out->model == NULL)
        return e->number;
    out->candidate_count = 0;
    add_candidates(config, out->model, now_at_ms, out);
    return 0;
}

uint32_t route_context(const struct route_candidate *candidate)
{
    return candidate->config->context_tokens > 0 ? candidate->config->context_tokens
                                                 : candidate->model->context_tokens;
}

uint32_t route_shortest_context(const struct route *route)
{
    uint32_t shortest = UINT32_MAX;

    for (size_t i = 0; i < route->candidate_count; i++)
        if (route_context(&route->candidates[i]) < shortest)
            shortest = route_context(&route->candidates[i]);
    return shortest;
}

int route_require_context(struct route *route, int64_t tokens, struct error *e)
{
    uint32_t longest = 0;
    size_t kept = 0;

    for (size_t i = 0; i < route->candidate_count; i++) {
        uint32_t context = route_context(&route->candidates[i]);

        if (context > longest)
            longest = context;
        if (tokens <= (int64_t)context)
            route->candidates[kept++] = route->candidates[i];
    }
    route->candidate_count = kept;
    if (kept > 0)
        return 0;
    return error_set(e, XR_ECONTEXT, "messages",
                     "This model's context is %u tokens, and the request needs %lld: its messages "
                     "and the answer that max_tokens asks for.",
                     longest, (long long)tokens);
}
