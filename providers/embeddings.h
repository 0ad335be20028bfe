/* embeddings.h - what the adapters that make embeddings have in common. */
#ifndef XROUTER_PROVIDERS_EMBEDDINGS_H
#define XROUTER_PROVIDERS_EMBEDDINGS_H

#include "providers/provider.h"

/* The provider_ops' decode_embeddings for answers of OpenAI's shape, {"data":[{"embedding",
 * "index"}],"usage"}, GigaChat's included, which tells the usage of each element instead. Numbers
 * keep their digits; vectors become base64 where the client wants that and the provider sent
 * numbers. */
int embeddings_decode(const struct provider_config *p, const struct model_request *req,
                      const struct answer_identity *identity, const char *body, size_t len,
                      struct buf *out, struct token_meter *meter, struct token_usage *usage,
                      bool *usage_final, struct error *e);

#endif
