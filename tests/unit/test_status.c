#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "router/queue.h"
#include "router/status.h"
#include "router/targets.h"

#define SLOTS 1
#define NAMES 3

/* An instance's three regions; the providers "one" (max_concurrent 4), "two" (no limit), and "old",
 * which the configuration has no more. */
struct fixture {
    char name[SHM_NAME_BYTES];
    struct shm *shm;
    struct counters_region *counters;
    struct targets_region *targets;
    struct provider_config providers[2];
    struct config config;
    struct buf text;
    cJSON *list;
};

static char one[] = "one", two[] = "two";

static int setup(void **state)
{
    const struct shm_region_spec specs[] = {counters_region_spec(SLOTS, NAMES, NAMES),
                                            targets_region_spec(NAMES, NAMES),
                                            queue_region_spec(NAMES)};
    const uint8_t start_id[SHM_START_ID_BYTES] = {1};
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    snprintf(f->name, sizeof(f->name), "/test-status-%d", (int)getpid());
    assert_int_equal(shm_create(f->name, 0600, specs, 3, start_id, &f->shm), 0);
    f->counters = shm_region(f->shm, COUNTERS_REGION, specs[0].layout, NULL);
    counters_region_init(f->counters, SLOTS, NAMES, NAMES);
    f->targets = shm_region(f->shm, TARGETS_REGION, specs[1].layout, NULL);
    targets_region_init(f->targets, NAMES, NAMES);
    queue_region_init(shm_region(f->shm, QUEUE_REGION, specs[2].layout, NULL), NAMES);
    assert_int_equal(counters_register_provider(f->counters, "one"), 0);
    assert_int_equal(counters_register_provider(f->counters, "two"), 1);
    assert_int_equal(counters_register_provider(f->counters, "old"), 2);
    f->providers[0] = (struct provider_config){.name = one, .max_concurrent = 4};
    f->providers[1] = (struct provider_config){.name = two, .max_concurrent = QUEUE_SLOTS_MAX};
    f->config = (struct config){.providers = f->providers, .provider_count = 2};
    buf_init(&f->text, SIZE_MAX);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    cJSON_Delete(f->list);
    buf_clear(&f->text);
    shm_close(f->shm);
    (void)shm_unlink_name(f->name);
    free(f);
    return 0;
}

static const cJSON *provider(struct fixture *f, int index)
{
    cJSON_Delete(f->list);
    buf_reset(&f->text);
    assert_int_equal(status_render_providers(f->shm, f->counters, &f->config, &f->text), 0);
    f->list = json_parse(f->text.data, f->text.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_int_equal(cJSON_GetArraySize(f->list), 3);
    return cJSON_GetArrayItem(f->list, index);
}

static void assert_member(const cJSON *object, const char *name, int64_t expected)
{
    int64_t value;

    assert_int_equal(json_get_i64(object, name, &value), 0);
    assert_int_equal(value, expected);
}

static void given_providers_when_listed_then_limits_are_the_configs(void **state)
{
    assert_string_equal(json_string(provider(*state, 0), "name"), "one");
    assert_string_equal(json_string(provider(*state, 0), "switch"), "enabled");
    assert_member(provider(*state, 0), "slots", 4);
    assert_true(cJSON_IsNull(json_get(provider(*state, 1), "slots")));
    assert_true(cJSON_IsTrue(json_get(provider(*state, 1), "configured")));
    assert_true(cJSON_IsNull(json_get(provider(*state, 2), "slots")));
    assert_true(cJSON_IsFalse(json_get(provider(*state, 2), "configured")));
}

static void given_a_draining_one_when_its_last_request_ends_then_drained(void **state)
{
    struct fixture *f = *state;
    struct provider_counters *c = counters_provider(f->counters, 0, 1);

    counter_inc(&c->in_flight);
    targets_set_switch(f->targets, 1, PROVIDER_DRAINING);
    assert_string_equal(json_string(provider(f, 1), "switch"), "draining");
    assert_member(provider(f, 1), "in_flight", 1);
    counter_dec(&c->in_flight);
    assert_string_equal(json_string(provider(f, 1), "switch"), "drained");
    assert_string_equal(json_string(provider(f, 0), "switch"), "enabled");
}

static void
given_a_slot_held_before_the_request_is_sent_when_draining_then_not_drained(void **state)
{
    struct fixture *f = *state;
    struct queue_ticket ticket = {0};
    struct queues *queues;
    struct loop *loop = loop_new();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    assert_non_null(loop);
    assert_int_equal(queues_new(loop, queue_region_get(f->shm), 0, &fd, &queues), 0);
    assert_int_equal(queue_enter(queues, &ticket, &(struct queue_place){0, 1, 4}, 1, 0, 1000), 0);
    targets_set_switch(f->targets, 0, PROVIDER_DRAINING);
    assert_string_equal(json_string(provider(f, 0), "switch"), "draining");
    assert_member(provider(f, 0), "slots_taken", 1);
    queue_leave(queues, &ticket);
    assert_string_equal(json_string(provider(f, 0), "switch"), "drained");
    queues_free(queues);
    loop_free(loop);
    close(fd);
}

static void given_models_when_listed_then_each_is_at_its_provider(void **state)
{
    struct fixture *f = *state;
    const cJSON *models;

    assert_int_equal(targets_register(f->targets, "two", "a"), 0);
    assert_int_equal(targets_register(f->targets, "one", "a"), 1);
    assert_int_equal(targets_register(f->targets, "two", "b"), 2);
    assert_int_equal(cJSON_GetArraySize(json_get(provider(f, 0), "models")), 1);
    models = json_get(provider(f, 1), "models");
    assert_int_equal(cJSON_GetArraySize(models), 2);
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 1), "model"), "b");
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 1), "breaker"), "closed");
    assert_int_equal(cJSON_GetArraySize(json_get(provider(f, 2), "models")), 0);
}

static void given_an_object_without_the_regions_when_listed_then_refused(void **state)
{
    const uint8_t start_id[SHM_START_ID_BYTES] = {1};
    struct fixture *f = *state;
    const struct shm_region_spec spec = counters_region_spec(SLOTS, NAMES, NAMES);
    char name[SHM_NAME_BYTES];
    struct shm *shm;

    snprintf(name, sizeof(name), "/test-status-bare-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    assert_int_equal(status_render_providers(shm, f->counters, &f->config, &f->text), -EPROTO);
    assert_int_equal(f->text.len, 0);
    shm_close(shm);
    assert_int_equal(shm_unlink_name(name), 0);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(given_providers_when_listed_then_limits_are_the_configs),
        EACH(given_a_draining_one_when_its_last_request_ends_then_drained),
        EACH(given_a_slot_held_before_the_request_is_sent_when_draining_then_not_drained),
        EACH(given_models_when_listed_then_each_is_at_its_provider),
        EACH(given_an_object_without_the_regions_when_listed_then_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
