/* json_schema.h - a JSON Schema cut down to the subset that weaker function-calling models and
 * their servers understand: one type per value, references written out, no unions. */
#ifndef XROUTER_PROVIDERS_JSON_SCHEMA_H
#define XROUTER_PROVIDERS_JSON_SCHEMA_H

#include <cjson/cJSON.h>

#include "common/buf.h"

#define JSON_SCHEMA_DEPTH_MAX 64
#define JSON_SCHEMA_BYTES_MAX (256 * 1024)

/* Appends the schema of an object (a function's parameters; NULL = it has none):
 * - local $ref written out; one that leads back into itself becomes an object without properties;
 * - anyOf, oneOf, allOf and lists of types become their first member that is not null;
 * - every object has properties, every array typed items, everything a type;
 * - enums keep their strings, those of anything else are dropped; format only date, date-time,
 * time;
 * - keywords that describe (title, description, default, bounds, pattern) stay, others go.
 * Returns 0, -EINVAL (a $ref that leads nowhere), -E2BIG (deeper than JSON_SCHEMA_DEPTH_MAX, larger
 * than JSON_SCHEMA_BYTES_MAX or too much work once written out) with *why, a literal; -ENOMEM. */
int json_schema_simplify(const cJSON *schema, struct buf *out, const char **why);

#endif
