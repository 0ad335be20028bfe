#include "gateway/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PID_NAME "xrouter.pid"
#define SHARED_NAME "xrouter.lock"
#define TRIES 8

static int join(char out[PATH_MAX], const char *dir, const char *name)
{
    return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static long pid_in_file(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return 0;
    text[n] = '\0';
    return strtol(text, NULL, 10);
}

/* An instance that stops removes its pid file: the lock must be on the file that has the name. */
static bool is_current(int fd, const char *path)
{
    struct stat ours, named;

    return fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

static int take_pid_file(const char *path, struct buf *why)
{
    for (int i = 0; i < TRIES; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        int rc;

        if (fd == -1) {
            rc = -errno;
            buf_printf(why, "%s: %s", path, strerror(errno));
            return rc;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            if (is_current(fd, path))
                return fd;
            close(fd);
            continue;
        }
        rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (rc == -EBUSY)
            buf_printf(why, "another instance is running (pid %ld), see %s", pid_in_file(fd), path);
        else
            buf_printf(why, "%s: %s", path, strerror(-rc));
        close(fd);
        return rc;
    }
    buf_printf(why, "%s: another instance is stopping right now", path);
    return -EBUSY;
}

static int take_state_dir(const char *dir, struct buf *why)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (fd != -1 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (rc == -EBUSY)
        buf_printf(why, "another instance uses the state directory %s", dir);
    else
        buf_printf(why, "%s: %s", dir, strerror(-rc));
    if (fd != -1)
        close(fd);
    return rc;
}

static int write_pid(int fd)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if (ftruncate(fd, 0) == -1)
        return -errno;
    return pwrite(fd, text, (size_t)len, 0) == len ? 0 : -EIO;
}

static int open_shared(const char *runtime_dir)
{
    char path[PATH_MAX];
    int fd, rc = join(path, runtime_dir, SHARED_NAME);

    if (rc < 0)
        return rc;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    return fd == -1 ? -errno : fd;
}

int locks_take(struct locks *locks, const char *runtime_dir, const char *state_dir, struct buf *why)
{
    char path[PATH_MAX];
    int rc = join(path, runtime_dir, PID_NAME);

    *locks = (struct locks){-1, -1};
    if (rc < 0) {
        buf_printf(why, "%s: %s", runtime_dir, strerror(-rc));
        return rc;
    }
    rc = take_pid_file(path, why);
    if (rc < 0)
        return rc;
    locks->pid_fd = rc;
    rc = take_state_dir(state_dir, why);
    if (rc >= 0) {
        locks->state_fd = rc;
        rc = write_pid(locks->pid_fd);
        if (rc == 0)
            return 0;
        buf_printf(why, "%s: %s", path, strerror(-rc));
    }
    locks_release(locks, runtime_dir);
    return rc;
}

void locks_release(struct locks *locks, const char *runtime_dir)
{
    char path[PATH_MAX];

    /* Removed before it is given back: whoever locks it next looks whether it still has its name.
     */
    if (locks->pid_fd != -1 && join(path, runtime_dir, PID_NAME) == 0)
        unlink(path);
    locks_forget(locks);
}

void locks_forget(struct locks *locks)
{
    if (locks->pid_fd != -1)
        close(locks->pid_fd);
    if (locks->state_fd != -1)
        close(locks->state_fd);
    *locks = (struct locks){-1, -1};
}

int locks_share(const char *runtime_dir)
{
    int rc, fd = open_shared(runtime_dir);

    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

int locks_is_unshared(const char *runtime_dir)
{
    int rc, fd = open_shared(runtime_dir);

    if (fd < 0)
        return fd;
    rc = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 1 : errno == EWOULDBLOCK ? 0 : -errno;
    close(fd);
    return rc;
}

int locks_sharers(const char *runtime_dir, pid_t *pids, size_t max)
{
    struct stat st;
    size_t count = 0;
    char line[256];
    FILE *f;
    int fd = open_shared(runtime_dir);

    if (fd < 0)
        return fd;
    if (fstat(fd, &st) == -1) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    close(fd);
    f = fopen("/proc/locks", "re");
    if (f == NULL)
        return -errno;
    /* "1: FLOCK  ADVISORY  READ 1234 fe:01:5678 0 EOF" */
    while (count < max && fgets(line, sizeof(line), f) != NULL) {
        unsigned long inode;
        unsigned dev_major, dev_minor;
        int pid;

        /* NOLINTNEXTLINE(cert-err34-c): the kernel's own numbers, and the count is looked at */
        if (sscanf(line, "%*d: FLOCK ADVISORY READ %d %x:%x:%lu", &pid, &dev_major, &dev_minor,
                   &inode) != 4)
            continue;
        if (pid > 1 && inode == st.st_ino && dev_major == major(st.st_dev) &&
            dev_minor == minor(st.st_dev))
            pids[count++] = pid;
    }
    fclose(f);
    return (int)count;
}
