#include "tests/unit/keystore_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/json.h"
#include "common/log.h"
#include "usage/sender.h"
#include "usage/spool.h"
#include "usage/writer.h"

#define SLOTS 3
#define RING_BYTES (256 * 1024)
#define KEYS 16
#define PATIENCE_MS 10000

static const char CONFIG[] =
    "{\"state_dir\":\".\",\"runtime_dir\":\".\",\"ledger\":{\"commit_ms\":5},"
    "\"limits\":{\"tiers\":{\"free\":{\"rpm\":20}}},"
    "\"providers\":[{\"name\":\"gigachat\",\"type\":\"gigachat\",\"base_url\":\"http://"
    "127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"gigachat/GigaChat-2\",\"aliases\":[\"GigaChat\"],"
    "\"candidates\":[{\"provider\":\"gigachat\",\"model\":\"GigaChat-2\"}]}]}";

struct fixture {
    char dir[64];
    char database[128], usage_sock[128], writer_sock[128], spool[128], dead_letters[128];
    uint8_t start_id[SHM_START_ID_BYTES];
    struct config *config;
    struct outbox_region *outbox;
    struct keytable_region *keys;
    struct accounts_region *accounts;
    struct counters counters;
    struct loop *loop;
    struct writer *writer;
};

static void each_of_none(void *arg, open_request_fn visit, void *visit_arg)
{
}

static const struct open_requests NOTHING_RUNS = {each_of_none, NULL};

static int open_writer(struct fixture *f)
{
    const struct writer_setup setup = {
        .config = f->config,
        .loop = f->loop,
        .outbox = f->outbox,
        .keys = f->keys,
        .accounts = f->accounts,
        .requests = &NOTHING_RUNS,
        .counters = &f->counters,
        .start_id = f->start_id,
    };

    return writer_open(&setup, &f->writer);
}

static void start_writer(struct fixture *f)
{
    assert_int_equal(open_writer(f), 0);
}

static void stop_writer(struct fixture *f)
{
    writer_close(f->writer);
    f->writer = NULL;
}

static void turn(struct fixture *f)
{
    int64_t wait_ms = writer_next_ms(f->writer);

    assert_true(loop_turn(f->loop, wait_ms < 5 ? wait_ms : 5) >= 0);
    writer_turn(f->writer);
}

