#include "usage/writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "usage/answers.h"
#include "usage/chores.h"
#include "usage/control.h"
#include "usage/group.h"
#include "usage/key_loading.h"
#include "usage/keystore.h"
#include "usage/ledger.h"
#include "usage/receiver.h"
#include "usage/state_paths.h"
#include "usage/takeover.h"

#define GATHER_MAX_MS 10 /* how long packets may wait in the sockets, which hold some 160 each */
#define RINGS_EVERY_MS 50
#define SPOOL_EVERY_MS 500
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 1000
#define DRAIN_PATIENCE_MS 1000
#define CHECKPOINT_PAGES 1000
#define CHECKPOINT_EVERY_MS 1000
#define CHECKPOINT_RETRY_MS 60000
#define IDLE_MS 5000
#define LOOK_EVERY_MS 1000

struct writer {
    struct writer_setup setup;
    struct ledger *ledger;
    struct keystore keystore;
    struct control_context context;
    struct group *group;
    struct answers *answers; /* NULL: none are kept */
    struct receiver *receiver;
    struct usage_control *control;
    struct takeover takeover;
    struct recount *recount; /* NULL: no key is limited */
    struct chores *chores;

    /* Monotonic times; what is due is compared with the loop's clock once a turn. */
    int64_t first_ms; /* the oldest record in the group came, -1 = it is empty */
    int64_t rings_at_ms;
    int64_t spool_at_ms;
    bool spool_failing; /* told already */

    /* While the ledger fails. */
    bool failing;
    bool reopen;
    bool is_other;   /* the connection leads to a database that has not been adopted yet */
    bool is_refused; /* told already */
    int64_t failing_since_ms;
    int64_t retry_at_ms;
    int64_t retry_ms;
    uint64_t failures;

    /* The write-ahead log. */
    bool dirty; /* the file has pages */
    int64_t committed_ms;
    int64_t checkpoint_at_ms; /* none before this */
    int64_t look_at_ms;       /* at the files: also when nothing is committed */

    struct key_loading loading; /* after a change of the config or the database */

    struct state_paths paths;
    char usage_sock[PATH_MAX], writer_sock[PATH_MAX];
};

static int64_t now_ms(const struct writer *w)
{
    return loop_now_ms(w->setup.loop);
}

/* ---- committing ---- */

static void note_failure(struct writer *w, int rc, const char *fault)
{
    counter_inc(&w->setup.counters->ledger_failures_total);
    w->failures++;
    /* A lock or a full disk passes; after anything else the connection is not trusted. */
    if (rc != -EBUSY && rc != -ENOSPC && rc != -ENOMEM)
        w->reopen = true;
    if (!w->failing) {
        w->failing = true;
        w->failures = 1;
        w->failing_since_ms = now_ms(w);
        w->retry_ms = RETRY_MIN_MS;
        log_event(LOG_ERROR, "ledger_failing", "",
                  "usage cannot be committed, it is kept and tried again: %s",
                  fault[0] != '\0' ? fault : strerror(-rc));
        counter_set(&w->setup.counters->ledger_failing, 1);
    } else {
        w->retry_ms = 2 * w->retry_ms < RETRY_MAX_MS ? 2 * w->retry_ms : RETRY_MAX_MS;
    }
    w->retry_at_ms = now_ms(w) + w->retry_ms;
}

static void note_success(struct writer *w)
{
    w->dirty = true;
    w->committed_ms = now_ms(w);
    if (group_is_empty(w->group))
        w->first_ms = -1;
    if (!w->failing)
        return;
    w->failing = false;
    counter_set(&w->setup.counters->ledger_failing, 0);
    log_event(LOG_WARN, "ledger_recovered", "",
              "usage is committed again after %lld ms, %llu failures",
              (long long)(now_ms(w) - w->failing_since_ms), (unsigned long long)w->failures);
}

/* Keys, balances and answers of another database than before are not those in shared memory. */
static int adopt(struct writer *w)
{
    char why[KEY_WHY_BYTES];
    int rc = keystore_check_secret(&w->keystore, why);

    if (rc < 0 && !w->is_refused)
        log_event(LOG_ERROR, "database_refused", "", "%s: %s", w->paths.database, why);
    w->is_refused = rc < 0;
    if (rc == 0 && w->answers != NULL)
        rc = answers_load(w->answers, clock_now_at_ms());
    if (rc < 0)
        return rc;
    log_event(LOG_WARN, "database_replaced", "",
              "another database stands in the place of the one that was open, and is used now");
    chores_begin_anew(w->chores);
    w->is_other = false;
    key_loading_begin(&w->loading, true);
    return 0;
}

