#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/buf.h"

#define WHY_BYTES 160
#define SECRET_BYTES_MAX (64 * 1024)

__attribute__((format(printf, 3, 4))) static int refuse(char *why, int err, const char *format, ...)
{
    va_list args;

    if (why != NULL) {
        va_start(args, format);
        vsnprintf(why, WHY_BYTES, format, args);
        va_end(args);
    }
    return err;
}

/* The value without its one trailing newline, as the caller's copy. */
static int take_value(const char *value, size_t len, const char *source, char **out, char *why)
{
    if (len > 0 && value[len - 1] == '\n')
        len--;
    if (len == 0)
        return refuse(why, -EINVAL, "%s is empty", source);
    if (memchr(value, '\0', len) != NULL)
        return refuse(why, -EINVAL, "%s contains a NUL byte", source);
    *out = strndup(value, len);
    if (*out == NULL)
        return refuse(why, -ENOMEM, "out of memory");
    return 0;
}

static int read_environment(const char *name, char **out, char *why)
{
    const char *value = getenv(name);
    char source[WHY_BYTES / 2];

    if (value == NULL)
        return refuse(why, -ENOENT, "environment variable %.80s is not set", name);
    snprintf(source, sizeof(source), "environment variable %.40s", name);
    return take_value(value, strlen(value), source, out, why);
}

static int read_all(int fd, struct buf *content)
{
    for (;;) {
        char *room = buf_room(content, 4096);
        ssize_t n;

        if (room == NULL)
            return content->err;
        n = read(fd, room, 4096);
        if (n == 0)
            return 0;
        if (n == -1 && errno != EINTR)
            return -errno;
        if (n > 0)
            buf_commit(content, (size_t)n);
    }
}

static int read_file(const char *path, char **out, char *why)
{
    struct buf content;
    struct stat st;
    int fd, rc;

    buf_init_secret(&content, SECRET_BYTES_MAX);
    /* Without O_NONBLOCK, opening a FIFO would wait for its other end. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1) {
        rc = -errno;
        refuse(why, rc, "file %.90s: %s", path, strerror(-rc));
        goto out;
    }
    if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)) {
        rc = refuse(why, -EINVAL, "file %.90s is no regular file", path);
        goto out;
    }
    rc = read_all(fd, &content);
    if (rc < 0)
        refuse(why, rc, "file %.90s: %s", path, strerror(-rc));
    else
        rc = take_value(content.data, content.len, path, out, why);
out:
    if (fd != -1)
        close(fd);
    buf_clear(&content);
    return rc;
}

static int read_file_below(const char *dir, const char *name, char **out, char *why)
{
    struct buf path;
    int rc;

    buf_init(&path, PATH_MAX);
    buf_printf(&path, "%s/%s", dir, name);
    if (buf_text(&path) == NULL)
        rc = refuse(why, path.err, "file %.90s: the path is too long", name);
    else
        rc = read_file(buf_text(&path), out, why);
    buf_clear(&path);
    return rc;
}

static int read_credential(const char *name, char **out, char *why)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");

    if (dir == NULL || dir[0] != '/')
        return refuse(why, -ENOENT, "credential %.80s: CREDENTIALS_DIRECTORY is not set", name);
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return refuse(why, -EINVAL, "credential %.80s: not a credential's name", name);
    return read_file_below(dir, name, out, why);
}

/* What follows the prefix, NULL if the reference does not start with it. */
static const char *after(const char *reference, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(reference, prefix, len) == 0 ? reference + len : NULL;
}

int secret_read(const char *reference, const char *base_dir, char **out, bool *is_literal,
                char why[160])
{
    const char *name;

    *out = NULL;
    if (is_literal != NULL)
        *is_literal = false;
    if ((name = after(reference, "env:")) != NULL)
        return read_environment(name, out, why);
    if ((name = after(reference, "cred:")) != NULL)
        return read_credential(name, out, why);
    if ((name = after(reference, "file:")) != NULL)
        return name[0] == '/' || base_dir == NULL ? read_file(name, out, why)
                                                  : read_file_below(base_dir, name, out, why);
    if (is_literal != NULL)
        *is_literal = true;
    return take_value(reference, strlen(reference), "the value", out, why);
}

void secret_free(char *secret)
{
    if (secret == NULL)
        return;
    explicit_bzero(secret, strlen(secret));
    free(secret);
}

int secret_random(void *out, size_t len)
{
    char *at = out;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);

        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int secret_hmac(const void *key, size_t key_len, const void *data, size_t len,
                uint8_t out[DIGEST_BYTES])
{
    if (key_len > INT32_MAX)
        return -EINVAL;
    return HMAC(EVP_sha256(), key, (int)key_len, data, len, out, NULL) == NULL ? -ENOMEM : 0;
}

int secret_sha256(const void *data, size_t len, uint8_t out[DIGEST_BYTES])
{
    static EVP_MD *sha256; /* found once: EVP_sha256() is looked up by its name at each use */

    if (sha256 == NULL)
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    return sha256 != NULL && EVP_Digest(data, len, out, NULL, sha256, NULL) == 1 ? 0 : -ENOMEM;
}

bool secret_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

size_t base64url_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *in = data;
    uint32_t bits = 0;
    unsigned held = 0;
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (held += 8; held >= 6;) {
            held -= 6;
            out[n++] = digits[bits >> held & 63];
        }
    }
    if (held > 0)
        out[n++] = digits[bits << (6 - held) & 63];
    out[n] = '\0';
    return n;
}

void hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * len] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hex_decode(const char *text, size_t len, void *out)
{
    uint8_t *bytes = out;

    if (len % 2 != 0)
        return -EINVAL;
    for (size_t i = 0; i < len; i += 2) {
        int high = hex_digit(text[i]);
        int low = hex_digit(text[i + 1]);

        if (high < 0 || low < 0)
            return -EINVAL;
        bytes[i / 2] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
