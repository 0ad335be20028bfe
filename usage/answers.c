#include "usage/answers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base64.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"

#define WAITING_MAX_BYTES (32 * (size_t)ANSWER_MAX_BYTES)
#define COMMIT_BYTES (2 * (size_t)ANSWER_MAX_BYTES) /* in one transaction; and as many deleted */
#define COMMIT_ANSWERS 256
#define SWEEP_EVERY_MS 500
#define SWEEP_ROWS 64
#define DROP_ROWS 32
#define DROP_LOOKS 512 /* rows, most of which may have no answer */
#define RETRY_MS 500
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct waiting_answer {
    struct waiting_answer *next;
    struct answer_packet packet;
    char bytes[];
};

/* A row, as it is told to the table after a commit. */
struct row {
    uint8_t key[USAGE_DIGEST_BYTES];
    struct usage_id id;
};

/* The row up to which answers were looked for, the oldest first. */
struct drop_cursor {
    int64_t ended_at_ms;
    uint8_t key[USAGE_DIGEST_BYTES];
    bool has_found; /* one, since the first row */
};

struct answers {
    struct answers_setup setup;
    struct waiting_answer *first, **last;
    size_t waiting_bytes;
    int64_t first_ms;    /* the oldest one came */
    int64_t retry_at_ms; /* nothing before this */
    int64_t sweep_at_ms; /* monotonic */
    bool failing;        /* told already */
    bool full;           /* the table is, and that was told */
    uint64_t stored;     /* bytes of answers in the database */
    uint64_t dropped;    /* of the batch, for the counter */
    struct drop_cursor cursor;
    size_t row_count;
    struct row rows[SWEEP_ROWS + DROP_ROWS];
};

static const char *const TYPES[ANSWER_TYPES] = {
    [ANSWER_JSON] = "application/json",
    [ANSWER_EVENT_STREAM] = "text/event-stream",
};

const char *answer_type_text(enum answer_type type)
{
    return TYPES[type];
}

int answer_type_parse(const char *text, enum answer_type *out)
{
    for (unsigned i = 0; i < ANSWER_TYPES; i++) {
        if (strcmp(TYPES[i], text) == 0) {
            *out = (enum answer_type)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- the table ---- */

/* The entry outlives the row a little: it is the row's end that ends it. */
static int64_t expires_at_ms(const struct answers *a, int64_t ended_at_ms)
{
    int64_t at_ms;

    if (__builtin_add_overflow(ended_at_ms, a->setup.config->answer_ttl_ms + IDEMPOTENCY_GRACE_MS,
                               &at_ms))
        return INT64_MAX;
    return at_ms;
}

static void put(struct answers *a, const struct idempotency_key *key, const struct usage_id *id,
                int64_t ended_at_ms, bool stored, int64_t now_at_ms)
{
    int rc =
        idempotency_put(a->setup.table, key, id, stored, now_at_ms, expires_at_ms(a, ended_at_ms));

    if (rc == -ENOSPC && !a->full)
        log_event(LOG_ERROR, "idempotency_keys_full", "",
                  "the ledger remembers more Idempotency-Keys than limits.idempotency_keys allows: "
                  "repeats of some may run again");
    a->full = rc == -ENOSPC;
}

/* The event is on its way into the ledger. Its entry is there, but for one that comes so late that
 * the shared memory is a new one. */
static void on_remembered(void *arg, const struct usage_event *event)
{
    struct answers *a = arg;
    struct idempotency_key key;

    memcpy(key.key, event->idempotency_key, sizeof(key.key));
    memcpy(key.request, event->request_digest, sizeof(key.request));
    put(a, &key, &event->id, usage_event_ended_at_ms(event), false, clock_now_at_ms());
}

static void begin_anew(struct answers *a)
{
    a->cursor = (struct drop_cursor){.ended_at_ms = INT64_MIN};
}

struct answers *answers_new(const struct answers_setup *setup)
{
    struct answers *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return NULL;
    a->setup = *setup;
    a->last = &a->first;
    begin_anew(a);
    idempotency_reap_writer(setup->table);
    ledger_on_remembered(setup->ledger, on_remembered, a);
    return a;
}

static void drop_first(struct answers *a)
{
    struct waiting_answer *answer = a->first;

    a->first = answer->next;
    if (a->first == NULL)
        a->last = &a->first;
    a->waiting_bytes -= answer->packet.length;
    free(answer);
}

void answers_free(struct answers *a)
{
    if (a == NULL)
        return;
    ledger_on_remembered(a->setup.ledger, NULL, NULL);
    while (a->first != NULL)
        drop_first(a);
    free(a);
}

void answers_set_config(struct answers *a, const struct config *config)
{
    a->setup.config = config;
}

/* ---- rows ---- */

static const void *column_bytes(sqlite3_stmt *st, int column, size_t len)
{
    static const uint8_t none[USAGE_DIGEST_BYTES];
    const void *data = sqlite3_column_blob(st, column);

    return data != NULL && (size_t)sqlite3_column_bytes(st, column) >= len ? data : none;
}

int answers_load(struct answers *a, int64_t now_at_ms)
{
    sqlite3_stmt *st;
    int rc =
        ledger_prepare(a->setup.ledger,
                       "SELECT key_digest, request_digest, usage_id, created_at, length(answer)"
                       " FROM idempotency",
                       &st);

    if (rc < 0)
        return rc;
    a->stored = 0;
    begin_anew(a);
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct idempotency_key key;
        struct usage_id id;
        bool stored = sqlite3_column_type(st, 4) != SQLITE_NULL;

        memcpy(key.key, column_bytes(st, 0, sizeof(key.key)), sizeof(key.key));
        memcpy(key.request, column_bytes(st, 1, sizeof(key.request)), sizeof(key.request));
        memcpy(id.bytes, column_bytes(st, 2, sizeof(id.bytes)), sizeof(id.bytes));
        a->stored += (uint64_t)sqlite3_column_int64(st, 4);
        put(a, &key, &id, sqlite3_column_int64(st, 3), stored, now_at_ms);
    }
    sqlite3_finalize(st);
    return database_errno(rc);
}

/* ---- receiving ---- */

static int read_all(int fd, char *out, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, out + done, len - done, (off_t)done);

        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            return -EPROTO;
        done += (size_t)n;
    }
    return 0;
}

