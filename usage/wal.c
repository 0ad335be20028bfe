#include "usage/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* https://www.sqlite.org/walformat.html: the index begins with its header twice, in the machine's
 * byte order, then how many frames have been copied into the database. */
#define INDEX_HEADER_BYTES 48
#define INDEX_BYTES (2 * INDEX_HEADER_BYTES + 4)
#define INDEX_VERSION 3007000u
#define LOG_MAGIC 0x377f0682u /* its lowest bit: checksums are of big-endian words */
#define PAGE_BYTES_MAX 65536

struct wal_index {
    uint32_t frames;
    uint32_t copied;
    uint32_t page_bytes;
    uint8_t salt[8]; /* as in the log */
};

struct checksum {
    bool is_big_endian;
    uint32_t a, b;
};

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t little_endian(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static uint32_t native(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof(n));
    return n;
}

/* len is a multiple of 8. */
static void checksum_add(struct checksum *c, const uint8_t *data, size_t len)
{
    uint32_t (*word)(const uint8_t *p) = c->is_big_endian ? big_endian : little_endian;

    for (size_t i = 0; i < len; i += 8) {
        c->a += word(data + i) + c->b;
        c->b += word(data + i + 4) + c->a;
    }
}

/* 1 = read, 0 = the file is shorter, -errno. */
static int read_at(int fd, void *out, size_t len, off_t at)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, (char *)out + done, len - done, at + (off_t)done);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        if (n == 0)
            return 0;
        done += (size_t)n;
    }
    return 1;
}

/* The fd, -ENOENT or another -errno. */
static int open_beside(const char *path, const char *suffix)
{
    char name[PATH_MAX];
    int fd;

    if (snprintf(name, sizeof(name), "%s%s", path, suffix) >= (int)sizeof(name))
        return -ENAMETOOLONG;
    fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return fd == -1 ? -errno : fd;
}

/* The index is memory of processes: after a power failure it may be older than the log. */
static bool is_of_this_boot(const struct stat *st)
{
    struct timespec now, up;

    if (clock_gettime(CLOCK_REALTIME, &now) == -1 || clock_gettime(CLOCK_BOOTTIME, &up) == -1)
        return false;
    return st->st_mtim.tv_sec > now.tv_sec - up.tv_sec;
}

static bool index_parse(const uint8_t *header, struct wal_index *out)
{
    struct checksum sum = {.is_big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__};
    uint16_t page_bytes;

    checksum_add(&sum, header, INDEX_HEADER_BYTES - 8);
    if (native(header) != INDEX_VERSION || header[12] != 1 || native(header + 40) != sum.a ||
        native(header + 44) != sum.b)
        return false;
    memcpy(&page_bytes, header + 14, sizeof(page_bytes));
    out->page_bytes = page_bytes == 1 ? PAGE_BYTES_MAX : page_bytes;
    out->frames = native(header + 16);
    memcpy(out->salt, header + 32, sizeof(out->salt));
    return out->page_bytes >= 512;
}

/* 1 = *out is filled, 0 = there is no index that tells anything, -errno. */
static int index_read(const char *path, struct wal_index *out)
{
    uint8_t bytes[INDEX_BYTES];
    struct stat st;
    int fd = open_beside(path, "-shm");
    int rc;

    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    rc = fstat(fd, &st) == -1 ? -errno : is_of_this_boot(&st);
    if (rc == 1)
        rc = read_at(fd, bytes, sizeof(bytes), 0);
    close(fd);
    if (rc != 1)
        return rc;
    /* The second copy is stored first: a process may have died between the two. */
    if (!index_parse(bytes, out) && !index_parse(bytes + INDEX_HEADER_BYTES, out))
        return 0;
    out->copied = native(bytes + INDEX_BYTES - 4);
    return 1;
}

/* How many of the index' frames are in the log, one good frame behind the other. */
static int64_t count_frames(int fd, const struct wal_index *index)
{
    uint8_t header[WAL_HEADER_BYTES];
    struct checksum sum = {0};
    size_t frame_bytes = WAL_FRAME_HEADER_BYTES + index->page_bytes;
    uint8_t *frame = malloc(frame_bytes);
    int64_t count = 0;
    int rc = frame == NULL ? -ENOMEM : read_at(fd, header, sizeof(header), 0);

    if (rc == 1) {
        sum.is_big_endian = (big_endian(header) & 1) != 0;
        checksum_add(&sum, header, 24);
        if ((big_endian(header) & ~1u) != LOG_MAGIC || big_endian(header + 24) != sum.a ||
            big_endian(header + 28) != sum.b || memcmp(header + 16, index->salt, 8) != 0)
            rc = 0;
    }
    while (rc == 1 && count < index->frames) {
        rc = read_at(fd, frame, frame_bytes, WAL_HEADER_BYTES + (off_t)count * (off_t)frame_bytes);
        if (rc != 1)
            break;
        checksum_add(&sum, frame, 8);
        checksum_add(&sum, frame + WAL_FRAME_HEADER_BYTES, index->page_bytes);
        if (memcmp(frame + 8, index->salt, 8) != 0 || big_endian(frame + 16) != sum.a ||
            big_endian(frame + 20) != sum.b)
            break;
        count++;
    }
    free(frame);
    return rc < 0 ? rc : count;
}

int64_t wal_lost_frames(const char *path)
{
    struct wal_index index;
    int64_t count;
    int rc = index_read(path, &index);
    int fd;

    if (rc != 1 || index.copied >= index.frames)
        return rc < 0 ? rc : 0;
    fd = open_beside(path, "-wal");
    if (fd < 0)
        return fd == -ENOENT ? (int64_t)index.frames : fd;
    count = count_frames(fd, &index);
    close(fd);
    return count < 0 ? count : (int64_t)index.frames - count;
}
