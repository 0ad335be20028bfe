/* The ledger at size: a database with ten million requests, reports out of it through writer.sock,
 * and how fast the usage-writer takes events that come through usage.sock.
 *
 * usage: ledger DIRECTORY [ROWS [EVENTS]]: the database is made in a new directory below it (on the
 * disk whose speed matters) and removed again. EVENTS 0: nothing is measured, the database stays in
 * DIRECTORY itself; tests/bench/backup.py uses it. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/log.h"
#include "usage/sender.h"
#include "usage/writer.h"

#define ROWS 10000000
#define EVENTS 500000
#define DAYS 90
#define HOURS (DAYS * 24)
#define KEYS 50
#define PREPAID_KEYS 10
#define MODELS 4
#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)
#define WORKERS 4
#define RING_BYTES (2 * 1024 * 1024)
#define ANSWER_MS 60000
#define QUIET_US 200000
#define REPEATS 9
#define REPORT_GOAL_US 50000
#define TURN_GOAL_US 5000
#define DRAIN_GOAL 50000

static const char CONFIG[] =
    "{\"state_dir\":\".\",\"runtime_dir\":\".\",\"providers\":[{\"name\":\"gigachat\","
    "\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"bench/model-0\","
    "\"candidates\":[{\"provider\":\"gigachat\",\"model\":\"GigaChat-2\"}]}]}";

struct cell { /* sums of one hour, key and model */
    int64_t requests, errors, tokens_input, tokens_cached, tokens_output, cost;
};

struct shared { /* with the usage-writer's process */
    _Atomic bool is_ready, must_end;
    _Atomic int64_t longest_turn_us;
};

struct bench {
    char dir[256], database[320], usage_sock[320], writer_sock[320];
    int64_t rows, events;
    int64_t until_ms, since_ms; /* of the generated rows */
    uint64_t seed;
    struct cell *cells;
    struct config *config;
    struct outbox_region *outbox;
    struct keytable_region *keys;
    struct accounts_region *accounts;
    struct shared *shared;
    uint8_t start_id[SHM_START_ID_BYTES];
    pid_t writer;
    bool has_missed; /* a goal */
};

static _Noreturn void die(const char *what, int rc)
{
    fprintf(stderr, "ledger: %s: %s\n", what, strerror(rc < 0 ? -rc : rc));
    exit(1);
}

static void check(const char *what, int rc)
{
    if (rc < 0)
        die(what, rc);
}

