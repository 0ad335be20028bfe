#define _GNU_SOURCE 1 /* close_range, pipe2 */
#include "usage/copy_check.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "usage/database.h"

#define TIME_MIN_MS 60000
#define BYTES_PER_MS 2048 /* slower than any disk that a ledger is kept on */
#define VERDICT_FD 3
#define LOCK_FD 4
#define SECRET_MAX 4096
#define NICE 15
#define EXIT_DAMAGED 2

/* ---- the child ---- */

static void say(const char *what, const char *why)
{
    char text[COPY_CHECK_TEXT_BYTES - 1];
    int len = snprintf(text, sizeof(text), "%s: %s", what, why);

    if (len >= (int)sizeof(text))
        len = (int)sizeof(text) - 1;
    /* Nobody is left to be told of a failure. */
    if (len > 0 && write(VERDICT_FD, text, (size_t)len) == -1)
        _exit(EXIT_FAILURE);
}

static int fail(const char *what, int rc)
{
    say(what, strerror(-rc));
    return rc;
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    int rc = 0;

    if (fd == -1)
        return -errno;
    if (fsync(fd) == -1)
        rc = -errno;
    close(fd);
    return rc;
}

/* Runs a check that should answer with exactly one row, "ok", or with none. */
static int run_check(sqlite3 *db, const char *sql, const char *what)
{
    sqlite3_stmt *stmt = NULL;
    int rc = database_prepare(db, sql, &stmt);
    int step = rc == 0 ? sqlite3_step(stmt) : SQLITE_ERROR;
    const char *text = NULL;

    if (step == SQLITE_ROW)
        text = (const char *)sqlite3_column_text(stmt, 0);
    if (step == SQLITE_DONE || (text != NULL && strcmp(text, "ok") == 0)) {
        sqlite3_finalize(stmt);
        return 0;
    }
    rc = step == SQLITE_ROW ? -EBADMSG : database_errno(sqlite3_errcode(db));
    say(what, text != NULL ? text : sqlite3_errmsg(db));
    sqlite3_finalize(stmt);
    return rc < 0 ? rc : -EBADMSG;
}

/* As it was copied it is a database with a log; alone, it needs none and leaves none behind. */
static int check_database(const char *path)
{
    sqlite3 *db = NULL;
    int rc = database_errno(sqlite3_open_v2(
        path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL));

    if (rc == 0)
        rc = database_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA trusted_schema = OFF;"
                               "PRAGMA journal_mode = DELETE;");
    if (rc < 0)
        say("the copy cannot be opened", db != NULL ? sqlite3_errmsg(db) : strerror(-rc));
    if (rc == 0)
        rc = run_check(db, "PRAGMA integrity_check(1)", "damaged");
    if (rc == 0)
        rc =
            run_check(db,
                      "SELECT \"table\" || ' refers to a row of ' || parent || ' that is not there'"
                      " FROM pragma_foreign_key_check LIMIT 1",
                      "damaged");
    database_close(db);
    return rc;
}

static int write_private(const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    ssize_t n;
    int rc = 0;

    if (fd == -1)
        return -errno;
    n = write(fd, data, len);
    if (n == -1)
        rc = -errno;
    else if ((size_t)n != len)
        rc = -ENOSPC;
    if (rc == 0 && fsync(fd) == -1)
        rc = -errno;
    close(fd);
    if (rc < 0)
        unlink(path);
    return rc;
}

static int copy_secret(const char *from, const char *to)
{
    char data[SECRET_MAX], part[PATH_MAX];
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    int rc;

    if (fd == -1)
        return -errno;
    n = read(fd, data, sizeof(data));
    rc = n == -1 ? -errno : n == 0 || n == SECRET_MAX ? -EINVAL : 0;
    close(fd);
    if (rc == 0 && snprintf(part, sizeof(part), "%s.part", to) >= (int)sizeof(part))
        rc = -ENAMETOOLONG;
    if (rc == 0) {
        unlink(part); /* of one that was interrupted */
        rc = write_private(part, data, (size_t)n);
    }
    if (rc == 0 && rename(part, to) == -1) {
        rc = -errno;
        unlink(part);
    }
    explicit_bzero(data, sizeof(data));
    return rc;
}

/* The secret first: what has the database's final name is complete. */
static int give_names(const struct copy_check_order *order)
{
    char dir[PATH_MAX];
    int rc = order->secret != NULL ? copy_secret(order->secret, order->secret_name) : 0;

    if (rc < 0)
        return fail(order->secret_name, rc);
    if (order->name == NULL)
        return 0;
    if (rename(order->copy, order->name) == -1)
        return fail(order->name, -errno);
    snprintf(dir, sizeof(dir), "%s", order->name);
    rc = sync_path(dirname(dir), O_RDONLY | O_DIRECTORY);
    return rc < 0 ? fail(order->name, rc) : 0;
}

