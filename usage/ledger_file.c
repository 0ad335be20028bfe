#include "usage/ledger_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "usage/wal.h"

#define MARKER ".created"
#define LOG "-wal"
#define INDEX "-shm"

static const char MARKER_TEXT[] =
    "A ledger was begun here. While this file is there, xrouter does not start without its\n"
    "database: restore a backup, or remove this file to begin an empty ledger.\n";

static int name_beside(char out[PATH_MAX], const char *path, const char *suffix)
{
    return snprintf(out, PATH_MAX, "%s%s", path, suffix) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Fills *st with zeros if there is no such file. 0 or -errno. */
static int look_at(const char *path, const char *suffix, struct stat *st)
{
    char name[PATH_MAX];
    int rc = name_beside(name, path, suffix);

    if (rc == 0 && stat(name, st) == 0)
        return 0;
    if (rc == 0)
        rc = -errno;
    memset(st, 0, sizeof(*st));
    return rc == -ENOENT ? 0 : rc;
}

static int sync_directory(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 1 : (size_t)(slash - path) + 1;
    int rc = 0;
    int fd;

    if (len >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, slash == NULL ? "." : path, len);
    dir[len] = '\0';
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd == -1)
        return -errno;
    if (fsync(fd) == -1)
        rc = -errno;
    close(fd);
    return rc;
}

static int refuse_lost(const char *path, const struct stat *database, char *why, size_t size)
{
    struct stat marker = {0}, log = {0};
    int rc = look_at(path, MARKER, &marker);

    if (rc == 0)
        rc = look_at(path, LOG, &log);
    if (rc < 0)
        return rc;
    if (marker.st_ino == 0 && log.st_size == 0)
        return 0; /* the first start, perhaps after one that did not come far */
    snprintf(why, size,
             "the database is %s, but a ledger was kept here: restore a backup, or remove %s" MARKER
             " (and " LOG ") to begin an empty one",
             database->st_ino == 0 ? "missing" : "empty", path);
    return -ENOENT;
}

static int refuse_short(const char *path, char *why, size_t size)
{
    int64_t lost = wal_lost_frames(path);

    if (lost <= 0)
        return (int)lost;
    snprintf(why, size,
             "its write-ahead log is cut or damaged, %lld committed pages are gone: restore " LOG
             " or a backup, or remove %s" INDEX " to go on without them",
             (long long)lost, path);
    return -EBADMSG;
}

int ledger_file_admit(const char *path, bool check_log, char *why, size_t size)
{
    struct stat database;
    int rc = look_at(path, "", &database);

    why[0] = '\0';
    if (rc == 0 && database.st_size == 0)
        rc = refuse_lost(path, &database, why, size);
    else if (rc == 0 && check_log)
        rc = refuse_short(path, why, size);
    if (rc < 0 && why[0] == '\0')
        snprintf(why, size, "cannot be looked at: %s", strerror(-rc));
    return rc;
}

int ledger_file_mark(const char *path)
{
    char name[PATH_MAX];
    ssize_t n;
    int rc = name_beside(name, path, MARKER);
    int fd;

    if (rc < 0)
        return rc;
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -1)
        return errno == EEXIST ? 0 : -errno;
    n = write(fd, MARKER_TEXT, sizeof(MARKER_TEXT) - 1);
    if (n != (ssize_t)sizeof(MARKER_TEXT) - 1)
        rc = n == -1 ? -errno : -ENOSPC;
    if (rc == 0 && fsync(fd) == -1)
        rc = -errno;
    close(fd);
    return rc == 0 ? sync_directory(path) : rc;
}

int ledger_file_sync(const char *path)
{
    char name[PATH_MAX];
    int rc = name_beside(name, path, LOG);
    int fd;

    if (rc < 0)
        return rc;
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
        return errno == ENOENT ? 0 : -errno;
    if (fdatasync(fd) == -1)
        rc = -errno;
    close(fd);
    return rc;
}

int ledger_file_note(struct ledger_file *f, const char *path)
{
    struct stat database, log;
    int rc = look_at(path, "", &database);

    if (rc == 0)
        rc = look_at(path, LOG, &log);
    if (rc < 0)
        return rc;
    if (database.st_ino == 0 || log.st_ino == 0)
        return -ENOENT;
    *f = (struct ledger_file){
        .path = path,
        .dev = database.st_dev,
        .inode = database.st_ino,
        .log_inode = log.st_ino,
        .log_bytes = (uint64_t)log.st_size,
    };
    return 0;
}

enum ledger_file_state ledger_file_look(struct ledger_file *f, uint64_t log_bytes)
{
    struct stat database, log;

    /* A directory that cannot be searched hides the file as well as a removal does. */
    if (look_at(f->path, "", &database) < 0 || database.st_ino == 0)
        return LEDGER_FILE_MISSING;
    if (database.st_size == 0) {
        f->was_emptied = true;
        return LEDGER_FILE_EMPTY;
    }
    if (f->was_emptied || database.st_dev != f->dev || database.st_ino != f->inode)
        return LEDGER_FILE_REPLACED;
    if (look_at(f->path, LOG, &log) < 0 || log.st_ino != f->log_inode)
        return LEDGER_FILE_LOG_GONE;
    f->log_bytes = (uint64_t)log.st_size;
    return f->log_bytes < log_bytes ? LEDGER_FILE_LOG_CUT : LEDGER_FILE_OPEN;
}

const char *ledger_file_sentence(enum ledger_file_state state)
{
    switch (state) {
    case LEDGER_FILE_OPEN:
        return "it is there";
    case LEDGER_FILE_MISSING:
        return "the database is gone: put it back or restore a backup";
    case LEDGER_FILE_EMPTY:
        return "the database was emptied: restore a backup";
    case LEDGER_FILE_REPLACED:
        return "another database stands in its place";
    case LEDGER_FILE_LOG_GONE:
        return "the write-ahead log was removed";
    case LEDGER_FILE_LOG_CUT:
        return "the write-ahead log was cut: put it back or restore a backup";
    }
    return "";
}

int ledger_file_leave(const struct ledger_file *f)
{
    static const char *const PARTS[] = {LOG, INDEX};
    char from[PATH_MAX], to[PATH_MAX];
    struct stat log;
    int rc = look_at(f->path, LOG, &log);

    if (rc < 0 || log.st_ino != f->log_inode)
        return rc; /* gone, or it came with the new database */
    for (size_t i = 0; i < sizeof(PARTS) / sizeof(PARTS[0]); i++) {
        rc = name_beside(from, f->path, PARTS[i]);
        if (rc == 0 && snprintf(to, sizeof(to), "%s.old-%lld", from,
                                (long long)clock_now_at_ms()) >= (int)sizeof(to))
            rc = -ENAMETOOLONG;
        if (rc == 0 && rename(from, to) == -1 && errno != ENOENT)
            rc = -errno;
        if (rc < 0)
            return rc;
    }
    return 0;
}
