#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/config.h"
#include "common/json.h"
#include "common/log.h"
#include "tests/unit/forked.h"
#include "usage/answers.h"
#include "usage/handover.h"

#define CAPACITY 256
#define SLOT 2
#define TTL_MS 60000
#define NOW FIXTURE_AT_MS

static const uint8_t start_id[SHM_START_ID_BYTES] = "0123456789abcde";

struct fixture {
    char dir[64];
    char path[128];
    struct config config;
    struct ledger *ledger;
    struct idempotency_region *table;
    struct counters counters;
    struct answers *answers;
    struct handover *handover;
    int ends[2]; /* worker, usage-writer */
    int64_t now_ms;
};

static struct answers *make_answers(struct fixture *f)
{
    const struct answers_setup setup = {f->ledger, f->table, &f->counters, &f->config};
    struct answers *a = answers_new(&setup);

    assert_non_null(a);
    return a;
}

static int set_up(void **state)
{
    static struct fixture f;
    char why[DATABASE_WHY_BYTES];

    memset(&f, 0, sizeof(f));
    log_init("test", -1, LOG_ERROR + 1);
    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/xrouter.db", f.dir);
    assert_int_equal(ledger_open(f.path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    f.config.answer_ttl_ms = TTL_MS;
    f.config.answers_bytes = 1 << 20;
    f.config.commit_ms = 10;
    f.table = forked_memory(idempotency_region_spec(CAPACITY).bytes);
    idempotency_region_init(f.table, CAPACITY);
    f.answers = make_answers(&f);
    f.handover = handover_new(f.table, &f.counters, SLOT, start_id);
    assert_non_null(f.handover);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, f.ends), 0);
    f.now_ms = 1000;
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close(f->ends[0]);
    close(f->ends[1]);
    handover_free(f->handover);
    answers_free(f->answers);
    ledger_close(f->ledger);
    munmap(f->table, idempotency_region_spec(CAPACITY).bytes);
    fixture_remove_dir(f->dir);
    return 0;
}

/* What request number n of the fixture brings. */
static struct idempotency_key key_number(uint32_t n)
{
    struct idempotency_key key;

    memset(&key, (int)(n * 37 + 1), sizeof(key));
    memcpy(key.key, &n, sizeof(n));
    memcpy(key.request, &n, sizeof(n));
    return key;
}

static struct usage_event keyed_event(uint32_t n)
{
    const struct idempotency_key key = key_number(n);
    struct usage_event e = fixture_event(n);

    memcpy(e.idempotency_key, key.key, sizeof(key.key));
    memcpy(e.request_digest, key.request, sizeof(key.request));
    return e;
}

static void commit_event(struct fixture *f, const struct usage_event *e)
{
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ledger), 0);
}

static enum idempotency_state look(struct fixture *f, uint32_t n, int64_t at_ms)
{
    const struct idempotency_key key = key_number(n);

    return idempotency_look(f->table, &key, at_ms);
}

/* The worker's end of request n, with an answer of len bytes of the letter. */
static void hand_over(struct fixture *f, uint32_t n, char letter, size_t len)
{
    const struct usage_event e = keyed_event(n);
    const struct handover_answer answer = {.key = key_number(n),
                                           .id = e.id,
                                           .ended_at_ms = usage_event_ended_at_ms(&e),
                                           .status = 200,
                                           .type = ANSWER_EVENT_STREAM};
    struct idempotency_claim claim;
    struct buf body;

    if (look(f, n, NOW) == IDEMPOTENCY_ABSENT) {
        assert_int_equal(idempotency_claim(f->table, &answer.key, SLOT, &answer.id, NOW, &claim),
                         IDEMPOTENCY_CLAIMED);
        idempotency_begin_storing(f->table, &claim, NOW + TTL_MS + IDEMPOTENCY_GRACE_MS);
    }
    buf_init(&body, ANSWER_MAX_BYTES + 1);
    if (len > 0)
        memset(buf_room(&body, len), letter, len);
    buf_commit(&body, len);
    handover_add(f->handover, &answer, &body);
    assert_int_equal(handover_send(f->handover, f->ends[0]), 0);
}

/* One packet and its descriptor, as the receiver reads them. */
static int receive(struct fixture *f, struct answer_packet *packet)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = packet, .iov_len = sizeof(*packet)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    const struct cmsghdr *rights;
    int fd;

    if (recvmsg(f->ends[1], &message, MSG_DONTWAIT) != sizeof(*packet))
        return -1;
    rights = CMSG_FIRSTHDR(&message);
    if (rights == NULL)
        return -1;
    memcpy(&fd, CMSG_DATA(rights), sizeof(fd));
    return fd;
}

