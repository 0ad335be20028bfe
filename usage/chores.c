#include "usage/chores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "usage/calibration_store.h"
#include "usage/drift.h"
#include "usage/integrity.h"
#include "usage/provider_status.h"
#include "usage/retention.h"

#define RETRY_MS 60000
#define VERIFY_FIRST_MS 1000 /* after the start: not while everybody connects */
#define VERIFY_PAUSE_MS 10   /* between two slices: the commits' turn */
#define RETENTION_PAUSE_MS 50
#define DRIFTS_LOGGED 5

struct chore;
/* One slice. The next one is due again_ms later. 1 = committed something, 0, -errno. */
typedef int (*chore_fn)(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms);

enum {
    CHORE_STATUS,
    CHORE_CALIBRATION,
    CHORE_RETENTION,
    CHORE_VERIFY,
    CHORE_INTEGRITY,
    CHORE_COUNT
};

struct chore {
    int64_t due_ms; /* monotonic, -1 = never */
    bool failing;   /* told already */
};

struct chores {
    struct chores_setup setup;
    struct chore chores[CHORE_COUNT];
    size_t next;                           /* whose turn it is first */
    struct provider_status *status;        /* NULL: none is written */
    struct calibration_store *calibration; /* NULL: none is kept */
    struct retention retention;
    struct verify *verify;
    struct backup *check;
    bool check_is_due;
    uint64_t trimmed; /* of the retention that runs */
};

static int64_t seconds(int64_t at_ms)
{
    return at_ms / 1000;
}

/* ---- the chores ---- */

static int write_status(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms)
{
    sqlite3 *db = ledger_db(c->setup.ledger);

    *again_ms = c->setup.config->status_ms;
    return db != NULL ? provider_status_write(c->status, db, c->setup.config, now_at_ms) : -EIO;
}

static int write_calibration(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms)
{
    sqlite3 *db = ledger_db(c->setup.ledger);

    *again_ms = c->setup.config->status_ms;
    return db != NULL ? calibration_store_write(c->calibration, db, now_at_ms) : -EIO;
}

static int retain(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms)
{
    sqlite3 *db = ledger_db(c->setup.ledger);
    uint64_t before = c->retention.rows;
    int rc = db != NULL ? retention_step(&c->retention, db, c->setup.config, now_at_ms) : -EIO;

    counter_add(&c->setup.counters->retention_rows_total, c->retention.rows - before);
    c->trimmed += c->retention.rows - before;
    *again_ms = rc == 1 ? RETENTION_PAUSE_MS : CLOCK_HOUR_MS;
    if (rc == 0 && c->trimmed > 0) {
        log_event(LOG_INFO, "retention_done", "", "%llu old rows were deleted or folded",
                  (unsigned long long)c->trimmed);
        c->trimmed = 0;
    }
    return rc;
}

void chores_tell_verified(const struct verify *v, struct counters *counters, int64_t now_at_ms)
{
    uint64_t count = verify_drift_count(v);

    counter_set(&counters->ledger_drift, count);
    counter_set(&counters->ledger_verified_timestamp_seconds, (uint64_t)seconds(now_at_ms));
    for (uint64_t i = 0; i < count && i < DRIFTS_LOGGED; i++) {
        char memory[512];
        struct buf text;
        const char *line;

        buf_init_fixed(&text, memory, sizeof(memory));
        verify_describe(v, (size_t)i, &text);
        line = buf_text(&text);
        log_event(LOG_ERROR, "ledger_drift", "", "%s", line != NULL ? line : "too long to be told");
    }
    if (count > 0)
        log_event(LOG_ERROR, "ledger_drifts", "",
                  "the ledger does not agree with itself in %llu places: xrouterctl ledger verify",
                  (unsigned long long)count);
    else
        log_event(LOG_INFO, "ledger_verified", "", "the ledger agrees with itself");
}

