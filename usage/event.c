#include "usage/event.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/secret.h"
#include "common/text.h"

#define RECORD_MAGIC 0x00455558u /* "XUE"; the version is the highest byte */
#define VERSION_SHIFT 24
#define VERSION_WITHOUT_KEY 1u
#define HEADER_BYTES 16
#define CRC_FROM 12 /* magic and length are checked by value */
#define ID_MS_MAX ((UINT64_C(1) << 48) - 1)

/* What an event and an attempt take at most: fixed fields, then two names. */
#define FIXED_BYTES (USAGE_ID_BYTES + 8 + 8 + 4 * 8 + 5 * 8 + 4 + 2 + 4 + 4 + 4)
#define ATTEMPT_FIXED_BYTES (8 + 4 + 4 + 2 + 3 * 8)
#define NAMES_BYTES (2 * USAGE_NAME_BYTES) /* a length byte stands for the NUL */

_Static_assert(HEADER_BYTES + FIXED_BYTES + NAMES_BYTES +
                       USAGE_ATTEMPTS_MAX * (ATTEMPT_FIXED_BYTES + NAMES_BYTES) +
                       2 * USAGE_DIGEST_BYTES <=
                   USAGE_EVENT_MAX,
               "the largest event fits");
_Static_assert(USAGE_EVENT_MAX % 8 == 0, "records are multiples of 8 bytes");
_Static_assert(USAGE_NAME_BYTES <= 256, "a name's length is one byte");

/* ---- ids ---- */

void usage_id_next(struct usage_id_state *state, uint16_t slot, int64_t now_at_ms,
                   struct usage_id *out)
{
    uint64_t now = now_at_ms < 0 ? 0 : (uint64_t)now_at_ms;
    uint64_t ms_be;
    uint32_t be32;
    uint16_t be16 = htobe16(slot);

    if (now > ID_MS_MAX)
        now = ID_MS_MAX;
    state->sequence++;
    if (now > state->last_ms)
        state->last_ms = now;
    else if (state->sequence == 0)
        state->last_ms++; /* the sequence began anew inside one millisecond */
    ms_be = htobe64(state->last_ms << 16);
    memcpy(out->bytes, &ms_be, 6);
    be32 = htobe32(state->node);
    memcpy(out->bytes + 6, &be32, 4);
    memcpy(out->bytes + 10, &be16, 2);
    be32 = htobe32(state->sequence);
    memcpy(out->bytes + 12, &be32, 4);
}

void usage_id_format(const struct usage_id *id, char out[USAGE_ID_TEXT_BYTES])
{
    hex_encode(id->bytes, sizeof(id->bytes), out);
}

int usage_id_parse(const char *text, size_t len, struct usage_id *out)
{
    if (len != USAGE_ID_TEXT_BYTES - 1)
        return -EINVAL;
    return hex_decode(text, len, out->bytes);
}

/* ---- writing ---- */

static uint8_t *put_u8(uint8_t *p, uint8_t value)
{
    *p = value;
    return p + 1;
}

static uint8_t *put_u16(uint8_t *p, uint16_t value)
{
    value = htole16(value);
    memcpy(p, &value, sizeof(value));
    return p + sizeof(value);
}

static uint8_t *put_u32(uint8_t *p, uint32_t value)
{
    value = htole32(value);
    memcpy(p, &value, sizeof(value));
    return p + sizeof(value);
}

static uint8_t *put_u64(uint8_t *p, uint64_t value)
{
    value = htole64(value);
    memcpy(p, &value, sizeof(value));
    return p + sizeof(value);
}

static uint8_t *put_i64(uint8_t *p, int64_t value)
{
    return put_u64(p, (uint64_t)value);
}

static uint8_t *put_name(uint8_t *p, const char name[USAGE_NAME_BYTES])
{
    size_t len = strnlen(name, USAGE_NAME_BYTES - 1);

    p = put_u8(p, (uint8_t)len);
    memcpy(p, name, len);
    return p + len;
}

static uint8_t *put_price(uint8_t *p, const struct price *price)
{
    p = put_i64(p, price->from_at_ms);
    p = put_i64(p, price->input_nano);
    p = put_i64(p, price->cached_input_nano);
    p = put_i64(p, price->output_nano);
    return put_i64(p, price->request_nano);
}