/* Turns until the condition holds; the test fails if that takes too long. */
#define WAIT_FOR(f, condition)                                    \
    do {                                                          \
        int64_t deadline_ms = clock_monotonic_ms() + PATIENCE_MS; \
        while (!(condition)) {                                    \
            if (clock_monotonic_ms() > deadline_ms)               \
                fail_msg("never: %s", #condition);                \
            turn(f);                                              \
        }                                                         \
    } while (0)

/* A number from the database through a connection of the test's own. */
static int64_t get(const struct fixture *f, const char *sql)
{
    sqlite3 *db;
    int64_t value;

    assert_int_equal(sqlite3_open(f->database, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 2000);
    assert_int_equal(database_get_i64(db, sql, -1, &value), 0);
    sqlite3_close(db);
    return value;
}

static int set_up(void **state)
{
    static struct fixture f;
    struct ledger *ledger;

    memset(&f, 0, sizeof(f));
    ledger = fixture_open(f.dir);
    snprintf(f.database, sizeof(f.database), "%s/xrouter.db", f.dir);
    snprintf(f.usage_sock, sizeof(f.usage_sock), "%s/usage.sock", f.dir);
    snprintf(f.writer_sock, sizeof(f.writer_sock), "%s/writer.sock", f.dir);
    snprintf(f.spool, sizeof(f.spool), "%s/spool", f.dir);
    snprintf(f.dead_letters, sizeof(f.dead_letters), "%s/dead-letters.jsonl", f.dir);
    memset(f.start_id, 0x77, sizeof(f.start_id));
    f.config = fixture_config(CONFIG, f.dir);
    f.outbox = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(f.outbox, SLOTS, RING_BYTES);
    f.keys = fixture_table(KEYS, FIXTURE_SECRET);
    f.accounts = forked_memory(accounts_region_spec(KEYS).bytes);
    accounts_region_init(f.accounts, KEYS);
    for (size_t i = 0; i < SLOTS; i++)
        outbox_set_owner(outbox_slot(f.outbox, i), 1);
    f.loop = loop_new();
    assert_non_null(f.loop);
    fixture_run(ledger, "INSERT INTO api_keys (id, key_hash, name, created_at)"
                        " VALUES ('" FIXTURE_KEY_TEXT "', printf('%064d', 0), 'fixture', 1)");
    ledger_close(ledger);
    start_writer(&f);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    stop_writer(f);
    loop_free(f->loop);
    config_unref(f->config);
    fixture_remove_dir(f->dir);
    return 0;
}

static void append(struct fixture *f, size_t slot, uint32_t from, uint32_t count)
{
    struct outbox *ob = outbox_slot(f->outbox, slot);

    for (uint32_t i = 0; i < count; i++) {
        struct usage_event e = fixture_event(from + i);

        assert_true(outbox_reserve(ob));
        outbox_append(ob, &e);
    }
}

static bool is_committed(const struct fixture *f, size_t slot)
{
    const struct outbox *ob = outbox_slot(f->outbox, slot);

    return outbox_committed(ob) == outbox_head(ob);
}

/* ---- a sender of the test's own ---- */

static int connect_usage(const struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(strlen(f->usage_sock) < sizeof(addr.sun_path));
    memcpy(addr.sun_path, f->usage_sock, strlen(f->usage_sock) + 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static struct outbox_packet packet_for(const struct fixture *f, uint16_t slot)
{
    struct outbox_packet p = {.magic = OUTBOX_PACKET_MAGIC,
                              .version = OUTBOX_PACKET_VERSION,
                              .slot = slot,
                              .next = outbox_head(outbox_slot(f->outbox, slot))};

    memcpy(p.start_id, f->start_id, sizeof(p.start_id));
    return p;
}

static void send_packet(int fd, const struct outbox_packet *p, const void *records, size_t len)
{
    uint8_t bytes[OUTBOX_PACKET_MAX];

    memcpy(bytes, p, sizeof(*p));
    memcpy(bytes + sizeof(*p), records, len);
    assert_int_equal(send(fd, bytes, sizeof(*p) + len, 0), sizeof(*p) + len);
}

/* All that slot's ring holds, in one packet. */
static void send_ring(const struct fixture *f, int fd, uint16_t slot)
{
    static uint8_t records[OUTBOX_PACKET_MAX - sizeof(struct outbox_packet)];
    struct outbox *ob = outbox_slot(f->outbox, slot);
    struct outbox_packet p = packet_for(f, slot);
    ssize_t n = outbox_read(ob, outbox_tail(ob), records, sizeof(records), &p.next);

    assert_true(n > 0);
    send_packet(fd, &p, records, (size_t)n);
}

static bool is_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

/* ---- xrouterctl's side ---- */

static cJSON *ask_on(struct fixture *f, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct buf answer;
    cJSON *json;

    buf_init(&answer, FRAME_MAX);
    WAIT_FOR(f, poll(&p, 1, 0) == 1);
    assert_int_equal(frame_recv(fd, &answer, 1000), 0);
    json = json_parse(answer.data, answer.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(json);
    buf_clear(&answer);
    return json;
}

static int request_on(struct fixture *f, const char *text)
{
    int fd = frame_connect(f->writer_sock, 1000);
    struct buf request;

    assert_true(fd >= 0);
    buf_init(&request, FRAME_MAX);
    buf_str(&request, text);
    assert_int_equal(frame_send(fd, &request, 1000), 0);
    buf_clear(&request);
    return fd;
}

static cJSON *ask(struct fixture *f, const char *text)
{
    int fd = request_on(f, text);
    cJSON *json = ask_on(f, fd);

    close(fd);
    assert_true(cJSON_IsTrue(json_get(json, "done")));
    return json;
}

static void ask_and_expect_error(struct fixture *f, const char *text, const char *code)
{
    cJSON *json = ask(f, text);
    const char *found = json_string(json_get(json, "error"), "code");

    assert_non_null(found);
    assert_string_equal(found, code);
    cJSON_Delete(json);
}

/* ---- events ---- */

static void given_packet_when_received_then_row_and_ack(void **state)
{
    struct fixture *f = *state;
    int fd = connect_usage(f);

    append(f, 0, 0, 10);
    send_ring(f, fd, 0);
    assert_false(is_committed(f, 0));
    WAIT_FOR(f, is_committed(f, 0));

    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 10);
    assert_int_equal(f->counters.events_committed_total, 10);
    assert_int_equal(f->counters.ledger_commits_total, 1);
    close(fd);
}

static void given_same_packet_twice_when_received_then_one_row_each(void **state)
{
    struct fixture *f = *state;
    int fd = connect_usage(f), other = connect_usage(f);

    append(f, 0, 0, 10);
    send_ring(f, fd, 0);
    send_ring(f, other, 0);
    WAIT_FOR(f, f->counters.events_duplicate_total == 10);

    assert_true(is_committed(f, 0));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 10);
    assert_int_equal(f->counters.events_dead_total, 0);
    close(fd);
    close(other);
}

static void given_many_events_when_sent_by_two_workers_then_all_arrive(void **state)
{
    struct fixture *f = *state;
    struct usage_sender *a, *b;

    a = usage_sender_new(f->loop, f->usage_sock, outbox_slot(f->outbox, 0), 0, f->start_id);
    b = usage_sender_new(f->loop, f->usage_sock, outbox_slot(f->outbox, 1), 1, f->start_id);
    for (uint32_t i = 0; i < 40; i++) {
        append(f, 0, i * 50, 25);
        append(f, 1, i * 50 + 25, 25);
        usage_sender_flush(a);
        usage_sender_flush(b);
        turn(f);
    }
    WAIT_FOR(f, (usage_sender_flush(a), usage_sender_flush(b),
                 is_committed(f, 0) && is_committed(f, 1)));

    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 2000);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 2000);
    assert_int_equal(get(f, "SELECT sum(cost) FROM usage_hourly"),
                     get(f, "SELECT sum(cost) FROM usage"));
    usage_sender_free(a);
    usage_sender_free(b);
}

static void given_writer_restarts_when_events_keep_coming_then_each_has_one_row(void **state)
{
    struct fixture *f = *state;
    struct usage_sender *s =
        usage_sender_new(f->loop, f->usage_sock, outbox_slot(f->outbox, 0), 0, f->start_id);

    for (uint32_t i = 0; i < 10; i++) {
        append(f, 0, i * 20, 20);
        usage_sender_flush(s);
        turn(f);
        turn(f);
        stop_writer(f); /* what it had received and not committed is forgotten */
        append(f, 0, 1000 + i, 1);
        start_writer(f);
    }
    WAIT_FOR(f, (usage_sender_flush(s), is_committed(f, 0)));

    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 210);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 210);
    usage_sender_free(s);
}

