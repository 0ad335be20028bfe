/* query.h - the query of a request's address: "?since=2026-02-01&model=gigachat%2FGigaChat-2". */
#ifndef XROUTER_GATEWAY_QUERY_H
#define XROUTER_GATEWAY_QUERY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

#define QUERY_VALUE_BYTES 128 /* with the NUL */

struct query_param {
    const char *name; /* the caller's */
    bool is_given;
    char value[QUERY_VALUE_BYTES]; /* decoded: UTF-8 without control characters; may be empty */
};

/* Decodes the query of target (all behind the first '?', up to a '#') into params: %XX, '+' is a
 * space, a name without '=' has an empty value. 0, or XR_EINVALID with e naming the parameter: one
 * that is not in params, given twice, too long, or not decodable. */
int query_decode(const char *target, struct query_param *params, size_t count, struct error *e);
/* The same for one parameter; all others are left alone. */
int query_pick(const char *target, struct query_param *param, struct error *e);
/* Its value; NULL = not given. The name must be one of params. */
const char *query_value(const struct query_param *params, size_t count, const char *name);

#endif
