/* control_ops.h - what can be asked over writer.sock: key.create, key.list, key.show, key.revoke,
 * usage. One JSON object in, frames out; docs of the fields stand beside the functions in the
 * source. */
#ifndef XROUTER_USAGE_CONTROL_OPS_H
#define XROUTER_USAGE_CONTROL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "usage/keystore.h"
#include "usage/report.h"

enum control_task_kind { TASK_NONE, TASK_LIST, TASK_REPORT };

/* A request whose answer takes more than one slice. All zero = none. */
struct control_task {
    enum control_task_kind kind;
    uint64_t after; /* list: the last key shown */
    struct report *report;
};

/* Answers the request, or begins to: then task says how it goes on. Frames are appended to out,
 * which may come to hold a key's text. */
void control_ops_start(const struct keystore *ks, const char *json, size_t len, int64_t now_at_ms,
                       struct control_task *task, struct buf *out);
/* The next slice, some milliseconds at most. */
void control_ops_step(const struct keystore *ks, int64_t now_at_ms, struct control_task *task,
                      struct buf *out);
void control_task_clear(struct control_task *task);

#endif
