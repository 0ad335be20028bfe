#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/forked.h"
#include "usage/outbox.h"

#define RING_BYTES ((size_t)40 * USAGE_EVENT_MAX)
#define STRESS_MS 1500

struct fixture {
    struct outbox_region *region;
    struct outbox *ob;
    uint8_t out[64 * 1024];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct shm_region_spec spec = outbox_region_spec(2, RING_BYTES);

    f->region = aligned_alloc(4096, (spec.bytes + 4095) / 4096 * 4096);
    memset(f->region, 0, spec.bytes);
    outbox_region_init(f->region, 2, RING_BYTES);
    f->ob = outbox_slot(f->region, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->region);
    free(f);
    return 0;
}

/* An event that can be told from others and whose size varies with its number. */
static struct usage_event numbered_event(uint64_t number)
{
    struct usage_event e = {.key_id = number, .tokens_input = (int64_t)number * 3};

    e.attempt_count = (uint8_t)(number % (USAGE_ATTEMPTS_MAX + 1));
    snprintf(e.model, sizeof(e.model), "%.*s", (int)(number % 90),
             "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm"
             "mmmmm");
    for (size_t i = 0; i < e.attempt_count; i++) {
        e.attempts[i].tokens_output = (int64_t)(number + i);
        strcpy(e.attempts[i].provider, "provider");
    }
    return e;
}

static struct usage_event largest_event(void)
{
    struct usage_event e = {.attempt_count = USAGE_ATTEMPTS_MAX};

    memset(e.provider, 'p', USAGE_NAME_BYTES - 1);
    memset(e.model, 'm', USAGE_NAME_BYTES - 1);
    for (size_t i = 0; i < USAGE_ATTEMPTS_MAX; i++) {
        memset(e.attempts[i].provider, 'p', USAGE_NAME_BYTES - 1);
        memset(e.attempts[i].model, 'm', USAGE_NAME_BYTES - 1);
    }
    return e;
}

static void append(struct outbox *ob, const struct usage_event *e)
{
    assert_true(outbox_reserve(ob));
    outbox_append(ob, e);
}

/* Checks that the bytes are events numbered from *number on; moves it on. */
static void assert_numbered(const uint8_t *data, size_t len, uint64_t *number)
{
    for (size_t at = 0; at < len;) {
        struct usage_event got, expected = numbered_event(*number);
        size_t used;

        assert_int_equal(usage_event_decode(data + at, len - at, &got, &used), 0);
        assert_memory_equal(&got, &expected, sizeof(got));
        at += used;
        (*number)++;
    }
}

static void given_new_ring_when_looked_at_then_empty_and_sane(void **state)
{
    struct fixture *f = *state;
    uint64_t next;

    assert_int_equal(outbox_slot_count(f->region), 2);
    assert_int_equal(outbox_capacity(f->ob), RING_BYTES);
    assert_true(outbox_is_sane(f->ob));
    assert_int_equal(outbox_head(f->ob), 0);
    assert_int_equal(outbox_fill_percent(f->ob), 0);
    assert_int_equal(outbox_read(f->ob, 0, f->out, sizeof(f->out), &next), 0);
    assert_int_equal(next, 0);
}

static void given_tiny_ring_wanted_when_made_then_sixteen_events_fit(void **state)
{
    struct shm_region_spec spec = outbox_region_spec(1, 13);
    struct outbox_region *r = aligned_alloc(4096, (spec.bytes + 4095) / 4096 * 4096);

    memset(r, 0, spec.bytes);
    outbox_region_init(r, 1, 13);
    assert_int_equal(outbox_capacity(outbox_slot(r, 0)), 16 * USAGE_EVENT_MAX);
    free(r);
}

static void given_events_when_appended_then_read_back_in_order(void **state)
{
    struct fixture *f = *state;
    uint64_t next, number = 0;
    ssize_t n;

    for (uint64_t i = 0; i < 20; i++) {
        struct usage_event e = numbered_event(i);

        append(f->ob, &e);
    }
    n = outbox_read(f->ob, 0, f->out, sizeof(f->out), &next);
    assert_true(n > 0);
    assert_numbered(f->out, (size_t)n, &number);
    assert_int_equal(number, 20);
    assert_int_equal(next, outbox_head(f->ob));
    assert_int_equal(outbox_head(outbox_slot(f->region, 0)), 0); /* the neighbour */
}