static uint8_t *put_attempt(uint8_t *p, const struct usage_attempt *a)
{
    p = put_i64(p, a->started_at_ms);
    p = put_u32(p, a->duration_ms);
    p = put_u32(p, (uint32_t)a->error);
    p = put_u16(p, a->http_status);
    p = put_i64(p, a->tokens_input);
    p = put_i64(p, a->tokens_cached);
    p = put_i64(p, a->tokens_output);
    p = put_name(p, a->provider);
    return put_name(p, a->model);
}

static uint8_t *put_event(uint8_t *p, const struct usage_event *e, uint8_t attempt_count)
{
    memcpy(p, e->id.bytes, USAGE_ID_BYTES);
    p = put_u64(p + USAGE_ID_BYTES, e->key_id);
    p = put_i64(p, e->created_at_ms);
    p = put_i64(p, e->tokens_input);
    p = put_i64(p, e->tokens_cached);
    p = put_i64(p, e->tokens_output);
    p = put_i64(p, e->cost_nano);
    p = put_price(p, &e->price);
    p = put_u32(p, (uint32_t)e->error);
    p = put_u16(p, e->http_status);
    p = put_u8(p, e->outcome);
    p = put_u8(p, e->source);
    p = put_u8(p, e->streamed);
    p = put_u8(p, attempt_count);
    p = put_u32(p, e->duration_ms);
    p = put_u32(p, e->first_byte_ms);
    p = put_name(p, e->provider);
    p = put_name(p, e->model);
    for (size_t i = 0; i < attempt_count; i++)
        p = put_attempt(p, &e->attempts[i]);
    return p;
}

static uint8_t *put_digests(uint8_t *p, const struct usage_event *e)
{
    memcpy(p, e->idempotency_key, USAGE_DIGEST_BYTES);
    memcpy(p + USAGE_DIGEST_BYTES, e->request_digest, USAGE_DIGEST_BYTES);
    return p + (size_t)2 * USAGE_DIGEST_BYTES;
}

bool usage_event_is_remembered(const struct usage_event *event)
{
    static const uint8_t none[USAGE_DIGEST_BYTES];

    return event->source != USAGE_BY_NOBODY &&
           memcmp(event->idempotency_key, none, sizeof(none)) != 0;
}

int64_t usage_event_ended_at_ms(const struct usage_event *event)
{
    int64_t at_ms;

    if (__builtin_add_overflow(event->created_at_ms, (int64_t)event->duration_ms, &at_ms))
        return INT64_MAX;
    return at_ms;
}

void usage_name_set(char out[USAGE_NAME_BYTES], const char *name)
{
    text_copy(out, USAGE_NAME_BYTES, name);
}

size_t usage_event_encode(const struct usage_event *event, uint8_t out[USAGE_EVENT_MAX])
{
    uint8_t attempt_count =
        event->attempt_count > USAGE_ATTEMPTS_MAX ? USAGE_ATTEMPTS_MAX : event->attempt_count;
    bool has_digests = usage_event_is_remembered(event);
    uint32_t version = has_digests ? USAGE_RECORD_VERSION : VERSION_WITHOUT_KEY;
    uint8_t *end = put_event(out + HEADER_BYTES, event, attempt_count);
    size_t len;

    if (has_digests)
        end = put_digests(end, event);
    while ((end - out) % 8 != 0)
        end = put_u8(end, 0);
    len = (size_t)(end - out);
    put_u32(out, RECORD_MAGIC | version << VERSION_SHIFT);
    put_u32(out + 4, (uint32_t)len);
    put_u32(out + CRC_FROM, 0);
    put_u32(out + 8, crc32c(0, out + CRC_FROM, len - CRC_FROM));
    return len;
}

/* ---- reading ---- */

struct reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad; /* something did not fit: what was read since is zeros */
};

/* Inline: nearly everywhere the length is a constant, and a copy then one instruction. */
static inline void get_bytes(struct reader *r, void *out, size_t len)
{
    if ((size_t)(r->end - r->p) < len) {
        r->bad = true;
        memset(out, 0, len);
        return;
    }
    memcpy(out, r->p, len);
    r->p += len;
}

static uint8_t get_u8(struct reader *r)
{
    uint8_t value;

    get_bytes(r, &value, sizeof(value));
    return value;
}

static uint16_t get_u16(struct reader *r)
{
    uint16_t value;

    get_bytes(r, &value, sizeof(value));
    return le16toh(value);
}

static uint32_t get_u32(struct reader *r)
{
    uint32_t value;

    get_bytes(r, &value, sizeof(value));
    return le32toh(value);
}

static uint64_t get_u64(struct reader *r)
{
    uint64_t value;

    get_bytes(r, &value, sizeof(value));
    return le64toh(value);
}