static void given_malformed_packets_when_received_then_closed_and_nothing_taken(void **state)
{
    struct fixture *f = *state;

    append(f, 0, 0, 1);
    for (int i = 0; i < 6; i++) {
        struct outbox_packet p = packet_for(f, 0);
        int fd = connect_usage(f);

        switch (i) {
        case 0:
            p.start_id[0] ^= 1;
            break;
        case 1:
            p.magic++;
            break;
        case 2:
            p.version++;
            break;
        case 3:
            p.slot = SLOTS;
            break;
        case 4:
            p.next += 8;
            break;
        }
        if (i == 5)
            assert_int_equal(send(fd, "short", 5, 0), 5);
        else
            send_packet(fd, &p, "", 0);
        WAIT_FOR(f, is_closed(fd));
        close(fd);
    }
    assert_false(is_committed(f, 0));
    assert_int_equal(f->counters.ledger_commits_total, 0);
}

static cJSON *read_letter(const struct fixture *f, char line[8192])
{
    FILE *file = fopen(f->dead_letters, "r");
    cJSON *json;

    assert_non_null(file);
    assert_non_null(fgets(line, 8192, file));
    fclose(file);
    json = json_parse(line, strlen(line), &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(json);
    return json;
}

static void given_bad_record_among_good_when_received_then_dead_letter_and_ack(void **state)
{
    struct fixture *f = *state;
    uint8_t records[3 * USAGE_EVENT_MAX];
    struct usage_event e = fixture_event(1);
    struct outbox_packet p;
    size_t first = usage_event_encode(&e, records), second, third;
    int fd = connect_usage(f);
    char line[8192];
    struct stat st;
    cJSON *letter;

    e = fixture_event(2);
    second = usage_event_encode(&e, records + first);
    records[first + 40] ^= 1; /* its CRC no longer fits */
    e = fixture_event(3);
    third = usage_event_encode(&e, records + first + second);
    append(f, 0, 1, 3); /* so that there is a position to ack */
    p = packet_for(f, 0);
    send_packet(fd, &p, records, first + second + third);
    WAIT_FOR(f, is_committed(f, 0));

    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 2);
    assert_int_equal(f->counters.events_dead_total, 1);
    assert_int_equal(stat(f->dead_letters, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    letter = read_letter(f, line);
    assert_string_equal(json_string(letter, "reason"), "not a usage record");
    assert_int_equal(strlen(json_string(letter, "record")), (second + 2) / 3 * 4);
    cJSON_Delete(letter);
    close(fd);
}

static void given_event_of_unknown_key_when_received_then_dead_letter_with_its_id(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->outbox, 0);
    struct usage_event e = fixture_event(1);
    char line[8192], id[USAGE_ID_TEXT_BYTES];
    int fd = connect_usage(f);
    cJSON *letter;

    e.key_id = 0xdead;
    assert_true(outbox_reserve(ob));
    outbox_append(ob, &e);
    send_ring(f, fd, 0);
    WAIT_FOR(f, is_committed(f, 0));

    letter = read_letter(f, line);
    usage_id_format(&e.id, id);
    assert_string_equal(json_string(letter, "id"), id);
    assert_non_null(strstr(json_string(letter, "reason"), "FOREIGN KEY"));
    cJSON_Delete(letter);
    close(fd);
}

static void given_same_id_with_other_cost_when_received_then_first_stays_and_letter(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->outbox, 0);
    struct usage_event e = fixture_event(1);

    outbox_set_owner(ob, 0);
    for (int i = 0; i < 2; i++) {
        e.cost_nano = 100 + i;
        assert_true(outbox_reserve(ob));
        outbox_append(ob, &e);
    }
    WAIT_FOR(f, is_committed(f, 0));

    assert_int_equal(get(f, "SELECT cost FROM usage"), 100);
    assert_int_equal(f->counters.events_dead_total, 1);
    assert_int_equal(access(f->dead_letters, F_OK), 0);
}

static void given_rings_when_owner_is_gone_then_drained_but_not_a_living_ones(void **state)
{
    struct fixture *f = *state;

    append(f, 0, 0, 700);
    append(f, 1, 1000, 5);
    outbox_set_owner(outbox_slot(f->outbox, 0), 0);
    WAIT_FOR(f, is_committed(f, 0));

    assert_int_equal(outbox_committed(outbox_slot(f->outbox, 1)), 0);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 700);
    outbox_set_owner(outbox_slot(f->outbox, 1), 0);
    WAIT_FOR(f, is_committed(f, 1));
    assert_int_equal(f->counters.events_committed_total, 705);
    assert_int_equal(f->counters.events_duplicate_total, 0);
}

