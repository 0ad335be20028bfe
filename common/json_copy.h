/* json_copy.h - checked JSON text on its way to elsewhere with some members changed: every byte
 * that need not change stays, white space, escapes, digits and order included.
 *
 *     json_copy_open(&copy, object, out);
 *     while (json_copy_next(&copy, &m))
 *         if (json_name_is(m.name, "model"))
 *             json_put_text(json_copy_value(&copy, &m), "other");
 *         else if (!json_name_is(m.name, "gone"))
 *             json_copy_keep(&copy, &m);
 *     json_copy_close(&copy);
 *
 * A member that is neither kept nor given a value is left out, with its comma. Objects inside
 * objects are copied by a copy of their own while the outer one waits. */
#ifndef XROUTER_COMMON_JSON_COPY_H
#define XROUTER_COMMON_JSON_COPY_H

#include "common/json.h"

struct json_copy { /* private */
    struct buf *out;
    struct json_walk walk;
    const char *run;  /* from here on nothing is copied yet */
    const char *safe; /* up to here it may be: the end of the last member kept, or the opening */
    const char *last; /* the end of the last member seen */
    const char *gap;  /* the end of the one before */
    const char *end;  /* of the whole */
    bool has_members; /* in the copy */
};

/* An object or an array, white space around it is left out. */
void json_copy_open(struct json_copy *c, struct json_span value, struct buf *out);
bool json_copy_next(struct json_copy *c, struct json_member *m);
void json_copy_keep(struct json_copy *c, const struct json_member *m);
/* The caller writes the member's value to the returned buf, which is out. */
struct buf *json_copy_value(struct json_copy *c, const struct json_member *m);
/* The same under another name. */
struct buf *json_copy_renamed(struct json_copy *c, const struct json_member *m, const char *name);
/* After the last member: one more, whose value the caller writes to the returned buf. */
struct buf *json_copy_add(struct json_copy *c, const char *name);
int json_copy_close(struct json_copy *c); /* out->err */

#endif
