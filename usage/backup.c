#include "usage/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/clock.h"
#include "usage/copy_check.h"

#define SLICE_US 3000
#define STEP_PAGES 32
#define SLICE_PAGES 256
/* The disk is shared with the commits: a megabyte at a time, and then their turn. */
#define PAUSE_MS 8
#define POLL_MS 20
#define SPARE_BYTES (16 * 1024 * 1024)

/* On the copy's connection: nothing to sync or to roll back, a copy that breaks off is removed. */
#define COPY_PRAGMAS                   \
    "PRAGMA locking_mode = EXCLUSIVE;" \
    "PRAGMA journal_mode = OFF;"       \
    "PRAGMA synchronous = OFF;"        \
    "PRAGMA cache_size = -1024;"

struct backup {
    struct ledger *ledger;
    sqlite3 *source; /* to see whether the ledger's connection is still the same */
    sqlite3 *copy;
    sqlite3_backup *pages;
    int lock_fd; /* of the .part file, flocked */
    struct copy_check check;
    struct backup_progress progress;
    int64_t next_ms;
    bool has_part; /* the file is ours to remove */
    bool only_check;
    char file[PATH_MAX], part[PATH_MAX], secret[PATH_MAX], secret_name[PATH_MAX];
    char why[BACKUP_WHY_BYTES];
};

__attribute__((format(printf, 3, 4))) static int refuse(char why[BACKUP_WHY_BYTES], int rc,
                                                        const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, BACKUP_WHY_BYTES, format, args);
    va_end(args);
    return rc;
}

/* ---- where it goes ---- */