static int verify_ledger(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms)
{
    int rc = -ENOMEM;

    *again_ms = VERIFY_PAUSE_MS;
    if (c->verify == NULL)
        c->verify = verify_new(c->setup.ledger);
    if (c->verify != NULL)
        rc = verify_step(c->verify);
    if (rc == 1)
        return 0;
    if (rc == 0) {
        chores_tell_verified(c->verify, c->setup.counters, now_at_ms);
        *again_ms = CLOCK_DAY_MS;
    }
    verify_free(c->verify);
    c->verify = NULL;
    return rc;
}

static void tell_checked(struct chores *c, int rc, int64_t now_at_ms)
{
    counter_set(&c->setup.counters->database_damaged, rc == -EBADMSG);
    counter_set(&c->setup.counters->database_checked_timestamp_seconds,
                (uint64_t)seconds(now_at_ms));
    if (rc == -EBADMSG)
        log_event(LOG_ERROR, "database_damaged", "",
                  "after an unclean stop the database is not sound (%s): restore a backup",
                  backup_why(c->check));
    else
        log_event(LOG_INFO, "database_checked", "",
                  "after an unclean stop the whole database was checked and is sound");
}

static int start_check(struct chores *c)
{
    char why[BACKUP_WHY_BYTES];
    int rc = integrity_start(c->setup.ledger, c->setup.config->state_dir, &c->check, why);

    if (rc == -ENOSPC) {
        log_event(LOG_WARN, "database_unchecked", "",
                  "after an unclean stop the whole database should be checked: %s", why);
        return 0;
    }
    if (rc < 0 && !c->chores[CHORE_INTEGRITY].failing)
        log_event(LOG_ERROR, "database_unchecked", "", "%s", why);
    return rc < 0 ? rc : 1;
}

/* Once it has given a verdict, or has no room for a copy, it is not tried again. */
static int check_integrity(struct chores *c, int64_t now_ms, int64_t now_at_ms, int64_t *again_ms)
{
    int rc = 1;

    *again_ms = -1;
    if (c->check == NULL)
        rc = start_check(c);
    if (c->check == NULL)
        return rc;
    rc = backup_step(c->check, now_ms);
    if (rc == 1) {
        *again_ms = backup_next_ms(c->check) - now_ms;
        return 0;
    }
    if (rc == 0 || rc == -EBADMSG) {
        tell_checked(c, rc, now_at_ms);
        c->check_is_due = rc < 0; /* a damaged database is looked at by every start */
        rc = 0;
    } else if (!c->chores[CHORE_INTEGRITY].failing) {
        log_event(LOG_ERROR, "database_unchecked", "", "%s", backup_why(c->check));
    }
    backup_free(c->check);
    c->check = NULL;
    return rc;
}

static const struct {
    const char *name;
    chore_fn turn;
} CHORES[CHORE_COUNT] = {
    [CHORE_STATUS] = {"provider_status", write_status},
    [CHORE_CALIBRATION] = {"token ratios", write_calibration},
    [CHORE_RETENTION] = {"retention", retain},
    [CHORE_VERIFY] = {"ledger verify", verify_ledger},
    [CHORE_INTEGRITY] = {"database check", check_integrity},
};

/* ---- */

static void tell_failure(struct chore *chore, const char *name, int rc)
{
    if (!chore->failing)
        log_event(LOG_WARN, "chore_failed", "", "%s: %s, tried again every minute", name,
                  strerror(-rc));
    chore->failing = true;
}

static void free_parts(struct chores *c)
{
    verify_free(c->verify);
    backup_free(c->check);
    provider_status_free(c->status);
    calibration_store_free(c->calibration);
    free(c);
}

static int make_parts(struct chores *c)
{
    const struct chores_setup *s = &c->setup;

    if (s->region == NULL)
        return 0;
    c->status = provider_status_new(s->region);
    if (s->calibration != NULL)
        c->calibration = calibration_store_new(s->calibration, s->region);
    return c->status == NULL || (s->calibration != NULL && c->calibration == NULL) ? -ENOMEM : 0;
}

static void load_calibration(struct chores *c, sqlite3 *db)
{
    int rc = db != NULL ? calibration_store_load(c->calibration, db) : -EIO;

    if (rc < 0) /* the chore tries again */
        tell_failure(&c->chores[CHORE_CALIBRATION], CHORES[CHORE_CALIBRATION].name, rc);
}