static int64_t get_i64(struct reader *r)
{
    return (int64_t)get_u64(r);
}

/* out is all zeros before. */
static void get_name(struct reader *r, char out[USAGE_NAME_BYTES])
{
    size_t len = get_u8(r);

    if (len >= USAGE_NAME_BYTES) {
        r->bad = true;
        return;
    }
    get_bytes(r, out, len);
    if (memchr(out, '\0', len) != NULL)
        r->bad = true;
}

static void get_price(struct reader *r, struct price *price)
{
    price->from_at_ms = get_i64(r);
    price->input_nano = get_i64(r);
    price->cached_input_nano = get_i64(r);
    price->output_nano = get_i64(r);
    price->request_nano = get_i64(r);
}

static void get_attempt(struct reader *r, struct usage_attempt *a)
{
    a->started_at_ms = get_i64(r);
    a->duration_ms = get_u32(r);
    a->error = (int32_t)get_u32(r);
    a->http_status = get_u16(r);
    a->tokens_input = get_i64(r);
    a->tokens_cached = get_i64(r);
    a->tokens_output = get_i64(r);
    get_name(r, a->provider);
    get_name(r, a->model);
}

static void get_event(struct reader *r, struct usage_event *e)
{
    get_bytes(r, e->id.bytes, USAGE_ID_BYTES);
    e->key_id = get_u64(r);
    e->created_at_ms = get_i64(r);
    e->tokens_input = get_i64(r);
    e->tokens_cached = get_i64(r);
    e->tokens_output = get_i64(r);
    e->cost_nano = get_i64(r);
    get_price(r, &e->price);
    e->error = (int32_t)get_u32(r);
    e->http_status = get_u16(r);
    e->outcome = get_u8(r);
    e->source = get_u8(r);
    e->streamed = get_u8(r);
    e->attempt_count = get_u8(r);
    e->duration_ms = get_u32(r);
    e->first_byte_ms = get_u32(r);
    get_name(r, e->provider);
    get_name(r, e->model);
    if (e->outcome > USAGE_ABORTED || e->source > USAGE_BY_PARTIAL || e->streamed > 1 ||
        e->attempt_count > USAGE_ATTEMPTS_MAX) {
        r->bad = true;
        return;
    }
    for (size_t i = 0; i < e->attempt_count; i++)
        get_attempt(r, &e->attempts[i]);
}

static void get_digests(struct reader *r, struct usage_event *e)
{
    get_bytes(r, e->idempotency_key, USAGE_DIGEST_BYTES);
    get_bytes(r, e->request_digest, USAGE_DIGEST_BYTES);
    if (!usage_event_is_remembered(e))
        r->bad = true;
}

/* Nothing but the zeros that round the record up. */
static bool is_at_padding(const struct reader *r)
{
    if (r->end - r->p >= 8)
        return false;
    for (const uint8_t *p = r->p; p < r->end; p++) {
        if (*p != 0)
            return false;
    }
    return true;
}

size_t usage_record_length(const uint8_t header[8])
{
    struct reader r = {.p = header, .end = header + 8};
    uint32_t magic = get_u32(&r);
    uint32_t version = magic >> VERSION_SHIFT;
    size_t len = get_u32(&r);

    if (magic != (RECORD_MAGIC | version << VERSION_SHIFT) || version < VERSION_WITHOUT_KEY ||
        version > USAGE_RECORD_VERSION || len < HEADER_BYTES + FIXED_BYTES ||
        len > USAGE_EVENT_MAX || len % 8 != 0)
        return 0;
    return len;
}

int usage_event_decode(const uint8_t *data, size_t len, struct usage_event *out, size_t *used)
{
    struct reader r;
    size_t record_len;
    uint32_t crc;

    *used = 0;
    if (len < 8)
        return -EAGAIN;
    record_len = usage_record_length(data);
    if (record_len == 0)
        return -EBADMSG;
    if (len < record_len)
        return -EAGAIN;
    *used = record_len;
    r = (struct reader){.p = data + 8, .end = data + record_len};
    crc = get_u32(&r);
    if (crc != crc32c(0, data + CRC_FROM, record_len - CRC_FROM) || get_u32(&r) != 0)
        return -EBADMSG;
    memset(out, 0, sizeof(*out));
    get_event(&r, out);
    if (data[3] == USAGE_RECORD_VERSION) /* the magic's highest byte */
        get_digests(&r, out);
    if (r.bad || !is_at_padding(&r))
        return -EBADMSG;
    return 0;
}
