#include <setjmp.h>
#include "providers/chat_request.h"
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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
    static const char *const names[] = {"X/ONE", "x/one ", "three"};

    for (size_t i = 0; i < 3; i++) {
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

/* Three providers; a model for each strategy, and what requests ask of them. */
#define PROVIDER(name, slots)                                                           \
    "{\"name\":\"" name "\",\"type\":\"gigachat\",\"base_url\":\"http://127.0.0.1:1\"," \
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"max_concurrent\":" slots ","           \
    "\"credentials\":\"env:XROUTER_TEST_KEY\"}"
#define CANDIDATES(fields_a, fields_b, fields_c)                   \
    "\"candidates\":[{\"provider\":\"a\",\"model\":\"A\"" fields_a \
    "},{\"provider\":\"b\",\"model\":\"B\"" fields_b               \
    "},{\"provider\":\"c\",\"model\":\"C\"" fields_c "}]"
#define COSTS(input, output) ",\"prices\":[{\"input\":\"" input "\",\"output\":\"" output "\"}]"

static const char three[] =
    "{\"default_model\":\"usual\",\"providers\":[" PROVIDER("a", "10") "," PROVIDER("b", "4") "," PROVIDER(
        "c",
        "10") "],\"models\":["
              "{\"id\":\"plain\",\"aliases\":[\"usual\"]," CANDIDATES(
                  "", "",
                  "") "},"
                      "{\"id\":\"weighted\",\"strategy\":\"weighted\"," CANDIDATES(
                          ",\"weight\":1", ",\"weight\":0",
                          ",\"weight\":3") "},"
                                           "{\"id\":\"latency\",\"strategy\":"
                                           "\"latency\"," CANDIDATES(
                                               "", "",
                                               "") "},"
                                                   "{\"id\":\"cost\",\"strategy\":\"cost\","
                                                   "\"prices\":[{\"input\":\"10\","
                                                   "\"output\":"
                                                   "\"10\"}]," CANDIDATES(
                                                       "", COSTS("1", "18"),
                                                       COSTS("5", "16")) "},"
                                                                         "{\"id\":\"busy\","
                                                                         "\"strategy\":"
                                                                         "\"busy\""
                                                                         "," CANDIDATES(
                                                                             "", "",
                                                                             ",\"priority\":"
                                                                             "1") "},"
                                                                                  "{\"id\":"
                                                                                  "\"able\""
                                                                                  "," CANDIDATES(
                                                                                      ",\"to"
                                                                                      "ols\""
                                                                                      ":fals"
                                                                                      "e,"
                                                                                      "\"ima"
                                                                                      "ges\""
                                                                                      ":fals"
                                                                                      "e",
                                                                                      ",\"to"
                                                                                      "ols\""
                                                                                      ":fals"
                                                                                      "e,"
                                                                                      "\"jso"
                                                                                      "n_"
                                                                                      "schem"
                                                                                      "a\":"
                                                                                      "fals"
                                                                                      "e",
                                                                                      ",\"to"
                                                                                      "ols\""
                                                                                      ":fals"
                                                                                      "e,"
                                                                                      "\"ima"
                                                                                      "ges\""
                                                                                      ":fals"
                                                                                      "e,"
                                                                                      "\"jso"
                                                                                      "n_"
                                                                                      "schem"
                                                                                      "a\":"
                                                                                      "fals"
                                                                                      "e") "}"
                                                                                           "]"
                                                                                           "}";

struct made {
    struct config *config;
    struct model_request request;
    struct route route;
    struct error e;
    char text[512];
    uint64_t random;
    struct targets_region *targets;
};

static int open_three(void **state)
{
    struct made *m = calloc(1, sizeof(*m));
    struct config_error e = {0};
    size_t bytes = targets_region_spec(8, 4).bytes;

    assert_non_null(m);
    if (config_parse(three, sizeof(three) - 1, "x.json", "/", &m->config, &e) < 0)
        fail_msg("%s: %s", e.path, e.text);
    m->targets = calloc(1, bytes);
    assert_non_null(m->targets);
    targets_region_init(m->targets, 8, 4);
    *state = m;
    return 0;
}

static int close_three(void **state)
{
    struct made *m = *state;

    config_unref(m->config);
    free(m->targets);
    free(m);
    return 0;
}

static int make(struct made *m, const char *fields)
{
    const struct route_setup setup = {.config = m->config,
                                      .request = &m->request,
                                      .key = &any_model,
                                      .random = m->random,
                                      .targets = m->targets};
    int rc;

    m->e = (struct error){0};
    snprintf(m->text, sizeof(m->text), "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}",
             fields);
    assert_int_equal(chat_request_parse(m->text, strlen(m->text), &m->request, &m->e), 0);
    rc = route_make(&setup, &m->route, &m->e);
    model_request_clear(&m->request);
    return rc;
}

/* The providers' names in the route's order. */
static void assert_order(struct made *m, const char *fields, const char *order)
{
    char found[ROUTE_CANDIDATES_MAX + 1] = "";

    if (make(m, fields) < 0)
        fail_msg("%s: %s", fields, m->e.message);
    for (size_t i = 0; i < m->route.candidate_count; i++)
        found[i] = m->route.candidates[i].provider->name[0];
    found[m->route.candidate_count] = '\0';
    if (strcmp(found, order) != 0)
        fail_msg("%s: %s instead of %s", fields, found, order);
}

static void assert_refused(struct made *m, const char *fields, int number, const char *param)
{
    if (make(m, fields) != number)
        fail_msg("%s: %d, %s", fields, m->e.number, m->e.message);
    assert_string_equal(m->e.param, param);
}

#define MODEL(name) ",\"model\":\"" name "\""
#define WISH(model, wishes) MODEL(model) ",\"provider\":{" wishes "}"

static void given_weights_when_routed_then_drawn_by_them_and_zero_is_last(void **state)
{
    struct made *m = *state;
    unsigned first_c = 0;

    for (m->random = 0; m->random < 4000; m->random++) {
        assert_int_equal(make(m, MODEL("weighted")), 0);
        assert_int_equal(m->route.candidate_count, 3);
        assert_string_equal(m->route.candidates[2].provider->name, "b");
        first_c += m->route.candidates[0].provider->name[0] == 'c';
    }
    assert_in_range(first_c, 2800, 3200); /* three quarters */
}

static void given_latencies_when_routed_then_unknown_first_then_the_shortest(void **state)
{
    struct made *m = *state;

    assert_order(m, MODEL("latency"), "abc");
    target_note_first_byte(target_at(m->targets, (size_t)targets_register(m->targets, "a", "A")),
                           9000);
    target_note_first_byte(target_at(m->targets, (size_t)targets_register(m->targets, "c", "C")),
                           5000);
    assert_order(m, MODEL("latency"), "bca");
    assert_order(m, MODEL("plain"), "abc");
    assert_order(m, WISH("plain", "\"sort\":\"latency\""), "bca");
}

static void given_candidate_prices_when_routed_by_cost_then_the_cheapest_first(void **state)
{
    struct made *m = *state;

    assert_order(m, MODEL("cost"), "bac"); /* 19, 20 and 21 */
    assert_int_equal(m->route.candidates[0].price.output_nano, INT64_C(18000000000));
    assert_int_equal(m->route.candidates[1].price.output_nano, INT64_C(10000000000));
}

static void given_taken_slots_when_routed_by_load_then_the_least_busy_first(void **state)
{
    struct made *m = *state;

    assert_order(m, MODEL("busy"), "abc"); /* nothing is known of slots */
}

static void given_what_a_request_needs_when_routed_then_only_who_has_it(void **state)
{
    static const char images[] = MODEL("able") ",\"messages\":[{\"role\":\"user\",\"content\":[{"
                                               "\"type\":\"image_url\",\"image_url\":{\"url\":"
                                               "\"data:,x\"}}]}]";
    static const char schema[] = ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"
                                 "{\"name\":\"n\"}}";
    struct made *m = *state;
    char both[512];

    assert_order(m, MODEL("able"), "abc");
    assert_order(m, images, "b");
    snprintf(both, sizeof(both), "%s%s", MODEL("able"), schema);
    assert_order(m, both, "a");
    snprintf(both, sizeof(both), "%s%s", images, schema);
    assert_refused(m, both, XR_EUNSUPPORTED, "response_format");
    assert_refused(
        m, MODEL("able") ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]",
        XR_EUNSUPPORTED, "tools");
    assert_refused(m, MODEL("able") ",\"functions\":[{\"name\":\"f\"}]", XR_EUNSUPPORTED,
                   "functions");
}