struct chores *chores_new(const struct chores_setup *setup)
{
    struct chores *c = calloc(1, sizeof(*c));
    sqlite3 *db = ledger_db(setup->ledger);
    int rc;

    if (c == NULL)
        return NULL;
    c->setup = *setup;
    if (make_parts(c) < 0) {
        free_parts(c);
        return NULL;
    }
    for (size_t i = 0; i < CHORE_COUNT; i++)
        c->chores[i].due_ms = setup->now_ms;
    c->chores[CHORE_VERIFY].due_ms = setup->now_ms + VERIFY_FIRST_MS;
    if (c->status == NULL)
        c->chores[CHORE_STATUS].due_ms = -1;
    if (c->calibration != NULL)
        load_calibration(c, db);
    else
        c->chores[CHORE_CALIBRATION].due_ms = -1;
    rc = db != NULL ? integrity_begin(db, &c->check_is_due) : -EIO;
    if (rc < 0)
        log_event(LOG_WARN, "database_unmarked", "", "an unclean stop could go unnoticed: %s",
                  strerror(-rc));
    if (!c->check_is_due)
        c->chores[CHORE_INTEGRITY].due_ms = -1;
    return c;
}

/* What was learned since the last writing. */
static void write_last(struct chores *c, sqlite3 *db)
{
    int rc = db != NULL ? calibration_store_write(c->calibration, db, clock_now_at_ms()) : -EIO;

    if (rc < 0)
        log_event(LOG_WARN, "token_ratios_unwritten", "",
                  "what the models' token ratios learned last is lost: %s", strerror(-rc));
}

void chores_free(struct chores *c)
{
    sqlite3 *db;

    if (c == NULL)
        return;
    db = ledger_db(c->setup.ledger);
    if (c->calibration != NULL)
        write_last(c, db);
    if (!c->check_is_due && (db == NULL || integrity_end(db) < 0))
        log_event(LOG_WARN, "database_unmarked", "",
                  "the next start will check the whole database");
    free_parts(c);
}

static void make_due(struct chores *c, size_t i)
{
    if (c->chores[i].due_ms != -1)
        c->chores[i].due_ms = 0;
}

void chores_set_config(struct chores *c, const struct config *config)
{
    c->setup.config = config;
    make_due(c, CHORE_STATUS);
    make_due(c, CHORE_CALIBRATION);
    make_due(c, CHORE_RETENTION);
}

void chores_begin_anew(struct chores *c)
{
    if (c->calibration != NULL)
        calibration_store_begin_anew(c->calibration);
    make_due(c, CHORE_CALIBRATION);
}

static bool run(struct chores *c, size_t i, int64_t now_ms, int64_t now_at_ms)
{
    struct chore *chore = &c->chores[i];
    int64_t again_ms = RETRY_MS;
    int rc = CHORES[i].turn(c, now_ms, now_at_ms, &again_ms);

    if (rc < 0) {
        tell_failure(chore, CHORES[i].name, rc);
        again_ms = RETRY_MS;
    } else {
        chore->failing = false;
    }
    chore->due_ms = again_ms >= 0 ? now_ms + again_ms : -1;
    return rc == 1;
}

bool chores_turn(struct chores *c, int64_t now_ms, int64_t now_at_ms)
{
    for (size_t n = 0; n < CHORE_COUNT; n++) {
        size_t i = (c->next + n) % CHORE_COUNT;

        if (c->chores[i].due_ms == -1 || now_ms < c->chores[i].due_ms)
            continue;
        c->next = i + 1;
        return run(c, i, now_ms, now_at_ms);
    }
    return false;
}

int64_t chores_next_ms(const struct chores *c)
{
    int64_t next_ms = INT64_MAX;

    for (size_t i = 0; i < CHORE_COUNT; i++)
        if (c->chores[i].due_ms != -1 && c->chores[i].due_ms < next_ms)
            next_ms = c->chores[i].due_ms;
    return next_ms;
}
