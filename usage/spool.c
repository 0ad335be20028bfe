#include "usage/spool.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"

#define CHUNK_BYTES (256 * 1024)
#define NAME_BYTES 64 /* "SLOT.NNNNNNNNNNNNNNNNNNNN.part" */
#define NUMBER_DIGITS 20

struct spool_name {
    uint64_t slot;
    uint64_t number;
    bool is_part;
};

static void format_name(const struct spool_name *name, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%" PRIu64 ".%020" PRIu64 "%s", name->slot, name->number,
             name->is_part ? ".part" : "");
}

static bool get_number(const char **p, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)**p))
        return false;
    errno = 0;
    *out = strtoull(*p, &end, 10);
    *p = end;
    return errno == 0;
}

static bool parse_name(const char *text, struct spool_name *out)
{
    const char *p = text;
    char again[NAME_BYTES];

    if (!get_number(&p, &out->slot) || *p++ != '.' || !get_number(&p, &out->number))
        return false;
    out->is_part = strcmp(p, ".part") == 0;
    format_name(out, again);
    return strcmp(again, text) == 0;
}

/* Calls visit for each of our files until it returns non-zero. 0, what visit returned, -errno. */
static int list_names(int dir_fd, int (*visit)(void *arg, const struct spool_name *name), void *arg)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd == -1 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = 0;

    if (dir == NULL) {
        rc = -errno;
        if (fd != -1)
            close(fd);
        return rc;
    }
    while (rc == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
        struct spool_name name;

        if (parse_name(entry->d_name, &name))
            rc = visit(arg, &name);
    }
    if (rc == 0)
        rc = -errno;
    closedir(dir);
    return rc;
}

/* ---- writing ---- */

struct slot_scan {
    int dir_fd;
    uint64_t slot;
    uint64_t last; /* number */
};

/* Finds the last number, and removes what a helper that died left unfinished: its records are still
 * in the ring. */
static int on_slot_name(void *arg, const struct spool_name *name)
{
    struct slot_scan *scan = arg;
    char text[NAME_BYTES];

    if (name->slot != scan->slot)
        return 0;
    if (name->number > scan->last)
        scan->last = name->number;
    if (!name->is_part)
        return 0;
    format_name(name, text);
    return unlinkat(scan->dir_fd, text, 0) == -1 && errno != ENOENT ? -errno : 0;
}

/* Numbers never come twice, even where the files before are gone: somebody may still be about to
 * unlink one by its name. Hence the clock. */
static int next_number(int dir_fd, size_t slot, uint64_t *number)
{
    struct slot_scan scan = {.dir_fd = dir_fd, .slot = slot};
    int rc = list_names(dir_fd, on_slot_name, &scan);
    uint64_t now = (uint64_t)clock_now_at_ms();

    *number = scan.last >= now ? scan.last + 1 : now;
    return rc;
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Copies what the ring holds by now into fd; *next is the position behind it. */
static ssize_t write_ring(int fd, const struct outbox *ob, uint64_t *next)
{
    uint64_t head = outbox_head(ob);
    uint8_t *chunk = malloc(CHUNK_BYTES);
    ssize_t total = 0;

    *next = outbox_tail(ob);
    if (chunk == NULL)
        return -ENOMEM;
    while (*next < head) {
        uint64_t after;
        ssize_t n = outbox_read(ob, *next, chunk, CHUNK_BYTES, &after);
        int rc = n > 0 ? write_all(fd, chunk, (size_t)n) : 0;

        if (rc < 0 || (n < 0 && total == 0)) {
            total = rc < 0 ? rc : n;
            break;
        }
        if (n <= 0) /* the rest was committed meanwhile, or cannot be read */
            break;
        *next = after;
        total += n;
    }
    free(chunk);
    return total;
}

static int sync_and_rename(int dir_fd, int fd, const char *part, const char *whole)
{
    if (fdatasync(fd) == -1 || renameat(dir_fd, part, dir_fd, whole) == -1)
        return -errno;
    /* From here on the writer may find it: a record then comes twice, which it does not mind. */
    return fsync(dir_fd) == -1 ? -errno : 0;
}

static ssize_t spool_into(int dir_fd, size_t slot, struct outbox *ob)
{
    struct spool_name name = {.slot = slot, .is_part = true};
    char part[NAME_BYTES], whole[NAME_BYTES];
    uint64_t next;
    ssize_t total;
    int fd;
    int rc = next_number(dir_fd, slot, &name.number);

    if (rc < 0)
        return rc;
    format_name(&name, part);
    name.is_part = false;
    format_name(&name, whole);
    fd = openat(dir_fd, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -1)
        return -errno;
    total = write_ring(fd, ob, &next);
    if (total > 0) {
        rc = sync_and_rename(dir_fd, fd, part, whole);
        if (rc < 0)
            total = rc;
    }
    close(fd); /* what matters was synced */
    if (total <= 0)
        unlinkat(dir_fd, part, 0); /* gone already if only the directory could not be synced */
    else
        outbox_set_spooled(ob, next);
    return total;
}

ssize_t spool_write(const char *dir, size_t slot, struct outbox *ob)
{
    ssize_t total;
    int dir_fd;

    if (outbox_head(ob) == outbox_tail(ob))
        return 0;
    if (mkdir(dir, 0700) == -1 && errno != EEXIST)
        return -errno;
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd == -1)
        return -errno;
    total = spool_into(dir_fd, slot, ob);
    close(dir_fd);
    return total;
}