static void given_locked_database_when_committing_then_kept_unacked_and_later_done(void **state)
{
    struct fixture *f = *state;
    int fd = connect_usage(f);
    sqlite3 *other;

    append(f, 0, 0, 10);
    assert_int_equal(sqlite3_open(f->database, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    send_ring(f, fd, 0);
    WAIT_FOR(f, f->counters.ledger_failures_total >= 2);
    assert_int_equal(outbox_committed(outbox_slot(f->outbox, 0)), 0);
    assert_true(writer_next_ms(f->writer) <= 1000);

    assert_int_equal(database_exec(other, "COMMIT"), 0);
    sqlite3_close(other);
    WAIT_FOR(f, is_committed(f, 0));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    close(fd);
}

static void given_broken_connection_when_committing_then_reopened_and_done(void **state)
{
    struct fixture *f = *state;
    int fd = connect_usage(f);
    sqlite3 *other;

    assert_int_equal(sqlite3_open(f->database, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "ALTER TABLE usage_hourly RENAME TO away"), 0);
    append(f, 0, 0, 10);
    send_ring(f, fd, 0);
    WAIT_FOR(f, f->counters.ledger_failures_total >= 3); /* without any connection, too */
    ask_and_expect_error(f, "{\"op\":\"key.show\",\"key\":\"fixture\"}", "ledger_unavailable");
    assert_false(is_committed(f, 0));

    assert_int_equal(database_exec(other, "ALTER TABLE away RENAME TO usage_hourly"), 0);
    sqlite3_close(other);
    WAIT_FOR(f, is_committed(f, 0));
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 10);
    close(fd);
}

static void
given_failing_ledger_when_events_pour_in_then_reading_stops_and_goes_on_later(void **state)
{
    static uint8_t packet[OUTBOX_PACKET_MAX];
    struct fixture *f = *state;
    struct outbox_packet header;
    int fd = connect_usage(f);
    size_t sent = 0;
    ssize_t n;
    sqlite3 *other;

    append(f, 0, 0, 400);
    header = packet_for(f, 0);
    n = outbox_read(outbox_slot(f->outbox, 0), 0, packet + sizeof(header),
                    sizeof(packet) - sizeof(header), &header.next);
    assert_true(n > 0);
    memcpy(packet, &header, sizeof(header));
    assert_int_equal(sqlite3_open(f->database, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    for (int i = 0; i < 1000; i++) {
        if (send(fd, packet, sizeof(header) + (size_t)n, 0) > 0)
            sent++;
        turn(f);
    }
    assert_true(sent > 60 && sent < 90); /* 4 MiB, and what the socket holds */

    assert_int_equal(database_exec(other, "COMMIT"), 0);
    sqlite3_close(other);
    WAIT_FOR(f, f->counters.events_duplicate_total + f->counters.events_committed_total >=
                    (sent - 1) * 200);
    WAIT_FOR(f, outbox_committed(outbox_slot(f->outbox, 0)) == header.next);
    close(fd);
}

static void given_unusable_database_when_opened_then_refused_and_left_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    int fd;

    stop_writer(f);
    fd = open(f->database, O_WRONLY);
    assert_int_equal(pwrite(fd, "zero header, no longer SQLite's", 32, 0), 32);
    close(fd);
    assert_int_equal(stat(f->database, &st), 0);
    assert_int_equal(open_writer(f), -EBADMSG);
    assert_null(f->writer);
    {
        off_t size = st.st_size;

        assert_int_equal(stat(f->database, &st), 0);
        assert_int_equal(st.st_size, size);
    }
}

/* ---- the spool ---- */

static bool is_dir_empty(const char *path)
{
    DIR *d = opendir(path);
    size_t count = 0;

    if (d == NULL)
        return false;
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count == 2;
}

static void given_spool_file_when_found_then_committed_and_unlinked(void **state)
{
    struct fixture *f = *state;

    append(f, 0, 0, 600);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    append(f, 1, 2000, 3);
    assert_true(spool_write(f->spool, 1, outbox_slot(f->outbox, 1)) > 0);
    WAIT_FOR(f, is_dir_empty(f->spool));

    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 603);
    assert_int_equal(f->counters.events_spooled_total, 603);
}

/* Spools five events and cuts the last one. */
static void spool_torn(struct fixture *f, char path[256], char bad[300])
{
    struct stat st;
    DIR *d;
    const struct dirent *e;

    append(f, 0, 0, 5);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    d = opendir(f->spool);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL && e->d_name[0] == '.')
        ;
    assert_non_null(e);
    assert_true(snprintf(path, 256, "%s/%s", f->spool, e->d_name) < 256);
    closedir(d);
    snprintf(bad, 300, "%s.bad", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 8), 0);
}

static void given_torn_spool_file_when_found_then_good_records_taken_and_set_aside(void **state)
{
    struct fixture *f = *state;
    char path[256], bad[300];

    spool_torn(f, path, bad);
    WAIT_FOR(f, access(bad, F_OK) == 0);

    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 4);
}

