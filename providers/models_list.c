#include "providers/models_list.h"

#include <string.h>

#include "common/json.h"

#define PREFIX "models/"

/* Some list hundreds of models, each with its price and description. */
static const struct json_limits limits = {.depth = 32, .elements = 200000};

static size_t add(struct models_list *out, size_t used, const char *name)
{
    size_t len;

    if (strncmp(name, PREFIX, sizeof(PREFIX) - 1) == 0)
        name += sizeof(PREFIX) - 1;
    len = strlen(name);
    if (len == 0 || len >= sizeof(out->names) - used) {
        out->left_out++;
        return used;
    }
    memcpy(out->names + used, name, len + 1);
    out->count++;
    return used + len + 1;
}

int models_list_decode(const char *body, size_t len, struct models_list *out, struct error *e)
{
    cJSON *root = json_parse(body, len, &limits, NULL, NULL);
    const cJSON *list = json_get(root, "data");
    bool is_list = cJSON_IsArray(list);
    const cJSON *item;
    size_t used = 0;

    memset(out, 0, sizeof(*out));
    cJSON_ArrayForEach(item, list)
    {
        const char *id = json_string(item, "id");

        if (id != NULL)
            used = add(out, used, id);
    }
    cJSON_Delete(root);
    if (is_list)
        return 0;
    return error_set(e, XR_EUPSTREAM, NULL, "The provider listed models in a way that is unknown.");
}

const char *models_list_next(const struct models_list *list, const char *name)
{
    size_t at = name == NULL ? 0 : (size_t)(name - list->names) + strlen(name) + 1;

    if (at >= sizeof(list->names) || list->names[at] == '\0' ||
        memchr(list->names + at, '\0', sizeof(list->names) - at) == NULL)
        return NULL;
    return list->names + at;
}

bool models_list_has(const struct models_list *list, const char *name)
{
    const char *at = NULL;

    while ((at = models_list_next(list, at)) != NULL)
        if (strcmp(at, name) == 0)
            return true;
    return false;
}