static int reopen(struct writer *w)
{
    int rc = ledger_reopen(w->ledger);

    if (rc < 0)
        return rc;
    if (rc == 1)
        w->is_other = true;
    rc = w->is_other ? adopt(w) : 0;
    if (rc == 0)
        w->reopen = false;
    return rc;
}

/* The log only grows while somebody reads the database: then no more is committed than fits. 0, or
 * -errno that has been noted. */
static int make_room(struct writer *w)
{
    int rc = ledger_make_room(w->ledger, w->setup.config->wal_bytes);

    if (rc == -EBUSY)
        note_failure(w, rc,
                     "its write-ahead log is full (ledger.wal_bytes), and another program that "
                     "reads the database keeps it from being emptied");
    else if (rc < 0)
        note_failure(w, rc, ledger_fault(w->ledger));
    return rc;
}

static int try_commit(struct writer *w)
{
    int rc = w->reopen ? reopen(w) : 0;

    if (rc < 0) {
        note_failure(w, rc, ledger_fault(w->ledger));
        return rc;
    }
    rc = make_room(w);
    if (rc < 0)
        return rc;
    rc = group_commit(w->group);
    if (rc < 0)
        note_failure(w, rc, ledger_fault(w->ledger));
    else
        note_success(w);
    return rc;
}

static int commit(void *arg)
{
    struct writer *w = arg;
    int rc = try_commit(w);

    counter_set(&w->setup.counters->ledger_wal_bytes, ledger_wal_bytes(w->ledger));
    return rc;
}

static int64_t commit_at_ms(const struct writer *w)
{
    if (w->failing) /* with nothing to commit, too: it may have been found by a look */
        return w->retry_at_ms;
    if (group_is_empty(w->group))
        return -1;
    if (group_records(w->group) >= GROUP_COMMIT_RECORDS)
        return 0;
    return w->first_ms + w->setup.config->commit_ms;
}

static void commit_due(struct writer *w)
{
    int64_t at_ms = commit_at_ms(w);

    if (at_ms != -1 && at_ms <= now_ms(w))
        (void)commit(w); /* it has noted its failure */
}

/* ---- collecting ---- */

static int64_t gather_at_ms(const struct writer *w)
{
    int64_t ready_ms = receiver_ready_ms(w->receiver);
    int64_t wait_ms = w->setup.config->commit_ms;

    if (ready_ms == -1 || group_is_full(w->group))
        return -1;
    return ready_ms + (wait_ms < GATHER_MAX_MS ? wait_ms : GATHER_MAX_MS);
}

static void gather(struct writer *w)
{
    int64_t ready_ms = receiver_ready_ms(w->receiver);

    receiver_drain(w->receiver);
    if (w->first_ms == -1 && !group_is_empty(w->group))
        w->first_ms = ready_ms;
}

static void read_rings(struct writer *w, bool all)
{
    w->rings_at_ms = now_ms(w) + RINGS_EVERY_MS;
    takeover_rings(&w->takeover, all);
    if (w->first_ms == -1 && !group_is_empty(w->group))
        w->first_ms = now_ms(w);
}

static void read_spool(struct writer *w)
{
    int rc = takeover_spool(&w->takeover);

    if (rc < 0 && !w->failing && !w->spool_failing)
        log_event(LOG_ERROR, "spool_unreadable", "", "%s: %s", w->paths.spool, strerror(-rc));
    w->spool_failing = rc < 0;
    /* The next file in the next turn. */
    w->spool_at_ms = now_ms(w) + (rc == 1 ? 0 : SPOOL_EVERY_MS);
    if (w->first_ms == -1 && !group_is_empty(w->group))
        w->first_ms = now_ms(w);
}

/* ---- tidying ---- */

static int64_t checkpoint_due_ms(const struct writer *w)
{
    int64_t at_ms;

    if (!w->dirty || w->failing)
        return -1;
    at_ms = ledger_wal_pages(w->ledger) >= CHECKPOINT_PAGES ? 0 : w->committed_ms + IDLE_MS;
    return at_ms > w->checkpoint_at_ms ? at_ms : w->checkpoint_at_ms;
}

static void checkpoint(struct writer *w)
{
    bool is_idle = now_ms(w) >= w->committed_ms + IDLE_MS;
    int rc = ledger_checkpoint(w->ledger, is_idle);

    counter_set(&w->setup.counters->ledger_wal_bytes, ledger_wal_bytes(w->ledger));
    if (rc == 0 && is_idle)
        w->dirty = false;
    w->checkpoint_at_ms = now_ms(w) + (rc == 0 ? CHECKPOINT_EVERY_MS : CHECKPOINT_RETRY_MS);
    if (rc < 0 && rc != -EBUSY) /* a reader of the file is nobody's fault */
        log_event(LOG_WARN, "checkpoint_failed", "", "the write-ahead log stays: %s",
                  strerror(-rc));
}

