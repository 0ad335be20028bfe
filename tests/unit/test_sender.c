#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "common/log.h"
#include "tests/unit/forked.h"
#include "usage/sender.h"

#define RING_BYTES ((size_t)1024 * 1024)
#define SLOT 5
#define PACKET_LIMIT (16 * 1024)
#define DEADLINE_MS 5000

static const uint8_t start_id[SHM_START_ID_BYTES] = "0123456789abcde";

struct fixture {
    char dir[32];
    char path[64];
    struct loop *loop;
    struct outbox_region *region;
    struct outbox *ob;
    struct usage_sender *sender;
    int listener, peer; /* the writer's side */
    uint64_t next_key;  /* of the next event appended */
    uint64_t received;  /* key of the next event expected */
    size_t packets;
    struct outbox_packet last;
};

static void start_writer(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    unlink(f->path);
    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_not_equal(f->listener, -1);
    strcpy(address.sun_path, f->path);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(f->listener, 8), 0);
}

static void close_fd(int *fd)
{
    if (*fd != -1)
        close(*fd);
    *fd = -1;
}

static void stop_writer(struct fixture *f)
{
    close_fd(&f->peer);
    close_fd(&f->listener);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_sender.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/usage.sock", f->dir);
    f->listener = f->peer = -1;
    f->loop = loop_new();
    assert_non_null(f->loop);
    f->region = forked_memory(outbox_region_spec(1, RING_BYTES).bytes);
    outbox_region_init(f->region, 1, RING_BYTES);
    f->ob = outbox_slot(f->region, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    usage_sender_free(f->sender);
    stop_writer(f);
    loop_free(f->loop);
    munmap(f->region, outbox_region_spec(1, RING_BYTES).bytes);
    unlink(f->path);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void start_sender(struct fixture *f)
{
    f->sender = usage_sender_new(f->loop, f->path, f->ob, SLOT, start_id);
    assert_non_null(f->sender);
}

static void append(struct fixture *f, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct usage_event e = {.key_id = f->next_key++};

        assert_true(outbox_reserve(f->ob));
        outbox_append(f->ob, &e);
    }
}

/* As the worker's turn. */
static void turn(struct fixture *f)
{
    assert_true(loop_turn(f->loop, 5) >= 0);
    usage_sender_flush(f->sender);
}

/* Takes one packet if there is one; its events must be the next ones expected. */
static bool receive(struct fixture *f)
{
    static uint8_t packet[OUTBOX_PACKET_MAX];
    size_t at = sizeof(struct outbox_packet);
    ssize_t n;

    if (f->peer == -1)
        f->peer = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (f->peer == -1)
        return false;
    n = recv(f->peer, packet, sizeof(packet), 0);
    if (n <= 0)
        return false;
    assert_in_range(n, sizeof(struct outbox_packet), PACKET_LIMIT);
    memcpy(&f->last, packet, sizeof(f->last));
    assert_int_equal(f->last.magic, OUTBOX_PACKET_MAGIC);
    assert_int_equal(f->last.version, OUTBOX_PACKET_VERSION);
    assert_int_equal(f->last.slot, SLOT);
    assert_memory_equal(f->last.start_id, start_id, sizeof(start_id));
    while (at < (size_t)n) {
        struct usage_event e;
        size_t used;

        assert_int_equal(usage_event_decode(packet + at, (size_t)n - at, &e, &used), 0);
        assert_int_equal(e.key_id, f->received);
        f->received++;
        at += used;
    }
    f->packets++;
    return true;
}

/* Turns until everything appended has been received. */
static void receive_all(struct fixture *f)
{
    int64_t until = clock_monotonic_ms() + DEADLINE_MS;

    while (f->received < f->next_key) {
        assert_true(clock_monotonic_ms() < until);
        turn(f);
        while (receive(f))
            ;
    }
}

static void given_events_when_flushed_then_they_arrive_with_the_position_to_ack(void **state)
{
    struct fixture *f = *state;

    start_writer(f);
    start_sender(f);
    append(f, 3);
    assert_false(usage_sender_is_drained(f->sender));
    usage_sender_flush(f->sender);
    assert_true(receive(f));
    assert_int_equal(f->received, 3);
    assert_int_equal(f->last.next, outbox_head(f->ob));
    assert_false(usage_sender_is_drained(f->sender));
    outbox_set_committed(f->ob, f->last.next);
    assert_true(usage_sender_is_drained(f->sender));
}

static void given_events_that_were_sent_when_flushed_again_then_not_sent_again(void **state)
{
    struct fixture *f = *state;

    start_writer(f);
    start_sender(f);
    append(f, 3);
    receive_all(f);
    for (int i = 0; i < 5; i++)
        turn(f);
    assert_false(receive(f));
}

static void given_many_events_in_a_turn_when_flushed_then_few_packets(void **state)
{
    struct fixture *f = *state;

    start_writer(f);
    start_sender(f);
    append(f, 500);
    usage_sender_flush(f->sender);
    while (receive(f))
        ;
    assert_int_equal(f->received, 500);
    assert_in_range(f->packets, outbox_head(f->ob) / PACKET_LIMIT + 1,
                    outbox_head(f->ob) / PACKET_LIMIT + 2);
}

static void given_an_event_each_turn_when_turns_are_short_then_packets_are_shared(void **state)
{
    struct fixture *f = *state;
    int64_t started_ms;

    start_writer(f);
    start_sender(f);
    started_ms = clock_monotonic_ms();
    for (int i = 0; i < 1000; i++) {
        append(f, 1);
        assert_true(loop_turn(f->loop, 0) >= 0);
        usage_sender_flush(f->sender);
    }
    receive_all(f);
    assert_true(f->packets <= (size_t)(clock_monotonic_ms() - started_ms) / 2 + 50);
    assert_true(f->packets < 500);
}

static void given_no_writer_when_it_starts_later_then_all_arrives(void **state)
{
    struct fixture *f = *state;

    start_sender(f);
    append(f, 10);
    for (int i = 0; i < 10; i++)
        turn(f);
    start_writer(f);
    receive_all(f);
}

static void given_writer_that_died_when_a_new_one_starts_then_sent_again_from_the_tail(void **state)
{
    struct fixture *f = *state;

    start_writer(f);
    start_sender(f);
    append(f, 10);
    receive_all(f);
    outbox_set_committed(f->ob, f->last.next);
    append(f, 10);
    receive_all(f); /* received, never committed */
    stop_writer(f);
    append(f, 10);
    for (int i = 0; i < 3; i++)
        turn(f);
    start_writer(f);
    f->received = 10;
    receive_all(f);
    assert_int_equal(f->received, 30);
    assert_int_equal(f->last.next, outbox_head(f->ob));
}

static void
given_writer_that_does_not_read_when_flushed_then_never_blocked_and_nothing_lost(void **state)
{
    struct fixture *f = *state;
    int64_t started_ms = clock_monotonic_ms();

    start_writer(f);
    start_sender(f);
    append(f, 3000);
    for (int i = 0; i < 20; i++)
        turn(f);
    assert_true(clock_monotonic_ms() - started_ms < 1000);
    receive_all(f);
}

static void given_full_socket_when_the_loop_turns_then_it_does_not_spin(void **state)
{
    struct fixture *f = *state;

    start_writer(f);
    start_sender(f);
    append(f, 3000);
    usage_sender_flush(f->sender);
    turn(f);
    for (int i = 0; i < 10; i++)
        assert_int_equal(loop_turn(f->loop, 0), 0);
}

static void given_events_that_were_spooled_when_connected_then_not_sent(void **state)
{
    struct fixture *f = *state;

    start_sender(f);
    append(f, 10);
    outbox_set_spooled(f->ob, outbox_head(f->ob));
    assert_true(usage_sender_is_drained(f->sender));
    start_writer(f);
    append(f, 2);
    f->received = 10;
    receive_all(f);
    assert_int_equal(f->received, 12);
}

static void given_path_too_long_for_a_socket_when_made_then_refused(void **state)
{
    struct fixture *f = *state;
    char path[200];

    memset(path, 'p', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_null(usage_sender_new(f->loop, path, f->ob, SLOT, start_id));
    assert_int_equal(errno, ENAMETOOLONG);
}

static int open_log(void **state)
{
    int fd = open("/dev/null", O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    log_to(fd, fd);
    return fd == -1 ? -1 : 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_events_when_flushed_then_they_arrive_with_the_position_to_ack),
        T(given_events_that_were_sent_when_flushed_again_then_not_sent_again),
        T(given_many_events_in_a_turn_when_flushed_then_few_packets),
        T(given_an_event_each_turn_when_turns_are_short_then_packets_are_shared),
        T(given_no_writer_when_it_starts_later_then_all_arrives),
        T(given_writer_that_died_when_a_new_one_starts_then_sent_again_from_the_tail),
        T(given_writer_that_does_not_read_when_flushed_then_never_blocked_and_nothing_lost),
        T(given_full_socket_when_the_loop_turns_then_it_does_not_spin),
        T(given_events_that_were_spooled_when_connected_then_not_sent),
        T(given_path_too_long_for_a_socket_when_made_then_refused),
    };

    return cmocka_run_group_tests(tests, open_log, NULL);
}
