/* event.h - what one request used: the record that travels from a worker to the ledger.
 *
 * The same struct lives in the worker's in-flight row while the request runs, so that whoever
 * settles it (the worker, or the reaper after the worker's death) writes the same record. */
#ifndef XROUTER_USAGE_EVENT_H
#define XROUTER_USAGE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/money.h"

#define USAGE_ID_BYTES 16
#define USAGE_ID_TEXT_BYTES 33 /* 32 hex digits and a NUL */
#define USAGE_ATTEMPTS_MAX 8
#define USAGE_NAME_BYTES 96
#define USAGE_DIGEST_BYTES 16
#define USAGE_EVENT_MAX 2240 /* encoded, with all attempts and the longest names */
#define USAGE_RECORD_VERSION                                             \
    2u /* the newest; a record without an Idempotency-Key is a version 1 \
        */

/* A request's id: 128 bits, ordered by time, unique over nodes, slots and restarts: 48 bits of Unix
 * milliseconds that never go back within a slot, 32 bits of node id, 16 of slot, 32 of sequence,
 * big-endian. */
struct usage_id {
    uint8_t bytes[USAGE_ID_BYTES];
};
/* The state behind the ids of one slot; lives in shared memory so that a respawned worker goes on.
 * Any sequence is a valid start: a random one keeps the ids of two instances apart when the clock
 * was set back in between. */
struct usage_id_state {
    uint64_t last_ms;
    uint32_t sequence;
    uint32_t node;
};
void usage_id_next(struct usage_id_state *state, uint16_t slot, int64_t now_at_ms,
                   struct usage_id *out);
void usage_id_format(const struct usage_id *id, char out[USAGE_ID_TEXT_BYTES]);
int usage_id_parse(const char *text, size_t len, struct usage_id *out); /* 0 or -EINVAL */

/* Stored numbers: never renumber. */
enum usage_outcome {
    USAGE_OK = 0,        /* answered to the end */
    USAGE_ERROR = 1,     /* refused or failed after admission */
    USAGE_CANCELLED = 2, /* the client left */
    USAGE_ABORTED = 3    /* the worker died, or the gateway stopped, in the middle */
};
enum usage_source {
    USAGE_BY_NOBODY = 0,   /* nothing was used */
    USAGE_BY_PROVIDER = 1, /* the provider's usage */
    USAGE_BY_LOCAL = 2,    /* counted here: the provider sent none */
    USAGE_BY_PARTIAL = 3   /* counted here up to where the answer was cut */
};

struct usage_attempt {
    char provider[USAGE_NAME_BYTES];
    char model[USAGE_NAME_BYTES]; /* as the provider names it */
    int64_t started_at_ms;
    uint32_t duration_ms;
    int32_t error;        /* 0 or XR_E... */
    uint16_t http_status; /* the provider's, 0 = none came */
    uint16_t reserved;
    int64_t tokens_input;
    int64_t tokens_cached;
    int64_t tokens_output;
};

struct usage_event {
    struct usage_id id;
    uint64_t key_id;
    int64_t created_at_ms;
    char provider[USAGE_NAME_BYTES]; /* of the last attempt, "" = none was made */
    char model[USAGE_NAME_BYTES];    /* public id */
    int64_t tokens_input;            /* cached ones included */
    int64_t tokens_cached;
    int64_t tokens_output;
    int64_t cost_nano;
    struct price price;    /* in force when the request was admitted */
    int32_t error;         /* 0 or XR_E... */
    uint16_t http_status;  /* what the client got, 0 = nothing */
    uint8_t outcome;       /* enum usage_outcome */
    uint8_t source;        /* enum usage_source */
    uint8_t streamed;      /* 1 = server-sent events */
    uint8_t attempt_count; /* of attempts, at most USAGE_ATTEMPTS_MAX */
    uint16_t reserved;
    uint32_t duration_ms;
    uint32_t first_byte_ms; /* 0 = no byte of an answer came */
    struct usage_attempt attempts[USAGE_ATTEMPTS_MAX];
    /* Of a request with an Idempotency-Key (usage/idempotency.h); zeros = it brought none. */
    uint8_t idempotency_key[USAGE_DIGEST_BYTES];
    uint8_t request_digest[USAGE_DIGEST_BYTES];
};

/* Whether the event will be remembered under its Idempotency-Key: it has one, and the request used
 * something. One that used nothing is forgotten, so that it may run again. */
bool usage_event_is_remembered(const struct usage_event *event);
/* From this moment on it is remembered. Saturates: the event may be anything. */
int64_t usage_event_ended_at_ms(const struct usage_event *event);

/* Copies a name into an event's field; what does not fit is cut. */
void usage_name_set(char out[USAGE_NAME_BYTES], const char *name);

/* The record: u32 magic+version, u32 length of all, u32 CRC-32C of the rest, u32 zero, then
 * little-endian fields and length-prefixed names; padded with zeros to 8 bytes. An event with one
 * attempt takes about 250 bytes. Version 2 adds the two digests at the end, and is used for events
 * that are remembered; the others' digests are left out.
 * encode returns the length (<= USAGE_EVENT_MAX, a multiple of 8). It trusts neither the number of
 * attempts nor the NULs of the names: the event may be what a dead worker left. */
size_t usage_event_encode(const struct usage_event *event, uint8_t out[USAGE_EVENT_MAX]);
/* Reads the record at data; *used is its length. 0, -EAGAIN (len is too short to tell or to hold
 * it), -EBADMSG (not a record: wrong magic, version, CRC or contents; *used is how many bytes to
 * skip to reach the next one, 0 if that cannot be told). Every record that decodes encodes to the
 * same bytes again. */
int usage_event_decode(const uint8_t *data, size_t len, struct usage_event *out, size_t *used);
/* The length that a record's first 8 bytes tell; 0 if they cannot be a record's. */
size_t usage_record_length(const uint8_t header[8]);

#endif