/* Somebody may take the database away while nothing is committed. */
static void look(struct writer *w)
{
    int rc = ledger_look(w->ledger);

    w->look_at_ms = now_ms(w) + LOOK_EVERY_MS;
    if (rc < 0)
        note_failure(w, rc, ledger_fault(w->ledger));
}

static void keep_answers(struct writer *w)
{
    if (w->answers == NULL || w->failing || make_room(w) < 0 ||
        !answers_turn(w->answers, now_ms(w), clock_now_at_ms()))
        return;
    w->dirty = true;
    w->committed_ms = now_ms(w);
}

static void do_chores(struct writer *w)
{
    if (w->failing || now_ms(w) < chores_next_ms(w->chores) || make_room(w) < 0 ||
        !chores_turn(w->chores, now_ms(w), clock_now_at_ms()))
        return;
    w->dirty = true;
    w->committed_ms = now_ms(w);
}

/* ---- opening ---- */

static int set_paths(struct writer *w, const struct config *config)
{
    int rc = state_paths_set(&w->paths, config);

    if (rc == 0)
        rc = path_join(w->usage_sock, config->runtime_dir, "usage.sock");
    if (rc == 0)
        rc = path_join(w->writer_sock, config->runtime_dir, "writer.sock");
    return rc;
}

static int refuse(int rc, const char *what, const char *why)
{
    log_event(LOG_ERROR, "writer_refused", "", "%s: %s", what, why);
    return rc;
}

static int load_keys(struct writer *w)
{
    char why[KEY_WHY_BYTES];
    int rc = keystore_check_secret(&w->keystore, why);

    if (rc < 0)
        return refuse(rc, w->paths.database, why);
    rc = key_loading_run(&w->keystore);
    if (rc == -EUSERS)
        return refuse(rc, w->paths.database, "has more keys than limits.keys in the config allows");
    if (rc == -EBADMSG)
        return refuse(rc, w->paths.database, "a row of api_keys makes no sense: restore a backup");
    return rc < 0 ? refuse(rc, w->paths.database, strerror(-rc)) : 0;
}

/* Before any worker serves: what has run must not run again. */
static int open_answers(struct writer *w)
{
    const struct answers_setup setup = {w->ledger, w->setup.idempotency, w->setup.counters,
                                        w->setup.config};
    int rc;

    if (setup.table == NULL)
        return 0;
    w->answers = answers_new(&setup);
    if (w->answers == NULL)
        return refuse(-ENOMEM, "usage-writer", "out of memory");
    rc = answers_load(w->answers, clock_now_at_ms());
    return rc < 0 ? refuse(rc, w->paths.database, strerror(-rc)) : 0;
}

static int open_recount(struct writer *w)
{
    const struct writer_setup *s = &w->setup;
    const struct recount_setup setup = {
        .keystore = &w->keystore,
        .outbox = s->outbox,
        .requests = s->requests,
        .spool_dir = w->paths.spool,
        .counters = s->counters,
    };

    if (s->accounts == NULL || s->requests == NULL)
        return 0;
    w->recount = recount_new(&setup);
    return w->recount != NULL ? 0 : refuse(-ENOMEM, "usage-writer", "out of memory");
}

static int open_chores(struct writer *w)
{
    const struct chores_setup setup = {
        .ledger = w->ledger,
        .config = w->setup.config,
        .counters = w->setup.counters,
        .region = w->setup.region,
        .calibration = w->setup.calibration,
        .now_ms = now_ms(w),
    };

    w->chores = chores_new(&setup);
    return w->chores != NULL ? 0 : refuse(-ENOMEM, "usage-writer", "out of memory");
}

static int open_parts(struct writer *w)
{
    const struct writer_setup *s = &w->setup;
    const struct group_setup group = {w->ledger, s->outbox, s->counters, w->paths.dead_letters};
    struct receiver_setup receiver = {
        .loop = s->loop,
        .path = w->usage_sock,
        .outbox = s->outbox,
        .start_id = s->start_id,
        .answers = w->answers,
    };
    int rc;

    w->group = group_new(&group);
    if (w->group == NULL)
        return refuse(-ENOMEM, "usage-writer", "out of memory");
    w->takeover = (struct takeover){
        .outbox = s->outbox,
        .group = w->group,
        .counters = s->counters,
        .spool_dir = w->paths.spool,
        .commit = commit,
        .arg = w,
    };
    w->context = (struct control_context){&w->keystore, &w->paths, s->counters, s->requests};
    rc = usage_control_open(s->loop, w->writer_sock, &w->context, &w->control);
    if (rc < 0)
        return refuse(rc, w->writer_sock, strerror(-rc));
    receiver.group = w->group;
    rc = receiver_open(&receiver, &w->receiver);
    return rc < 0 ? refuse(rc, w->usage_sock, strerror(-rc)) : 0;
}

