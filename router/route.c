#include "router/route.h"

#include <string.h>

int route_find(const struct config *config, const char *model, const struct key *key,
               int64_t now_at_ms, struct route *out, struct error *e)
{
    const struct model_config *found = config_model(config, model, strlen(model));

    if (found == NULL)
        return error_set(e, XR_EMODEL, "model",
                         "The model \"%s\" does not exist; GET /v1/models lists those that do.",
                         model);
    if (!key_may_use_model(key, found->id))
        return error_set(e, XR_EMODELDENIED, "model", "This API key may not use the model \"%s\".",
                         found->id);
    if (found->candidate_count == 0)
        return error_set(e, XR_ENOPROVIDER, "model", "No provider serves the model \"%s\".",
                         found->id);
    out->model = found;
    out->candidate_count = 0;
    for (size_t i = 0; i < found->candidate_count && i < ROUTE_CANDIDATES_MAX; i++) {
        const struct candidate_config *candidate = &found->candidates[i];

        out->candidates[out->candidate_count++] =
            (struct route_candidate){.model = found,
                                     .config = candidate,
                                     .provider = &config->providers[candidate->provider_index],
                                     .price = model_price_at(found, now_at_ms)};
    }
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
