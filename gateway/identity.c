#include "gateway/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/secret.h"

#define NODE_TEXT_LEN 8

static int explain(struct buf *why, int rc, const char *path, const char *text)
{
    buf_printf(why, "%s: %s", path, text != NULL ? text : strerror(-rc));
    return rc;
}

static int write_whole(int fd, const void *data, size_t len)
{
    ssize_t n = write(fd, data, len);

    if (n == -1)
        return -errno;
    if ((size_t)n != len)
        return -ENOSPC;
    return fsync(fd) == -1 ? -errno : 0;
}

static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd == -1)
        return -errno;
    if (fsync(fd) == -1)
        rc = -errno;
    close(fd);
    return rc;
}

/* The file appears under its name complete or not at all, and never in place of another one: a
 * pepper that was replaced would make every key unknown. */
static int make_file(const char *dir, const char *path, const void *data, size_t len)
{
    char part[PATH_MAX];
    int fd, rc;

    if (snprintf(part, sizeof(part), "%s.%ld", path, (long)getpid()) >= (int)sizeof(part))
        return -ENAMETOOLONG;
    if (unlink(part) == -1 && errno != ENOENT)
        return -errno;
    fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -1)
        return -errno;
    rc = write_whole(fd, data, len);
    close(fd);
    if (rc == 0 && link(part, path) == -1)
        rc = -errno;
    unlink(part);
    return rc == 0 ? sync_dir(dir) : rc;
}

/* Reads exactly len bytes and looks whether the file ends there. -EINVAL if not. */
static int read_whole(int fd, void *data, size_t len)
{
    char rest;
    ssize_t n = read(fd, data, len);

    if (n == -1)
        return -errno;
    if ((size_t)n != len)
        return -EINVAL;
    n = read(fd, &rest, 1);
    if (n == -1)
        return -errno;
    return n == 0 || rest == '\n' ? 0 : -EINVAL;
}

/* Reads the file, making it from fresh first when it is absent. */
static int load_file(const char *dir, const char *path, const void *fresh, void *data, size_t len,
                     mode_t *mode)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd == -1 && errno == ENOENT) {
        rc = make_file(dir, path, fresh, len);
        if (rc < 0)
            return rc;
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd == -1)
        return -errno;
    if (fstat(fd, &st) == -1)
        rc = -errno;
    else
        rc = read_whole(fd, data, len);
    close(fd);
    if (rc == 0)
        *mode = st.st_mode & 07777;
    return rc;
}

int identity_make_dir(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(part))
        return -ENAMETOOLONG;
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, path[i] == '\0' ? mode : 0755) == -1 && errno != EEXIST)
            return -errno;
        part[i] = path[i];
    }
    return 0;
}

int identity_load_pepper(const char *dir, uint8_t pepper[KEY_PEPPER_BYTES], struct buf *why)
{
    uint8_t fresh[KEY_PEPPER_BYTES];
    char path[PATH_MAX];
    mode_t mode = 0;
    int rc = secret_random(fresh, sizeof(fresh));

    if (rc < 0)
        return explain(why, rc, "random bytes", NULL);
    if (snprintf(path, sizeof(path), "%s/key.secret", dir) >= (int)sizeof(path))
        return explain(why, -ENAMETOOLONG, dir, NULL);
    rc = load_file(dir, path, fresh, pepper, KEY_PEPPER_BYTES, &mode);
    explicit_bzero(fresh, sizeof(fresh));
    if (rc == -EINVAL)
        return explain(why, rc, path, "not 32 bytes long: restore it from the backup");
    if (rc < 0)
        return explain(why, rc, path, NULL);
    if ((mode & 077) != 0)
        return explain(why, -EINVAL, path, "others may read it: chmod 600");
    return 0;
}

int identity_load_node(const char *dir, uint32_t *node, struct buf *why)
{
    char fresh[NODE_TEXT_LEN + 1], text[NODE_TEXT_LEN], path[PATH_MAX];
    uint8_t bytes[NODE_TEXT_LEN / 2];
    mode_t mode = 0;
    int rc = secret_random(bytes, sizeof(bytes));

    if (rc < 0)
        return explain(why, rc, "random bytes", NULL);
    hex_encode(bytes, sizeof(bytes), fresh);
    if (snprintf(path, sizeof(path), "%s/node", dir) >= (int)sizeof(path))
        return explain(why, -ENAMETOOLONG, dir, NULL);
    rc = load_file(dir, path, fresh, text, NODE_TEXT_LEN, &mode);
    if (rc == 0)
        rc = hex_decode(text, NODE_TEXT_LEN, bytes);
    if (rc == -EINVAL)
        return explain(why, rc, path, "not 8 hexadecimal digits");
    if (rc < 0)
        return explain(why, rc, path, NULL);
    *node =
        (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    return 0;
}
