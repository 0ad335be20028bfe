/* json.h - JSON in and out, strictly.
 *
 * Reading is cJSON's, but only after json_check() has accepted the text: cJSON alone cuts strings
 * at \u0000, accepts trailing text, control bytes, invalid UTF-8 and leading zeros, and lets small
 * inputs grow large. Writing is our own appenders on a buf: integers stay integers. */
#ifndef XROUTER_COMMON_JSON_H
#define XROUTER_COMMON_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define JSON_DEPTH_MAX 512 /* a larger limit counts as this; cJSON ends at 1,000 */

struct json_limits {
    size_t depth;    /* nesting of arrays and objects */
    size_t elements; /* values in all, keys not counted */
};

extern const struct json_limits JSON_LIMITS_DEFAULT; /* depth 64, elements 200,000 */

/* Whether the len bytes at text are one JSON value by RFC 8259 and nothing behind it but white
 * space, in valid UTF-8, with no NUL (raw or \u0000) and no lone surrogate escape, inside limits.
 * A number of more than 63 characters is refused too (as a limit): cJSON cannot read it.
 * On failure *offset is where and *why (a literal, NULL is fine) says what is wrong.
 * Returns 0 or -EINVAL (-E2BIG when a limit is passed). Takes linear time and no memory that grows
 * with the input. */
int json_check(const char *text, size_t len, const struct json_limits *limits, size_t *offset,
               const char **why);

/* json_check(), then cJSON's tree. NULL on failure; the caller frees it with cJSON_Delete(). */
cJSON *json_parse(const char *text, size_t len, const struct json_limits *limits, size_t *offset,
                  const char **why);

/* Getters on an object (NULL object = absent). Names are compared with case; the last of duplicate
 * names counts, as in json_slice(). */
const cJSON *json_get(const cJSON *object, const char *name);
/* The string, or NULL if absent or of another type. */
const char *json_string(const cJSON *object, const char *name);
/* Whether it is a whole number that int64 holds exactly within cJSON's double (|n| <= 2^53). */
bool json_is_integer(const cJSON *item, int64_t *value);
/* 0, -ENOENT (absent or null) or -EINVAL (another type, a fraction, out of range). */
int json_get_i64(const cJSON *object, const char *name, int64_t *value);
int json_get_bool(const cJSON *object, const char *name, bool *value);

/* Finds the value of a member of the top-level object in checked text, as the source bytes:
 * numbers keep their digits, objects their order. The last of duplicate keys wins, as in OpenAI's
 * servers. path is a name or names joined by dots; array indexes are decimal ("choices.0.delta").
 * Returns 0 with *value, *value_len, or -ENOENT. */
int json_slice(const char *text, size_t len, const char *path, const char **value,
               size_t *value_len);

/* Bytes of a text. */
struct json_span {
    const char *at;
    size_t len;
};

/* What is between the string's quotes; empty if the value is no string. */
static inline struct json_span json_inside(struct json_span value)
{
    if (value.len < 2 || value.at[0] != '"')
        return (struct json_span){value.at, 0};
    return (struct json_span){value.at + 1, value.len - 2};
}

/* The members of an object or the elements of an array in checked text, in order, duplicates
 * included. */
struct json_member {
    struct json_span name; /* between its quotes, escapes not undone; of an element empty */
    struct json_span value;
    const char *at; /* the member's first byte: the name's opening quote, or the value */
};
struct json_walk { /* private */
    const char *at;
    const char *end;
    bool in_object;
};
/* value may begin and end with white space; one that is neither has no members. */
void json_walk_begin(struct json_walk *w, struct json_span value);
bool json_walk_next(struct json_walk *w, struct json_member *m);
/* Whether the name spells that, escapes undone. */
bool json_name_is(struct json_span name, const char *text);

/* Appends what the bytes between a checked string's quotes stand for. */
int json_unescape(struct buf *out, const char *text, size_t len);
/* The strict scanner for one string: at is behind the opening quote. Returns the closing quote,
 * NULL if the bytes up to end are no string that json_check() accepts. *escaped = it has a
 * backslash. */
const char *json_string_end(const char *at, const char *end, bool *escaped);

/* Appends the value without the white space between tokens; strings and numbers byte for byte. */
int json_minify(struct buf *out, const char *text, size_t len);

/* Writers. A string is quoted and escaped; invalid UTF-8 becomes U+FFFD, so the result is always
 * valid. text may be NULL when len is 0 (an empty buf's data is). */
int json_put_string(struct buf *out, const char *text, size_t len);
int json_put_text(struct buf *out, const char *text); /* NUL-terminated; NULL writes null */
/* A comma unless the last byte opened an array or object, then "name":. */
int json_put_key(struct buf *out, const char *name);
int json_put_field_text(struct buf *out, const char *name, const char *text); /* the same */
int json_put_field_i64(struct buf *out, const char *name, int64_t value);
int json_put_field_u64(struct buf *out, const char *name, uint64_t value);
int json_put_field_bool(struct buf *out, const char *name, bool value);
/* RFC 3339 text, or null for 0. */
int json_put_field_time(struct buf *out, const char *name, int64_t at_ms);
/* Prints a cJSON tree compactly (for values whose numbers may pass through a double). */
int json_put_tree(struct buf *out, const cJSON *tree);

#endif