/* ---- reading ---- */

struct name_list {
    struct spool_name *names;
    size_t count;
    size_t cap;
};

static int on_whole_name(void *arg, const struct spool_name *name)
{
    struct name_list *list = arg;

    if (name->is_part)
        return 0;
    if (list->count == list->cap) {
        size_t cap = list->cap == 0 ? 64 : 2 * list->cap;
        struct spool_name *names = reallocarray(list->names, cap, sizeof(*names));

        if (names == NULL)
            return -ENOMEM;
        list->names = names;
        list->cap = cap;
    }
    list->names[list->count++] = *name;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct spool_name *x = a, *y = b;

    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

struct spool_file {
    const struct spool_visitor *visitor;
    uint8_t *chunk; /* CHUNK_BYTES */
    size_t len;
    const char *bad;  /* what is wrong with the file, NULL = nothing so far */
    bool has_records; /* good ones or damaged ones */
    bool is_lost;     /* from here on records cannot be told apart */
};

/* Gives the visitor the whole records in the chunk and keeps the rest at its front. */
static int visit_records(struct spool_file *f)
{
    size_t at = 0;
    int rc = 0;

    while (rc == 0) {
        struct usage_event event;
        size_t used;
        int decoded = usage_event_decode(f->chunk + at, f->len - at, &event, &used);

        if (decoded == -EAGAIN)
            break;
        if (used == 0) {
            f->bad = "it holds bytes that are no usage record";
            f->is_lost = true;
            break;
        }
        f->has_records = true;
        if (decoded == 0)
            rc = f->visitor->on_record(f->visitor->arg, f->chunk + at, used);
        else
            f->bad = "it holds a usage record that is damaged";
        at += used;
    }
    memmove(f->chunk, f->chunk + at, f->len - at);
    f->len -= at;
    return rc;
}

static int visit_content(struct spool_file *f, int fd)
{
    while (!f->is_lost) {
        ssize_t n = read(fd, f->chunk + f->len, CHUNK_BYTES - f->len);
        int rc;

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        if (n == 0)
            break;
        f->len += (size_t)n;
        rc = visit_records(f);
        if (rc != 0)
            return rc;
    }
    if (f->bad == NULL && f->len > 0)
        f->bad = "its last record is cut";
    if (f->bad == NULL && !f->has_records)
        f->bad = "it is empty";
    return 0;
}

static int visit_file(const char *path, const struct spool_visitor *visitor)
{
    struct spool_file f = {.visitor = visitor};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int rc;

    if (fd == -1)
        return errno == ENOENT ? 0 : -errno;
    f.chunk = malloc(CHUNK_BYTES);
    rc = f.chunk == NULL ? -ENOMEM : visit_content(&f, fd);
    free(f.chunk);
    close(fd);
    if (rc != 0)
        return rc;
    if (f.bad == NULL)
        return visitor->on_file(visitor->arg, path);
    visitor->on_bad(visitor->arg, path, f.bad);
    return 0;
}

static int visit_files(const char *dir, const struct name_list *list,
                       const struct spool_visitor *visitor)
{
    int rc = 0;

    for (size_t i = 0; i < list->count && rc == 0; i++) {
        char name[NAME_BYTES];
        char *path;

        format_name(&list->names[i], name);
        if (asprintf(&path, "%s/%s", dir, name) == -1)
            return -ENOMEM;
        rc = visit_file(path, visitor);
        free(path);
    }
    return rc;
}

int spool_scan(const char *dir, const struct spool_visitor *visitor)
{
    struct name_list list = {0};
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (dir_fd == -1)
        return errno == ENOENT ? 0 : -errno;
    rc = list_names(dir_fd, on_whole_name, &list);
    close(dir_fd);
    if (rc == 0 && list.count > 0) {
        qsort(list.names, list.count, sizeof(*list.names), compare_names);
        rc = visit_files(dir, &list, visitor);
    }
    free(list.names);
    return rc;
}

static int on_waiting_name(void *arg, const struct spool_name *name)
{
    return name->is_part ? 0 : 1;
}

int spool_is_empty(const char *dir)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (dir_fd == -1)
        return errno == ENOENT ? 1 : -errno;
    rc = list_names(dir_fd, on_waiting_name, NULL);
    close(dir_fd);
    return rc < 0 ? rc : rc == 0;
}
