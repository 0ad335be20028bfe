/* control_ops.h - what can be asked over writer.sock: one JSON object in, frames out
 * (common/frame.h). A group of operations is a table in its own file (control_keys.c,
 * control_usage.c, ...), where the fields stand beside the functions. */
#ifndef XROUTER_USAGE_CONTROL_OPS_H
#define XROUTER_USAGE_CONTROL_OPS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/counters.h"
#include "usage/keystore.h"
#include "usage/recount.h"
#include "usage/state_paths.h"

struct control_context { /* all borrowed; the pointed-to may change between turns */
    const struct keystore *keystore;
    const struct state_paths *paths;
    struct counters *counters;
    const struct open_requests *requests; /* NULL: nothing runs */
};

/* A request whose answer takes more than one slice. All zero = none. */
struct control_task {
    /* The next slice, some milliseconds at most; appends frames, and ends with control_task_clear()
     * after the last one. */
    void (*step)(struct control_task *task, const struct control_context *context,
                 int64_t now_at_ms, struct buf *out);
    void (*free_state)(void *state); /* NULL: free() */
    void *state;
    int64_t not_before_ms; /* monotonic: the next slice has nothing to do before; 0 = at once */
};
bool control_task_is_open(const struct control_task *task);
void control_task_clear(struct control_task *task);

struct control_request {
    const struct control_context *context;
    const cJSON *json;
    int64_t now_at_ms;
    struct control_task *task; /* to be filled by a request that takes more slices */
    struct buf *out;
};

struct control_op {
    const char *name;
    void (*run)(struct control_request *r);
};
/* Each ends with a NULL name. */
extern const struct control_op CONTROL_KEY_OPS[], CONTROL_USAGE_OPS[], CONTROL_ANSWER_OPS[],
    CONTROL_CREDIT_OPS[], CONTROL_LEDGER_OPS[];

/* Answers the request, or begins to: then task says how it goes on. Frames are appended to out,
 * which may come to hold a key's text. */
void control_ops_start(const struct control_context *context, const char *json, size_t len,
                       int64_t now_at_ms, struct control_task *task, struct buf *out);

/* For the operations: a buf for one frame's JSON, and its way out. A frame that could not be built
 * ends the connection: half an answer must not look like one. */
void control_json_init(struct buf *json);
void control_put_frame(struct buf *out, struct buf *json); /* clears json */
/* The last frame of a request that failed: with this code, or as the -errno says. */
void control_fail(struct buf *out, const char *code, const char *message);
void control_fail_errno(struct buf *out, int rc);
/* {"key": name or id} of the request; NULL after control_fail(). */
const char *control_wanted_key(struct control_request *r);
/* An optional member that must be a string: 0 with NULL if it is absent or null, -EINVAL. */
int control_get_text(const cJSON *object, const char *name, const char **out);

#endif
