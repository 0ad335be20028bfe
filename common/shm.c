#include "common/shm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/secret.h"

#define SHM_MAGIC UINT64_C(0x787254524d485358) /* "XSHMRTrx" */
#define SHM_VERSION 1
#define SHM_ALIGN ((size_t)4096)

struct region_entry {
    char name[24];
    uint64_t offset;
    uint64_t bytes;
    uint64_t layout;
};

/* At the object's first byte. magic is stored last: an object that is still being made, or whose
 * maker died before it was whole, is not taken for a good one. */
struct header {
    _Atomic uint64_t magic;
    uint32_t version;
    uint32_t region_count;
    uint64_t header_layout;
    uint64_t total_bytes;
    uint8_t start_id[SHM_START_ID_BYTES];
    struct region_entry regions[SHM_REGIONS_MAX];
};

struct shm {
    struct header *header;
    size_t bytes;
};

_Static_assert(sizeof(struct header) <= 4096, "the header has one page");

static uint64_t header_layout(void)
{
    const uint64_t sizes[] = {sizeof(struct header), sizeof(struct region_entry),
                              offsetof(struct header, regions), SHM_REGIONS_MAX};

    return shm_layout_hash(0, sizes, sizeof(sizes));
}

static int align_up(size_t bytes, size_t *out)
{
    if (__builtin_add_overflow(bytes, SHM_ALIGN - 1, out))
        return -EOVERFLOW;
    *out &= ~(SHM_ALIGN - 1);
    return 0;
}

static int total_size(const struct shm_region_spec *regions, size_t count, size_t *out)
{
    size_t total = SHM_ALIGN;

    for (size_t i = 0; i < count; i++) {
        size_t bytes;

        if (align_up(regions[i].bytes, &bytes) < 0 ||
            __builtin_add_overflow(total, bytes, &total) || total > SSIZE_MAX)
            return -EOVERFLOW;
    }
    *out = total;
    return 0;
}

static int map(int fd, size_t bytes, bool writable, struct shm **out)
{
    struct shm *shm = calloc(1, sizeof(*shm));
    void *at;

    if (shm == NULL)
        return -ENOMEM;
    at = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        free(shm);
        return -errno;
    }
    shm->header = at;
    shm->bytes = bytes;
    *out = shm;
    return 0;
}

static void fill_header(struct header *h, size_t total, const struct shm_region_spec *regions,
                        size_t count, const uint8_t start_id[SHM_START_ID_BYTES])
{
    size_t offset = SHM_ALIGN;

    h->version = SHM_VERSION;
    h->region_count = (uint32_t)count;
    h->header_layout = header_layout();
    h->total_bytes = total;
    memcpy(h->start_id, start_id, SHM_START_ID_BYTES);
    for (size_t i = 0; i < count; i++) {
        struct region_entry *r = &h->regions[i];
        size_t bytes;

        memcpy(r->name, regions[i].name, sizeof(r->name));
        r->name[sizeof(r->name) - 1] = '\0';
        r->offset = offset;
        r->bytes = regions[i].bytes;
        r->layout = regions[i].layout;
        /* Cannot overflow: total_size() has added up the same numbers. */
        if (align_up(regions[i].bytes, &bytes) == 0)
            offset += bytes;
    }
    assert(offset == total);
    atomic_store_explicit(&h->magic, SHM_MAGIC, memory_order_release);
}

/* NULL when the mapped object may be believed, else why not. */
static const char *header_fault(const struct shm *shm)
{
    const struct header *h = shm->header;

    if (atomic_load_explicit(&h->magic, memory_order_acquire) != SHM_MAGIC)
        return "not an xrouter segment, or not completely made";
    if (h->version != SHM_VERSION || h->header_layout != header_layout())
        return "made by another version of xrouter";
    if (h->total_bytes != shm->bytes)
        return "its size is not the one in its header";
    if (h->region_count > SHM_REGIONS_MAX)
        return "its region table is damaged";
    for (size_t i = 0; i < h->region_count; i++) {
        const struct region_entry *r = &h->regions[i];

        if (r->offset % SHM_ALIGN != 0 || r->offset < SHM_ALIGN || r->offset > shm->bytes ||
            r->bytes > shm->bytes - r->offset || memchr(r->name, 0, sizeof(r->name)) == NULL)
            return "its region table is damaged";
    }
    return NULL;
}

