#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/processes.h"

#define WORKER_SLOTS 4

struct fixture {
    char name[SHM_NAME_BYTES];
    struct shm *shm;
    struct processes_region *rows;
};

static int setup(void **state)
{
    static const uint8_t start_id[SHM_START_ID_BYTES];
    struct fixture *f = calloc(1, sizeof(*f));
    struct shm_region_spec spec = processes_region_spec(WORKER_SLOTS);

    snprintf(f->name, sizeof(f->name), "/xrouter-test-%d", (int)getpid());
    assert_int_equal(shm_create(f->name, 0600, &spec, 1, start_id, &f->shm), 0);
    processes_region_init(shm_region(f->shm, spec.name, spec.layout, NULL), WORKER_SLOTS);
    f->rows = processes_region_get(f->shm);
    assert_non_null(f->rows);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    shm_close(f->shm);
    shm_unlink_name(f->name);
    free(f);
    return 0;
}

static void given_new_region_when_read_then_every_row_knows_its_role_and_slot(void **state)
{
    struct processes_region *r = ((struct fixture *)*state)->rows;

    assert_int_equal(processes_worker_slots(r), WORKER_SLOTS);
    assert_int_equal(processes_count(r), WORKER_SLOTS + 3);
    for (size_t i = 0; i < processes_count(r); i++) {
        assert_int_equal(process_row_at(r, i)->slot, i);
        assert_int_equal(process_row_at(r, i)->pid, 0);
        assert_int_equal(process_row_at(r, i)->state, PROCESS_NONE);
        if (i < WORKER_SLOTS)
            assert_int_equal(process_row_at(r, i)->role, ROLE_WORKER);
    }
}

static void given_role_when_slot_is_asked_then_row_has_that_role(void **state)
{
    struct processes_region *r = ((struct fixture *)*state)->rows;

    assert_int_equal(process_row_at(r, process_slot(r, ROLE_WRITER))->role, ROLE_WRITER);
    assert_int_equal(process_row_at(r, process_slot(r, ROLE_HELPER))->role, ROLE_HELPER);
    assert_int_equal(process_row_at(r, process_slot(r, ROLE_MASTER))->role, ROLE_MASTER);
    assert_int_equal(process_slot(r, ROLE_WRITER), WORKER_SLOTS);
    assert_int_equal(process_slot(r, ROLE_MASTER), WORKER_SLOTS + 2);
}

static void given_damaged_slot_count_when_attached_then_region_is_refused(void **state)
{
    struct fixture *f = *state;

    *(uint32_t *)(void *)f->rows = 100000; /* the first word is the number of worker slots */
    assert_null(processes_region_get(f->shm));
}

static void given_enums_when_named_then_words_are_those_of_stat(void **state)
{
    assert_string_equal(process_role_name(ROLE_WORKER), "worker");
    assert_string_equal(process_role_name(ROLE_WRITER), "usage-writer");
    assert_string_equal(process_role_name(ROLE_HELPER), "helper");
    assert_string_equal(process_role_name(ROLE_MASTER), "master");
    assert_string_equal(process_role_name(77), "unknown");
    assert_string_equal(process_state_name(PROCESS_READY), "ready");
    assert_string_equal(process_state_name(PROCESS_DEAD), "dead");
    assert_string_equal(process_state_name(99), "unknown");
}

int main(void)
{
#define PROCESSES_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        PROCESSES_TEST(given_new_region_when_read_then_every_row_knows_its_role_and_slot),
        PROCESSES_TEST(given_role_when_slot_is_asked_then_row_has_that_role),
        PROCESSES_TEST(given_damaged_slot_count_when_attached_then_region_is_refused),
        cmocka_unit_test(given_enums_when_named_then_words_are_those_of_stat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
