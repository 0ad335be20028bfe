/* operation.h - an adapter's functions, by what the client has asked for: a chat, embeddings, or a
 * completion, which is a chat for the adapter and gets its older shape here. The functions are
 * those of struct provider_ops (providers/provider.h), which says what they take and return. */
#ifndef XROUTER_PROVIDERS_OPERATION_H
#define XROUTER_PROVIDERS_OPERATION_H

#include "providers/provider.h"

/* Also XR_EUNSUPPORTED: the provider makes no embeddings. */
int operation_encode(const struct provider_ops *ops, const struct provider_config *p,
                     const char *upstream_model, const struct model_request *req,
                     const struct upstream_call *call, struct upstream_request *out,
                     struct buf *ignored, struct error *e);
int operation_decode_event(const struct provider_ops *ops, const struct model_request *req,
                           void *stream, const struct event *ev, struct buf *out,
                           struct token_usage *usage, bool *usage_final, struct error *e);
int operation_decode_end(const struct provider_ops *ops, const struct model_request *req,
                         void *stream, struct buf *out, struct error *e);
int operation_decode_whole(const struct provider_ops *ops, const struct provider_config *p,
                           const struct model_request *req, const struct answer_identity *identity,
                           const char *body, size_t len, struct buf *out, struct token_meter *meter,
                           struct token_usage *usage, bool *usage_final, struct error *e);

#endif