static uint64_t next_random(struct bench *b)
{
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

static uint64_t key_id(size_t key)
{
    return UINT64_C(0x1000) + key;
}

/* ---- making the database ---- */

static void insert_keys(struct bench *b, sqlite3 *db)
{
    char sql[320], id[KEY_ID_TEXT_BYTES];

    for (size_t i = 0; i < KEYS; i++) {
        key_id_format(key_id(i), id);
        snprintf(sql, sizeof(sql),
                 "INSERT INTO api_keys (id, key_hash, name, created_at, balance)"
                 " VALUES ('%s', '%064zu', 'bench-%zu', %lld, %s)",
                 id, i, i, (long long)b->since_ms, i < PREPAID_KEYS ? "1000000000000" : "NULL");
        check("a key", database_exec(db, sql));
    }
}

static void bind_id(struct bench *b, sqlite3_stmt *stmt, int64_t at_ms, int64_t number)
{
    uint8_t id[USAGE_ID_BYTES] = {0};

    for (int i = 0; i < 6; i++)
        id[i] = (uint8_t)((uint64_t)at_ms >> (40 - 8 * i));
    for (int i = 0; i < 4; i++)
        id[12 + i] = (uint8_t)((uint64_t)number >> (24 - 8 * i));
    sqlite3_bind_blob(stmt, 1, id, sizeof(id), SQLITE_TRANSIENT);
}

static void insert_row(struct bench *b, sqlite3_stmt *stmt, int64_t number)
{
    int64_t at_ms = b->since_ms + number * (b->until_ms - b->since_ms) / b->rows;
    uint64_t random = next_random(b);
    size_t key = random % KEYS, model = (random >> 8) % MODELS;
    int64_t input = (int64_t)(100 + (random >> 16) % 2000);
    int64_t output = (int64_t)(10 + (random >> 32) % 800);
    bool has_failed = (random >> 48) % 100 == 0;
    int64_t cost = has_failed ? 0 : input * 500000 + output * 1000500;
    size_t hour = (size_t)((at_ms - b->since_ms) / HOUR_MS);
    struct cell *cell = &b->cells[(hour * KEYS + key) * MODELS + model];
    char id[KEY_ID_TEXT_BYTES], name[32];

    key_id_format(key_id(key), id);
    snprintf(name, sizeof(name), "bench/model-%zu", model);
    bind_id(b, stmt, at_ms, number);
    sqlite3_bind_text(stmt, 2, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 3, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 4, input);
    sqlite3_bind_int64(stmt, 5, output);
    sqlite3_bind_int64(stmt, 6, cost);
    sqlite3_bind_int64(stmt, 7, at_ms);
    sqlite3_bind_int(stmt, 8, has_failed);
    sqlite3_bind_int(stmt, 9, has_failed ? 502 : 200);
    check("a row", database_step(stmt));
    cell->requests++;
    cell->errors += has_failed;
    cell->tokens_input += input;
    cell->tokens_output += output;
    cell->cost += cost;
}

static void insert_usage(struct bench *b, sqlite3 *db)
{
    sqlite3_stmt *stmt;

    check("usage",
          database_prepare(db,
                           "INSERT INTO usage VALUES (?1, ?2, 'gigachat', ?3, ?4, 0, ?5, ?6, ?7,"
                           " ?8, 1, ?9, NULL, 0, 900, 300, 0, 500000000000, 0, 1000500000000, 0)",
                           &stmt));
    for (int64_t i = 0; i < b->rows; i++) {
        insert_row(b, stmt, i);
        if (i % 2000000 == 1999999)
            printf("  %lld rows\n", (long long)i + 1);
    }
    sqlite3_finalize(stmt);
}

static void insert_sums(struct bench *b, sqlite3 *db)
{
    sqlite3_stmt *stmt;

    check("sums",
          database_prepare(
              db, "INSERT INTO usage_hourly VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)", &stmt));
    for (size_t i = 0; i < (size_t)HOURS * KEYS * MODELS; i++) {
        const struct cell *cell = &b->cells[i];
        char id[KEY_ID_TEXT_BYTES], name[32];

        if (cell->requests == 0)
            continue;
        key_id_format(key_id(i / MODELS % KEYS), id);
        snprintf(name, sizeof(name), "bench/model-%zu", i % MODELS);
        sqlite3_bind_int64(stmt, 1, b->since_ms + (int64_t)(i / MODELS / KEYS) * HOUR_MS);
        sqlite3_bind_text(stmt, 2, id, -1, SQLITE_STATIC);
        sqlite3_bind_text(stmt, 3, name, -1, SQLITE_STATIC);
        sqlite3_bind_int64(stmt, 4, cell->requests);
        sqlite3_bind_int64(stmt, 5, cell->errors);
        sqlite3_bind_int64(stmt, 6, cell->tokens_input);
        sqlite3_bind_int64(stmt, 7, cell->tokens_output);
        sqlite3_bind_int64(stmt, 8, cell->cost);
        check("a sum", database_step(stmt));
    }
    sqlite3_finalize(stmt);
    check("daily sums",
          database_exec(db, "INSERT INTO usage_daily SELECT hour - hour % 86400000, api_key_id,"
                            " model, sum(requests), sum(errors), sum(tokens_input),"
                            " sum(tokens_cached), sum(tokens_output), sum(cost)"
                            " FROM usage_hourly GROUP BY 1, 2, 3"));
}

/* The opening balance and what the prepaid keys spent, so that `ledger verify` finds no drift. */
static const char CREDITS[] =
    "INSERT INTO credit_ledger (api_key_id, kind, amount, balance, created_at)"
    " SELECT id, 'add', balance, balance, created_at FROM api_keys WHERE balance IS NOT NULL";

static void generate(struct bench *b)
{
    char why[DATABASE_WHY_BYTES];
    struct ledger *ledger;
    sqlite3 *db;
    int64_t begun_ms = clock_monotonic_ms();

    printf("making %lld requests of %d days, %d keys, %d models\n", (long long)b->rows, DAYS, KEYS,
           MODELS);
    b->cells = calloc((size_t)HOURS * KEYS * MODELS, sizeof(*b->cells));
    if (b->cells == NULL)
        die("sums", ENOMEM);
    if (ledger_open(b->database, &ledger, why) < 0) {
        fprintf(stderr, "ledger: %s\n", why);
        exit(1);
    }
    ledger_close(ledger);
    if (sqlite3_open(b->database, &db) != SQLITE_OK)
        die(b->database, EIO);
    check("pragmas", database_exec(db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                                       "PRAGMA cache_size = -200000; DROP INDEX usage_by_key;"
                                       "BEGIN"));
    insert_keys(b, db);
    check("credits", database_exec(db, CREDITS));
    insert_usage(b, db);
    insert_sums(b, db);
    free(b->cells);
    check("commit", database_exec(db, "COMMIT"));
    check("the index",
          database_exec(db, "CREATE INDEX usage_by_key ON usage (api_key_id, created_at)"));
    check("pragmas", database_exec(db, "PRAGMA journal_mode = WAL"));
    sqlite3_close(db);
    printf("  %lld s\n", (long long)(clock_monotonic_ms() - begun_ms) / 1000);
}

/* ---- the usage-writer, a process of its own ---- */

static void *region(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        die("shared memory", errno);
    return memory;
}

static void make_regions(struct bench *b)
{
    const uint8_t pepper[KEY_PEPPER_BYTES] = {1};

    b->outbox = region(outbox_region_spec(WORKERS, RING_BYTES).bytes);
    outbox_region_init(b->outbox, WORKERS, RING_BYTES);
    for (size_t i = 0; i < WORKERS; i++)
        outbox_set_owner(outbox_slot(b->outbox, i), (uint32_t)getpid());
    b->keys = region(keytable_region_spec(2 * KEYS).bytes);
    keytable_region_init(b->keys, 2 * KEYS, pepper);
    b->accounts = region(accounts_region_spec(2 * KEYS).bytes);
    accounts_region_init(b->accounts, 2 * KEYS);
    b->shared = region(sizeof(*b->shared));
    memset(b->start_id, 0x42, sizeof(b->start_id));
}

static void each_of_none(void *arg, open_request_fn visit, void *visit_arg)
{
}

static int run_writer(struct bench *b)
{
    static const struct open_requests nothing_runs = {each_of_none, NULL};
    static struct counters counters;
    struct loop *loop = loop_new();
    const struct writer_setup setup = {.config = b->config,
                                       .loop = loop,
                                       .outbox = b->outbox,
                                       .keys = b->keys,
                                       .accounts = b->accounts,
                                       .requests = &nothing_runs,
                                       .counters = &counters,
                                       .start_id = b->start_id};
    struct writer *writer;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (loop == NULL || writer_open(&setup, &writer) < 0)
        return 1;
    b->shared->is_ready = true;
    while (!b->shared->must_end) {
        int64_t begun_us, took_us, wait_ms = writer_next_ms(writer);

        if (loop_turn(loop, wait_ms < 0 || wait_ms > 100 ? 100 : wait_ms) < 0)
            return 1;
        begun_us = clock_monotonic_us();
        writer_turn(writer);
        took_us = clock_monotonic_us() - begun_us;
        if (took_us > b->shared->longest_turn_us)
            b->shared->longest_turn_us = took_us;
    }
    writer_close(writer);
    loop_free(loop);
    return 0;
}

static void start_writer(struct bench *b)
{
    fflush(stdout);
    b->shared->is_ready = b->shared->must_end = false;
    b->writer = fork();
    if (b->writer == -1)
        die("fork", errno);
    if (b->writer == 0)
        _exit(run_writer(b));
    while (!b->shared->is_ready) {
        if (waitpid(b->writer, NULL, WNOHANG) != 0)
            die("the usage-writer ended", ECHILD);
        usleep(1000);
    }
}

/* CPU time of the usage-writer. */
static int64_t writer_cpu_us(const struct bench *b)
{
    struct timespec t;
    clockid_t clock;

    if (clock_getcpuclockid(b->writer, &clock) != 0 || clock_gettime(clock, &t) != 0)
        die("the writer's clock", errno);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* After a start the ledger is verified: that is not what is measured. */
static void wait_idle(const struct bench *b)
{
    int64_t used_us = writer_cpu_us(b), before_us;

    do {
        before_us = used_us;
        usleep(QUIET_US);
        used_us = writer_cpu_us(b);
    } while (used_us - before_us > QUIET_US / 20);
}

static void stop_writer(struct bench *b)
{
    b->shared->must_end = true;
    waitpid(b->writer, NULL, 0);
}

/* ---- figures ---- */

static void print_figure(struct bench *b, const char *what, int64_t value, const char *unit,
                         int64_t goal, bool is_most)
{
    bool is_met = is_most ? value < goal : value >= goal;

    printf("%-52s %8lld %-8s  goal %s %lld  %s\n", what, (long long)value, unit,
           is_most ? "<" : ">=", (long long)goal, is_met ? "ok" : "MISSED");
    if (!is_met)
        b->has_missed = true;
}

/* One question over writer.sock; microseconds. */
static int64_t ask(struct bench *b, const char *question)
{
    int64_t begun_us = clock_monotonic_us();
    struct buf json;
    int fd;

    buf_init(&json, FRAME_MAX);
    buf_str(&json, question);
    fd = frame_connect(b->writer_sock, ANSWER_MS);
    check("writer.sock", fd);
    check("a question", frame_send(fd, &json, ANSWER_MS));
    check("an answer", frame_recv(fd, &json, ANSWER_MS));
    close(fd);
    begun_us = clock_monotonic_us() - begun_us;
    if (strstr(buf_text(&json), "\"error\":{") != NULL) {
        fprintf(stderr, "ledger: %s: %s\n", question, buf_text(&json));
        exit(1);
    }
    buf_clear(&json);
    return begun_us;
}

static int by_size(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

static void forget_pages(const struct bench *b)
{
    int fd = open(b->database, O_RDONLY | O_CLOEXEC);

    if (fd == -1 || fdatasync(fd) == -1 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        die(b->database, errno);
    close(fd);
}

static void measure_report(struct bench *b, const char *what, const char *question)
{
    int64_t took_us[REPEATS];
    char line[80];

    stop_writer(b);
    start_writer(b);
    wait_idle(b);
    forget_pages(b); /* those of the file; the writer's own cache has little of what is asked */
    printf("%-52s %8lld us\n", what, (long long)ask(b, question));
    b->shared->longest_turn_us = 0;
    for (int i = 0; i < REPEATS; i++)
        took_us[i] = ask(b, question);
    qsort(took_us, REPEATS, sizeof(took_us[0]), by_size);
    snprintf(line, sizeof(line), "  again, the median of %d", REPEATS);
    print_figure(b, line, took_us[REPEATS / 2], "us", REPORT_GOAL_US, true);
    print_figure(b, "  the longest turn of the writer", b->shared->longest_turn_us, "us",
                 TURN_GOAL_US, true);
}

static void measure_reports(struct bench *b)
{
    static const struct {
        const char *what, *question;
    } reports[] = {
        {"30 days by day", "{\"op\":\"usage\",\"since\":\"30d\",\"by\":\"day\"}"},
        {"30 days by model", "{\"op\":\"usage\",\"since\":\"30d\",\"by\":\"model\"}"},
        {"30 days by key", "{\"op\":\"usage\",\"since\":\"30d\",\"by\":\"key\"}"},
        {"90 days by day", "{\"op\":\"usage\",\"since\":\"90d\",\"by\":\"day\"}"},
        {"30 days of a key by hour",
         "{\"op\":\"usage\",\"since\":\"30d\",\"by\":\"hour\",\"key\":\"bench-7\"}"},
        {"30 days of a key by model",
         "{\"op\":\"usage\",\"since\":\"30d\",\"by\":\"model\",\"key\":\"bench-7\"}"},
        {"2 days by hour", "{\"op\":\"usage\",\"since\":\"2d\",\"by\":\"hour\"}"},
        {"a key's summary", "{\"op\":\"key.summary\",\"key\":\"bench-7\"}"},
    };

    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++)
        measure_report(b, reports[i].what, reports[i].question);
}

static struct usage_event event(struct bench *b, uint16_t slot, struct usage_id_state *ids)
{
    int64_t now_at_ms = clock_now_at_ms();
    uint64_t random = next_random(b);
    struct usage_event e = {.key_id = key_id(random % KEYS),
                            .created_at_ms = now_at_ms,
                            .provider = "gigachat",
                            .tokens_input = 120,
                            .tokens_output = 40,
                            .cost_nano = 1000,
                            .http_status = 200,
                            .source = USAGE_BY_PROVIDER,
                            .attempt_count = 1,
                            .duration_ms = 900,
                            .first_byte_ms = 300,
                            .attempts = {{.provider = "gigachat",
                                          .model = "GigaChat-2",
                                          .started_at_ms = now_at_ms,
                                          .duration_ms = 890,
                                          .http_status = 200,
                                          .tokens_input = 120,
                                          .tokens_output = 40}}};

    usage_id_next(ids, slot, now_at_ms, &e.id);
    snprintf(e.model, sizeof(e.model), "bench/model-%zu", (size_t)((random >> 8) % MODELS));
    return e;
}

struct worker {
    struct outbox *ring;
    struct usage_sender *sender;
    struct usage_id_state ids;
    uint16_t slot;
    int64_t left; /* events to append */
};

/* Fills the ring and sends. False when all is committed. */
static bool work(struct bench *b, struct worker *w)
{
    for (; w->left > 0 && outbox_reserve(w->ring); w->left--) {
        struct usage_event e = event(b, w->slot, &w->ids);

        outbox_append(w->ring, &e);
    }
    usage_sender_flush(w->sender);
    return w->left > 0 || !usage_sender_is_drained(w->sender);
}

/* Workers (in one process, to leave the other processor to the writer) with as many events as their
 * rings take, until all are committed. */
static void measure_drain(struct bench *b)
{
    struct worker workers[WORKERS];
    struct loop *loop = loop_new();
    int64_t begun_us, took_us, used_us;
    bool is_busy;

    for (uint16_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.ring = outbox_slot(b->outbox, i),
                                     .ids = {.node = 7},
                                     .slot = i,
                                     .left = b->events / WORKERS};
        workers[i].sender = usage_sender_new(loop, b->usage_sock, workers[i].ring, i, b->start_id);
        if (workers[i].sender == NULL)
            die("a sender", errno);
    }
    used_us = -writer_cpu_us(b);
    begun_us = clock_monotonic_us();
    do {
        is_busy = false;
        for (size_t i = 0; i < WORKERS; i++)
            is_busy |= work(b, &workers[i]);
        check("the loop", loop_turn(loop, 1));
    } while (is_busy);
    took_us = clock_monotonic_us() - begun_us;
    used_us += writer_cpu_us(b);
    print_figure(b, "events drained into the ledger", b->events * 1000000 / took_us, "per s",
                 DRAIN_GOAL, false);
    printf("%-52s %8lld ns\n", "  the writer's CPU for each",
           (long long)(used_us * 1000 / b->events));
    for (size_t i = 0; i < WORKERS; i++)
        usage_sender_free(workers[i].sender);
    loop_free(loop);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

int main(int argc, char **argv)
{
    struct bench b = {.rows = ROWS, .events = EVENTS, .seed = 88172645463325252ULL};
    struct config_error e;

    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY [ROWS [EVENTS]]\n", argv[0]);
        return 2;
    }
    if (argc > 2)
        b.rows = strtoll(argv[2], NULL, 10);
    if (argc > 3)
        b.events = strtoll(argv[3], NULL, 10);
    snprintf(b.dir, sizeof(b.dir), "%s/ledger-XXXXXX", argv[1]);
    if (b.events == 0)
        snprintf(b.dir, sizeof(b.dir), "%s", argv[1]);
    else if (mkdtemp(b.dir) == NULL)
        die(b.dir, errno);
    snprintf(b.database, sizeof(b.database), "%s/xrouter.db", b.dir);
    snprintf(b.usage_sock, sizeof(b.usage_sock), "%s/usage.sock", b.dir);
    snprintf(b.writer_sock, sizeof(b.writer_sock), "%s/writer.sock", b.dir);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (config_parse(CONFIG, strlen(CONFIG), "bench.json", b.dir, &b.config, &e) != 0) {
        fprintf(stderr, "ledger: %s: %s\n", e.path, e.text);
        return 1;
    }
    b.until_ms = clock_now_at_ms() / HOUR_MS * HOUR_MS;
    b.since_ms = b.until_ms - DAYS * DAY_MS;
    generate(&b);
    if (b.events == 0) {
        config_unref(b.config);
        return 0;
    }
    make_regions(&b);
    start_writer(&b);
    measure_reports(&b);
    measure_drain(&b);
    stop_writer(&b);
    config_unref(b.config);
    nftw(b.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return b.has_missed ? 1 : 0;
}
