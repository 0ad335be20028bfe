#include "providers/model_request.h"

#include <string.h>

void model_request_clear(struct model_request *r)
{
    cJSON_Delete(r->root);
    memset(r, 0, sizeof(*r));
}
