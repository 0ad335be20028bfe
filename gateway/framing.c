#include "gateway/framing.h"

#include <string.h>
#include <strings.h>

#include "common/http_chars.h"

static bool is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_token_char(text[i]))
            return false;
    return len > 0;
}

static bool is_field_value(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_value_char(text[i]))
            return false;
    return true;
}

static bool is_name(const char *name, size_t len, const char *wanted)
{
    return len == strlen(wanted) && strncasecmp(name, wanted, len) == 0;
}

static bool begins_with_name(const char *name, size_t len, const char *wanted)
{
    size_t wanted_len = strlen(wanted);

    return len > wanted_len && strncasecmp(name, wanted, wanted_len) == 0;
}

static int parse_length(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;

    if (len == 0 || len > 19)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *out = value;
    return 0;
}

#define TIMEOUT_MAX_MS 86400000

struct walk {
    struct request_headers *out;
    unsigned hosts, lengths, codings, authorizations, idempotency_keys;
    const char *fault; /* NULL = none so far */
};

static void check_singleton(struct walk *walk, const char *name, size_t name_len, const char *value,
                            size_t value_len)
{
    if (is_name(name, name_len, "host")) {
        walk->hosts++;
    } else if (is_name(name, name_len, "content-length")) {
        walk->lengths++;
        walk->out->has_length = true;
        if (parse_length(value, value_len, &walk->out->length) < 0)
            walk->fault = "the Content-Length is not a number";
    } else if (is_name(name, name_len, "transfer-encoding")) {
        walk->codings++;
        walk->out->chunked = true;
        if (!is_name(value, value_len, "chunked"))
            walk->fault = "the only Transfer-Encoding accepted is chunked";
    } else if (is_name(name, name_len, "authorization")) {
        walk->authorizations++;
        walk->out->authorization = value;
        walk->out->authorization_len = value_len;
    } else if (is_name(name, name_len, "idempotency-key")) {
        walk->idempotency_keys++;
        walk->out->idempotency_key = value == NULL ? "" : value;
        walk->out->idempotency_key_len = value_len;
    } else if (is_name(name, name_len, "x-request-timeout-ms")) {
        if (parse_length(value, value_len, &walk->out->timeout_ms) < 0 ||
            walk->out->timeout_ms == 0 || walk->out->timeout_ms > TIMEOUT_MAX_MS)
            walk->fault = "x-request-timeout-ms is not a number from 1 to 86400000";
    } else if (begins_with_name(name, name_len, "content-length") ||
               begins_with_name(name, name_len, "transfer-encoding")) {
        /* libmicrohttpd 0.9.75 glues a folded value to the name: "Content-Length32". */
        walk->fault = "a header's name begins like a framing header";
    }
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                 size_t name_len, const char *value, size_t value_len)
{
    struct walk *walk = arg;

    if (!is_token(name, name_len))
        walk->fault = "a header's name holds a character that is not allowed";
    else if (!is_field_value(value, value_len))
        walk->fault = "a header's value holds a control character";
    else
        check_singleton(walk, name, name_len, value, value_len);
    return walk->fault == NULL ? MHD_YES : MHD_NO;
}

static const char *check_counts(const struct walk *walk, bool is_http11)
{
    if (walk->hosts > 1)
        return "there is more than one Host header";
    if (walk->hosts == 0 && is_http11)
        return "the Host header is missing";
    if (walk->lengths > 1)
        return "there is more than one Content-Length header";
    if (walk->codings > 1)
        return "there is more than one Transfer-Encoding header";
    if (walk->lengths > 0 && walk->codings > 0)
        return "Content-Length and Transfer-Encoding exclude each other";
    if (walk->codings > 0 && !is_http11)
        return "Transfer-Encoding needs HTTP/1.1";
    if (walk->authorizations > 1)
        return "there is more than one Authorization header";
    if (walk->idempotency_keys > 1)
        return "there is more than one Idempotency-Key header";
    return NULL;
}

static bool is_target(const char *target)
{
    if (target[0] != '/')
        return false;
    for (const char *p = target; *p != '\0'; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            return false;
    return true;
}

int framing_check(struct MHD_Connection *connection, const char *method, const char *target,
                  const char *version, struct request_headers *out, struct error *e)
{
    struct walk walk = {.out = out};
    bool is_http11 = strcmp(version, "HTTP/1.1") == 0;

    memset(out, 0, sizeof(*out));
    if (!is_token(method, strlen(method)))
        return error_set(e, XR_EINVALID, NULL, "The request line's method is not a token.");
    if (!is_target(target))
        return error_set(e, XR_EINVALID, NULL,
                         "The request's target must begin with '/' and hold printable ASCII only.");
    if (!is_http11 && strcmp(version, "HTTP/1.0") != 0)
        return error_set(e, XR_EINVALID, NULL,
                         "The protocol version must be HTTP/1.1 or HTTP/1.0.");
    (void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, on_header, &walk);
    if (walk.fault == NULL)
        walk.fault = check_counts(&walk, is_http11);
    if (walk.fault != NULL)
        return error_set(e, XR_EINVALID, NULL, "The request's headers are refused: %s.",
                         walk.fault);
    return 0;
}