/* Only a memfd has seals; sealed, it keeps its length and never makes a reader wait. */
static int check_answer(const struct answer_packet *p, int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals == -1 || (seals & SEALS) != SEALS || fstat(fd, &st) == -1 ||
        st.st_size != (off_t)p->length)
        return -EPROTO;
    if (p->length > ANSWER_MAX_BYTES || p->type >= ANSWER_TYPES || p->status < 200 ||
        p->status > 599)
        return -EPROTO;
    return 0;
}

static void lose(struct answers *a, const uint8_t key[USAGE_DIGEST_BYTES],
                 const struct usage_id *id)
{
    idempotency_lose(a->setup.table, key, id);
    counter_inc(&a->setup.counters->answers_dropped_total);
}

int answers_take(struct answers *a, const struct answer_packet *packet, int fd, int64_t now_ms)
{
    struct waiting_answer *answer = NULL;
    int rc = check_answer(packet, fd);

    if (rc < 0)
        return rc;
    if (a->waiting_bytes + packet->length <= WAITING_MAX_BYTES)
        answer = malloc(sizeof(*answer) + packet->length);
    if (answer == NULL) {
        lose(a, packet->key.key, &packet->id);
        return 0;
    }
    rc = read_all(fd, answer->bytes, packet->length);
    if (rc < 0) {
        free(answer);
        return rc;
    }
    answer->packet = *packet;
    answer->next = NULL;
    if (a->first == NULL)
        a->first_ms = now_ms;
    *a->last = answer;
    a->last = &answer->next;
    a->waiting_bytes += packet->length;
    return 0;
}

/* ---- committing ---- */

static const char STORE[] =
    "INSERT INTO idempotency (key_digest, request_digest, usage_id, created_at, status,"
    " content_type, answer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (key_digest) DO UPDATE"
    " SET request_digest = excluded.request_digest, usage_id = excluded.usage_id,"
    " created_at = excluded.created_at, status = excluded.status,"
    " content_type = excluded.content_type, answer = excluded.answer"
    " WHERE excluded.usage_id >= usage_id";