static void
given_spool_file_that_cannot_be_moved_when_taken_then_next_one_and_no_spinning(void **state)
{
    struct fixture *f = *state;
    char path[256], bad[300], inside[310];

    spool_torn(f, path, bad);
    snprintf(inside, sizeof(inside), "%s/x", bad);
    assert_int_equal(mkdir(bad, 0700), 0); /* a rename onto a directory fails, root's too */
    assert_int_equal(mkdir(inside, 0700), 0);
    append(f, 1, 2000, 3);
    assert_true(spool_write(f->spool, 1, outbox_slot(f->outbox, 1)) > 0);
    WAIT_FOR(f, f->counters.events_committed_total == 7);
    WAIT_FOR(f, writer_next_ms(f->writer) > 20);

    assert_int_equal(f->counters.events_spooled_total, 3);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(rmdir(inside), 0);
    assert_int_equal(rmdir(bad), 0);
    WAIT_FOR(f, access(path, F_OK) == -1);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 7);
}

static void given_locked_database_when_spool_is_found_then_file_stays_until_committed(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    assert_int_equal(sqlite3_open(f->database, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    append(f, 0, 0, 600);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    WAIT_FOR(f, f->counters.ledger_failures_total >= 2);
    assert_false(is_dir_empty(f->spool));

    assert_int_equal(database_exec(other, "COMMIT"), 0);
    sqlite3_close(other);
    WAIT_FOR(f, is_dir_empty(f->spool));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 600);
    assert_int_equal(get(f, "SELECT sum(requests) FROM usage_hourly"), 600);
}

/* ---- the end and the beginning ---- */

static void given_events_in_living_rings_when_drained_then_all_committed(void **state)
{
    struct fixture *f = *state;

    append(f, 0, 0, 700);
    append(f, 2, 1000, 3);
    WAIT_FOR(f, writer_drain(f->writer));

    assert_true(is_committed(f, 0) && is_committed(f, 2));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 703);
    assert_int_equal(access(f->usage_sock, F_OK), -1);
    assert_int_equal(access(f->writer_sock, F_OK), -1);
}

static void given_failing_ledger_when_drained_then_it_gives_up_without_acks(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    append(f, 0, 0, 3);
    assert_int_equal(sqlite3_open(f->database, &other), SQLITE_OK);
    assert_int_equal(database_exec(other, "BEGIN IMMEDIATE"), 0);
    WAIT_FOR(f, writer_drain(f->writer));
    assert_int_equal(outbox_committed(outbox_slot(f->outbox, 0)), 0);
    sqlite3_close(other);
}

static void
given_crashed_instance_when_recovered_then_rings_and_spool_are_in_the_ledger(void **state)
{
    struct fixture *f = *state;
    uint64_t events;

    stop_writer(f);
    append(f, 0, 0, 5);
    assert_true(spool_write(f->spool, 0, outbox_slot(f->outbox, 0)) > 0);
    append(f, 0, 5, 800);
    append(f, 1, 3, 1); /* one that slot 0 has, too */
    assert_int_equal(writer_recover(f->config, f->outbox, &events), 0);

    assert_int_equal(events, 805);
    assert_true(is_committed(f, 0) && is_committed(f, 1));
    assert_true(is_dir_empty(f->spool));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 805);
    start_writer(f);
}

static void given_other_key_secret_when_opened_then_refused(void **state)
{
    struct fixture *f = *state;

    stop_writer(f);
    f->keys = fixture_table(KEYS, FIXTURE_SECRET + 1);
    assert_int_equal(open_writer(f), -EKEYREJECTED);
    assert_null(f->writer);
}

/* ---- requests ---- */

static void given_key_requests_when_asked_then_create_show_list_revoke(void **state)
{
    struct fixture *f = *state;
    cJSON *json = ask(f, "{\"op\":\"key.create\",\"name\":\"demo\",\"tier\":\"free\"}");
    const cJSON *key = json_get(json, "key");
    char text[KEY_TEXT_BYTES], id[KEY_ID_TEXT_BYTES], request[128];
    struct key found;
    int fd;

    assert_non_null(json_string(key, "key"));
    snprintf(text, sizeof(text), "%s", json_string(key, "key"));
    snprintf(id, sizeof(id), "%s", json_string(key, "id"));
    assert_string_equal(json_string(key, "name"), "demo");
    cJSON_Delete(json);
    assert_int_equal(keytable_lookup(f->keys, text, strlen(text), clock_now_at_ms(), &found), 0);
    assert_int_equal(found.rpm, 20);

    json = ask(f, "{\"op\":\"key.show\",\"key\":\"demo\"}");
    assert_string_equal(json_string(json_get(json, "key"), "id"), id);
    assert_null(json_get(json_get(json, "key"), "key"));
    cJSON_Delete(json);

    fd = request_on(f, "{\"op\":\"key.list\"}");
    json = ask_on(f, fd);
    assert_int_equal(cJSON_GetArraySize(json_get(json, "keys")), 2);
    cJSON_Delete(json);
    json = ask_on(f, fd);
    assert_true(cJSON_IsTrue(json_get(json, "done")));
    cJSON_Delete(json);
    close(fd);

    snprintf(request, sizeof(request), "{\"op\":\"key.revoke\",\"key\":\"%s\"}", id);
    json = ask(f, request);
    assert_string_equal(json_string(json_get(json, "key"), "state"), "revoked");
    cJSON_Delete(json);
    assert_true(keytable_lookup(f->keys, text, strlen(text), clock_now_at_ms(), &found) < 0);
}

