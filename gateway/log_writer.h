/* log_writer.h - the helper's thread that carries log lines from the pipes to their files, or to
 * standard error and output. A slow disk makes the pipes fill up, and nobody wait.
 *
 * Lines leave the pipe only after they have been written: a helper that is killed repeats a few
 * rather than losing them. */
#ifndef XROUTER_GATEWAY_LOG_WRITER_H
#define XROUTER_GATEWAY_LOG_WRITER_H

#include <stdbool.h>
#include <stdint.h>

struct log_writer; /* opaque */

/* The pipes' read ends are borrowed; "" as a file is standard error, or output for the access log.
 * Starts the thread. NULL on failure, see errno (a file that cannot be opened, for one). */
struct log_writer *log_writer_new(int error_pipe, const char *error_file, int access_pipe,
                                  const char *access_file);
/* Opens the files again, under their names (after logrotate). */
void log_writer_reopen(struct log_writer *w);
/* Lines that could not be written and were given up. */
uint64_t log_writer_lost(const struct log_writer *w);
/* Empties the pipes and ends the thread. */
void log_writer_finish(struct log_writer *w);
bool log_writer_is_done(const struct log_writer *w);
/* Frees it when the thread has ended; one that waits for a stuck disk is left alone. NULL is
 * fine. */
void log_writer_free(struct log_writer *w);

#endif
