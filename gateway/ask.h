/* ask.h - a worker's questions to the usage-writer: one JSON object over writer.sock, one answer
 * (common/frame.h). Nothing here blocks; each question has a connection of its own, so one that
 * takes long holds up no other. */
#ifndef XROUTER_GATEWAY_ASK_H
#define XROUTER_GATEWAY_ASK_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "common/loop.h"

#define ASK_TIMEOUT_MS 2000 /* what a client waits for the ledger, unless there is a reason */

struct asker; /* opaque: all questions of one worker */
struct ask;   /* opaque: one that is not answered yet */

struct ask_answer { /* valid during the callback */
    /* 0; -ETIMEDOUT (the deadline), -ECONNRESET (the writer went away), -EPROTO (not JSON, or more
     * than FRAME_MAX bytes in all), -ENOMEM, -errno. */
    int rc;
    /* If rc is 0: the last frame, an object; its bytes, for json_slice(). The writer's refusals are
     * answers too: error_code is their "error.code", NULL = it did what was asked. */
    const cJSON *json;
    const char *text;
    size_t len;
    const char *error_code;
    const cJSON *parts; /* an array of the frames that came before the last one; NULL = none */
};

/* Exactly once, from the loop, never from inside ask_start(). The ask is gone when it is called; it
 * may start others. */
typedef void (*ask_answer_fn)(void *arg, const struct ask_answer *answer);

/* path is writer.sock's; loop is borrowed. 0, -ENAMETOOLONG or -ENOMEM. */
int asker_new(struct loop *loop, const char *path, struct asker **out);
void asker_free(struct asker *a); /* cancels what is open. NULL is fine */

/* Sends the len bytes of JSON (copied) and waits for the answer until timeout_ms from now.
 * On 0, *out lives until on_answer is called or ask_cancel(). Otherwise on_answer is not called:
 * -EBUSY (CONTROL_ASKS_MAX of this worker are open), -ENOENT or -ECONNREFUSED or -EAGAIN (the
 * writer is away, or stuck), -EMSGSIZE (len over FRAME_MAX), -ENOMEM, -errno. */
int ask_start(struct asker *a, const char *json, size_t len, int64_t timeout_ms,
              ask_answer_fn on_answer, void *arg, struct ask **out);
void ask_cancel(struct ask *ask); /* no callback. NULL is fine */

#endif
