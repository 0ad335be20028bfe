#include "tests/unit/ledger_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/config.h"
#include "common/log.h"
#include "tests/unit/forked.h"
#include "usage/receiver.h"
#include "usage/sender.h"

#define SLOTS 2
#define SLOT 1
#define RING_BYTES (64 * 1024)
#define CAPACITY 64
#define TTL_MS 60000
#define TURNS 400

static const uint8_t start_id[SHM_START_ID_BYTES] = "0123456789abcde";

struct fixture {
    char dir[64], database[128], usage_sock[128], dead_letters[128];
    struct config config;
    struct counters counters;
    struct loop *loop;
    struct outbox_region *outbox;
    struct idempotency_region *table;
    struct ledger *ledger;
    struct group *group;
    struct answers *answers;
    struct receiver *receiver;
    struct handover *handover;
    struct usage_sender *sender;
    int64_t now_at_ms;
};

static void open_receiver(struct fixture *f)
{
    const struct receiver_setup setup = {.loop = f->loop,
                                         .path = f->usage_sock,
                                         .outbox = f->outbox,
                                         .group = f->group,
                                         .start_id = start_id,
                                         .answers = f->answers};

    assert_int_equal(receiver_open(&setup, &f->receiver), 0);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct answers_setup answers;
    struct group_setup group;
    char why[DATABASE_WHY_BYTES];

    memset(&f, 0, sizeof(f));
    log_init("test", -1, LOG_ERROR + 1);
    fixture_make_dir(f.dir);
    snprintf(f.database, sizeof(f.database), "%s/xrouter.db", f.dir);
    snprintf(f.usage_sock, sizeof(f.usage_sock), "%s/usage.sock", f.dir);
    snprintf(f.dead_letters, sizeof(f.dead_letters), "%s/dead-letters.jsonl", f.dir);
    f.config.answer_ttl_ms = TTL_MS;
    f.config.answers_bytes = 1 << 20;
    f.now_at_ms = FIXTURE_AT_MS;
    f.loop = loop_new();
    assert_non_null(f.loop);
    f.outbox = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(f.outbox, SLOTS, RING_BYTES);
    f.table = forked_memory(idempotency_region_spec(CAPACITY).bytes);
    idempotency_region_init(f.table, CAPACITY);
    assert_int_equal(ledger_open(f.database, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    group = (struct group_setup){f.ledger, f.outbox, &f.counters, f.dead_letters};
    f.group = group_new(&group);
    answers = (struct answers_setup){f.ledger, f.table, &f.counters, &f.config};
    f.answers = answers_new(&answers);
    assert_non_null(f.group);
    assert_non_null(f.answers);
    open_receiver(&f);
    f.handover = handover_new(f.table, &f.counters, SLOT, start_id);
    f.sender = usage_sender_new(f.loop, f.usage_sock, outbox_slot(f.outbox, SLOT), SLOT, start_id);
    assert_non_null(f.handover);
    assert_non_null(f.sender);
    usage_sender_set_handover(f.sender, f.handover);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    usage_sender_free(f->sender);
    handover_free(f->handover);
    receiver_close(f->receiver);
    group_free(f->group);
    answers_free(f->answers);
    ledger_close(f->ledger);
    loop_free(f->loop);
    munmap(f->table, idempotency_region_spec(CAPACITY).bytes);
    munmap(f->outbox, outbox_region_spec(SLOTS, RING_BYTES).bytes);
    fixture_remove_dir(f->dir);
    return 0;
}

/* Of both processes. */
static void turn(struct fixture *f)
{
    assert_true(loop_turn(f->loop, 2) >= 0);
    if (f->receiver != NULL && receiver_ready_ms(f->receiver) != -1)
        receiver_drain(f->receiver);
    if (f->receiver != NULL)
        (void)answers_turn(f->answers, loop_now_ms(f->loop), f->now_at_ms);
    usage_sender_flush(f->sender);
}

#define WAIT_FOR(f, condition)                     \
    do {                                           \
        int left = TURNS;                          \
        while (!(condition)) {                     \
            if (left-- == 0)                       \
                fail_msg("never: %s", #condition); \
            turn(f);                               \
        }                                          \
    } while (0)

static struct idempotency_key key_number(uint8_t n)
{
    struct idempotency_key key;

    memset(&key, n, sizeof(key));
    return key;
}

static enum idempotency_state look(struct fixture *f, uint8_t n)
{
    const struct idempotency_key key = key_number(n);

    return idempotency_look(f->table, &key, f->now_at_ms);
}

static void hand_over(struct fixture *f, uint8_t n)
{
    const struct usage_event e = fixture_event(n);
    const struct handover_answer answer = {.key = key_number(n),
                                           .id = e.id,
                                           .ended_at_ms = e.created_at_ms,
                                           .status = 200,
                                           .type = ANSWER_JSON};
    struct idempotency_claim claim;
    struct buf body;

    assert_int_equal(
        idempotency_claim(f->table, &answer.key, SLOT, &answer.id, f->now_at_ms, &claim),
        IDEMPOTENCY_CLAIMED);
    idempotency_begin_storing(f->table, &claim, f->now_at_ms + TTL_MS);
    buf_init(&body, ANSWER_MAX_BYTES);
    buf_str(&body, "{}");
    handover_add(f->handover, &answer, &body);
}

static void given_answers_and_events_when_sent_together_then_both_arrive(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->outbox, SLOT);

    for (uint8_t n = 1; n <= 20; n++) {
        const struct usage_event e = fixture_event(n);

        assert_true(outbox_reserve(ob));
        outbox_append(ob, &e);
        hand_over(f, n);
    }
    WAIT_FOR(f, group_records(f->group) == 20 && f->counters.answers_stored_total == 20);
    for (uint8_t n = 1; n <= 20; n++)
        assert_int_equal(look(f, n), IDEMPOTENCY_STORED);
    handover_tidy(f->handover);
    assert_int_equal(handover_count(f->handover), 0);
}

static void given_writer_that_comes_back_when_answers_wait_then_they_are_sent(void **state)
{
    struct fixture *f = *state;

    receiver_close(f->receiver);
    f->receiver = NULL;
    hand_over(f, 1);
    for (int i = 0; i < 20; i++)
        turn(f);
    assert_int_equal(look(f, 1), IDEMPOTENCY_STORING);
    open_receiver(f);
    WAIT_FOR(f, look(f, 1) == IDEMPOTENCY_STORED);
}

/* ---- strangers ---- */

static int connect_to(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_int_not_equal(fd, -1);
    strcpy(address.sun_path, f->usage_sock);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_with_fds(int socket, const void *data, size_t len, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct cmsghdr *cmsg;

    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&message);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
    }
    assert_int_equal(sendmsg(socket, &message, MSG_NOSIGNAL), len);
}

static size_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count;
}

