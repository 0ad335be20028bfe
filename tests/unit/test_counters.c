#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/counters.h"
#include "common/json.h"

#define SLOTS 5
#define MODELS 3
#define PROVIDERS 2

static int setup(void **state)
{
    struct shm_region_spec spec = counters_region_spec(SLOTS, MODELS, PROVIDERS);
    struct counters_region *r = aligned_alloc(4096, (spec.bytes + 4095) & ~(size_t)4095);

    memset(r, 0, (spec.bytes + 4095) & ~(size_t)4095);
    counters_region_init(r, SLOTS, MODELS, PROVIDERS);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static uint64_t load(_Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static char *prometheus(const struct counters_region *r)
{
    struct buf out;
    char *text;

    buf_init(&out, 1 << 20);
    assert_int_equal(counters_render_prometheus(r, NULL, &out), 0);
    text = strdup(buf_text(&out));
    buf_clear(&out);
    return text;
}

static void given_slots_when_words_change_then_sum_adds_them_all(void **state)
{
    struct counters_region *r = *state;
    struct counters sum;

    for (size_t i = 0; i < SLOTS; i++) {
        counter_add(&counters_slot(r, i)->requests_total, i + 1);
        counter_inc(&counters_slot(r, i)->requests_in_flight);
    }
    counter_dec(&counters_slot(r, 0)->requests_in_flight);
    counters_sum(r, &sum);
    assert_int_equal(load(&sum.requests_total), 15);
    assert_int_equal(load(&sum.requests_in_flight), 4);
    assert_int_equal(load(&sum.connections_total), 0);
}

static void given_every_slot_filled_when_summed_then_none_overlaps_another(void **state)
{
    struct counters_region *r = *state;
    struct counters sum;
    struct model_counters model;
    struct provider_counters provider;

    for (size_t i = 0; i < SLOTS; i++) {
        memset(counters_slot(r, i), 1, sizeof(struct counters));
        for (size_t j = 0; j < MODELS; j++)
            memset(counters_model(r, i, j), 2, sizeof(model));
        for (size_t j = 0; j < PROVIDERS; j++)
            memset(counters_provider(r, i, j), 3, sizeof(provider));
        assert_int_equal((uintptr_t)counters_slot(r, i) % 64, 0);
    }
    counters_sum(r, &sum);
    assert_true(load(&sum.connections_total) == SLOTS * UINT64_C(0x0101010101010101));
    counters_sum_model(r, MODELS - 1, &model);
    assert_true(load(&model.cost_nano_total) == SLOTS * UINT64_C(0x0202020202020202));
    counters_sum_provider(r, 0, &provider);
    assert_true(load(&provider.requests_total) == SLOTS * UINT64_C(0x0303030303030303));
}

static void given_dead_process_when_gauges_are_zeroed_then_counters_stay(void **state)
{
    struct counters_region *r = *state;
    int model = counters_register_model(r, "m");

    counter_add(&counters_slot(r, 1)->connections_open, 7);
    counter_add(&counters_slot(r, 1)->connections_total, 9);
    counter_add(&counters_slot(r, 2)->connections_open, 5);
    counter_add(&counters_provider(r, 1, 1)->in_flight, 3);
    counter_add(&counters_provider(r, 1, 1)->requests_total, 4);
    counter_add(&counters_model(r, 1, (size_t)model)->requests_total, 6);
    counters_zero_gauges(r, 1);
    assert_int_equal(load(&counters_slot(r, 1)->connections_open), 0);
    assert_int_equal(load(&counters_slot(r, 1)->connections_total), 9);
    assert_int_equal(load(&counters_slot(r, 2)->connections_open), 5);
    assert_int_equal(load(&counters_provider(r, 1, 1)->in_flight), 0);
    assert_int_equal(load(&counters_provider(r, 1, 1)->requests_total), 4);
    assert_int_equal(load(&counters_model(r, 1, (size_t)model)->requests_total), 6);
}

static void given_names_when_registered_then_found_by_the_same_index(void **state)
{
    struct counters_region *r = *state;
    char name[COUNTERS_NAME_BYTES + 1];

    assert_int_equal(counters_register_model(r, "a"), 0);
    assert_int_equal(counters_register_model(r, "b"), 1);
    assert_int_equal(counters_register_model(r, "a"), 0);
    assert_int_equal(counters_find_model(r, "b"), 1);
    assert_int_equal(counters_find_model(r, "c"), -ENOENT);
    assert_int_equal(counters_find_provider(r, "a"), -ENOENT);
    assert_string_equal(counters_model_name(r, 1), "b");
    assert_null(counters_model_name(r, 2));
    memset(name, 'x', COUNTERS_NAME_BYTES);
    name[COUNTERS_NAME_BYTES] = '\0';
    assert_int_equal(counters_register_model(r, name), -ENAMETOOLONG);
    assert_int_equal(counters_register_model(r, "c"), 2);
    assert_int_equal(counters_register_model(r, "d"), -ENOSPC);
    assert_int_equal(counters_register_provider(r, "p"), 0);
    assert_string_equal(counters_provider_name(r, 0), "p");
}

static void given_observations_when_counted_then_bounds_are_inclusive(void **state)
{
    struct histogram h = {0};

    histogram_observe_us(&h, 0);
    histogram_observe_us(&h, (int64_t)HISTOGRAM_BOUNDS_MS[0] * 1000);
    histogram_observe_us(&h, (int64_t)HISTOGRAM_BOUNDS_MS[0] * 1000 + 1);
    histogram_observe_us(&h, INT64_C(3600000000));
    histogram_observe_us(&h, -5);
    assert_int_equal(load(&h.bucket[0]), 3);
    assert_int_equal(load(&h.bucket[1]), 1);
    assert_int_equal(load(&h.bucket[HISTOGRAM_BUCKETS - 1]), 1);
    assert_true(load(&h.sum_us) == (uint64_t)HISTOGRAM_BOUNDS_MS[0] * 2000 + 1 + 3600000000);
}

static void given_cost_when_rendered_then_decimal_credits(void **state)
{
    struct counters_region *r = *state;
    char *text;

    counter_add(&counters_slot(r, 0)->cost_nano_total, 1500000001);
    text = prometheus(r);
    assert_non_null(strstr(text, "\n# TYPE xrouter_cost_credits_total counter\n"
                                 "xrouter_cost_credits_total 1.500000001\n"));
    assert_null(strstr(text, "nano"));
    free(text);
}

static void given_histogram_when_rendered_then_cumulative_and_in_seconds(void **state)
{
    struct counters_region *r = *state;
    struct histogram *h = &counters_slot(r, 0)->request_duration_ms;
    char *text;

    histogram_observe_us(h, 900);
    histogram_observe_us(h, 4100);
    histogram_observe_us(h, 500000000);
    text = prometheus(r);
    assert_non_null(strstr(text, "# TYPE xrouter_request_duration_seconds histogram\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_bucket{le=\"0.001\"} 1\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_bucket{le=\"0.005\"} 2\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_bucket{le=\"120\"} 2\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_bucket{le=\"+Inf\"} 3\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_sum 500.005\n"));
    assert_non_null(strstr(text, "xrouter_request_duration_seconds_count 3\n"));
    assert_null(strstr(text, "_ms"));
    free(text);
}

static void given_names_with_special_characters_when_rendered_then_labels_are_escaped(void **state)
{
    struct counters_region *r = *state;
    char *text;

    assert_int_equal(counters_register_model(r, "a\"b\\c\nd"), 0);
    assert_int_equal(counters_register_provider(r, "p"), 0);
    counter_add(&counters_model(r, 4, 0)->requests_total, 2);
    counter_add(&counters_provider(r, 0, 0)->requests_total, 3);
    text = prometheus(r);
    assert_non_null(strstr(text, "\nxrouter_model_requests_total{model=\"a\\\"b\\\\c\\nd\"} 2\n"));
    assert_non_null(strstr(text, "\nxrouter_provider_requests_total{provider=\"p\"} 3\n"));
    assert_non_null(strstr(text, "\nxrouter_provider_in_flight{provider=\"p\"} 0\n"));
    free(text);
}

static void given_all_families_when_rendered_then_each_name_has_one_type(void **state)
{
    char *text = prometheus(*state);
    size_t families = 0;

    for (char *at = text; (at = strstr(at, "# TYPE ")) != NULL; at++) {
        char needle[160];
        char *end = strchr(at, '\n');

        snprintf(needle, sizeof(needle), "%.*s ", (int)(strchr(at + 7, ' ') - at), at);
        assert_null(strstr(end, needle));
        families++;
    }
    assert_int_equal(families, COUNTER_COUNT + HISTOGRAM_COUNT + MODEL_COUNTER_COUNT +
                                   PROVIDER_COUNTER_COUNT);
    free(text);
}

static void given_counters_when_rendered_as_json_then_strict_json_with_all_of_them(void **state)
{
    struct counters_region *r = *state;
    const cJSON *counters, *models;
    struct buf out;
    cJSON *root;
    int64_t value;

    assert_int_equal(counters_register_model(r, "a\"b"), 0);
    counter_add(&counters_slot(r, 0)->requests_total, 12);
    counter_add(&counters_slot(r, 0)->cost_nano_total, 2500000000);
    counter_add(&counters_model(r, 0, 0)->cost_nano_total, 1);
    buf_init(&out, 1 << 20);
    buf_byte(&out, '{');
    assert_int_equal(counters_render_json(r, NULL, &out), 0);
    buf_byte(&out, '}');
    root = json_parse(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(root);
    counters = json_get(root, "counters");
    assert_int_equal(json_get_i64(counters, "requests_total", &value), 0);
    assert_int_equal(value, 12);
    assert_string_equal(json_string(counters, "cost_credits_total"), "2.5");
    assert_int_equal(json_get_i64(counters, "request_duration_seconds_count", &value), 0);
    models = json_get(root, "models");
    assert_int_equal(cJSON_GetArraySize(models), 1);
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 0), "name"), "a\"b");
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 0), "cost_credits_total"),
                        "0.000000001");
    assert_int_equal(cJSON_GetArraySize(json_get(root, "providers")), 0);
    cJSON_Delete(root);
    buf_clear(&out);
}

