#include "usage/dead_letters.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/base64.h"
#include "common/json.h"

int dead_letter_put(struct buf *out, int64_t at_ms, const char *reason, const struct usage_id *id,
                    const uint8_t *record, size_t len)
{
    char text[USAGE_ID_TEXT_BYTES];

    buf_byte(out, '{');
    json_put_field_time(out, "at", at_ms);
    json_put_field_text(out, "reason", reason);
    if (id != NULL)
        usage_id_format(id, text);
    json_put_field_text(out, "id", id != NULL ? text : NULL);
    json_put_key(out, "record");
    buf_byte(out, '"');
    base64_put(out, record, len);
    return buf_str(out, "\"}\n");
}

int dead_letters_write(const char *path, const struct buf *lines)
{
    size_t done = 0;
    int rc = 0;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    off_t end = fd == -1 ? -1 : lseek(fd, 0, SEEK_END);

    if (fd == -1)
        return -errno;
    if (end == -1)
        rc = -errno;
    while (done < lines->len && rc == 0) {
        ssize_t n = write(fd, lines->data + done, lines->len - done);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            rc = -ENOSPC;
        else if (errno != EINTR)
            rc = -errno;
    }
    if (rc == 0 && fdatasync(fd) == -1)
        rc = -errno;
    if (rc < 0 && end != -1 &&
        ftruncate(fd, end) == -1) /* no torn line before the next attempt's */
        rc = -errno;
    if (close(fd) == -1 && rc == 0)
        rc = -errno;
    return rc;
}