static size_t take_all(struct fixture *f)
{
    struct answer_packet packet;
    size_t count = 0;
    int fd;

    while ((fd = receive(f, &packet)) != -1) {
        assert_int_equal(packet.magic, ANSWER_PACKET_MAGIC);
        assert_int_equal(packet.slot, SLOT);
        assert_memory_equal(packet.start_id, start_id, sizeof(start_id));
        assert_int_equal(answers_take(f->answers, &packet, fd, f->now_ms), 0);
        close(fd);
        count++;
    }
    return count;
}

/* Turns until nothing is due at that moment. */
static void turn_at(struct fixture *f, int64_t now_at_ms)
{
    for (int i = 0; i < 100; i++) {
        f->now_ms += 1000;
        (void)answers_turn(f->answers, f->now_ms, now_at_ms);
        if (answers_next_ms(f->answers) > f->now_ms)
            return;
    }
    fail_msg("never at rest");
}

static void store(struct fixture *f, uint32_t n, char letter, size_t len)
{
    hand_over(f, n, letter, len);
    assert_int_equal(take_all(f), 1);
    turn_at(f, NOW);
}

static int get_answer(struct fixture *f, uint32_t n, struct buf *json)
{
    const struct idempotency_key key = key_number(n);

    buf_init(json, 1 << 20);
    return answers_get(f->ledger, &key, json);
}

static void assert_has_no_answer(struct fixture *f, uint32_t n)
{
    struct buf json;

    assert_int_equal(get_answer(f, n, &json), -ENOENT);
    buf_clear(&json);
}

static void given_event_with_key_when_committed_then_row_and_entry(void **state)
{
    struct fixture *f = *state;
    const struct usage_event e = keyed_event(1);

    commit_event(f, &e);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), 1);
    assert_int_equal(fixture_get(f->ledger, "SELECT created_at FROM idempotency"),
                     e.created_at_ms + e.duration_ms);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_ABSENT); /* its time ended long ago */
    assert_has_no_answer(f, 1);
}

static void given_event_without_use_when_committed_then_forgotten(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = keyed_event(1);

    e.source = USAGE_BY_NOBODY;
    commit_event(f, &e);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), 0);
}

static void given_answer_when_taken_then_durable_and_then_stored(void **state)
{
    struct fixture *f = *state;
    const struct usage_event e = keyed_event(1);
    struct buf json;

    commit_event(f, &e);
    hand_over(f, 1, 'x', 4);
    assert_int_equal(take_all(f), 1);
    (void)answers_turn(f->answers, f->now_ms, NOW); /* it waits for others to share its commit */
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORING);
    assert_has_no_answer(f, 1);
    turn_at(f, NOW);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
    assert_int_equal(get_answer(f, 1, &json), 0);
    assert_string_equal(buf_text(&json),
                        "{\"done\":true,\"status\":200,\"content_type\":\"text/event-stream\","
                        "\"answer\":\"eHh4eA==\"}");
    buf_clear(&json);
    assert_int_equal(f->counters.answers_stored_total, 1);
    handover_tidy(f->handover);
    assert_int_equal(handover_count(f->handover), 0);
}

static void given_answer_before_its_event_when_both_come_then_one_row_with_it(void **state)
{
    struct fixture *f = *state;
    const struct usage_event e = keyed_event(1);
    struct buf json;

    store(f, 1, 'x', 100);
    commit_event(f, &e);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), 1);
    assert_int_equal(get_answer(f, 1, &json), 0);
    buf_clear(&json);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
}

static void given_empty_and_largest_answers_when_stored_then_they_come_back_whole(void **state)
{
    struct fixture *f = *state;
    struct buf json;

    store(f, 1, 'x', 0);
    store(f, 2, 'y', ANSWER_MAX_BYTES);
    assert_int_equal(get_answer(f, 1, &json), 0);
    assert_non_null(strstr(buf_text(&json), "\"answer\":\"\"}"));
    buf_clear(&json);
    assert_int_equal(get_answer(f, 2, &json), 0);
    assert_int_equal(json.len, strlen("{\"done\":true,\"status\":200,\"content_type\":"
                                      "\"text/event-stream\",\"answer\":\"\"}") +
                                   (ANSWER_MAX_BYTES + 2) / 3 * 4);
    buf_clear(&json);
}