/* The third model has none. */
static bool read_weight(const void *arg, size_t model, uint64_t *value)
{
    const uint64_t *weights = arg;

    *value = model < 2 ? weights[model] : 0;
    return model < 2;
}

static const uint64_t WEIGHTS[] = {1083400, 20000007};
static const struct model_gauge GAUGES[] = {
    {"weight", 6, "How heavy\\it is", read_weight},
    {"grams", 0, "The same", read_weight},
};
static const struct model_gauges MORE = {GAUGES, 2, WEIGHTS};

static void register_three_models(struct counters_region *r)
{
    assert_int_equal(counters_register_model(r, "a"), 0);
    assert_int_equal(counters_register_model(r, "b\"c"), 1);
    assert_int_equal(counters_register_model(r, "d"), 2);
}

static void given_gauges_from_elsewhere_when_rendered_then_families_of_models(void **state)
{
    struct buf out;

    register_three_models(*state);
    buf_init(&out, 1 << 20);
    assert_int_equal(counters_render_prometheus(*state, &MORE, &out), 0);
    assert_non_null(strstr(buf_text(&out), "\n# HELP xrouter_model_weight How heavy\\\\it is\n"
                                           "# TYPE xrouter_model_weight gauge\n"
                                           "xrouter_model_weight{model=\"a\"} 1.083400\n"
                                           "xrouter_model_weight{model=\"b\\\"c\"} 20.000007\n"
                                           "# HELP xrouter_model_grams The same\n"
                                           "# TYPE xrouter_model_grams gauge\n"
                                           "xrouter_model_grams{model=\"a\"} 1083400\n"
                                           "xrouter_model_grams{model=\"b\\\"c\"} 20000007\n"));
    assert_null(strstr(buf_text(&out), "xrouter_model_weight{model=\"d\"}"));
    assert_null(strstr(buf_text(&out), "xrouter_provider_weight"));
    buf_clear(&out);
}