static void given_wrong_requests_when_asked_then_errors_with_codes(void **state)
{
    struct fixture *f = *state;

    ask_and_expect_error(f, "{\"op\":\"key.show\",\"key\":\"nobody\"}", "key_not_found");
    ask_and_expect_error(f, "{\"op\":\"key.revoke\"}", "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"key.create\",\"name\":\"fixture\"}", "key_exists");
    ask_and_expect_error(f, "{\"op\":\"key.create\",\"tier\":\"gold\"}", "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"usage\",\"by\":\"colour\"}", "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"usage\",\"since\":\"soon\"}", "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"usage\",\"key\":\"nobody\"}", "key_not_found");
    ask_and_expect_error(f, "{\"op\":\"dance\"}", "unknown_op");
    ask_and_expect_error(f, "{\"op\":", "invalid_request");
    ask_and_expect_error(f, "[]", "invalid_request");
}

static void given_full_key_table_when_created_then_capacity_reached(void **state)
{
    struct fixture *f = *state;

    /* The fixture's own key is in the table as well. */
    for (int i = 0; i < KEYS - 1; i++)
        cJSON_Delete(ask(f, "{\"op\":\"key.create\"}"));
    ask_and_expect_error(f, "{\"op\":\"key.create\"}", "capacity_reached");
}

static void given_usage_when_asked_then_the_report(void **state)
{
    struct fixture *f = *state;
    const cJSON *usage, *row;
    int fd = connect_usage(f);
    cJSON *json;

    append(f, 0, 0, 10);
    send_ring(f, fd, 0);
    WAIT_FOR(f, is_committed(f, 0));
    json = ask(f, "{\"op\":\"usage\",\"since\":\"2026-03-01\",\"until\":\"2026-03-02\","
                  "\"by\":\"model\",\"key\":\"fixture\",\"model\":\"GigaChat\"}");

    usage = json_get(json, "usage");
    row = cJSON_GetArrayItem(json_get(usage, "rows"), 0);
    assert_string_equal(json_string(row, "model"), "gigachat/GigaChat-2");
    assert_int_equal(json_get(row, "requests")->valueint, 10);
    assert_int_equal(json_get(json_get(usage, "total"), "tokens_output")->valueint, 200);
    assert_string_equal(json_string(row, "cost"), "0.000010045");
    assert_string_equal(json_string(usage, "since"), "2026-03-01T00:00:00.000Z");
    cJSON_Delete(json);
    close(fd);
}

/* ---- credits ---- */

/* The words of the answer's key, once they have been counted. */
static int64_t available(struct fixture *f, const char *name)
{
    struct account_values values;
    char request[128];
    const char *id;
    bool is_marked = true;
    uint32_t account;
    uint64_t key_id;
    cJSON *json;

    snprintf(request, sizeof(request), "{\"op\":\"key.show\",\"key\":\"%s\"}", name);
    json = ask(f, request);
    id = json_string(json_get(json, "key"), "id");
    assert_non_null(id);
    assert_int_equal(key_id_parse(id, &key_id), 0);
    cJSON_Delete(json);
    assert_int_equal(accounts_find(f->accounts, key_id, &account), 0);
    WAIT_FOR(
        f, (account_get(f->accounts, account, clock_now_at_ms(), &values, &is_marked), !is_marked));
    return values.balance_nano;
}

static void given_credit_requests_when_asked_then_add_show_history(void **state)
{
    struct fixture *f = *state;
    const cJSON *credit, *entries;
    cJSON *json;

    cJSON_Delete(ask(f, "{\"op\":\"key.create\",\"name\":\"paid\",\"credits\":\"1.5\"}"));
    assert_int_equal(available(f, "paid"), 1500000000);
    json = ask(f, "{\"op\":\"credit.add\",\"key\":\"paid\",\"amount\":\"2\",\"operation_id\":"
                  "\"a-1\",\"note\":\"May\"}");
    credit = json_get(json, "credit");
    assert_string_equal(json_string(credit, "amount"), "2");
    assert_string_equal(json_string(credit, "balance"), "3.5");
    assert_string_equal(json_string(credit, "operation_id"), "a-1");
    assert_string_equal(json_string(credit, "note"), "May");
    cJSON_Delete(json);
    assert_int_equal(available(f, "paid"), 3500000000);

    json = ask(f, "{\"op\":\"credit.show\",\"key\":\"paid\"}");
    credit = json_get(json, "credit");
    assert_string_equal(json_string(credit, "balance"), "3.5");
    assert_string_equal(json_string(credit, "available"), "3.5");
    assert_string_equal(json_string(credit, "reserved"), "0");
    assert_int_equal(cJSON_GetArraySize(json_get(credit, "spending")), 3);
    cJSON_Delete(json);

    json = ask(f, "{\"op\":\"credit.history\",\"key\":\"paid\",\"limit\":1}");
    entries = json_get(json, "entries");
    assert_int_equal(cJSON_GetArraySize(entries), 1);
    assert_string_equal(json_string(cJSON_GetArrayItem(entries, 0), "amount"), "2");
    cJSON_Delete(json);
    json = ask(f, "{\"op\":\"credit.history\",\"key\":\"paid\"}");
    assert_int_equal(cJSON_GetArraySize(json_get(json, "entries")), 2);
    cJSON_Delete(json);
}

