#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/instance.h"

static const uint8_t pepper[KEY_PEPPER_BYTES] = "0123456789012345678901234567890";

struct fixture {
    char dir[40];
    struct config *config;
    struct instance instance;
    struct buf why;
};

static struct config *parse(const char *dir, const char *provider, const char *models)
{
    struct config_error error = {0};
    struct config *config = NULL;
    struct buf text;

    buf_init(&text, 8192);
    buf_printf(
        &text,
        "{\"runtime_dir\":\".\",\"workers\":3,\"limits\":{\"keys\":16,\"in_flight\":4,"
        "\"outbox_bytes\":65536,\"models\":2,\"providers\":1},\"providers\":[{\"name\":\"%s\","
        "\"type\":\"gigachat\",\"base_url\":\"http://api.example.com:8000\","
        "\"auth_url\":\"http://127.0.0.1/oauth\",\"credentials\":\"YTpi\"}],\"models\":[%s]}",
        provider, models);
    if (config_parse(text.data, text.len, "", dir, &config, &error) != 0)
        fail_msg("%s: %s", error.path, error.text);
    buf_clear(&text);
    return config;
}

#define MODEL(id, provider) \
    "{\"id\":\"" id "\",\"candidates\":[{\"provider\":\"" provider "\",\"model\":\"m\"}]}"

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_instance.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->config = parse(f->dir, "p", MODEL("m1", "p"));
    buf_init(&f->why, 4096);
    assert_int_equal(instance_create(&f->instance, f->config, pepper, 7, &f->why), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    instance_close(&f->instance);
    assert_int_equal(instance_unlink(f->config->runtime_dir), 0);
    config_unref(f->config);
    buf_clear(&f->why);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void object_name(const struct fixture *f, const char *suffix, char out[SHM_NAME_BYTES])
{
    assert_int_equal(shm_instance_name(f->config->runtime_dir, suffix, out), 0);
}

static void given_config_when_created_then_slots_for_two_generations(void **state)
{
    struct instance *in = &((struct fixture *)*state)->instance;

    assert_int_equal(processes_worker_slots(in->processes), 6);
    assert_int_equal(counters_slot_count(in->counters), 9);
    assert_int_equal(inflight_slot_count(in->inflight), 6);
    assert_int_equal(outbox_slot_count(in->outbox), 6);
    assert_non_null(in->addresses);
    assert_non_null(in->accounts);
    assert_int_equal(accounts_count(in->accounts), 0);
    assert_int_equal(calibration_count(in->calibration), 2);
    assert_non_null(in->keys);
    assert_non_null(in->tokens);
    assert_memory_equal(shm_start_id(in->shm), shm_start_id(in->secret), SHM_START_ID_BYTES);
    assert_int_equal(processes_instance(in->processes)->workers, 3);
    assert_true(instance_is_drained(in));
}

static void given_objects_when_created_then_secrets_are_for_the_owner_alone(void **state)
{
    struct fixture *f = *state;
    char name[SHM_NAME_BYTES];
    struct stat st;
    int fd;

    object_name(f, ".secret", name);
    fd = shm_open(name, O_RDONLY, 0);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void given_existing_objects_when_created_again_then_refused_with_reason(void **state)
{
    struct fixture *f = *state;
    struct instance other;

    assert_int_equal(instance_create(&other, f->config, pepper, 7, &f->why), -EEXIST);
    assert_non_null(strstr(buf_text(&f->why), "/xrouter-"));
    assert_null(other.shm);
}

static void given_crashed_instance_when_attached_then_what_recovery_needs_is_there(void **state)
{
    struct fixture *f = *state;
    struct instance old;
    const char *fault;

    assert_int_equal(instance_attach(&old, f->config->runtime_dir, &fault), 0);
    assert_non_null(old.counters);
    assert_non_null(old.inflight);
    assert_non_null(old.outbox);
    assert_non_null(old.processes);
    assert_null(old.secret);
    instance_close(&old);
}

/* As an earlier version left it: with what recovery needs, and without what has come since. */
static void given_older_object_when_attached_then_found_without_newer_regions(void **state)
{
    struct fixture *f = *state;
    const struct shm_region_spec specs[] = {
        counters_region_spec(9, 2, 1),
        processes_region_spec(6),
        inflight_region_spec(6, 4),
        outbox_region_spec(6, 65536),
    };
    uint8_t start_id[SHM_START_ID_BYTES] = {1};
    char name[SHM_NAME_BYTES];
    struct instance old;
    const char *fault;
    struct shm *shm;

    assert_int_equal(instance_unlink(f->config->runtime_dir), 0);
    object_name(f, "", name);
    assert_int_equal(shm_create(name, 0640, specs, 4, start_id, &shm), 0);
    counters_region_init(shm_region(shm, specs[0].name, specs[0].layout, NULL), 9, 2, 1);
    processes_region_init(shm_region(shm, specs[1].name, specs[1].layout, NULL), 6);
    inflight_region_init(shm_region(shm, specs[2].name, specs[2].layout, NULL), 6, 4, 7);
    outbox_region_init(shm_region(shm, specs[3].name, specs[3].layout, NULL), 6, 65536);
    shm_close(shm);
    assert_int_equal(instance_attach(&old, f->config->runtime_dir, &fault), 0);
    assert_non_null(old.outbox);
    assert_null(old.calibration);
    instance_close(&old);
}

static void given_no_objects_when_attached_then_enoent(void **state)
{
    struct fixture *f = *state;
    struct instance old;
    const char *fault;

    assert_int_equal(instance_unlink(f->config->runtime_dir), 0);
    assert_int_equal(instance_attach(&old, f->config->runtime_dir, &fault), -ENOENT);
    assert_null(old.shm);
}

static void given_damaged_object_when_set_aside_then_kept_under_another_name(void **state)
{
    struct fixture *f = *state;
    char name[SHM_NAME_BYTES];
    const char *fault = NULL;
    struct instance old;
    int fd;

    object_name(f, "", name);
    fd = shm_open(name, O_RDWR, 0);
    assert_int_equal(pwrite(fd, "garbage!", 8, 0), 8);
    close(fd);
    assert_int_equal(instance_attach(&old, f->config->runtime_dir, &fault), -EPROTO);
    assert_non_null(fault);
    assert_int_equal(instance_set_aside(f->config->runtime_dir, 1700000000123, &f->why), 0);
    assert_non_null(strstr(buf_text(&f->why), ".broken-1700000000"));
    assert_int_equal(access(buf_text(&f->why), F_OK), 0);
    assert_int_equal(instance_attach(&old, f->config->runtime_dir, &fault), -ENOENT);
    assert_int_equal(unlink(buf_text(&f->why)), 0);
}

static void
given_config_when_registered_then_names_are_found_and_numeric_hosts_left_out(void **state)
{
    struct fixture *f = *state;
    struct instance *in = &f->instance;

    assert_int_equal(instance_register(in, f->config, &f->why), 0);
    assert_int_equal(instance_register(in, f->config, &f->why), 0);
    assert_int_equal(counters_find_model(in->counters, "m1"), 0);
    assert_int_equal(counters_find_provider(in->counters, "p"), 0);
    assert_string_equal(addresses_host(in->addresses, 0), "api.example.com");
    assert_null(addresses_host(in->addresses, 1));
}

static void
given_more_names_than_capacity_when_registered_then_refused_with_the_option(void **state)
{
    struct fixture *f = *state;
    struct config *more = parse(f->dir, "p", MODEL("a", "p") "," MODEL("b", "p"));
    struct config *other = parse(f->dir, "q", MODEL("m1", "q"));

    assert_int_equal(instance_register(&f->instance, f->config, &f->why), 0);
    assert_int_equal(instance_register(&f->instance, more, &f->why), -ENOSPC);
    assert_non_null(strstr(buf_text(&f->why), "limits.models"));
    assert_int_equal(instance_register(&f->instance, other, &f->why), -ENOSPC);
    assert_non_null(strstr(buf_text(&f->why), "limits.providers"));
    config_unref(more);
    config_unref(other);
}

static void given_event_in_a_ring_when_asked_then_not_drained_until_committed(void **state)
{
    struct instance *in = &((struct fixture *)*state)->instance;
    struct outbox *ob = outbox_slot(in->outbox, 5);
    static const struct usage_event event;

    assert_true(outbox_reserve(ob));
    assert_true(instance_is_drained(in));
    outbox_append(ob, &event);
    assert_false(instance_is_drained(in));
    outbox_set_committed(ob, outbox_head(ob));
    assert_true(instance_is_drained(in));
}

static void given_row_that_is_not_settled_when_asked_then_not_drained(void **state)
{
    struct instance *in = &((struct fixture *)*state)->instance;
    struct inflight_row *row = inflight_take(in->inflight, 5);
    enum account_word short_of;

    assert_non_null(row);
    assert_int_equal(accounts_open(in->accounts, 7, &row->reservation.account), 0);
    assert_true(instance_is_drained(in));
    assert_int_equal(inflight_admit(row, in->accounts, &short_of), 0);
    assert_false(instance_is_drained(in));
    inflight_finish(row);
    assert_false(instance_is_drained(in));
    assert_int_equal(inflight_settle(row, in->accounts), 0);
    assert_true(instance_is_drained(in)); /* what is left are bytes for the client */
    inflight_free(in->inflight, 5, row);
    assert_true(instance_is_drained(in));
}

int main(void)
{
#define INSTANCE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        INSTANCE_TEST(given_config_when_created_then_slots_for_two_generations),
        INSTANCE_TEST(given_objects_when_created_then_secrets_are_for_the_owner_alone),
        INSTANCE_TEST(given_existing_objects_when_created_again_then_refused_with_reason),
        INSTANCE_TEST(given_crashed_instance_when_attached_then_what_recovery_needs_is_there),
        INSTANCE_TEST(given_older_object_when_attached_then_found_without_newer_regions),
        INSTANCE_TEST(given_no_objects_when_attached_then_enoent),
        INSTANCE_TEST(given_damaged_object_when_set_aside_then_kept_under_another_name),
        INSTANCE_TEST(given_config_when_registered_then_names_are_found_and_numeric_hosts_left_out),
        INSTANCE_TEST(given_more_names_than_capacity_when_registered_then_refused_with_the_option),
        INSTANCE_TEST(given_event_in_a_ring_when_asked_then_not_drained_until_committed),
        INSTANCE_TEST(given_row_that_is_not_settled_when_asked_then_not_drained),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