static void given_gauges_from_elsewhere_when_rendered_as_json_then_members_of_models(void **state)
{
    const cJSON *models, *last;
    struct buf out;
    int64_t grams;
    cJSON *root;

    register_three_models(*state);
    assert_int_equal(counters_register_provider(*state, "p"), 0);
    buf_init(&out, 1 << 20);
    buf_byte(&out, '{');
    assert_int_equal(counters_render_json(*state, &MORE, &out), 0);
    buf_byte(&out, '}');
    root = json_parse(out.data, out.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(root);
    models = json_get(root, "models");
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 0), "weight"), "1.083400");
    assert_string_equal(json_string(cJSON_GetArrayItem(models, 1), "weight"), "20.000007");
    assert_int_equal(json_get_i64(cJSON_GetArrayItem(models, 1), "grams", &grams), 0);
    assert_int_equal(grams, 20000007);
    last = cJSON_GetArrayItem(models, 2);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(last, "weight")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(last, "grams")));
    assert_false(cJSON_HasObjectItem(cJSON_GetArrayItem(json_get(root, "providers"), 0), "weight"));
    cJSON_Delete(root);
    buf_clear(&out);
}

int main(void)
{
#define COUNTERS_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        COUNTERS_TEST(given_slots_when_words_change_then_sum_adds_them_all),
        COUNTERS_TEST(given_every_slot_filled_when_summed_then_none_overlaps_another),
        COUNTERS_TEST(given_dead_process_when_gauges_are_zeroed_then_counters_stay),
        COUNTERS_TEST(given_names_when_registered_then_found_by_the_same_index),
        COUNTERS_TEST(given_observations_when_counted_then_bounds_are_inclusive),
        COUNTERS_TEST(given_cost_when_rendered_then_decimal_credits),
        COUNTERS_TEST(given_histogram_when_rendered_then_cumulative_and_in_seconds),
        COUNTERS_TEST(given_names_with_special_characters_when_rendered_then_labels_are_escaped),
        COUNTERS_TEST(given_all_families_when_rendered_then_each_name_has_one_type),
        COUNTERS_TEST(given_counters_when_rendered_as_json_then_strict_json_with_all_of_them),
        COUNTERS_TEST(given_gauges_from_elsewhere_when_rendered_then_families_of_models),
        COUNTERS_TEST(given_gauges_from_elsewhere_when_rendered_as_json_then_members_of_models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
