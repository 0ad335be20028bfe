/* error.h - every error a client can meet, said once.
 *
 * Functions return 0, a negative errno, or a negative XR_E... from this table. The table carries
 * what the client sees (HTTP status, type, code, whether a retry makes sense) and whose fault it
 * was; docs/api/errors.md is rendered from it. */
#ifndef XROUTER_COMMON_ERROR_H
#define XROUTER_COMMON_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

/* clang-format off */
/* name                  status type                          code                          domain    retry text */
#define XR_ERRORS(X) \
    X(XR_EAUTH,             401, "authentication_error",       "invalid_api_key",            CLIENT,   false, "Incorrect API key provided.") \
    X(XR_EEXPIRED,          401, "authentication_error",       "expired_api_key",            CLIENT,   false, "This API key has expired.") \
    X(XR_EMODELDENIED,      403, "permission_error",           "model_not_allowed",          POLICY,   false, "This API key may not use this model.") \
    X(XR_EMODEL,            404, "invalid_request_error",      "model_not_found",            CLIENT,   false, "The model does not exist.") \
    X(XR_ENOTFOUND,         404, "invalid_request_error",      "not_found",                  CLIENT,   false, "There is nothing at this address.") \
    X(XR_EINVALID,          400, "invalid_request_error",      "invalid_request",            CLIENT,   false, "The request is not valid.") \
    X(XR_ECONTEXT,          400, "invalid_request_error",      "context_length_exceeded",    CLIENT,   false, "The prompt is longer than the model's context.") \
    X(XR_EUNSUPPORTED,      400, "invalid_request_error",      "unsupported_parameter",      CLIENT,   false, "The model's provider does not support this parameter.") \
    X(XR_EMETHOD,           405, "invalid_request_error",      "method_not_allowed",         CLIENT,   false, "This address does not accept this method.") \
    X(XR_EREQTIMEOUT,       408, "invalid_request_error",      "request_timeout",            CLIENT,   true,  "The request did not arrive in time.") \
    X(XR_EINPROGRESS,       409, "invalid_request_error",      "idempotency_in_progress",    CLIENT,   true,  "A request with this Idempotency-Key is still running.") \
    X(XR_EKEYREUSED,        409, "invalid_request_error",      "idempotency_key_reused",     CLIENT,   false, "This Idempotency-Key was used with another request.") \
    X(XR_ENOREPLAY,         409, "invalid_request_error",      "idempotency_replay_unavailable", OTHER, false, "The answer to this Idempotency-Key was not stored.") \
    X(XR_ETOOLARGE,         413, "invalid_request_error",      "request_too_large",          CLIENT,   false, "The request body is larger than this gateway accepts.") \
    X(XR_EURITOOLONG,       414, "invalid_request_error",      "uri_too_long",               CLIENT,   false, "The request address is too long.") \
    X(XR_EHEADERSTOOLARGE,  431, "invalid_request_error",      "headers_too_large",          CLIENT,   false, "The request headers are too large.") \
    X(XR_ECREDITS,          402, "insufficient_quota",         "insufficient_credits",       POLICY,   false, "The key's credit balance does not cover this request.") \
    X(XR_ERATELIMIT,        429, "rate_limit_error",           "rate_limit_exceeded",        POLICY,   true,  "A rate limit of this key is reached.") \
    X(XR_EBUSY,             429, "rate_limit_error",           "provider_busy",              PROVIDER, true,  "The provider is at its concurrency limit.") \
    X(XR_EINTERNAL,         500, "server_error",               "internal_error",             GATEWAY,  true,  "The gateway failed.") \
    X(XR_EQUOTA,            502, "server_error",               "provider_quota_exhausted",   PROVIDER, false, "The provider's own quota is used up.") \
    X(XR_EUPSTREAMAUTH,     502, "server_error",               "upstream_auth_failed",       PROVIDER, false, "The provider refused the gateway's credentials.") \
    X(XR_EUPSTREAM,         502, "server_error",               "upstream_failed",            PROVIDER, true,  "The provider failed.") \
    X(XR_ETIMEOUT,          504, "server_error",               "upstream_timeout",           PROVIDER, true,  "The provider did not answer in time.") \
    X(XR_EACCOUNTING,       503, "service_unavailable_error",  "accounting_unavailable",     GATEWAY,  true,  "Usage cannot be recorded right now.") \
    X(XR_ENOPROVIDER,       503, "service_unavailable_error",  "no_provider",                PROVIDER, true,  "No provider is available for this model.") \
    X(XR_EDRAINING,         503, "service_unavailable_error",  "draining",                   GATEWAY,  true,  "The gateway is shutting down.") \
    X(XR_EOVERLOADED,       503, "service_unavailable_error",  "overloaded",                 GATEWAY,  true,  "The gateway is overloaded.")
/* clang-format on */

#define X(name, status, type, code, domain, retry, text) name,
enum xr_error {
    XR_ERROR_BASE = -1000, /* below any -errno: the two never meet */
    XR_ERRORS(X) XR_ERROR_END
};
#undef X

enum fault_domain { DOMAIN_CLIENT, DOMAIN_POLICY, DOMAIN_PROVIDER, DOMAIN_GATEWAY, DOMAIN_OTHER };

struct error_info {
    int number; /* XR_E... */
    unsigned http_status;
    const char *type;
    const char *code;
    enum fault_domain domain;
    bool retry; /* the x-should-retry header */
    const char *text;
};

/* What went wrong, with the details a human needs. Embedded; all zero = nothing went wrong. */
struct error {
    int number;        /* XR_E... or -errno, 0 = none */
    char param[96];    /* the request's field at fault ("messages[2].role"), "" = none */
    char message[400]; /* "" = the table's text */
};

/* Fills *e (NULL is fine) and returns number. param may be NULL. Text that comes from outside is
 * cut to fit and its control characters are replaced. */
int error_set(struct error *e, int number, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The row of the table; any other number (an -errno) is XR_EINTERNAL's. */
const struct error_info *error_info(int number);
/* Rows in the table's order; index < error_count(). */
const struct error_info *error_at(size_t index);
size_t error_count(void);
const char *fault_domain_name(enum fault_domain domain);

/* Appends OpenAI's error object: {"error":{"message","type","param","code"}}. */
void error_encode(const struct error *e, struct buf *out);

#endif