static void given_small_buffer_when_read_then_only_whole_records_come(void **state)
{
    struct fixture *f = *state;
    uint64_t at = 0, number = 0;

    for (uint64_t i = 0; i < 20; i++) {
        struct usage_event e = numbered_event(i);

        append(f->ob, &e);
    }
    while (at < outbox_head(f->ob)) {
        uint64_t next;
        ssize_t n = outbox_read(f->ob, at, f->out, USAGE_EVENT_MAX, &next);

        assert_in_range(n, 1, USAGE_EVENT_MAX);
        assert_true(next > at);
        assert_numbered(f->out, (size_t)n, &number);
        at = next;
    }
    assert_int_equal(number, 20);
}

static void given_many_laps_when_drained_in_pieces_then_nothing_is_lost_or_doubled(void **state)
{
    struct fixture *f = *state;
    uint64_t written = 0, number = 0, at = 0;

    while (written < 20000) {
        for (uint64_t burst = written % 13; burst > 0 && outbox_reserve(f->ob); burst--) {
            struct usage_event e = numbered_event(written++);

            outbox_append(f->ob, &e);
            assert_true(outbox_is_sane(f->ob));
        }
        if (written % 13 == 0) {
            struct usage_event e = numbered_event(written++);

            append(f->ob, &e);
        }
        while (outbox_fill_percent(f->ob) > written % 60) {
            ssize_t n = outbox_read(f->ob, at, f->out, 4 * USAGE_EVENT_MAX, &at);

            assert_true(n > 0);
            assert_numbered(f->out, (size_t)n, &number);
            if (written % 2 == 0)
                outbox_set_committed(f->ob, at);
            else
                outbox_set_spooled(f->ob, at);
            assert_int_equal(outbox_tail(f->ob), at);
        }
    }
    assert_true(outbox_head(f->ob) > 50 * outbox_capacity(f->ob));
}

static void
given_all_reservations_when_all_events_are_largest_then_room_for_them_and_a_spare(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = largest_event();

    /* From every place in the ring, the wrap included. */
    for (int round = 0; round < 300; round++) {
        struct usage_event small = numbered_event((uint64_t)round);
        size_t reserved = 0;

        append(f->ob, &small);
        outbox_set_committed(f->ob, outbox_head(f->ob));
        while (outbox_reserve(f->ob))
            reserved++;
        assert_in_range(reserved, RING_BYTES / USAGE_EVENT_MAX - 2,
                        RING_BYTES / USAGE_EVENT_MAX - 1);
        for (size_t i = 0; i < reserved; i++)
            outbox_append(f->ob, &e);
        assert_true(outbox_has_room(f->ob));
        outbox_append(f->ob, &e); /* what the reaper may have to add */
        assert_true(outbox_is_sane(f->ob));
        assert_false(outbox_reserve(f->ob));
        outbox_set_spooled(f->ob, outbox_head(f->ob));
    }
}

static void given_full_ring_when_a_reservation_is_given_back_then_one_more_fits(void **state)
{
    struct fixture *f = *state;

    while (outbox_reserve(f->ob))
        ;
    outbox_release(f->ob);
    assert_true(outbox_reserve(f->ob));
    assert_false(outbox_reserve(f->ob));
    outbox_reset_reservations(f->ob);
    assert_true(outbox_reserve(f->ob));
}

static void given_cursors_when_moved_back_or_past_the_head_then_ignored(void **state)
{
    struct fixture *f = *state;
    struct usage_event e = numbered_event(1);
    uint64_t first;

    append(f->ob, &e);
    first = outbox_head(f->ob);
    append(f->ob, &e);
    outbox_set_committed(f->ob, first);
    assert_int_equal(outbox_committed(f->ob), first);
    outbox_set_committed(f->ob, 0);
    outbox_set_committed(f->ob, outbox_head(f->ob) + 8);
    assert_int_equal(outbox_committed(f->ob), first);
    outbox_set_spooled(f->ob, outbox_head(f->ob));
    assert_int_equal(outbox_committed(f->ob), first);
    assert_int_equal(outbox_tail(f->ob), outbox_head(f->ob));
}