/* Bytes of the answer that the next one of this key replaces: it came twice, or the key's time was
 * over. */
static int replaced_bytes(const struct answers *a, const struct answer_packet *p, uint64_t *bytes)
{
    sqlite3_stmt *st;
    int rc = ledger_prepare(a->setup.ledger,
                            "SELECT length(answer) FROM idempotency WHERE key_digest = ?1"
                            " AND usage_id <= ?2",
                            &st);

    *bytes = 0;
    if (rc < 0)
        return rc;
    sqlite3_bind_blob(st, 1, p->key.key, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, p->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *bytes = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return database_errno(rc);
}

static int store(struct answers *a, sqlite3_stmt *st, const struct waiting_answer *answer)
{
    const struct answer_packet *p = &answer->packet;
    uint64_t replaced;
    int rc = replaced_bytes(a, p, &replaced);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(st, 1, p->key.key, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, p->key.request, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 3, p->id.bytes, USAGE_ID_BYTES, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, p->ended_at_ms);
    sqlite3_bind_int(st, 5, p->status);
    sqlite3_bind_text(st, 6, TYPES[p->type], -1, SQLITE_STATIC);
    sqlite3_bind_blob(st, 7, answer->bytes, (int)p->length, SQLITE_STATIC);
    rc = database_step(st);
    if (rc == 0 && sqlite3_changes(ledger_db(a->setup.ledger)) > 0)
        a->stored += p->length - replaced;
    return rc;
}

/* The oldest ones, up to count; *stored_count is how many. */
static int store_some(struct answers *a, size_t *count)
{
    sqlite3_stmt *st;
    size_t bytes = 0;
    int rc = ledger_prepare(a->setup.ledger, STORE, &st);

    *count = 0;
    for (struct waiting_answer *w = a->first; w != NULL && rc == 0; w = w->next) {
        bytes += w->packet.length;
        if (*count > 0 && (bytes > COMMIT_BYTES || *count == COMMIT_ANSWERS))
            break;
        rc = store(a, st, w);
        if (rc == 0)
            ++*count;
    }
    sqlite3_finalize(st);
    return rc;
}

static int change_rows(struct answers *a, size_t from, const char *sql)
{
    sqlite3_stmt *st;
    int rc = ledger_prepare(a->setup.ledger, sql, &st);

    for (size_t i = from; i < a->row_count && rc == 0; i++) {
        sqlite3_bind_blob(st, 1, a->rows[i].key, USAGE_DIGEST_BYTES, SQLITE_STATIC);
        rc = database_step(st);
    }
    sqlite3_finalize(st);
    return rc;
}

static void note_row(struct answers *a, sqlite3_stmt *st)
{
    struct row *row = &a->rows[a->row_count++];

    memcpy(row->key, column_bytes(st, 0, sizeof(row->key)), sizeof(row->key));
    memcpy(row->id.bytes, column_bytes(st, 1, sizeof(row->id)), sizeof(row->id));
}

static void subtract(struct answers *a, uint64_t bytes)
{
    a->stored -= bytes < a->stored ? bytes : a->stored;
}

/* Deletes rows that are over, some of them; they are noted. */
static int sweep(struct answers *a, int64_t now_at_ms)
{
    sqlite3_stmt *st;
    uint64_t bytes = 0; /* each page of an answer is read to be freed */
    int rc = ledger_prepare(a->setup.ledger,
                            "SELECT key_digest, usage_id, length(answer) FROM idempotency"
                            " WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2",
                            &st);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(st, 1, now_at_ms - a->setup.config->answer_ttl_ms);
    sqlite3_bind_int(st, 2, SWEEP_ROWS);
    while (bytes < COMMIT_BYTES && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        note_row(a, st);
        bytes += (uint64_t)sqlite3_column_int64(st, 2);
    }
    sqlite3_finalize(st);
    subtract(a, bytes);
    rc = database_errno(rc);
    return rc < 0 ? rc : change_rows(a, 0, "DELETE FROM idempotency WHERE key_digest = ?1");
}

static bool is_too_much(const struct answers *a)
{
    return a->stored > a->setup.config->answers_bytes;
}

/* Goes on behind the cursor, some rows at a time: years of rows may have no answer. */
static int note_oldest(struct answers *a, sqlite3_stmt *st)
{
    struct drop_cursor *c = &a->cursor;
    size_t from = a->row_count;
    uint64_t bytes = 0;
    int looks = 0, rc = SQLITE_ROW;

    sqlite3_bind_int64(st, 1, c->ended_at_ms);
    sqlite3_bind_blob(st, 2, c->key, sizeof(c->key), SQLITE_TRANSIENT);
    sqlite3_bind_int(st, 3, DROP_LOOKS);
    while (is_too_much(a) && bytes < COMMIT_BYTES && a->row_count - from < DROP_ROWS) {
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
            break;
        looks++;
        memcpy(c->key, column_bytes(st, 0, sizeof(c->key)), sizeof(c->key));
        c->ended_at_ms = sqlite3_column_int64(st, 3);
        if (sqlite3_column_type(st, 2) == SQLITE_NULL)
            continue;
        c->has_found = true;
        note_row(a, st);
        bytes += (uint64_t)sqlite3_column_int64(st, 2);
        subtract(a, (uint64_t)sqlite3_column_int64(st, 2));
    }
    if (rc == SQLITE_DONE && looks < DROP_LOOKS) {
        if (!c->has_found) /* in the whole table: the sum was wrong */
            a->stored = 0;
        begin_anew(a); /* answers have come that ended before */
    }
    return database_errno(rc);
}

/* Takes the oldest answers away until the rest is not too much, some of them; their rows are noted
 * behind the deleted ones. */
static int drop_oldest(struct answers *a)
{
    sqlite3_stmt *st;
    size_t from = a->row_count;
    int rc;

    if (!is_too_much(a))
        return 0;
    rc = ledger_prepare(a->setup.ledger,
                        "SELECT key_digest, usage_id, length(answer), created_at FROM idempotency"
                        " WHERE (created_at, key_digest) > (?1, ?2) ORDER BY created_at, key_digest"
                        " LIMIT ?3",
                        &st);
    if (rc < 0)
        return rc;
    rc = note_oldest(a, st);
    sqlite3_finalize(st);
    if (rc < 0)
        return rc;
    a->dropped = a->row_count - from;
    return change_rows(a, from,
                       "UPDATE idempotency SET status = NULL, content_type = NULL, answer = NULL"
                       " WHERE key_digest = ?1");
}

/* Tells the table what has become of the rows. */
static void publish(struct answers *a, size_t stored, int64_t now_at_ms)
{
    size_t deleted = a->row_count - a->dropped;

    for (; stored > 0; stored--) {
        const struct answer_packet *p = &a->first->packet;

        put(a, &p->key, &p->id, p->ended_at_ms, true, now_at_ms);
        counter_inc(&a->setup.counters->answers_stored_total);
        drop_first(a);
    }
    for (size_t i = 0; i < deleted; i++)
        idempotency_forget(a->setup.table, a->rows[i].key, &a->rows[i].id);
    for (size_t i = deleted; i < a->row_count; i++)
        lose(a, a->rows[i].key, &a->rows[i].id);
}

/* One transaction. 1 = something was committed, 0 = there was nothing, -errno. */
static int run(struct answers *a, bool with_answers, bool with_sweep, int64_t now_at_ms)
{
    sqlite3 *db = ledger_db(a->setup.ledger);
    const struct drop_cursor cursor_before = a->cursor;
    uint64_t stored_before = a->stored;
    size_t stored = 0;
    int rc = db != NULL ? database_exec(db, "BEGIN IMMEDIATE") : -EIO;

    a->row_count = 0;
    a->dropped = 0;
    if (rc == 0 && with_answers)
        rc = store_some(a, &stored);
    if (rc == 0 && with_sweep)
        rc = sweep(a, now_at_ms);
    if (rc == 0)
        rc = drop_oldest(a);
    if (rc == 0)
        rc = database_exec(db, "COMMIT");
    if (rc == 0) /* into files that are still there */
        rc = ledger_look(a->setup.ledger);
    if (rc < 0) {
        database_rollback(db);
        a->stored = stored_before;
        a->cursor = cursor_before;
        return rc;
    }
    publish(a, stored, now_at_ms);
    return stored > 0 || a->row_count > 0;
}

/* Whether a sweep would find something: looked at without a lock on the database. 1, 0 or -errno.
 */
static int find_work(struct answers *a, int64_t now_at_ms)
{
    sqlite3_stmt *st;
    int rc = ledger_prepare(a->setup.ledger,
                            "SELECT 1 FROM idempotency WHERE created_at <= ?1 LIMIT 1", &st);

    if (rc < 0)
        return rc;
    sqlite3_bind_int64(st, 1, now_at_ms - a->setup.config->answer_ttl_ms);
    rc = sqlite3_step(st);
    sqlite3_finalize(st);
    if (rc == SQLITE_ROW || is_too_much(a))
        return 1;
    return database_errno(rc);
}

static void note_failure(struct answers *a, int rc, int64_t now_ms)
{
    if (rc == -EINVAL && a->first != NULL) {
        /* The table does not take it, and never will. */
        log_event(LOG_ERROR, "answer_refused", "", "an answer cannot be stored: %s",
                  sqlite3_errmsg(ledger_db(a->setup.ledger)));
        lose(a, a->first->packet.key.key, &a->first->packet.id);
        drop_first(a);
        return;
    }
    if (!a->failing)
        log_event(
            LOG_ERROR, "answers_failing", "",
            "answers for Idempotency-Keys cannot be stored, they are kept and tried again: %s",
            strerror(-rc));
    a->failing = true;
    a->retry_at_ms = now_ms + RETRY_MS;
}

static bool commit_is_due(const struct answers *a, int64_t now_ms)
{
    return a->first != NULL &&
           (now_ms >= a->first_ms + a->setup.config->commit_ms || a->waiting_bytes >= COMMIT_BYTES);
}

bool answers_turn(struct answers *a, int64_t now_ms, int64_t now_at_ms)
{
    bool with_answers = commit_is_due(a, now_ms);
    int work = 0;
    int rc;

    if (now_ms < a->retry_at_ms)
        return false;
    if (now_ms >= a->sweep_at_ms) {
        work = find_work(a, now_at_ms);
        a->sweep_at_ms = now_ms + (work == 1 ? 0 : SWEEP_EVERY_MS); /* a piece each turn */
    }
    if (!with_answers && work == 0)
        return false;
    rc = work < 0 ? work : run(a, with_answers, work == 1, now_at_ms);
    if (rc < 0)
        note_failure(a, rc, now_ms);
    else
        a->failing = false;
    return rc == 1;
}

int64_t answers_next_ms(const struct answers *a)
{
    int64_t at_ms = a->sweep_at_ms;

    if (a->first != NULL && a->first_ms + a->setup.config->commit_ms < at_ms)
        at_ms = a->first_ms + a->setup.config->commit_ms;
    return at_ms > a->retry_at_ms ? at_ms : a->retry_at_ms;
}

bool answers_are_waiting(const struct answers *a, int64_t now_ms)
{
    return a->first != NULL && now_ms >= a->retry_at_ms;
}

/* ---- asking ---- */

int answers_get(struct ledger *l, const struct idempotency_key *key, struct buf *json)
{
    sqlite3_stmt *st;
    int rc = ledger_prepare(l,
                            "SELECT status, content_type, answer FROM idempotency"
                            " WHERE key_digest = ?1 AND request_digest = ?2 AND answer IS NOT NULL",
                            &st);

    if (rc < 0)
        return rc;
    sqlite3_bind_blob(st, 1, key->key, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    sqlite3_bind_blob(st, 2, key->request, USAGE_DIGEST_BYTES, SQLITE_STATIC);
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        buf_str(json, "{\"done\":true");
        json_put_field_i64(json, "status", sqlite3_column_int64(st, 0));
        json_put_field_text(json, "content_type", (const char *)sqlite3_column_text(st, 1));
        buf_str(json, ",\"answer\":\"");
        base64_put(json, sqlite3_column_blob(st, 2), (size_t)sqlite3_column_bytes(st, 2));
        buf_str(json, "\"}");
    }
    sqlite3_finalize(st);
    if (rc == SQLITE_DONE)
        return -ENOENT;
    return rc == SQLITE_ROW ? json->err : database_errno(rc);
}
