/* copy_check.h - a copy of the database looked at from end to end by a child process, because that
 * takes minutes for a large one.
 *
 * The child opens the copy with a connection of its own and nothing else: every descriptor that it
 * has from its parent is closed first, and the parent's connection is never touched. It gives up
 * the processor and the disk to everybody else, and dies with its parent. */
#ifndef XROUTER_USAGE_COPY_CHECK_H
#define XROUTER_USAGE_COPY_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define COPY_CHECK_TEXT_BYTES 512

struct copy_check_order {
    const char *copy;
    int lock_fd;             /* of the copy, flocked: the child keeps it, the caller may close it */
    const char *name;        /* what a sound copy is renamed to; NULL: the child removes the copy */
    const char *secret;      /* a file to be copied beside it; NULL = none */
    const char *secret_name; /* what that copy is called */
};

struct copy_check { /* all zero = none runs */
    pid_t pid;
    int fd; /* the child's verdict comes here */
    int64_t deadline_ms;
    char text[COPY_CHECK_TEXT_BYTES];
};

/* Starts the child. The copy is synced, made a plain file without a log beside it, checked, and
 * renamed (after the secret's copy); syncing and renaming are the child's too, because they wait
 * for the disk. The time it gets grows with the copy's size. 0 or -errno. */
int copy_check_start(struct copy_check *c, const struct copy_check_order *order, int64_t now_ms);
bool copy_check_is_running(const struct copy_check *c);
/* 1 = not yet; 0 = the copy is sound and has its name; -EBADMSG (damaged), -ETIMEDOUT, -ECHILD (the
 * child was killed) or -EIO, with a sentence in c->text. */
int copy_check_poll(struct copy_check *c, int64_t now_ms);
/* Ends the child; its files stay. None running is fine. */
void copy_check_stop(struct copy_check *c);

#endif
