#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/route.h"

static const char text[] =
    "{\"providers\":[{\"name\":\"a\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"env:XROUTER_TEST_KEY\"},"
    "{\"name\":\"b\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:2\","
    "\"auth_url\":\"http://127.0.0.1:2/oauth\",\"credentials\":\"env:XROUTER_TEST_KEY\"}],"
    "\"models\":[{\"id\":\"x/"
    "one\",\"aliases\":[\"one\",\"uno\"],\"context_tokens\":1000,\"candidates\":["
    "{\"provider\":\"a\",\"model\":\"A1\",\"priority\":5,\"context_tokens\":4000},"
    "{\"provider\":\"b\",\"model\":\"B1\",\"priority\":1}]},"
    "{\"id\":\"x/two\",\"candidates\":[{\"provider\":\"a\",\"model\":\"A2\"}]}]}";

static int setup(void **state)
{
    struct config_error e = {0};
    struct config *config = NULL;

    assert_int_equal(setenv("XROUTER_TEST_KEY", "aWQ6c2VjcmV0", 1), 0);
    if (config_parse(text, sizeof(text) - 1, "x.json", "/", &config, &e) < 0)
        fail_msg("%s: %s", e.path, e.text);
    *state = config;
    return 0;
}

static int teardown(void **state)
{
    config_unref(*state);
    return 0;
}

static const struct key any_model = {.id = 1};

static void given_an_id_or_alias_when_routed_then_the_model(void **state)
{
    static const char *const names[] = {"x/one", "one", "uno"};
    struct error e = {0};
    struct route route;

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(route_find(*state, names[i], &any_model, 0, &route, &e), 0);
        assert_string_equal(route.model->id, "x/one");
    }
}

static void given_candidates_when_routed_then_lowest_priority_number_first(void **state)
{
    const struct config *config = *state;
    struct error e = {0};
    struct route route;

    assert_int_equal(route_find(config, "one", &any_model, 0, &route, &e), 0);
    assert_int_equal(route.candidate_count, 2);
    assert_string_equal(route.candidates[0].config->model, "B1");
    assert_string_equal(route.candidates[0].provider->name, "b");
    assert_string_equal(route.candidates[1].config->model, "A1");
}

static void given_an_unknown_name_when_routed_then_not_found(void **state)
{
    static const char *const names[] = {"", "X/ONE", "x/one ", "three"};

    for (size_t i = 0; i < 4; i++) {
        struct error e = {0};
        struct route route;

        assert_int_equal(route_find(*state, names[i], &any_model, 0, &route, &e), XR_EMODEL);
        assert_int_equal(e.number, XR_EMODEL);
        assert_string_equal(e.param, "model");
    }
}

static void given_a_key_for_one_model_when_it_asks_for_another_then_denied(void **state)
{
    struct key key = {.id = 1, .model_count = 1, .models = {keytable_model_hash("x/two", 5)}};
    struct error e = {0};
    struct route route;

    assert_int_equal(route_find(*state, "x/two", &key, 0, &route, &e), 0);
    assert_int_equal(route_find(*state, "one", &key, 0, &route, &e), XR_EMODELDENIED);
    assert_string_equal(e.param, "model");
    /* A model that is not there is told apart from one that is forbidden. */
    assert_int_equal(route_find(*state, "three", &key, 0, &route, &e), XR_EMODEL);
}

static void given_no_candidate_when_routed_then_no_provider(void **state)
{
    struct config *config = *state;
    struct model_config *model = &config->models[1];
    size_t count = model->candidate_count;
    struct error e = {0};
    struct route route;

    model->candidate_count = 0;
    assert_int_equal(route_find(config, "x/two", &any_model, 0, &route, &e), XR_ENOPROVIDER);
    model->candidate_count = count;
}

static void
given_a_longer_prompt_when_context_is_required_then_candidates_that_hold_it(void **state)
{
    struct error e = {0};
    struct route route;

    assert_int_equal(route_find(*state, "one", &any_model, 0, &route, &e), 0);
    assert_int_equal(route_shortest_context(&route), 1000); /* the model's own */
    assert_int_equal(route_require_context(&route, 1000, &e), 0);
    assert_int_equal(route.candidate_count, 2);
    assert_int_equal(route_require_context(&route, 1001, &e), 0);
    assert_int_equal(route.candidate_count, 1);
    assert_string_equal(route.candidates[0].config->model, "A1");
    assert_int_equal(route_shortest_context(&route), 4000);
}

static void given_a_prompt_that_none_holds_when_context_is_required_then_refused(void **state)
{
    struct error e = {0};
    struct route route;

    assert_int_equal(route_find(*state, "one", &any_model, 0, &route, &e), 0);
    assert_int_equal(route_require_context(&route, 4001, &e), XR_ECONTEXT);
    assert_string_equal(e.param, "messages");
    assert_non_null(strstr(e.message, "4000"));
    assert_non_null(strstr(e.message, "4001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_an_id_or_alias_when_routed_then_the_model),
        cmocka_unit_test(given_candidates_when_routed_then_lowest_priority_number_first),
        cmocka_unit_test(given_an_unknown_name_when_routed_then_not_found),
        cmocka_unit_test(given_a_key_for_one_model_when_it_asks_for_another_then_denied),
        cmocka_unit_test(given_no_candidate_when_routed_then_no_provider),
        cmocka_unit_test(
            given_a_longer_prompt_when_context_is_required_then_candidates_that_hold_it),
        cmocka_unit_test(given_a_prompt_that_none_holds_when_context_is_required_then_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