static void given_wishes_when_routed_then_they_are_followed(void **state)
{
    struct made *m = *state;

    assert_order(m, WISH("plain", "\"order\":[\"c\",\"b\"]"), "cba");
    assert_order(m, WISH("busy", "\"order\":[\"c\"]"), "cab"); /* before priority */
    assert_order(m, WISH("plain", "\"order\":[\"c\"],\"allow_fallbacks\":false"), "c");
    assert_order(m, WISH("plain", "\"allow_fallbacks\":false"), "a");
    assert_order(m, WISH("plain", "\"only\":[\"b\",\"a\"]"), "ab");
    assert_order(m, WISH("plain", "\"ignore\":[\"a\"]"), "bc");
    assert_order(m, WISH("cost", "\"max_price\":{\"prompt\":5,\"completion\":\"16\"}"), "c");
    assert_order(m, WISH("plain", "\"require_parameters\":true") ",\"top_p\":0.5", "abc");
}

static void given_wishes_that_leave_none_when_routed_then_refused_by_name(void **state)
{
    struct made *m = *state;

    assert_refused(m, WISH("plain", "\"order\":[\"a\",\"bb\"]"), XR_EINVALID, "provider.order[1]");
    assert_refused(m, WISH("plain", "\"only\":[\"nowhere\"]"), XR_EINVALID, "provider.only[0]");
    assert_refused(m, WISH("plain", "\"ignore\":[\"A\"]"), XR_EINVALID, "provider.ignore[0]");
    assert_refused(m, WISH("plain", "\"ignore\":[\"a\",\"b\",\"c\"]"), XR_EINVALID,
                   "provider.ignore");
    assert_refused(m, WISH("plain", "\"only\":[\"a\"],\"order\":[\"b\"],\"allow_fallbacks\":false"),
                   XR_EINVALID, "provider.order");
    assert_refused(m, WISH("cost", "\"max_price\":{\"completion\":9.999999999}"), XR_EINVALID,
                   "provider.max_price");
    assert_refused(m, WISH("plain", "\"require_parameters\":true") ",\"seed\":1", XR_EUNSUPPORTED,
                   "provider.require_parameters");
}

