#include "tests/sim/journal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/json.h"
#include "tests/sim/dialect.h"

#define RING_BYTES (JOURNAL_ENTRIES * sizeof(struct journal_entry))

struct journal {
    uint64_t count; /* entries ever added; the number of the next one */
    struct journal_entry *ring;
};

static const char *const end_names[] = {
    [JOURNAL_COMPLETE] = "complete",
    [JOURNAL_CUT] = "cut",
    [JOURNAL_ABORTED] = "aborted",
};

struct journal *journal_new(void)
{
    struct journal *journal = calloc(1, sizeof(*journal));

    if (journal == NULL)
        return NULL;
    journal->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (journal->ring == MAP_FAILED) {
        free(journal);
        return NULL;
    }
    return journal;
}

void journal_free(struct journal *journal)
{
    if (journal == NULL)
        return;
    munmap(journal->ring, RING_BYTES);
    free(journal);
}

void journal_reset(struct journal *journal)
{
    journal->count = 0;
}

struct journal_entry *journal_add(struct journal *journal)
{
    struct journal_entry *entry = &journal->ring[journal->count++ % JOURNAL_ENTRIES];

    *entry = (struct journal_entry){0};
    return entry;
}

static void put_entry(struct buf *out, uint64_t seq, const struct journal_entry *entry)
{
    const struct dialect *dialect = dialect_by_id((enum dialect_id)entry->dialect);

    buf_byte(out, '{');
    json_put_field_u64(out, "seq", seq);
    json_put_field_text(out, "request_id", entry->request_id);
    json_put_field_text(out, "dialect", dialect->name);
    json_put_field_text(out, "model", entry->model);
    json_put_field_text(out, "marker", entry->marker);
    json_put_field_bool(out, "stream", entry->is_stream);
    json_put_field_u64(out, "status", entry->status);
    json_put_field_u64(out, "prompt_tokens", entry->prompt_tokens);
    json_put_field_u64(out, "completion_tokens", entry->completion_tokens);
    json_put_field_u64(out, "precached_prompt_tokens", entry->precached_tokens);
    json_put_field_bool(out, "usage_sent", entry->has_usage);
    json_put_field_text(out, "finish_reason", dialect->finish_names[entry->finish]);
    json_put_field_u64(out, "events", entry->events);
    json_put_field_text(out, "end", end_names[entry->end]);
    json_put_field_bool(out, "last_byte", entry->end == JOURNAL_COMPLETE);
    json_put_field_bool(out, "aborted", entry->end == JOURNAL_ABORTED);
    json_put_field_i64(out, "started_at_ms", entry->started_at_ms);
    json_put_field_i64(out, "ended_at_ms", entry->ended_at_ms);
    buf_str(out, "}\n");
}

bool journal_render(const struct journal *journal, uint64_t *seq, struct buf *out, size_t max)
{
    uint64_t first = journal->count > JOURNAL_ENTRIES ? journal->count - JOURNAL_ENTRIES : 0;

    if (*seq < first)
        *seq = first;
    while (*seq < journal->count && out->len < max) {
        put_entry(out, *seq, &journal->ring[*seq % JOURNAL_ENTRIES]);
        (*seq)++;
    }
    return *seq < journal->count;
}