static void given_reader_behind_the_tail_when_it_reads_then_from_the_tail_on(void **state)
{
    struct fixture *f = *state;
    uint64_t next, number = 1;
    ssize_t n;

    for (uint64_t i = 0; i < 3; i++) {
        struct usage_event e = numbered_event(i);

        append(f->ob, &e);
        if (i == 0)
            outbox_set_spooled(f->ob, outbox_head(f->ob));
    }
    n = outbox_read(f->ob, 0, f->out, sizeof(f->out), &next);
    assert_numbered(f->out, (size_t)n, &number);
    assert_int_equal(number, 3);
}

/* Overwrites the framing of the record at position (under one lap). */
static void damage(struct fixture *f, uint64_t position)
{
    char *ring = (char *)f->ob;
    uint8_t record[USAGE_EVENT_MAX];
    struct usage_event first = numbered_event(0);
    size_t len = usage_event_encode(&first, record);

    while (memcmp(ring, record, len) != 0)
        ring += 8;
    memset(ring + position, 0xa5, 8);
}

static void given_record_without_sense_when_read_then_it_ends_the_copy(void **state)
{
    struct fixture *f = *state;
    uint64_t second = 0, next, number = 0;
    ssize_t n;

    for (uint64_t i = 0; i < 3; i++) {
        struct usage_event e = numbered_event(i);

        append(f->ob, &e);
        if (i == 0)
            second = outbox_head(f->ob);
    }
    damage(f, second);
    n = outbox_read(f->ob, 0, f->out, sizeof(f->out), &next);
    assert_numbered(f->out, (size_t)n, &number);
    assert_int_equal(number, 1);
    assert_int_equal(next, second);
    assert_int_equal(outbox_read(f->ob, next, f->out, sizeof(f->out), &next), -EBADMSG);
    assert_int_equal(next, outbox_head(f->ob));
}

static void given_owner_when_set_then_told(void **state)
{
    struct fixture *f = *state;

    outbox_set_owner(f->ob, 4711);
    assert_int_equal(outbox_owner(f->ob), 4711);
    outbox_set_owner(f->ob, 0);
    assert_int_equal(outbox_owner(f->ob), 0);
}

