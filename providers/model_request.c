#include "providers/model_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

static int parse_text(const char *text, size_t len, cJSON **root, struct error *e)
{
    size_t offset = 0;
    const char *why = "";
    int rc = json_check(text, len, &JSON_LIMITS_DEFAULT, &offset, &why);

    if (rc == -E2BIG)
        return error_set(e, XR_EINVALID, NULL, "The body is too complex: %s at byte %zu.", why,
                         offset);
    if (rc < 0)
        return error_set(e, XR_EINVALID, NULL, "The body is not valid JSON: %s at byte %zu.", why,
                         offset);
    *root = cJSON_ParseWithLength(text, len); /* after the check only memory can be missing */
    return *root == NULL ? error_set(e, -ENOMEM, NULL, NULL) : 0;
}

int model_request_open(struct model_request *r, const char *text, size_t len, struct error *e)
{
    memset(r, 0, sizeof(*r));
    r->text = text;
    r->len = len;
    return parse_text(text, len, &r->root, e);
}

int model_request_read_route(struct model_request *r, struct error *e)
{
    const char *model = json_string(r->root, "model");

    if (model != NULL)
        memcpy(r->model, model, strlen(model) + 1); /* the check has bounded it */
    return chat_wishes_read(r->root, r->text, r->len, &r->wishes, e);
}

void model_request_clear(struct model_request *r)
{
    cJSON_Delete(r->root);
    free(r->own_text);
    memset(r, 0, sizeof(*r));
}
