/* journal.h - the simulator's own log of chat answers: the judge of whoever counts tokens. A ring
 * of the last JOURNAL_ENTRIES; its memory is touched only as it fills. */
#ifndef XROUTER_SIM_JOURNAL_H
#define XROUTER_SIM_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/sim/answer.h"
#include "tests/sim/scenario.h"

#define JOURNAL_ENTRIES 200000
#define JOURNAL_ID_BYTES 49
#define JOURNAL_MODEL_BYTES 48

enum journal_end {
    JOURNAL_COMPLETE, /* the last byte was written */
    JOURNAL_CUT,      /* the scenario ended it early */
    JOURNAL_ABORTED,  /* the client left before the last byte */
};

struct journal_entry {
    int64_t started_at_ms;
    int64_t ended_at_ms; /* of an abort: when it was noticed */
    uint32_t prompt_tokens;
    uint32_t completion_tokens; /* reported, or generated so far where nothing was */
    uint32_t precached_tokens;
    uint32_t events;
    uint16_t status; /* 0: none was sent */
    uint8_t end;     /* enum journal_end */
    uint8_t finish; /* enum finish; of an answer whose end was not reached: the one it would have */
    uint8_t dialect; /* enum dialect_id */
    bool is_stream;
    bool has_usage;                    /* the usage was written into the answer */
    char request_id[JOURNAL_ID_BYTES]; /* X-Request-ID, cut to fit; "" without one */
    char model[JOURNAL_MODEL_BYTES];   /* as asked, cut to fit; "" before the body was accepted */
    char marker[MARKER_TEXT_BYTES];    /* the [[...]] of the last user message, cut to fit */
};

struct journal; /* opaque */

struct journal *journal_new(void); /* NULL when out of memory */
void journal_free(struct journal *journal);
void journal_reset(struct journal *journal);

/* The place of the next entry, zeroed; it counts at once. */
struct journal_entry *journal_add(struct journal *journal);

/* Appends entries as JSON lines, from number *seq on (entries that fell out of the ring are
 * skipped), until out holds about max bytes; *seq moves on. False when there are no more. */
bool journal_render(const struct journal *journal, uint64_t *seq, struct buf *out, size_t max);

#endif