int writer_open(const struct writer_setup *setup, struct writer **out)
{
    struct writer *w = calloc(1, sizeof(*w));
    char why[DATABASE_WHY_BYTES];
    int rc;

    *out = NULL;
    if (w == NULL)
        return refuse(-ENOMEM, "usage-writer", "out of memory");
    w->setup = *setup;
    w->first_ms = -1;
    rc = set_paths(w, setup->config);
    if (rc < 0) {
        refuse(rc, setup->config->state_dir, strerror(-rc));
        goto out;
    }
    rc = ledger_open(w->paths.database, &w->ledger, why);
    if (rc < 0) {
        refuse(rc, w->paths.database, why);
        goto out;
    }
    w->keystore = (struct keystore){w->ledger, setup->keys, setup->accounts, setup->config};
    w->loading.keystore = &w->keystore;
    rc = load_keys(w);
    if (rc == 0)
        rc = open_answers(w);
    if (rc == 0)
        rc = open_recount(w);
    if (rc == 0)
        rc = open_parts(w);
    if (rc == 0)
        rc = open_chores(w);
    if (rc < 0)
        goto out;
    *out = w;
    w = NULL;
out:
    writer_close(w);
    return rc;
}

void writer_close(struct writer *w)
{
    if (w == NULL)
        return;
    receiver_close(w->receiver);
    usage_control_close(w->control);
    group_free(w->group);
    answers_free(w->answers);
    recount_free(w->recount);
    chores_free(w->chores);
    ledger_close(w->ledger);
    free(w);
}

/* ---- running ---- */

void writer_turn(struct writer *w)
{
    int64_t now = now_ms(w);
    int64_t at_ms;

    if (now >= w->rings_at_ms)
        read_rings(w, false);
    at_ms = gather_at_ms(w);
    if (at_ms != -1 && now >= at_ms)
        gather(w);
    if (!w->failing && now >= w->look_at_ms)
        look(w);
    commit_due(w);
    if (!w->failing && now >= w->spool_at_ms)
        read_spool(w);
    keep_answers(w);
    key_loading_turn(&w->loading, now);
    usage_control_turn(w->control);
    if (w->recount != NULL) /* what the spool and the requests above have changed, at once */
        recount_turn(w->recount, now, clock_now_at_ms());
    do_chores(w);
    at_ms = checkpoint_due_ms(w);
    if (at_ms != -1 && now >= at_ms)
        checkpoint(w);
}

static int64_t sooner(int64_t next_ms, int64_t at_ms)
{
    return at_ms != -1 && at_ms < next_ms ? at_ms : next_ms;
}

int64_t writer_next_ms(const struct writer *w)
{
    int64_t at_ms = w->rings_at_ms;

    at_ms = sooner(at_ms, usage_control_next_ms(w->control));
    at_ms = sooner(at_ms, gather_at_ms(w));
    at_ms = sooner(at_ms, commit_at_ms(w));
    at_ms = sooner(at_ms, checkpoint_due_ms(w));
    if (!w->failing) {
        at_ms = sooner(at_ms, w->spool_at_ms);
        at_ms = sooner(at_ms, w->look_at_ms);
        at_ms = sooner(at_ms, chores_next_ms(w->chores));
    }
    if (!w->failing && w->answers != NULL)
        at_ms = sooner(at_ms, answers_next_ms(w->answers));
    at_ms = sooner(at_ms, key_loading_next_ms(&w->loading));
    if (w->recount != NULL)
        at_ms = sooner(at_ms, recount_next_ms(w->recount));
    return at_ms > now_ms(w) ? at_ms - now_ms(w) : 0;
}

void writer_set_config(struct writer *w, const struct config *config)
{
    w->setup.config = config;
    w->keystore.config = config;
    if (w->answers != NULL)
        answers_set_config(w->answers, config);
    chores_set_config(w->chores, config);
    key_loading_begin(&w->loading, false);
}

bool writer_drain(struct writer *w)
{
    receiver_stop(w->receiver);
    usage_control_stop(w->control);
    if (receiver_ready_ms(w->receiver) != -1)
        gather(w);
    read_rings(w, true);
    while (!group_is_empty(w->group) && (!w->failing || now_ms(w) >= w->retry_at_ms)) {
        if (commit(w) < 0)
            break;
    }
    keep_answers(w);
    if (w->failing) /* the helper's turn */
        return now_ms(w) - w->failing_since_ms >= DRAIN_PATIENCE_MS;
    return group_is_empty(w->group) && takeover_is_done(&w->takeover) &&
           (w->answers == NULL || !answers_are_waiting(w->answers, now_ms(w)));
}
