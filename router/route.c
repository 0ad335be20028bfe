#include "router/route.h"

#include <string.h>

int route_find(const struct config *config, const char *model, const struct key *key,
               struct route *out, struct error *e)
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
    out->candidates = found->candidates;
    out->candidate_count = found->candidate_count;
    return 0;
}