static void given_further_models_when_routed_then_tried_behind_the_first(void **state)
{
    struct made *m = *state;

    assert_order(m, MODEL("cost") ",\"models\":[\"usual\",\"cost\",\"plain\"]", "bacabc");
    assert_string_equal(m->route.model->id, "cost");
    assert_string_equal(m->route.candidates[3].model->id, "plain");
    assert_order(m, ",\"models\":[\"plain\",\"cost\"]", "abcbac");
    assert_string_equal(m->route.model->id, "plain");
    assert_order(m, ",\"models\":[\"plain\",\"cost\"],\"provider\":{\"allow_fallbacks\":false}",
                 "ab");
    assert_refused(m, MODEL("cost") ",\"models\":[\"plain\",\"gone\"]", XR_EMODEL, "models[1]");
}

static void given_no_model_when_routed_then_the_default(void **state)
{
    struct made *m = *state;
    struct config *config = m->config;
    char *usual = config->default_model;

    assert_order(m, "", "abc");
    assert_string_equal(m->route.model->id, "plain");
    config->default_model = m->text + sizeof(m->text) - 1; /* "" */
    assert_refused(m, "", XR_EINVALID, "model");
    assert_string_equal(m->e.message,
                        "'model': expected a string of 1 to 95 bytes, found nothing.");
    config->default_model = usual;
}

#define IN_THREE(test) cmocka_unit_test_setup_teardown(test, open_three, close_three)

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
        IN_THREE(given_weights_when_routed_then_drawn_by_them_and_zero_is_last),
        IN_THREE(given_latencies_when_routed_then_unknown_first_then_the_shortest),
        IN_THREE(given_candidate_prices_when_routed_by_cost_then_the_cheapest_first),
        IN_THREE(given_taken_slots_when_routed_by_load_then_the_least_busy_first),
        IN_THREE(given_what_a_request_needs_when_routed_then_only_who_has_it),
        IN_THREE(given_wishes_when_routed_then_they_are_followed),
        IN_THREE(given_wishes_that_leave_none_when_routed_then_refused_by_name),
        IN_THREE(given_further_models_when_routed_then_tried_behind_the_first),
        IN_THREE(given_no_model_when_routed_then_the_default),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