static int set_name(char out[PATH_MAX], const char *path, const char *suffix)
{
    int n = snprintf(out, PATH_MAX, "%s%s", path, suffix);

    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int set_names(struct backup *b, const struct backup_setup *s, char why[BACKUP_WHY_BYTES])
{
    int rc = set_name(b->file, s->file, "");

    if (s->file[0] != '/')
        return refuse(why, -EINVAL, "%s: is no absolute path", s->file);
    b->only_check = s->secret == NULL;
    if (rc == 0)
        rc = set_name(b->part, s->file, ".part");
    if (rc == 0)
        rc = set_name(b->secret_name, s->file, BACKUP_SECRET_SUFFIX);
    if (rc == 0 && !b->only_check)
        rc = set_name(b->secret, s->secret, "");
    return rc < 0 ? refuse(why, rc, "the file's name is too long") : 0;
}

/* A backup called like the database itself must not replace it. */
static int check_place(const struct backup *b, const struct backup_setup *s,
                       char why[BACKUP_WHY_BYTES])
{
    char dir[PATH_MAX], real[PATH_MAX], state[PATH_MAX];

    if (b->only_check)
        return 0;
    memcpy(dir, b->file, sizeof(dir));
    if (realpath(dirname(dir), real) == NULL)
        return refuse(why, -errno, "%s: %s", dir, strerror(errno));
    if (realpath(s->state_dir, state) != NULL && strcmp(real, state) == 0)
        return refuse(why, -EINVAL, "%s: a backup does not go where the database is", b->file);
    return 0;
}

static int check_free(const char *path, bool force, char why[BACKUP_WHY_BYTES])
{
    struct stat st;

    if (lstat(path, &st) == -1)
        return errno == ENOENT ? 0 : refuse(why, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return refuse(why, -EINVAL, "%s: is no file", path);
    if (!force)
        return refuse(why, -EEXIST, "%s: is there already; --force replaces it", path);
    return 0;
}

static int check_room(const struct backup *b, char why[BACKUP_WHY_BYTES])
{
    int64_t pages = 0, page_bytes = 0;
    uint64_t need, has;
    struct statvfs fs;
    char dir[PATH_MAX];
    int rc = database_get_i64(b->source, "PRAGMA page_count", 0, &pages);

    if (rc == 0)
        rc = database_get_i64(b->source, "PRAGMA page_size", 0, &page_bytes);
    if (rc < 0)
        return refuse(why, rc, "the database cannot be read: %s", strerror(-rc));
    memcpy(dir, b->file, sizeof(dir));
    if (statvfs(dirname(dir), &fs) == -1)
        return refuse(why, -errno, "%s: %s", dir, strerror(errno));
    need = (uint64_t)(pages * page_bytes) + SPARE_BYTES;
    has = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (has < need)
        return refuse(why, -ENOSPC, "%s: the copy needs %llu MiB, and %llu MiB are free", dir,
                      (unsigned long long)(need >> 20), (unsigned long long)(has >> 20));
    return 0;
}

/* A check that was ended may have left a log or a journal. */
static void remove_part(const struct backup *b)
{
    static const char *const suffixes[] = {"", "-journal", "-wal"};

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char path[PATH_MAX];

        if (set_name(path, b->part, suffixes[i]) == 0)
            unlink(path);
    }
}

/* The .part file, ours alone: one that is there is either being written or was left behind by a
 * process that died. *size: what is in it. */
static int lock_part(struct backup *b, off_t *size, char why[BACKUP_WHY_BYTES])
{
    struct stat st;

    b->lock_fd = open(b->part, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (b->lock_fd == -1)
        return refuse(why, -errno, "%s: %s (the server writes it, as its own user)", b->part,
                      strerror(errno));
    if (flock(b->lock_fd, LOCK_EX | LOCK_NB) == -1)
        return refuse(why, -EBUSY, "%s: another backup is writing it", b->part);
    if (fstat(b->lock_fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
        st.st_uid != geteuid())
        return refuse(why, -EINVAL, "%s: is not left over from a backup of ours; remove it",
                      b->part);
    b->has_part = true;
    *size = st.st_size;
    if (fchmod(b->lock_fd, 0600) == -1)
        return refuse(why, -errno, "%s: %s", b->part, strerror(errno));
    return 0;
}

/* A new and empty one. An old one is not truncated: ext4 begins to write out all of a file that was
 * truncated when it is closed, which holds us up. */
static int take_part(struct backup *b, char why[BACKUP_WHY_BYTES])
{
    off_t size = 0;
    int rc = lock_part(b, &size, why);

    if (rc < 0 || size == 0)
        return rc;
    remove_part(b);
    close(b->lock_fd);
    b->has_part = false;
    rc = lock_part(b, &size, why);
    if (rc == 0 && size > 0)
        return refuse(why, -EBUSY, "%s: somebody else has just made it", b->part);
    return rc;
}

static int open_copy(struct backup *b, char why[BACKUP_WHY_BYTES])
{
    int rc = database_errno(
        sqlite3_open_v2(b->part, &b->copy,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL));

    if (rc == 0)
        rc = database_exec(b->copy, COPY_PRAGMAS);
    if (rc == 0) {
        b->pages = sqlite3_backup_init(b->copy, "main", b->source, "main");
        if (b->pages == NULL)
            rc = database_errno(sqlite3_errcode(b->copy));
    }
    if (rc < 0)
        return refuse(why, rc, "%s: %s", b->part,
                      b->copy != NULL ? sqlite3_errmsg(b->copy) : strerror(-rc));
    return 0;
}

int backup_start(const struct backup_setup *setup, struct backup **out, char why[BACKUP_WHY_BYTES])
{
    struct backup *b = calloc(1, sizeof(*b));
    int rc;

    *out = NULL;
    if (b == NULL)
        return refuse(why, -ENOMEM, "out of memory");
    b->lock_fd = -1;
    b->ledger = setup->ledger;
    b->source = ledger_db(setup->ledger);
    rc = b->source != NULL ? 0 : refuse(why, -EIO, "the database cannot be used right now");
    if (rc == 0)
        rc = set_names(b, setup, why);
    if (rc == 0)
        rc = check_place(b, setup, why);
    if (rc == 0)
        rc = check_free(b->file, setup->force, why);
    if (rc == 0 && !b->only_check)
        rc = check_free(b->secret_name, setup->force, why);
    if (rc == 0)
        rc = check_room(b, why);
    if (rc == 0)
        rc = take_part(b, why);
    if (rc == 0)
        rc = open_copy(b, why);
    if (rc < 0) {
        backup_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

/* Gives back the connection; the first error that copying met, or 0. */
static int close_copy(struct backup *b)
{
    int rc = SQLITE_OK;

    if (b->pages != NULL)
        rc = sqlite3_backup_finish(b->pages);
    b->pages = NULL;
    database_close(b->copy);
    b->copy = NULL;
    return database_errno(rc);
}

void backup_free(struct backup *b)
{
    if (b == NULL)
        return;
    copy_check_stop(&b->check);
    (void)close_copy(b); /* the copy goes anyway */
    if (b->has_part)
        remove_part(b);
    if (b->lock_fd != -1)
        close(b->lock_fd);
    free(b);
}

/* ---- copying ---- */

static int start_check(struct backup *b, int64_t now_ms)
{
    const struct copy_check_order order = {
        .copy = b->part,
        .lock_fd = b->lock_fd,
        .name = b->only_check ? NULL : b->file,
        .secret = b->only_check ? NULL : b->secret,
        .secret_name = b->secret_name,
    };
    struct stat st = {0};
    int rc = close_copy(b);

    if (rc == 0 && fstat(b->lock_fd, &st) == -1)
        rc = -errno;
    if (rc == 0)
        rc = copy_check_start(&b->check, &order, now_ms);
    if (rc < 0)
        return refuse(b->why, rc, "%s: %s", b->part, strerror(-rc));
    close(b->lock_fd);
    b->lock_fd = -1;
    b->progress.bytes = st.st_size;
    b->progress.is_checking = true;
    b->next_ms = now_ms + POLL_MS;
    return 1;
}

static int copy_pages(struct backup *b, int64_t now_ms)
{
    int64_t deadline_us = clock_monotonic_us() + SLICE_US;
    int rc = SQLITE_OK;

    if (ledger_db(b->ledger) != b->source)
        return refuse(b->why, -EIO, "the database was opened anew meanwhile: try again");
    for (int n = 0; n < SLICE_PAGES && rc == SQLITE_OK && clock_monotonic_us() < deadline_us;
         n += STEP_PAGES)
        rc = sqlite3_backup_step(b->pages, STEP_PAGES);
    b->progress.pages = sqlite3_backup_pagecount(b->pages);
    b->progress.pages_done = b->progress.pages - sqlite3_backup_remaining(b->pages);
    b->next_ms = now_ms + PAUSE_MS;
    if (rc == SQLITE_DONE)
        return start_check(b, now_ms);
    if (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
        return 1; /* a lock of somebody else's passes */
    return refuse(b->why, database_errno(rc), "%s: %s", b->part, sqlite3_errstr(rc));
}

static int follow_check(struct backup *b, int64_t now_ms)
{
    int rc = copy_check_poll(&b->check, now_ms);

    b->next_ms = now_ms + POLL_MS;
    if (rc == 0 && !b->only_check)
        b->has_part = false; /* it has its name now */
    return rc < 0 ? refuse(b->why, rc, "%s", b->check.text) : rc;
}

int backup_step(struct backup *b, int64_t now_ms)
{
    if (now_ms < b->next_ms)
        return 1;
    return b->progress.is_checking ? follow_check(b, now_ms) : copy_pages(b, now_ms);
}

const char *backup_why(const struct backup *b)
{
    return b->why;
}

int64_t backup_next_ms(const struct backup *b)
{
    return b->next_ms;
}

struct backup_progress backup_progress(const struct backup *b)
{
    return b->progress;
}