static void given_wrong_credit_requests_when_asked_then_errors_with_codes(void **state)
{
    static const struct {
        const char *members;
        const char *code;
    } CASES[] = {
        {"\"amount\":\"1\"", "invalid_request"}, /* no key */
        {"\"key\":\"nobody\",\"amount\":\"1\"", "key_not_found"},
        {"\"key\":\"fixture\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":1", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"0\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"1e3\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"4000000001\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"1\",\"operation_id\":\"\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"1\",\"operation_id\":\"a b\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"1\",\"operation_id\":7", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"1\",\"note\":\"a\\nb\"", "invalid_request"},
        {"\"key\":\"fixture\",\"amount\":\"2\",\"operation_id\":\"x\"", "operation_id_reused"},
        {"\"key\":\"fixture\",\"amount\":\"4000000000\"", "balance_out_of_range"},
    };
    struct fixture *f = *state;
    char request[256];

    cJSON_Delete(ask(f, "{\"op\":\"credit.add\",\"key\":\"fixture\",\"amount\":\"1\","
                        "\"operation_id\":\"x\"}"));
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        snprintf(request, sizeof(request), "{\"op\":\"credit.add\",%s}", CASES[i].members);
        ask_and_expect_error(f, request, CASES[i].code);
    }
    ask_and_expect_error(f, "{\"op\":\"credit.history\",\"key\":\"fixture\",\"limit\":-1}",
                         "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"credit.show\",\"key\":\"nobody\"}", "key_not_found");
    assert_int_equal(get(f, "SELECT balance FROM api_keys"), 1000000000);
}

static void given_key_requests_when_asked_then_update_and_rotate(void **state)
{
    struct fixture *f = *state;
    cJSON *made = ask(f, "{\"op\":\"key.create\",\"name\":\"demo\",\"tier\":\"free\"}");
    const char *old = json_string(json_get(made, "key"), "key"), *new;
    struct key key;
    cJSON *json = ask(f, "{\"op\":\"key.update\",\"key\":\"demo\",\"limits\":{\"rpm\":3,"
                         "\"spend_day\":\"0.25\"}}");

    assert_string_equal(json_string(json_get(json_get(json, "key"), "limits"), "spend_day"),
                        "0.25");
    assert_null(json_get(json_get(json, "key"), "key"));
    cJSON_Delete(json);
    assert_int_equal(keytable_lookup(f->keys, old, strlen(old), 0, &key), 0);
    assert_int_equal(key.rpm, 3);
    ask_and_expect_error(f, "{\"op\":\"key.update\",\"key\":\"demo\",\"credits\":\"1\"}",
                         "invalid_request");
    ask_and_expect_error(f, "{\"op\":\"key.update\",\"key\":\"demo\",\"name\":\"fixture\"}",
                         "key_exists");

    json = ask(f, "{\"op\":\"key.rotate\",\"key\":\"demo\"}");
    new = json_string(json_get(json, "key"), "key");
    assert_non_null(new);
    assert_true(keytable_lookup(f->keys, old, strlen(old), 0, &key) < 0);
    assert_int_equal(keytable_lookup(f->keys, new, strlen(new), 0, &key), 0);
    assert_int_equal(key.rpm, 3);
    cJSON_Delete(json);
    cJSON_Delete(ask(f, "{\"op\":\"key.revoke\",\"key\":\"demo\"}"));
    cJSON_Delete(made);
}

static void given_events_of_prepaid_key_when_writer_restarts_then_counted_from_ring(void **state)
{
    struct fixture *f = *state;

    cJSON_Delete(ask(f, "{\"op\":\"credit.add\",\"key\":\"fixture\",\"amount\":\"1\"}"));
    assert_int_equal(available(f, "fixture"), 1000000000);
    stop_writer(f);
    append(f, 0, 5, 3); /* of a living worker: acked by packets alone */
    start_writer(f);
    assert_int_equal(available(f, "fixture"), 1000000000 - 1005 - 1006 - 1007);
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 0);

    outbox_set_owner(outbox_slot(f->outbox, 0), 0);
    WAIT_FOR(f, is_committed(f, 0));
    assert_int_equal(get(f, "SELECT balance FROM api_keys"), 1000000000 - 1005 - 1006 - 1007);
    assert_int_equal(available(f, "fixture"), 1000000000 - 1005 - 1006 - 1007);
}

static void given_new_tier_in_config_when_reloaded_then_keys_follow(void **state)
{
    struct fixture *f = *state;
    cJSON *json = ask(f, "{\"op\":\"key.create\",\"tier\":\"free\"}");
    const char *text = json_string(json_get(json, "key"), "key");
    struct key key;

    f->config->tiers[0].rpm = 77;
    writer_set_config(f->writer, f->config);
    WAIT_FOR(f, keytable_lookup(f->keys, text, strlen(text), 0, &key) == 0 && key.rpm == 77);
    cJSON_Delete(json);
}

/* ---- another database ---- */

struct made_key {
    char text[KEY_TEXT_BYTES];
};

