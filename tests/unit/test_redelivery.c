/* Every event comes three times, in any order, to a usage-writer that is killed again and again. */
#include "tests/unit/forked.h"
#include "tests/unit/ledger_fixture.h"

#include "usage/group.h"

#define EVENTS 3000u
#define TIMES 3u
#define SLOTS 1
#define RING_BYTES (64 * 1024)
#define KILLS 12

struct fixture {
    char dir[64];
    char path[96], letters[96];
    struct outbox_region *outbox;
    struct counters counters;
    uint32_t *order; /* shared: a number of an event each */
    uint32_t *done;  /* shared: deliveries that are certainly committed */
};

static int set_up(void **state)
{
    static struct fixture f;
    struct ledger *ledger;
    char why[DATABASE_WHY_BYTES];

    fixture_make_dir(f.dir);
    snprintf(f.path, sizeof(f.path), "%s/xrouter.db", f.dir);
    snprintf(f.letters, sizeof(f.letters), "%s/dead-letters.jsonl", f.dir);
    f.outbox = forked_memory(outbox_region_spec(SLOTS, RING_BYTES).bytes);
    outbox_region_init(f.outbox, SLOTS, RING_BYTES);
    f.order = forked_memory(EVENTS * TIMES * sizeof(*f.order));
    f.done = forked_memory(sizeof(*f.done));
    assert_int_equal(ledger_open(f.path, &ledger, why), 0);
    fixture_add_key(ledger, FIXTURE_KEY_TEXT, "demo");
    ledger_close(ledger);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    munmap(f->outbox, outbox_region_spec(SLOTS, RING_BYTES).bytes);
    munmap(f->order, EVENTS * TIMES * sizeof(*f->order));
    munmap(f->done, sizeof(*f->done));
    fixture_remove_dir(f->dir);
    return 0;
}

static void shuffle(uint32_t *order, size_t count)
{
    srand(20260301);
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = (size_t)rand() % (i + 1);
        uint32_t kept = order[i];

        order[i] = order[j];
        order[j] = kept;
    }
}

/* A writer's life: takes what is not certain to be committed, in its order, group by group. */
static int deliver(void *arg)
{
    struct fixture *f = arg;
    char why[DATABASE_WHY_BYTES];
    struct ledger *ledger;
    struct group *group = NULL;
    struct group_setup setup = {.outbox = f->outbox, .counters = &f->counters};

    setup.dead_letters = f->letters;
    if (ledger_open(f->path, &ledger, why) < 0)
        return 1;
    setup.ledger = ledger;
    group = group_new(&setup);
    while (group != NULL && *f->done < EVENTS * TIMES) {
        uint32_t upto = *f->done;

        for (uint32_t n = 0; n < 1 + *f->done % 97 && upto < EVENTS * TIMES; n++, upto++) {
            struct usage_event e = fixture_event(f->order[upto]);
            uint8_t record[USAGE_EVENT_MAX];

            if (group_add_spooled(group, record, usage_event_encode(&e, record)) < 0)
                return 2;
        }
        while (!group_is_empty(group))
            if (group_commit(group) < 0)
                return 3;
        *f->done = upto;
    }
    group_free(group);
    ledger_close(ledger);
    return f->counters.events_dead_total == 0 ? 0 : 4;
}

static void given_each_event_three_times_over_killed_writers_then_one_row_each(void **state)
{
    struct fixture *f = *state;
    char why[DATABASE_WHY_BYTES];
    struct ledger *ledger;
    int64_t cost = 0;

    for (uint32_t i = 0; i < EVENTS * TIMES; i++)
        f->order[i] = i % EVENTS;
    shuffle(f->order, EVENTS * TIMES);
    for (int i = 0; i < KILLS; i++)
        forked_kill_soon(forked_start(deliver, f), 30000);
    assert_int_equal(forked_wait(forked_start(deliver, f)), 0);

    for (uint32_t i = 0; i < EVENTS; i++)
        cost += fixture_event(i).cost_nano;
    assert_int_equal(ledger_open(f->path, &ledger, why), 0);
    assert_int_equal(fixture_get(ledger, "SELECT count(*) FROM usage"), EVENTS);
    assert_int_equal(fixture_get(ledger, "SELECT count(*) FROM usage_attempts"), EVENTS);
    assert_int_equal(fixture_get(ledger, "SELECT sum(cost) FROM usage"), cost);
    assert_int_equal(fixture_get(ledger, "SELECT sum(cost) FROM usage_hourly"), cost);
    assert_int_equal(fixture_get(ledger, "SELECT sum(requests) FROM usage_hourly"), EVENTS);
    ledger_close(ledger);
    assert_int_equal(access(f->letters, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            given_each_event_three_times_over_killed_writers_then_one_row_each, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
