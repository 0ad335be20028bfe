#include "router/filter.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/nearest.h"
#include "providers/parameters.h"

static int check_names(const struct config *config, const cJSON *names, const char *field,
                       struct error *e)
{
    char param[sizeof(e->param)];
    size_t index = 0;
    const cJSON *item;

    cJSON_ArrayForEach(item, names)
    {
        const char *name = item->valuestring;
        struct nearest nearest;
        bool is_known = false;

        nearest_init(&nearest, name);
        for (size_t i = 0; i < config->provider_count && !is_known; i++) {
            const char *known = config->providers[i].name;

            is_known = strcmp(known, name) == 0;
            nearest_offer(&nearest, known, strlen(known));
        }
        snprintf(param, sizeof(param), "provider.%s[%zu]", field, index++);
        if (is_known)
            continue;
        if (nearest.name[0] != '\0')
            return error_set(e, XR_EINVALID, param,
                             "'%s': there is no provider \"%s\"; did you mean \"%s\"?", param, name,
                             nearest.name);
        return error_set(e, XR_EINVALID, param, "'%s': there is no provider \"%s\".", param, name);
    }
    return 0;
}

int filter_check_wishes(const struct config *config, const struct chat_wishes *wishes,
                        struct error *e)
{
    int rc = check_names(config, wishes->order, "order", e);

    if (rc == 0)
        rc = check_names(config, wishes->only, "only", e);
    return rc == 0 ? check_names(config, wishes->ignore, "ignore", e) : rc;
}

static bool is_listed(const cJSON *names, const char *name)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, names)
    {
        if (strcmp(item->valuestring, name) == 0)
            return true;
    }
    return false;
}

static bool is_given(const struct model_request *r, const char *name)
{
    const cJSON *value = json_get(r->root, name);

    return value != NULL && !cJSON_IsNull(value);
}

/* ---- conditions: whether one is made, and whether a candidate meets it ---- */

static bool asks_chat(const struct model_request *r)
{
    return r->operation != OPERATION_EMBEDDINGS;
}

static bool has_chat(const struct model_request *r, const struct route_candidate *c)
{
    return strcmp(c->model->kind, "chat") == 0;
}

static bool asks_embeddings(const struct model_request *r)
{
    return r->operation == OPERATION_EMBEDDINGS;
}

static bool has_embeddings(const struct model_request *r, const struct route_candidate *c)
{
    return strcmp(c->model->kind, "embeddings") == 0;
}

static bool asks_tools(const struct model_request *r)
{
    return r->tools != NULL || r->functions != NULL;
}

static bool has_tools(const struct model_request *r, const struct route_candidate *c)
{
    return c->config->tools;
}

static bool asks_images(const struct model_request *r)
{
    return r->image_count > 0;
}

static bool has_images(const struct model_request *r, const struct route_candidate *c)
{
    return c->config->images;
}

static bool asks_json_schema(const struct model_request *r)
{
    return r->wants_json_schema;
}

static bool has_json_schema(const struct model_request *r, const struct route_candidate *c)
{
    return c->config->json_schema;
}

static bool asks_only(const struct model_request *r)
{
    return r->wishes.only != NULL;
}

static bool is_among_only(const struct model_request *r, const struct route_candidate *c)
{
    return is_listed(r->wishes.only, c->provider->name);
}

static bool asks_ignore(const struct model_request *r)
{
    return r->wishes.ignore != NULL;
}

static bool is_not_ignored(const struct model_request *r, const struct route_candidate *c)
{
    return !is_listed(r->wishes.ignore, c->provider->name);
}

static bool asks_order_alone(const struct model_request *r)
{
    return r->wishes.order != NULL && r->wishes.no_fallbacks;
}

static bool is_in_order(const struct model_request *r, const struct route_candidate *c)
{
    return is_listed(r->wishes.order, c->provider->name);
}

static bool asks_parameters(const struct model_request *r)
{
    return r->wishes.require_parameters;
}

static bool has_parameters(const struct model_request *r, const struct route_candidate *c)
{
    for (size_t i = 0; PARAMETERS[i] != NULL; i++)
        if (is_given(r, PARAMETERS[i]) && !parameter_is_supported(c->provider, PARAMETERS[i]))
            return false;
    return r->image_count == 0 || parameter_takes_images(c->provider);
}

static bool asks_max_price(const struct model_request *r)
{
    const struct chat_wishes *w = &r->wishes;

    return w->max_prompt_nano >= 0 || w->max_completion_nano >= 0 || w->max_request_nano >= 0;
}

static bool is_within(int64_t price_nano, int64_t max_nano)
{
    return max_nano < 0 || price_nano <= max_nano;
}

static bool is_cheap_enough(const struct model_request *r, const struct route_candidate *c)
{
    const struct chat_wishes *w = &r->wishes;

    return is_within(c->price.input_nano, w->max_prompt_nano) &&
           is_within(c->price.output_nano, w->max_completion_nano) &&
           is_within(c->price.request_nano, w->max_request_nano);
}

static const struct condition {
    bool (*is_made)(const struct model_request *r);
    bool (*is_met)(const struct model_request *r, const struct route_candidate *c);
    int number; /* when nobody meets it */
    const char *param;
    const char *why;
} CONDITIONS[] = {
    {asks_chat, has_chat, XR_EINVALID, "model",
     "'model': this one makes embeddings; ask it at /v1/embeddings."},
    {asks_embeddings, has_embeddings, XR_EINVALID, "model",
     "'model': this one makes no embeddings; ask it at /v1/chat/completions."},
    {asks_tools, has_tools, XR_EUNSUPPORTED, "tools", "No provider of this model takes tools."},
    {asks_images, has_images, XR_EUNSUPPORTED, "messages",
     "No provider of this model takes images."},
    {asks_json_schema, has_json_schema, XR_EUNSUPPORTED, "response_format",
     "No provider of this model takes response_format json_schema."},
    {asks_only, is_among_only, XR_EINVALID, "provider.only",
     "'provider.only': none of these providers serves this request's model."},
    {asks_ignore, is_not_ignored, XR_EINVALID, "provider.ignore",
     "'provider.ignore': without these providers none is left for this request."},
    {asks_order_alone, is_in_order, XR_EINVALID, "provider.order",
     "'provider.order': none of these providers serves this request's model, and "
     "'provider.allow_fallbacks' is false."},
    {asks_parameters, has_parameters, XR_EUNSUPPORTED, "provider.require_parameters",
     "No provider of this model supports all parameters of this request."},
    {asks_max_price, is_cheap_enough, XR_EINVALID, "provider.max_price",
     "'provider.max_price': no provider of this model is that cheap."},
};

int filter_apply(const struct model_request *request, struct route *route, struct error *e)
{
    for (size_t i = 0; i < sizeof(CONDITIONS) / sizeof(CONDITIONS[0]); i++) {
        const struct condition *condition = &CONDITIONS[i];
        size_t kept = 0;

        if (!condition->is_made(request))
            continue;
        for (size_t j = 0; j < route->candidate_count; j++)
            if (condition->is_met(request, &route->candidates[j]))
                route->candidates[kept++] = route->candidates[j];
        route->candidate_count = kept;
        if (kept > 0)
            continue;
        return error_set(e, condition->number,
                         condition->is_met == has_tools && request->tools == NULL
                             ? "functions"
                             : condition->param,
                         "%s", condition->why);
    }
    return 0;
}