static struct made_key key_of(struct fixture *f, const char *request)
{
    cJSON *json = ask(f, request);
    const char *text = json_string(json_get(json, "key"), "key");
    struct made_key made;

    assert_non_null(text);
    snprintf(made.text, sizeof(made.text), "%s", text);
    cJSON_Delete(json);
    return made;
}

static bool works(const struct fixture *f, const struct made_key *made)
{
    struct key key;

    return keytable_lookup(f->keys, made->text, strlen(made->text), clock_now_at_ms(), &key) == 0;
}

struct old_and_new {
    char copy[160];
    struct made_key kept, rotated, before, late; /* before is what rotated was in the copy */
};

/* A copy of the database, and keys made after it. */
static struct old_and_new make_copy(struct fixture *f)
{
    struct old_and_new o;
    char sql[200];
    sqlite3 *db;

    o.kept = key_of(f, "{\"op\":\"key.create\",\"name\":\"kept\"}");
    o.before = key_of(f, "{\"op\":\"key.create\",\"name\":\"rotated\"}");
    snprintf(o.copy, sizeof(o.copy), "%s/copy.db", f->dir);
    snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", o.copy);
    assert_int_equal(sqlite3_open(f->database, &db), SQLITE_OK);
    assert_int_equal(database_exec(db, sql), 0);
    sqlite3_close(db);
    o.rotated = key_of(f, "{\"op\":\"key.rotate\",\"key\":\"rotated\"}");
    o.late = key_of(f, "{\"op\":\"key.create\",\"name\":\"late\"}");
    assert_true(works(f, &o.late) && works(f, &o.rotated) && !works(f, &o.before));
    return o;
}

static void given_older_database_when_it_takes_the_place_then_only_its_keys_work(void **state)
{
    struct fixture *f = *state;
    struct old_and_new o = make_copy(f);
    int fd;

    assert_int_equal(rename(o.copy, f->database), 0);
    WAIT_FOR(f, !works(f, &o.late));
    WAIT_FOR(f, works(f, &o.before));
    assert_true(works(f, &o.kept));
    assert_false(works(f, &o.rotated));
    assert_false(works(f, &o.late));

    fd = connect_usage(f);
    append(f, 0, 0, 10);
    send_ring(f, fd, 0);
    WAIT_FOR(f, is_committed(f, 0));
    assert_int_equal(get(f, "SELECT count(*) FROM usage"), 10);
    close(fd);
}

static void
given_database_exchanged_while_no_writer_runs_when_opened_then_its_keys_work(void **state)
{
    struct fixture *f = *state;
    struct old_and_new o = make_copy(f);

    stop_writer(f);
    assert_int_equal(rename(o.copy, f->database), 0);
    start_writer(f);
    assert_true(works(f, &o.kept) && works(f, &o.before));
    assert_false(works(f, &o.rotated) || works(f, &o.late));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_packet_when_received_then_row_and_ack),
        T(given_same_packet_twice_when_received_then_one_row_each),
        T(given_many_events_when_sent_by_two_workers_then_all_arrive),
        T(given_writer_restarts_when_events_keep_coming_then_each_has_one_row),
        T(given_malformed_packets_when_received_then_closed_and_nothing_taken),
        T(given_bad_record_among_good_when_received_then_dead_letter_and_ack),
        T(given_event_of_unknown_key_when_received_then_dead_letter_with_its_id),
        T(given_same_id_with_other_cost_when_received_then_first_stays_and_letter),
        T(given_rings_when_owner_is_gone_then_drained_but_not_a_living_ones),
        T(given_locked_database_when_committing_then_kept_unacked_and_later_done),
        T(given_broken_connection_when_committing_then_reopened_and_done),
        T(given_failing_ledger_when_events_pour_in_then_reading_stops_and_goes_on_later),
        T(given_unusable_database_when_opened_then_refused_and_left_as_it_is),
        T(given_spool_file_when_found_then_committed_and_unlinked),
        T(given_torn_spool_file_when_found_then_good_records_taken_and_set_aside),
        T(given_spool_file_that_cannot_be_moved_when_taken_then_next_one_and_no_spinning),
        T(given_locked_database_when_spool_is_found_then_file_stays_until_committed),
        T(given_events_in_living_rings_when_drained_then_all_committed),
        T(given_failing_ledger_when_drained_then_it_gives_up_without_acks),
        T(given_crashed_instance_when_recovered_then_rings_and_spool_are_in_the_ledger),
        T(given_other_key_secret_when_opened_then_refused),
        T(given_key_requests_when_asked_then_create_show_list_revoke),
        T(given_wrong_requests_when_asked_then_errors_with_codes),
        T(given_full_key_table_when_created_then_capacity_reached),
        T(given_usage_when_asked_then_the_report),
        T(given_credit_requests_when_asked_then_add_show_history),
        T(given_wrong_credit_requests_when_asked_then_errors_with_codes),
        T(given_key_requests_when_asked_then_update_and_rotate),
        T(given_events_of_prepaid_key_when_writer_restarts_then_counted_from_ring),
        T(given_new_tier_in_config_when_reloaded_then_keys_follow),
        T(given_older_database_when_it_takes_the_place_then_only_its_keys_work),
        T(given_database_exchanged_while_no_writer_runs_when_opened_then_its_keys_work),
    };

    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    log_to(null, null);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
