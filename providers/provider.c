#include "providers/provider.h"

#include <stdint.h>
#include <string.h>

#include "providers/anthropic.h"
#include "providers/gigachat.h"
#include "providers/openai.h"

/* Room for an ordinary request, so that it need not grow on its way there. */
#define HEAD_BYTES 2000
#define BODY_BYTES 2000

/* Every adapter there is; a new one is one new line. */
static const struct provider_ops *const adapters[] = {
    &gigachat_ops,
    &openai_ops,
    &anthropic_ops,
};

const struct provider_ops *provider_ops_find(const char *type)
{
    for (size_t i = 0; i < sizeof(adapters) / sizeof(adapters[0]); i++)
        if (strcmp(adapters[i]->name, type) == 0)
            return adapters[i];
    return NULL;
}

void upstream_request_init(struct upstream_request *r)
{
    memset(r, 0, sizeof(*r));
    buf_init_secret(&r->head, HTTP1_HEAD_MAX); /* it carries the key or the token */
    buf_init(&r->body, UPSTREAM_BODY_MAX);
    (void)buf_room(&r->head, HEAD_BYTES); /* what fails here fails again where it is filled */
    (void)buf_room(&r->body, BODY_BYTES);
}

void upstream_request_clear(struct upstream_request *r)
{
    buf_clear(&r->head);
    buf_clear(&r->body);
    r->wants_stream = false;
}