uint64_t shm_layout_hash(uint64_t hash, const void *data, size_t len)
{
    const uint8_t *p = data;

    if (hash == 0)
        hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int shm_instance_name(const char *runtime_dir, const char *suffix, char out[SHM_NAME_BYTES])
{
    uint8_t digest[DIGEST_BYTES];
    char hex[13];
    char *path = realpath(runtime_dir, NULL);
    int rc;

    if (path == NULL)
        return -errno;
    rc = secret_sha256(path, strlen(path), digest);
    free(path);
    if (rc < 0)
        return rc;
    hex_encode(digest, 6, hex);
    rc = snprintf(out, SHM_NAME_BYTES, "/xrouter-%s%s", hex, suffix);
    return rc < SHM_NAME_BYTES ? 0 : -ENAMETOOLONG;
}

int shm_create(const char *name, mode_t mode, const struct shm_region_spec *regions, size_t count,
               const uint8_t start_id[SHM_START_ID_BYTES], struct shm **out)
{
    struct shm *shm = NULL;
    size_t total;
    int fd, rc;

    *out = NULL;
    if (count > SHM_REGIONS_MAX)
        return -E2BIG;
    rc = total_size(regions, count, &total);
    if (rc < 0)
        return rc;
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd == -1)
        return -errno;
    /* shm_open's mode went through the umask. */
    if (fchmod(fd, mode) == -1) {
        rc = -errno;
        goto out;
    }
    rc = -posix_fallocate(fd, 0, (off_t)total);
    if (rc < 0)
        goto out;
    rc = map(fd, total, true, &shm);
    if (shm == NULL)
        goto out;
    fill_header(shm->header, total, regions, count, start_id);
    *out = shm;
out:
    close(fd);
    if (rc < 0)
        shm_unlink(name);
    return rc;
}

int shm_attach(const char *name, bool writable, struct shm **out, const char **why)
{
    const char *fault = NULL;
    struct shm *shm = NULL;
    struct stat st;
    int rc = 0;
    int fd = shm_open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);

    *out = NULL;
    if (why != NULL)
        *why = NULL;
    if (fd == -1)
        return -errno;
    if (fstat(fd, &st) == -1)
        rc = -errno;
    else if ((size_t)st.st_size < SHM_ALIGN)
        fault = "too small to be an xrouter segment";
    else
        rc = map(fd, (size_t)st.st_size, writable, &shm);
    close(fd);
    if (shm != NULL)
        fault = header_fault(shm);
    if (fault != NULL)
        rc = -EPROTO;
    if (rc < 0) {
        if (why != NULL)
            *why = fault;
        shm_close(shm);
        return rc;
    }
    *out = shm;
    return 0;
}

void shm_close(struct shm *shm)
{
    if (shm == NULL)
        return;
    munmap(shm->header, shm->bytes);
    free(shm);
}

int shm_unlink_name(const char *name)
{
    return shm_unlink(name) == -1 && errno != ENOENT ? -errno : 0;
}

int shm_rename_name(const char *name, const char *new_name)
{
    char from[SHM_NAME_BYTES + 16], to[SHM_NAME_BYTES + 16];

    /* POSIX has no call for this; on Linux the objects are files of this tmpfs. */
    if (snprintf(from, sizeof(from), "/dev/shm%s", name) >= (int)sizeof(from) ||
        snprintf(to, sizeof(to), "/dev/shm%s", new_name) >= (int)sizeof(to))
        return -ENAMETOOLONG;
    return rename(from, to) == -1 ? -errno : 0;
}

void *shm_region(const struct shm *shm, const char *name, uint64_t layout, size_t *bytes)
{
    const struct header *h = shm->header;

    for (size_t i = 0; i < h->region_count; i++) {
        const struct region_entry *r = &h->regions[i];

        if (strcmp(r->name, name) != 0)
            continue;
        if (r->layout != layout)
            return NULL;
        if (bytes != NULL)
            *bytes = r->bytes;
        return (char *)shm->header + r->offset;
    }
    return NULL;
}

const uint8_t *shm_start_id(const struct shm *shm)
{
    return shm->header->start_id;
}