static void given_writer_that_died_when_another_loads_then_answers_are_known(void **state)
{
    struct fixture *f = *state;
    const struct usage_event e = keyed_event(2);

    store(f, 1, 'x', 100);
    commit_event(f, &e);
    answers_free(f->answers);
    memset(f->table, 0, idempotency_region_spec(CAPACITY).bytes);
    idempotency_region_init(f->table, CAPACITY);
    f->answers = make_answers(f);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_ABSENT);
    assert_int_equal(answers_load(f->answers, NOW), 0);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
    assert_int_equal(look(f, 2, NOW), IDEMPOTENCY_UNAVAILABLE);
}

static void given_answer_that_was_never_acked_when_connected_again_then_sent_again(void **state)
{
    struct fixture *f = *state;
    struct answer_packet packet;

    hand_over(f, 1, 'x', 100);
    close(receive(f, &packet)); /* the writer dies with it */
    assert_false(handover_has_unsent(f->handover));
    handover_rewind(f->handover);
    assert_true(handover_has_unsent(f->handover));
    assert_int_equal(handover_send(f->handover, f->ends[0]), 0);
    assert_int_equal(take_all(f), 1);
    turn_at(f, NOW);
    handover_rewind(f->handover);
    assert_int_equal(handover_count(f->handover), 0);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
}

static void given_same_answer_twice_when_stored_then_counted_once(void **state)
{
    struct fixture *f = *state;

    f->config.answers_bytes = 250;
    store(f, 1, 'x', 100);
    store(f, 1, 'x', 100);
    store(f, 2, 'x', 100); /* 200 bytes in all: nothing is dropped */
    assert_int_equal(f->counters.answers_dropped_total, 0);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
}

static void given_too_many_bytes_when_stored_then_the_oldest_are_dropped(void **state)
{
    struct fixture *f = *state;

    f->config.answers_bytes = 1000;
    for (uint32_t n = 1; n <= 8; n++)
        store(f, n, 'x', 300);
    assert_int_equal(fixture_get(f->ledger, "SELECT sum(length(answer)) FROM idempotency"), 900);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), 8);
    for (uint32_t n = 1; n <= 5; n++) {
        assert_int_equal(look(f, n, NOW), IDEMPOTENCY_UNAVAILABLE);
        assert_has_no_answer(f, n);
    }
    for (uint32_t n = 6; n <= 8; n++)
        assert_int_equal(look(f, n, NOW), IDEMPOTENCY_STORED);
    assert_int_equal(f->counters.answers_dropped_total, 5);
    f->config.answers_bytes = 0; /* a reload */
    turn_at(f, NOW);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(answer) FROM idempotency"), 0);
}

static void given_rows_whose_time_is_over_when_swept_then_gone_and_free(void **state)
{
    struct fixture *f = *state;
    int64_t end = usage_event_ended_at_ms(&(struct usage_event){0}) + FIXTURE_AT_MS + 350 + TTL_MS;

    for (uint32_t n = 1; n <= 200; n++)
        store(f, n, 'x', 10);
    turn_at(f, end);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
    turn_at(f, end + 100);
    assert_int_equal(look(f, 100, NOW), IDEMPOTENCY_ABSENT);
    assert_int_equal(look(f, 101, NOW), IDEMPOTENCY_STORED);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(*) FROM idempotency"), 100);
}

static void given_key_whose_time_is_over_when_used_again_then_the_newer_row_counts(void **state)
{
    struct fixture *f = *state;
    struct usage_event again = fixture_event(500), late = keyed_event(1);

    store(f, 1, 'x', 100);
    memcpy(again.idempotency_key, late.idempotency_key, USAGE_DIGEST_BYTES);
    memset(again.request_digest, 9, USAGE_DIGEST_BYTES);
    commit_event(f, &again);
    assert_has_no_answer(f, 1);
    commit_event(f, &late); /* an older one that comes late changes nothing */
    assert_int_equal(fixture_get(f->ledger, "SELECT created_at FROM idempotency"),
                     usage_event_ended_at_ms(&again));
}

static void given_database_that_is_locked_when_stored_then_kept_and_stored_later(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    hand_over(f, 1, 'x', 100);
    assert_int_equal(take_all(f), 1);
    for (int i = 0; i < 5; i++)
        assert_false(answers_turn(f->answers, f->now_ms += 1000, NOW));
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORING);
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    turn_at(f, NOW);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
}

