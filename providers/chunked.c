#include "providers/chunked.h"

#include <errno.h>

#include "common/http_chars.h"

#define SIZE_LINE_MAX 1024 /* size and extensions */

enum state {
    STATE_SIZE,
    STATE_SPACE, /* "bad white space" between a size and its extension */
    STATE_EXTENSION,
    STATE_SIZE_LF,
    STATE_DATA,
    STATE_DATA_CR,
    STATE_DATA_LF,
    STATE_TRAILER_START,
    STATE_TRAILER_NAME,
    STATE_TRAILER_VALUE,
    STATE_TRAILER_LF,
    STATE_LAST_LF,
    STATE_END
};

static int fail(const char **why, const char *text)
{
    *why = text;
    return -EBADMSG;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int feed_size(struct chunked *c, char byte, const char **why)
{
    int digit = hex_value(byte);

    if (c->line_len++ >= SIZE_LINE_MAX)
        return fail(why, "chunk size line too long");
    if (digit >= 0) {
        if (c->left >> 58 != 0)
            return fail(why, "chunk size too large");
        c->left = c->left << 4 | (unsigned)digit;
        return 0;
    }
    if (c->line_len == 1)
        return fail(why, "bad chunk size");
    if (byte == '\r')
        c->state = STATE_SIZE_LF;
    else if (byte == ';')
        c->state = STATE_EXTENSION;
    else if (byte == ' ' || byte == '\t')
        c->state = STATE_SPACE;
    else
        return fail(why, "bad chunk size");
    return 0;
}

static int feed_extension(struct chunked *c, char byte, const char **why)
{
    if (c->line_len++ >= SIZE_LINE_MAX)
        return fail(why, "chunk size line too long");
    if (c->state == STATE_SPACE) {
        if (byte == ';')
            c->state = STATE_EXTENSION;
        else if (byte != ' ' && byte != '\t')
            return fail(why, "bad chunk size");
        return 0;
    }
    if (byte == '\r')
        c->state = STATE_SIZE_LF;
    else if (!is_value_char(byte))
        return fail(why, "control character in a chunk extension");
    return 0;
}

static int feed_trailer(struct chunked *c, char byte, const char **why)
{
    if (c->line_len++ >= CHUNKED_TRAILERS_MAX) {
        *why = "trailers too large";
        return -EMSGSIZE;
    }
    if (c->state == STATE_TRAILER_VALUE) {
        if (byte == '\r')
            c->state = STATE_TRAILER_LF;
        else if (!is_value_char(byte))
            return fail(why, "control character in a trailer");
        return 0;
    }
    if (c->state == STATE_TRAILER_START && byte == '\r')
        c->state = STATE_LAST_LF;
    else if (is_token_char(byte))
        c->state = STATE_TRAILER_NAME;
    else if (c->state == STATE_TRAILER_NAME && byte == ':')
        c->state = STATE_TRAILER_VALUE;
    else
        return fail(why, "bad trailer name");
    return 0;
}

static int expect(struct chunked *c, char byte, char wanted, enum state next, const char **why)
{
    if (byte != wanted)
        return fail(why, "bad line end in a chunked body");
    c->state = (int)next;
    return 0;
}

/* The lines between chunks, a byte at a time: they are short. */
static int feed_byte(struct chunked *c, char byte, const char **why)
{
    switch ((enum state)c->state) {
    case STATE_SIZE:
        return feed_size(c, byte, why);
    case STATE_SPACE:
    case STATE_EXTENSION:
        return feed_extension(c, byte, why);
    case STATE_SIZE_LF:
        c->line_len = 0;
        return expect(c, byte, '\n', c->left == 0 ? STATE_TRAILER_START : STATE_DATA, why);
    case STATE_DATA_CR:
        return expect(c, byte, '\r', STATE_DATA_LF, why);
    case STATE_DATA_LF:
        return expect(c, byte, '\n', STATE_SIZE, why);
    case STATE_TRAILER_START:
    case STATE_TRAILER_NAME:
    case STATE_TRAILER_VALUE:
        return feed_trailer(c, byte, why);
    case STATE_TRAILER_LF:
        return expect(c, byte, '\n', STATE_TRAILER_START, why);
    case STATE_LAST_LF:
        return expect(c, byte, '\n', STATE_END, why);
    case STATE_DATA:
    case STATE_END:
        break;
    }
    return fail(why, "bad chunk");
}

void chunked_init(struct chunked *c)
{
    *c = (struct chunked){.state = STATE_SIZE};
}

int chunked_feed(struct chunked *c, const char *in, size_t len, size_t *used, const char **data,
                 size_t *data_len, const char **why)
{
    size_t at = 0;

    while (at < len && c->state != STATE_END) {
        if (c->state == STATE_DATA) {
            size_t n = c->left < len - at ? (size_t)c->left : len - at;

            c->left -= n;
            if (c->left == 0)
                c->state = STATE_DATA_CR;
            *data = in + at;
            *data_len = n;
            *used = at + n;
            return CHUNKED_BODY;
        }
        int rc = feed_byte(c, in[at++], why);

        if (rc != 0) {
            *used = at;
            return rc;
        }
    }
    *used = at;
    return c->state == STATE_END ? CHUNKED_END : CHUNKED_MORE;
}
