#include "gateway/endpoints.h"

#include "gateway/account.h"
#include "gateway/chat.h"
#include "gateway/models.h"
#include "gateway/ops.h"
#include "gateway/token_count.h"

/* method  path                    key    public handler */
const struct endpoint ENDPOINTS[] = {
    {"POST", "/v1/chat/completions", true, true, chat_handle},
    {"POST", "/v1/completions", true, true, chat_handle_completion},
    {"POST", "/v1/embeddings", true, true, chat_handle_embeddings},
    {"POST", "/v1/tokens/count", true, true, token_count_handle},
    {"GET", "/v1/models", true, true, models_handle_list},
    {"GET", "/v1/models/", true, true, models_handle_one},
    {"GET", "/v1/parameters/", true, true, models_handle_parameters},
    {"GET", "/v1/key", true, true, account_handle_key},
    {"GET", "/v1/usage", true, true, account_handle_usage},
    {"GET", "/v1/generation", true, true, account_handle_generation},
    {"GET", "/v1/providers/status", true, true, account_handle_providers},
    {"GET", "/health", false, false, ops_handle_health},
    {"GET", "/ready", false, false, ops_handle_ready},
    {"GET", "/metrics", false, false, ops_handle_metrics},
    {NULL, NULL, false, false, NULL},
};