static void become_child(pid_t parent, int verdict_fd, int lock_fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    prctl(PR_SET_NAME, "xr-copy-check");
    /* Out of the way first: either may have the other's number. */
    verdict_fd = fcntl(verdict_fd, F_DUPFD, LOCK_FD + 1);
    lock_fd = fcntl(lock_fd, F_DUPFD, LOCK_FD + 1);
    /* Descriptors of the parent's would keep its locks and connections alive. */
    if (dup2(verdict_fd, VERDICT_FD) == -1 || dup2(lock_fd, LOCK_FD) == -1 ||
        close_range(LOCK_FD + 1, UINT_MAX, 0) == -1)
        _exit(EXIT_FAILURE);
    (void)setpriority(PRIO_PROCESS, 0, NICE); /* only a courtesy */
}

static int child_main(const struct copy_check_order *order)
{
    int rc = sync_path(order->copy, O_RDWR);

    if (rc < 0)
        fail(order->copy, rc);
    if (rc == 0)
        rc = check_database(order->copy);
    if (rc == 0)
        rc = give_names(order);
    if (order->name == NULL)
        unlink(order->copy); /* here, because freeing a large file takes its time */
    return rc == 0 ? EXIT_SUCCESS : rc == -EBADMSG ? EXIT_DAMAGED : EXIT_FAILURE;
}

/* ---- the parent ---- */

int copy_check_start(struct copy_check *c, const struct copy_check_order *order, int64_t now_ms)
{
    pid_t parent = getpid();
    struct stat st;
    int fds[2];

    if (stat(order->copy, &st) == -1)
        return -errno;
    /* Children that had to be killed and were not gone yet; this process has no others. */
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (pipe2(fds, O_CLOEXEC) == -1)
        return -errno;
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) == -1) {
        int rc = -errno;

        close(fds[0]);
        close(fds[1]);
        return rc;
    }
    *c = (struct copy_check){.deadline_ms = now_ms + TIME_MIN_MS + st.st_size / BYTES_PER_MS};
    c->pid = fork();
    if (c->pid == 0) {
        become_child(parent, fds[1], order->lock_fd);
        _exit(child_main(order));
    }
    close(fds[1]);
    if (c->pid == -1) {
        int rc = -errno;

        close(fds[0]);
        *c = (struct copy_check){0};
        return rc;
    }
    c->fd = fds[0];
    return 0;
}

bool copy_check_is_running(const struct copy_check *c)
{
    return c->pid > 0;
}

void copy_check_stop(struct copy_check *c)
{
    if (c->pid <= 0)
        return;
    /* Not waited for: one that syncs a large file takes its time to die. */
    kill(c->pid, SIGKILL);
    (void)waitpid(c->pid, NULL, WNOHANG);
    close(c->fd);
    c->pid = 0;
}

/* The child has closed its end of the pipe: it is in the middle of its exit. */
static int end(struct copy_check *c)
{
    int status = 0;
    pid_t pid = waitpid(c->pid, &status, 0);

    close(c->fd);
    c->pid = 0;
    if (pid == -1) {
        snprintf(c->text, sizeof(c->text), "the checking process cannot be waited for: %s",
                 strerror(errno));
        return -ECHILD;
    }
    if (WIFSIGNALED(status)) {
        snprintf(c->text, sizeof(c->text), "the checking process was ended by signal %d",
                 WTERMSIG(status));
        return -ECHILD;
    }
    if (WEXITSTATUS(status) == EXIT_SUCCESS)
        return 0;
    if (c->text[0] == '\0')
        snprintf(c->text, sizeof(c->text), "the checking process could not begin");
    return WEXITSTATUS(status) == EXIT_DAMAGED ? -EBADMSG : -EIO;
}

int copy_check_poll(struct copy_check *c, int64_t now_ms)
{
    for (;;) {
        char text[COPY_CHECK_TEXT_BYTES];
        ssize_t n = read(c->fd, text, sizeof(text) - 1);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1 && errno == EAGAIN)
            break;
        if (n <= 0)
            return end(c);
        text[n] = '\0';
        memcpy(c->text, text, sizeof(text)); /* it says one sentence, in one write */
    }
    if (now_ms < c->deadline_ms)
        return 1;
    copy_check_stop(c);
    snprintf(c->text, sizeof(c->text), "the check did not end in time");
    return -ETIMEDOUT;
}
