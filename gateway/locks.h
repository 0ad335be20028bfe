/* locks.h - one instance a runtime directory, and one a state directory.
 *
 * The master holds runtime_dir/xrouter.pid and the state directory itself exclusively; children
 * close those descriptors right after the fork. Every child holds runtime_dir/xrouter.lock shared,
 * through a descriptor of its own, so that a starting master can tell whether children of an
 * earlier one still live. All of them are flock(2)s: the kernel gives them back. */
#ifndef XROUTER_GATEWAY_LOCKS_H
#define XROUTER_GATEWAY_LOCKS_H

#include <stddef.h>
#include <sys/types.h>

#include "common/buf.h"

struct locks {
    int pid_fd, state_fd; /* -1 = not held */
};

/* Takes both and writes our pid. -EBUSY: another instance is running; why (appended to) names its
 * pid. 0 or -errno (nothing held then). */
int locks_take(struct locks *locks, const char *runtime_dir, const char *state_dir,
               struct buf *why);
/* Master, last of all: removes the pid file and gives both back. */
void locks_release(struct locks *locks, const char *runtime_dir);
/* Child: closes its copies, which gives nothing back. */
void locks_forget(struct locks *locks);

/* Child: holds the children's lock while the returned descriptor is open. fd or -errno. */
int locks_share(const char *runtime_dir);
/* Master: 1 = no child of any master lives, 0 = some do, or -errno. */
int locks_is_unshared(const char *runtime_dir);
/* Who holds the children's lock; returns how many pids were stored, at most max, or -errno. */
int locks_sharers(const char *runtime_dir, pid_t *pids, size_t max);

#endif