/* A descriptor of len bytes with these seals. */
static int memfd_of(size_t len, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_int_not_equal(fd, -1);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void given_descriptor_that_is_no_sealed_answer_when_taken_then_refused(void **state)
{
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    struct fixture *f = *state;
    const struct {
        int fd;
        uint32_t length;
        uint16_t status, type;
    } cases[] = {
        {memfd_of(100, F_SEAL_SHRINK | F_SEAL_GROW), 100, 200, ANSWER_JSON},
        {memfd_of(100, F_SEAL_WRITE | F_SEAL_GROW), 100, 200, ANSWER_JSON},
        {memfd_of(100, all), 99, 200, ANSWER_JSON},
        {memfd_of(100, all), 101, 200, ANSWER_JSON},
        {memfd_of(ANSWER_MAX_BYTES + 1, all), ANSWER_MAX_BYTES + 1, 200, ANSWER_JSON},
        {memfd_of(100, all), 100, 200, ANSWER_TYPES},
        {memfd_of(100, all), 100, 99, ANSWER_JSON},
        {memfd_of(100, all), 100, 600, ANSWER_JSON},
        {open(f->path, O_RDONLY | O_CLOEXEC), 0, 200, ANSWER_JSON},
        {dup(f->ends[0]), 0, 200, ANSWER_JSON},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct answer_packet packet = {
            .length = cases[i].length, .status = cases[i].status, .type = cases[i].type};

        assert_int_equal(answers_take(f->answers, &packet, cases[i].fd, 0), -EPROTO);
        close(cases[i].fd);
    }
    assert_false(answers_are_waiting(f->answers, 0));
}

static void
given_worker_without_a_writer_when_it_keeps_too_much_then_the_oldest_is_lost(void **state)
{
    struct fixture *f = *state;
    const size_t fit = HANDOVER_MAX_BYTES / ANSWER_MAX_BYTES;
    struct answer_packet packet;

    for (uint32_t n = 1; n <= fit + 2; n++) {
        hand_over(f, n, 'x', ANSWER_MAX_BYTES);
        close(receive(f, &packet)); /* never to be stored */
    }
    assert_int_equal(handover_count(f->handover), fit);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(f, 2, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(look(f, 3, NOW), IDEMPOTENCY_STORING);
    assert_int_equal(f->counters.answers_dropped_total, 2);
}

static void given_socket_that_is_full_when_sending_then_the_rest_waits(void **state)
{
    struct fixture *f = *state;
    char junk[4096] = {0};

    while (send(f->ends[0], junk, sizeof(junk), MSG_DONTWAIT) != -1)
        ;
    while (recv(f->ends[1], junk, sizeof(junk), MSG_DONTWAIT) != -1)
        if (handover_count(f->handover) == 0) {
            /* still full but for this one place: an answer each finds one, the next one none */
            hand_over(f, 1, 'x', 10);
        }
    assert_int_equal(handover_count(f->handover), 1);
    assert_false(handover_has_unsent(f->handover));
    while (send(f->ends[0], junk, sizeof(junk), MSG_DONTWAIT) != -1)
        ;
    handover_rewind(f->handover);
    assert_int_equal(handover_send(f->handover, f->ends[0]), -EAGAIN);
    assert_true(handover_has_unsent(f->handover));
}

/* By how much one turn makes the count smaller. */
static int64_t taken_in_a_turn(struct fixture *f, const char *what, int64_t now_at_ms)
{
    int64_t before = fixture_get(f->ledger, what);

    f->now_ms += 1000;
    assert_true(answers_turn(f->answers, f->now_ms, now_at_ms));
    return before - fixture_get(f->ledger, what);
}

static void given_large_answers_when_dropped_or_swept_then_few_in_a_turn(void **state)
{
    struct fixture *f = *state;
    int64_t size = ANSWER_MAX_BYTES / 2;
    int64_t dropped = 0, swept;

    f->config.answers_bytes = 1 << 30;
    for (uint32_t n = 1; n <= 20; n++)
        store(f, n, 'x', (size_t)size);
    f->config.answers_bytes = (uint64_t)(10 * size);
    while (dropped < 10) {
        int64_t count = taken_in_a_turn(f, "SELECT count(answer) FROM idempotency", NOW);

        assert_in_range(count, 1, 4); /* a megabyte */
        dropped += count;
    }
    assert_int_equal(dropped, 10);
    for (int64_t left = 20; left > 0; left -= swept) {
        swept = taken_in_a_turn(f, "SELECT count(*) FROM idempotency", NOW + 10 * TTL_MS);
        assert_in_range(swept, 1, 14); /* ten of them have no answer any more */
    }
}

static void given_many_rows_without_answer_when_dropped_then_looked_at_in_pieces(void **state)
{
    struct fixture *f = *state;
    int turns = 0;

    assert_int_equal(
        database_exec(ledger_db(f->ledger),
                      "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n <"
                      " 3000) INSERT INTO idempotency SELECT randomblob(16), randomblob(16),"
                      " randomblob(16), 1772366400000, NULL, NULL, NULL FROM c"),
        0);
    store(f, 1, 'x', 1000);
    store(f, 2, 'y', 1000);
    f->config.answers_bytes = 1500;
    while (look(f, 1, NOW) == IDEMPOTENCY_STORED) {
        f->now_ms += 1000;
        (void)answers_turn(f->answers, f->now_ms, NOW);
        turns++;
        assert_in_range(turns, 1, 10);
    }
    assert_in_range(turns, 5, 7);
    assert_int_equal(look(f, 2, NOW), IDEMPOTENCY_STORED);
    f->config.answers_bytes = 0; /* it goes on where it was */
    turn_at(f, NOW);
    assert_int_equal(look(f, 2, NOW), IDEMPOTENCY_UNAVAILABLE);
}

static void given_answer_that_ended_earlier_when_too_much_then_found_in_the_next_round(void **state)
{
    struct fixture *f = *state;

    f->config.answers_bytes = 0;
    store(f, 5, 'x', 100);
    assert_int_equal(look(f, 5, NOW), IDEMPOTENCY_UNAVAILABLE);
    store(f, 4, 'x', 100);
    turn_at(f, NOW);
    assert_int_equal(look(f, 4, NOW), IDEMPOTENCY_UNAVAILABLE);
    assert_int_equal(fixture_get(f->ledger, "SELECT count(answer) FROM idempotency"), 0);
}

static void given_database_that_was_taken_away_when_stored_then_kept_and_stored_later(void **state)
{
    struct fixture *f = *state;
    char away[sizeof(f->path) + 8];

    hand_over(f, 1, 'x', 100);
    assert_int_equal(take_all(f), 1);
    snprintf(away, sizeof(away), "%s.away", f->path);
    assert_int_equal(rename(f->path, away), 0);
    f->now_ms += 1000;
    assert_false(answers_turn(f->answers, f->now_ms, NOW));
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORING);
    assert_int_equal(rename(away, f->path), 0);
    assert_int_equal(ledger_reopen(f->ledger), 0);
    turn_at(f, NOW);
    assert_int_equal(look(f, 1, NOW), IDEMPOTENCY_STORED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_event_with_key_when_committed_then_row_and_entry),
        TEST(given_event_without_use_when_committed_then_forgotten),
        TEST(given_answer_when_taken_then_durable_and_then_stored),
        TEST(given_answer_before_its_event_when_both_come_then_one_row_with_it),
        TEST(given_empty_and_largest_answers_when_stored_then_they_come_back_whole),
        TEST(given_writer_that_died_when_another_loads_then_answers_are_known),
        TEST(given_answer_that_was_never_acked_when_connected_again_then_sent_again),
        TEST(given_same_answer_twice_when_stored_then_counted_once),
        TEST(given_too_many_bytes_when_stored_then_the_oldest_are_dropped),
        TEST(given_rows_whose_time_is_over_when_swept_then_gone_and_free),
        TEST(given_key_whose_time_is_over_when_used_again_then_the_newer_row_counts),
        TEST(given_database_that_is_locked_when_stored_then_kept_and_stored_later),
        TEST(given_large_answers_when_dropped_or_swept_then_few_in_a_turn),
        TEST(given_many_rows_without_answer_when_dropped_then_looked_at_in_pieces),
        TEST(given_answer_that_ended_earlier_when_too_much_then_found_in_the_next_round),
        TEST(given_database_that_was_taken_away_when_stored_then_kept_and_stored_later),
        TEST(given_descriptor_that_is_no_sealed_answer_when_taken_then_refused),
        TEST(given_worker_without_a_writer_when_it_keeps_too_much_then_the_oldest_is_lost),
        TEST(given_socket_that_is_full_when_sending_then_the_rest_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
