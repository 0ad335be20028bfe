/* log.h - one JSON object a line; two streams: what happened (error log) and who asked (access
 * log).
 *
 * A process writes lines of at most LOG_LINE_MAX bytes to a non-blocking descriptor: stderr for a
 * tool or before the helper runs, else the helper's pipe. A full pipe drops the line and counts it;
 * nobody ever waits for a log. No secret is ever passed in here. */
#ifndef XROUTER_COMMON_LOG_H
#define XROUTER_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define LOG_LINE_MAX 4096 /* PIPE_BUF: a line arrives whole */
#define LOG_DELAY_MS 10   /* longest wait of an access-log line in its process */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* The process's one logger: the single mutable global of the program, because a failing malloc deep
 * down must be able to say so. role is "master", "worker", "usage-writer", "helper", ...; slot < 0
 * is left out. */
void log_init(const char *role, int slot, enum log_level level);
/* Where lines go from now on; both fds are borrowed and must be O_NONBLOCK pipes (or a terminal).
 * Before this call both are stderr. */
void log_to(int error_fd, int access_fd);
void log_set_level(enum log_level level);
bool log_is_on(enum log_level level);
int log_level_parse(const char *text, enum log_level *out); /* 0 or -EINVAL */
const char *log_level_name(enum log_level level);
/* Lines dropped since the start because the pipe was full. */
uint64_t log_dropped(void);

/* One line of the error log: {"ts","level","role","slot","pid","event",...,"message"}.
 * event is a stable snake_case name ("worker_died"); the text is for people.
 * fields is "" or ready-made JSON members without braces ("\"pid\":12,\"signal\":9"). */
void log_event(enum log_level level, const char *event, const char *fields, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same, with "request_id" as its only field. */
void log_request_event(enum log_level level, const char *event, const char *request_id,
                       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* One line of the access log; the buf holds a whole JSON object without newline. Too long a line
 * is counted as dropped. Lines wait for log_flush(), at most LOG_LINE_MAX bytes of them: each write
 * wakes the log's reader, which costs more than the line. */
void log_access(const struct buf *object);
/* Writes what waits. Main thread only, like log_access(). */
void log_flush(void);
/* To call once a turn with the monotonic time: writes what has waited LOG_DELAY_MS; returns how
 * long the rest may still wait, -1 = nothing does. */
int64_t log_flush_due(int64_t now_ms);

#endif
