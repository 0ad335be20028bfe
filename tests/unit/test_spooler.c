#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/spooler.h"
#include "usage/spool.h"

#define SLOTS 2
#define RING_BYTES 65536
#define WAIT_MS 10000

struct fixture {
    char dir[40], spool[64];
    struct outbox_region *rings;
    struct spooler *spooler;
    size_t records;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    size_t bytes = (outbox_region_spec(SLOTS, RING_BYTES).bytes + 4095) & ~(size_t)4095;

    log_to(-1, -1);
    strcpy(f->dir, "/tmp/test_spooler.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->spool, sizeof(f->spool), "%s/spool", f->dir);
    f->rings = aligned_alloc(4096, bytes);
    memset(f->rings, 0, bytes);
    outbox_region_init(f->rings, SLOTS, RING_BYTES);
    f->spooler = spooler_new(f->spool, f->rings);
    assert_non_null(f->spooler);
    *state = f;
    return 0;
}

static void finish(struct fixture *f)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;

    spooler_finish(f->spooler);
    while (!spooler_is_done(f->spooler) && clock_monotonic_ms() < until_ms)
        usleep(1000);
    assert_true(spooler_is_done(f->spooler));
}

static int count_record(void *arg, const uint8_t *record, size_t len)
{
    ((struct fixture *)arg)->records++;
    return 0;
}

static int remove_file(void *arg, const char *path)
{
    return unlink(path);
}

static void refuse(void *arg, const char *path, const char *reason)
{
    fail_msg("%s: %s", path, reason);
}

static size_t take_spooled(struct fixture *f)
{
    const struct spool_visitor visitor = {count_record, remove_file, refuse, f};

    f->records = 0;
    assert_int_equal(spool_scan(f->spool, &visitor), 0);
    return f->records;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (!spooler_is_done(f->spooler))
        finish(f);
    (void)take_spooled(f);
    spooler_free(f->spooler);
    rmdir(f->spool);
    rmdir(f->dir);
    free(f->rings);
    free(f);
    return 0;
}

static size_t fill(struct fixture *f, size_t slot, unsigned percent)
{
    static const struct usage_event event;
    struct outbox *ob = outbox_slot(f->rings, slot);
    size_t count = 0;

    for (; outbox_fill_percent(ob) <= percent; count++) {
        assert_true(outbox_reserve(ob));
        outbox_append(ob, &event);
    }
    return count;
}

static void given_ring_over_half_full_when_nobody_commits_then_spooled(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->rings, 1);
    size_t count = fill(f, 1, SPOOLER_FILL_PERCENT);
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;

    while (outbox_tail(ob) < outbox_head(ob) && clock_monotonic_ms() < until_ms)
        usleep(1000);
    assert_true(outbox_tail(ob) == outbox_head(ob));
    assert_int_equal(take_spooled(f), count);
}

static void given_ring_with_no_room_to_reserve_when_nobody_commits_then_spooled(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->rings, 1);
    size_t count = fill(f, 1, SPOOLER_FILL_PERCENT - 10);
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;

    while (outbox_reserve(ob))
        ;
    while (!outbox_reserve(ob) && clock_monotonic_ms() < until_ms)
        usleep(1000);
    assert_true(outbox_tail(ob) == outbox_head(ob));
    assert_int_equal(take_spooled(f), count);
}

static void
given_ring_under_half_when_looked_at_then_left_to_the_writer_until_the_stop(void **state)
{
    struct fixture *f = *state;
    struct outbox *ob = outbox_slot(f->rings, 0);
    size_t count = fill(f, 0, 20);

    usleep((3 * SPOOLER_LOOK_MS + 50) * 1000);
    assert_int_equal(outbox_tail(ob), 0);
    finish(f);
    assert_true(outbox_tail(ob) == outbox_head(ob));
    assert_int_equal(take_spooled(f), count);
}

static void given_empty_rings_when_finished_then_nothing_is_written(void **state)
{
    struct fixture *f = *state;

    finish(f);
    assert_int_equal(access(f->spool, F_OK), -1);
}

int main(void)
{
#define SPOOLER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        SPOOLER_TEST(given_ring_over_half_full_when_nobody_commits_then_spooled),
        SPOOLER_TEST(given_ring_with_no_room_to_reserve_when_nobody_commits_then_spooled),
        SPOOLER_TEST(given_ring_under_half_when_looked_at_then_left_to_the_writer_until_the_stop),
        SPOOLER_TEST(given_empty_rings_when_finished_then_nothing_is_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