static bool is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
}

static void
given_packets_with_foreign_descriptors_when_received_then_closed_and_none_leaks(void **state)
{
    struct fixture *f = *state;
    const int plain = open("/dev/null", O_RDWR | O_CLOEXEC);
    int sealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const struct answer_packet good = {.magic = ANSWER_PACKET_MAGIC,
                                       .version = ANSWER_PACKET_VERSION,
                                       .slot = SLOT,
                                       .start_id = "0123456789abcde",
                                       .status = 200};
    struct answer_packet cases[6] = {good, good, good, good, good, good};
    const struct outbox_packet records = {.magic = OUTBOX_PACKET_MAGIC,
                                          .version = OUTBOX_PACKET_VERSION,
                                          .slot = SLOT,
                                          .start_id = "0123456789abcde"};
    size_t before;

    assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
    cases[0].magic++;
    cases[1].version++;
    cases[2].slot = SLOTS;
    cases[3].start_id[0]++;
    cases[4].length = 1; /* the descriptor has none */
    cases[5].status = 7;
    turn(f);
    before = open_descriptors();
    for (size_t i = 0; i < 11; i++) {
        const int fds[] = {sealed, plain, plain};
        int fd = connect_to(f);

        if (i < 6)
            send_with_fds(fd, &cases[i], sizeof(cases[i]), fds, 1);
        else if (i == 6) /* three descriptors */
            send_with_fds(fd, &good, sizeof(good), fds, 3);
        else if (i == 10) /* two */
            send_with_fds(fd, &good, sizeof(good), fds, 2);
        else if (i == 7) /* none */
            send_with_fds(fd, &good, sizeof(good), NULL, 0);
        else if (i == 8) /* too short */
            send_with_fds(fd, &good, sizeof(good) - 1, fds, 1);
        else /* records need none */
            send_with_fds(fd, &records, sizeof(records), fds, 1);
        WAIT_FOR(f, is_closed(fd));
        close(fd);
        assert_int_equal(open_descriptors(), before);
    }
    assert_int_equal(f->counters.answers_stored_total, 0);
    assert_true(group_is_empty(f->group));
    close(sealed);
    close(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_answers_and_events_when_sent_together_then_both_arrive),
        TEST(given_writer_that_comes_back_when_answers_wait_then_they_are_sent),
        TEST(given_packets_with_foreign_descriptors_when_received_then_closed_and_none_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