static void given_ring_in_shared_memory_when_attached_then_found(void **state)
{
    const struct shm_region_spec spec = outbox_region_spec(3, RING_BYTES);
    const uint8_t start_id[SHM_START_ID_BYTES] = "start";
    char name[SHM_NAME_BYTES];
    struct shm *shm;

    snprintf(name, sizeof(name), "/xrouter-test-outbox-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    assert_null(outbox_region_get(shm)); /* not filled in yet */
    outbox_region_init(shm_region(shm, OUTBOX_REGION, spec.layout, NULL), 3, RING_BYTES);
    assert_non_null(outbox_region_get(shm));
    assert_int_equal(outbox_slot_count(outbox_region_get(shm)), 3);
    shm_close(shm);
    shm_unlink_name(name);
}

/* ---- a worker killed at random ---- */

struct stress {
    struct outbox *ob;
    _Atomic bool is_over;
    uint64_t next_number; /* of the worker's next event; its memory outlives it */
};

static int append_all_the_time(void *arg)
{
    struct stress *s = arg;

    outbox_reset_reservations(s->ob);
    while (!s->is_over) {
        struct usage_event e = numbered_event(s->next_number);

        if (!outbox_reserve(s->ob))
            continue;
        outbox_append(s->ob, &e);
        s->next_number++;
    }
    return 0;
}

/* Reads up to the head; every number must come, one at most twice: the event that was appended when
 * its worker died, before it counted it. */
static void drain(struct stress *s, uint8_t *out, size_t max, uint64_t *number)
{
    uint64_t at = outbox_tail(s->ob);
    ssize_t n;

    while ((n = outbox_read(s->ob, at, out, max, &at)) > 0) {
        for (size_t i = 0; i < (size_t)n;) {
            struct usage_event got, expected;
            size_t used;

            assert_int_equal(usage_event_decode(out + i, (size_t)n - i, &got, &used), 0);
            assert_true(got.key_id == *number || got.key_id + 1 == *number);
            expected = numbered_event(got.key_id);
            assert_memory_equal(&got, &expected, sizeof(got));
            *number = got.key_id + 1;
            i += used;
        }
        outbox_set_committed(s->ob, at);
    }
    assert_int_equal(n, 0);
}

static void given_worker_killed_at_random_when_ring_is_read_then_only_whole_records(void **state)
{
    struct fixture *f = *state;
    struct outbox_region *r = forked_memory(outbox_region_spec(1, RING_BYTES).bytes);
    struct stress *s = forked_memory(sizeof(*s));
    int64_t until = clock_monotonic_ms() + STRESS_MS;
    uint64_t number = 0;

    outbox_region_init(r, 1, RING_BYTES);
    s->ob = outbox_slot(r, 0);
    srand(1);
    while (clock_monotonic_ms() < until) {
        pid_t pid = forked_start(append_all_the_time, s);
        int64_t drained = clock_monotonic_us() + rand() % 2000;

        while (clock_monotonic_us() < drained)
            drain(s, f->out, sizeof(f->out), &number);
        forked_kill_soon(pid, 200);
        assert_true(outbox_is_sane(s->ob));
        drain(s, f->out, sizeof(f->out), &number);
    }
    assert_true(number > 1000);
    assert_true(number == s->next_number || number == s->next_number + 1);
}

/* Frees the whole ring whenever it is full, whoever reads. */
static int overtake_all_the_time(void *arg)
{
    struct stress *s = arg;

    while (!s->is_over) {
        struct usage_event e = numbered_event(s->next_number);

        if (!outbox_reserve(s->ob)) {
            outbox_set_spooled(s->ob, outbox_head(s->ob));
            continue;
        }
        outbox_append(s->ob, &e);
        s->next_number++;
    }
    return 0;
}

static void given_reader_that_is_overtaken_when_it_reads_then_never_a_torn_record(void **state)
{
    struct fixture *f = *state;
    struct outbox_region *r = forked_memory(outbox_region_spec(1, RING_BYTES).bytes);
    struct stress *s = forked_memory(sizeof(*s));
    int64_t until = clock_monotonic_ms() + STRESS_MS / 3;
    uint64_t at = 0, last = 0;
    pid_t pid;

    outbox_region_init(r, 1, RING_BYTES);
    s->ob = outbox_slot(r, 0);
    pid = forked_start(overtake_all_the_time, s);
    while (clock_monotonic_ms() < until) {
        ssize_t n = outbox_read(s->ob, at, f->out, sizeof(f->out), &at);

        assert_true(n >= 0);
        assert_true(outbox_is_sane(s->ob));
        assert_in_range(outbox_fill_percent(s->ob), 0, 100);
        for (size_t i = 0; i < (size_t)n;) {
            struct usage_event got;
            size_t used;

            assert_int_equal(usage_event_decode(f->out + i, (size_t)n - i, &got, &used), 0);
            assert_true(last == 0 || got.key_id > last);
            last = got.key_id;
            i += used;
        }
    }
    assert_true(last > 1000);
    s->is_over = true;
    assert_int_equal(forked_wait(pid), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(given_new_ring_when_looked_at_then_empty_and_sane, setup,
                                        teardown),
        cmocka_unit_test(given_tiny_ring_wanted_when_made_then_sixteen_events_fit),
        cmocka_unit_test_setup_teardown(given_events_when_appended_then_read_back_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(given_small_buffer_when_read_then_only_whole_records_come,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_many_laps_when_drained_in_pieces_then_nothing_is_lost_or_doubled, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            given_all_reservations_when_all_events_are_largest_then_room_for_them_and_a_spare,
            setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_full_ring_when_a_reservation_is_given_back_then_one_more_fits, setup, teardown),
        cmocka_unit_test_setup_teardown(given_cursors_when_moved_back_or_past_the_head_then_ignored,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            given_reader_behind_the_tail_when_it_reads_then_from_the_tail_on, setup, teardown),
        cmocka_unit_test_setup_teardown(given_record_without_sense_when_read_then_it_ends_the_copy,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(given_owner_when_set_then_told, setup, teardown),
        cmocka_unit_test(given_ring_in_shared_memory_when_attached_then_found),
        cmocka_unit_test_setup_teardown(
            given_worker_killed_at_random_when_ring_is_read_then_only_whole_records, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            given_reader_that_is_overtaken_when_it_reads_then_never_a_torn_record, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
