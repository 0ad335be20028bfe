/* clock_shim.c - LD_PRELOAD: a wall clock that a test can set.
 *
 * XROUTER_CLOCK_FILE names a file of 8 bytes: an int64 of milliseconds, in the machine's byte
 * order, that every reading of Unix time is off by from now on. The monotonic clock is left alone.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_ms; /* NULL = no offset */
static int (*real_clock_gettime)(clockid_t id, struct timespec *ts);

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("XROUTER_CLOCK_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *memory;

    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd == -1)
        return;
    memory = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED)
        offset_ms = memory;
}

static void shift(struct timespec *ts)
{
    int64_t ms = offset_ms == NULL ? 0 : *offset_ms;
    int64_t ns = ts->tv_nsec + ms % 1000 * 1000000;

    ts->tv_sec += ms / 1000;
    if (ns < 0) {
        ns += 1000000000;
        ts->tv_sec--;
    } else if (ns >= 1000000000) {
        ns -= 1000000000;
        ts->tv_sec++;
    }
    ts->tv_nsec = ns;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    /* Other libraries' constructors may run before ours. */
    int rc = real_clock_gettime != NULL ? real_clock_gettime(id, ts)
                                        : (int)syscall(SYS_clock_gettime, id, ts);

    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        shift(ts);
    return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    int rc = clock_gettime(CLOCK_REALTIME, &ts);

    (void)tz;
    if (rc == 0) {
        tv->tv_sec = ts.tv_sec;
        tv->tv_usec = ts.tv_nsec / 1000;
    }
    return rc;
}

time_t time(time_t *out)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_REALTIME, &ts) == -1)
        return -1;
    if (out != NULL)
        *out = ts.tv_sec;
    return ts.tv_sec;
}
