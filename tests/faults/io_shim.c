/* io_shim.c - LD_PRELOAD: a disk that fails when a test says so, under the usage-writer alone.
 *
 * XROUTER_FAULT_FILE names a file that holds a struct control, mapped by the test and by every
 * process: the test stores what is to fail and how often, the shim what it did. A call that fails
 * does nothing. Only the database and its log are touched (names in the directory that hold
 * "xrouter.db"), and only in processes whose title begins with ROLE. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ROLE "xrouter: usage" /* as much of it as the kernel keeps */

enum op { OP_WRITE, OP_SYNC, OP_TRUNCATE, OP_COUNT };
enum file { FILE_OTHER, FILE_DATABASE, FILE_LOG, FILE_COUNT };

/* tests/integration/faults.py knows this layout: all words of 8 bytes. */
struct control {
    _Atomic uint64_t error;                          /* errno of the failures */
    _Atomic uint64_t permille[OP_COUNT][FILE_COUNT]; /* how many of 1,000 calls fail */
    _Atomic uint64_t done[OP_COUNT][FILE_COUNT];
    _Atomic uint64_t failed[OP_COUNT][FILE_COUNT];
    _Atomic uint64_t random; /* state of the dice; the seed at first */
};

static struct control *control; /* NULL = nothing fails */

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("XROUTER_FAULT_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *memory;

    if (fd == -1)
        return;
    memory = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED)
        control = memory;
}

static enum file file_of(int fd)
{
    char link[32], name[4096], title[16] = "";
    ssize_t len;

    if (control == NULL || prctl(PR_GET_NAME, title) == -1 ||
        strncmp(title, ROLE, sizeof(ROLE) - 1) != 0)
        return FILE_OTHER;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, name, sizeof(name) - 1);
    if (len <= 0)
        return FILE_OTHER;
    name[len] = '\0';
    if (strstr(name, "/xrouter.db-wal") != NULL)
        return FILE_LOG;
    return strstr(name, "/xrouter.db") != NULL ? FILE_DATABASE : FILE_OTHER;
}

/* xorshift64: the same failures for the same seed, as long as the calls are the same. */
static uint64_t roll(void)
{
    uint64_t x = atomic_load(&control->random);

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    atomic_store(&control->random, x);
    return x;
}

static int fails(enum op op, enum file file)
{
    uint64_t permille = file == FILE_OTHER ? 0 : atomic_load(&control->permille[op][file]);

    if (permille == 0 || roll() % 1000 >= permille)
        return 0;
    atomic_fetch_add(&control->failed[op][file], 1);
    errno = (int)atomic_load(&control->error);
    return 1;
}

static void note_done(enum op op, enum file file, int is_good)
{
    if (is_good && file != FILE_OTHER)
        atomic_fetch_add(&control->done[op][file], 1);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
    static ssize_t (*real)(int fd, const void *data, size_t len, off64_t at);
    enum file file = file_of(fd);
    ssize_t n;

    if (fails(OP_WRITE, file))
        return -1;
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    n = real(fd, data, len, at);
    note_done(OP_WRITE, file, n >= 0);
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    return pwrite64(fd, data, len, at);
}

static int sync_with(int (**real)(int fd), const char *name, int fd)
{
    enum file file = file_of(fd);
    int rc;

    if (fails(OP_SYNC, file))
        return -1;
    if (*real == NULL)
        *(void **)real = dlsym(RTLD_NEXT, name);
    rc = (*real)(fd);
    note_done(OP_SYNC, file, rc == 0);
    return rc;
}

int fdatasync(int fd)
{
    static int (*real)(int fd);

    return sync_with(&real, "fdatasync", fd);
}

int fsync(int fd)
{
    static int (*real)(int fd);

    return sync_with(&real, "fsync", fd);
}

int ftruncate64(int fd, off64_t len)
{
    static int (*real)(int fd, off64_t len);
    enum file file = file_of(fd);
    int rc;

    if (fails(OP_TRUNCATE, file))
        return -1;
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "ftruncate64");
    rc = real(fd, len);
    note_done(OP_TRUNCATE, file, rc == 0);
    return rc;
}

int ftruncate(int fd, off_t len)
{
    return ftruncate64(fd, len);
}
