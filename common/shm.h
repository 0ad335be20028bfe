/* shm.h - a POSIX shared-memory object cut into named regions.
 *
 * This file knows only how regions are laid out: what lives in one belongs to the module whose noun
 * it is, which declares its size, fills it and checks it. Every byte is allocated when the object
 * is created (a full /dev/shm is an error then, never a SIGBUS later), zero-filled, and each region
 * starts on its own page. Offsets, never pointers, may be stored inside. */
#ifndef XROUTER_COMMON_SHM_H
#define XROUTER_COMMON_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHM_NAME_BYTES 64
#define SHM_REGIONS_MAX 16
#define SHM_START_ID_BYTES 16

struct shm; /* opaque: this process's mapping */

struct shm_region_spec {
    char name[24];
    size_t bytes;
    uint64_t layout; /* hash of the structs inside; a reader with another one must not look */
};

/* FNV-1a, for layout hashes: start with 0. */
uint64_t shm_layout_hash(uint64_t hash, const void *data, size_t len);

/* "/xrouter-" + 12 hex of SHA-256(realpath of runtime_dir) + suffix ("" or ".secret").
 * Returns 0 or -errno (the directory must exist). */
int shm_instance_name(const char *runtime_dir, const char *suffix, char out[SHM_NAME_BYTES]);

/* Makes the object anew (an old one of that name must be unlinked first: -EEXIST), with every
 * region zeroed. start_id ties the objects of one start together.
 * Returns 0 or -errno (-ENOSPC: /dev/shm is full). */
int shm_create(const char *name, mode_t mode, const struct shm_region_spec *regions, size_t count,
               const uint8_t start_id[SHM_START_ID_BYTES], struct shm **out);

/* Maps an existing object. -ENOENT: no such object; -EPROTO: not ours, or of another version or
 * size (the reason is in *why, a literal; NULL is fine). */
int shm_attach(const char *name, bool writable, struct shm **out, const char **why);
void shm_close(struct shm *shm);       /* unmaps; the object stays. NULL is fine */
int shm_unlink_name(const char *name); /* 0 also when it was gone */
/* Sets an object aside under another name ("/..." both), for one that cannot be read. 0 or -errno.
 */
int shm_rename_name(const char *name, const char *new_name);

/* The region's first byte and size, or NULL if there is none or its layout differs. */
void *shm_region(const struct shm *shm, const char *name, uint64_t layout, size_t *bytes);
const uint8_t *shm_start_id(const struct shm *shm);

#endif
