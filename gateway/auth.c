#include "gateway/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

int auth_check(const struct keytable_region *keys, const char *authorization, size_t len,
               int64_t now_at_ms, struct key *out, struct error *e)
{
    static const char scheme[] = "Bearer ";
    const size_t scheme_len = sizeof(scheme) - 1;
    int rc;

    if (authorization == NULL)
        return error_set(e, XR_EAUTH, NULL,
                         "No API key was provided: send \"Authorization: Bearer sk-xr-...\".");
    if (len < scheme_len || strncasecmp(authorization, scheme, scheme_len) != 0)
        return error_set(e, XR_EAUTH, NULL,
                         "The Authorization header must be \"Bearer\" and an API key.");
    rc = keytable_lookup(keys, authorization + scheme_len, len - scheme_len, now_at_ms, out);
    switch (rc) {
    case 0:
        return 0;
    case -EINVAL:
        return error_set(e, XR_EAUTH, NULL,
                         "The API key is malformed: it begins with \"" KEY_PREFIX
                         "\" and is %d characters long.",
                         KEY_TEXT_LEN);
    case XR_EAUTH:
        return error_set(e, XR_EAUTH, NULL, "The API key is unknown or was revoked.");
    case XR_EEXPIRED:
        return error_set(e, XR_EEXPIRED, NULL, "The API key has expired.");
    default:
        return error_set(e, rc, NULL, "The API key could not be checked.");
    }
}
