#include "tests/unit/ledger_fixture.h"

#include "common/json.h"
#include "usage/reprice.h"

#define MODEL "gigachat/GigaChat-2"
#define LATER (FIXTURE_AT_MS + INT64_C(86400000))

static const char CONFIG[] =
    "{\"state_dir\":\".\",\"runtime_dir\":\".\","
    "\"providers\":[{\"name\":\"gigachat\",\"type\":\"gigachat\",\"base_url\":\"http://"
    "127.0.0.1:1\",\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"" MODEL "\","
    "\"candidates\":[{\"provider\":\"gigachat\",\"model\":\"GigaChat-2\"},"
    "{\"provider\":\"gigachat\",\"model\":\"Dear\",\"prices\":[{\"input\":\"1000\"}]}],"
    "\"prices\":[{\"from\":\"2026-01-01\",\"input\":\"10\",\"cached_input\":\"1\","
    "\"output\":\"20\",\"request\":\"0.5\"},"
    "{\"from\":\"2026-03-02\",\"input\":\"100\",\"output\":\"200\"}]}]}";

struct fixture {
    char dir[64];
    struct ledger *ledger;
    struct config *config;
    uint32_t next;
};

static int set_up(void **state)
{
    static struct fixture f;
    char path[128], why[DATABASE_WHY_BYTES];
    struct config_error e;

    memset(&f, 0, sizeof(f));
    fixture_make_dir(f.dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", f.dir);
    if (config_parse(CONFIG, strlen(CONFIG), "test.json", f.dir, &f.config, &e) != 0)
        fail_msg("%s: %s", e.path, e.text);
    assert_int_equal(ledger_open(path, &f.ledger, why), 0);
    fixture_add_key(f.ledger, FIXTURE_KEY_TEXT, "demo");
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ledger);
    config_unref(f->config);
    fixture_remove_dir(f->dir);
    return 0;
}

/* A request priced as the config says; then `more` is added to its cost. */
static void insert(struct fixture *f, int64_t at_ms, const char *model, int64_t more)
{
    const struct model_config *m = config_model(f->config, MODEL, strlen(MODEL));
    struct usage_event e = fixture_event(f->next++);

    e.tokens_input = 1000;
    e.created_at_ms = at_ms;
    e.price = model_price_at(m, at_ms);
    e.cost_nano = money_cost_nano(&e.price, 1000, 10, 20) + more;
    snprintf(e.model, sizeof(e.model), "%s", model);
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ledger), 0);
}

static cJSON *make_report(struct fixture *f)
{
    struct reprice *r = reprice_new();
    struct buf json;
    cJSON *root;
    int rc;

    assert_non_null(r);
    while ((rc = reprice_step(r, f->ledger, f->config)) == 1)
        ;
    assert_int_equal(rc, 0);
    buf_init(&json, 1 << 20);
    assert_int_equal(reprice_encode(r, f->ledger, &json), 0);
    root = json_parse(json.data, json.len, &JSON_LIMITS_DEFAULT, NULL, NULL);
    assert_non_null(root);
    buf_clear(&json);
    reprice_free(r);
    return root;
}

static int64_t number(const cJSON *object, const char *name)
{
    int64_t value = -1;

    assert_int_equal(json_get_i64(object, name, &value), 0);
    return value;
}

static void given_right_costs_when_repriced_then_no_row(void **state)
{
    struct fixture *f = *state;
    cJSON *root;

    insert(f, FIXTURE_AT_MS, MODEL, 0);
    insert(f, LATER, MODEL, 0);
    root = make_report(f);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "rows")), 0);
    assert_int_equal(number(json_get(root, "total"), "requests"), 2);
    /* 990 * 10 + 10 * 1 + 20 * 20 per million and 0.5, then 990 * 100 + 20 * 200. */
    assert_string_equal(json_string(json_get(root, "total"), "cost"), "0.61331");
    assert_string_equal(json_string(json_get(root, "total"), "config_price"), "0.61331");
    cJSON_Delete(root);
}

/* The last attempt says whose price it was. */
static void given_candidate_with_its_own_price_when_repriced_then_by_that(void **state)
{
    struct fixture *f = *state;
    const struct model_config *m = config_model(f->config, MODEL, strlen(MODEL));
    struct usage_event e = fixture_event(f->next++);
    cJSON *root;

    e.tokens_input = 1000;
    e.tokens_cached = e.tokens_output = 0;
    e.created_at_ms = FIXTURE_AT_MS;
    usage_name_set(e.model, MODEL);
    usage_name_set(e.provider, "gigachat");
    e.attempt_count = 2;
    usage_name_set(e.attempts[0].provider, "gigachat");
    usage_name_set(e.attempts[0].model, "GigaChat-2");
    e.attempts[1] = e.attempts[0];
    usage_name_set(e.attempts[1].model, "Dear");
    e.price = candidate_price_at(m, model_candidate(m, "gigachat", "Dear"), FIXTURE_AT_MS);
    e.cost_nano = money_cost_nano(&e.price, 1000, 0, 0);
    assert_int_equal(ledger_begin(f->ledger), 0);
    assert_int_equal(ledger_insert(f->ledger, &e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(f->ledger), 0);
    root = make_report(f);
    assert_string_equal(json_string(json_get(root, "total"), "config_price"), "1");
    assert_int_equal(number(json_get(root, "total"), "changed"), 0);
    cJSON_Delete(root);
}

static void given_wrong_cost_when_repriced_then_summed_by_key_and_model(void **state)
{
    struct fixture *f = *state;
    const cJSON *row;
    cJSON *root;

    insert(f, FIXTURE_AT_MS, MODEL, 7);
    insert(f, FIXTURE_AT_MS + 1, MODEL, 0);
    insert(f, FIXTURE_AT_MS + 2, MODEL, -2);
    root = make_report(f);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "rows")), 1);
    row = cJSON_GetArrayItem(json_get(root, "rows"), 0);
    assert_string_equal(json_string(row, "key"), FIXTURE_KEY_TEXT);
    assert_string_equal(json_string(row, "name"), "demo");
    assert_string_equal(json_string(row, "model"), MODEL);
    assert_int_equal(number(row, "requests"), 2);
    assert_int_equal(number(row, "miscounted"), 2);
    assert_string_equal(json_string(row, "cost"), "1.020620005");
    assert_string_equal(json_string(row, "stored_price"), "1.02062");
    assert_int_equal(number(json_get(root, "total"), "requests"), 3);
    cJSON_Delete(root);
}

static void given_other_price_in_config_when_repriced_then_changed(void **state)
{
    struct fixture *f = *state;
    const cJSON *row;
    cJSON *root;

    insert(f, FIXTURE_AT_MS, MODEL, 0);
    f->config->models[0].prices[0].input_nano *= 2;
    root = make_report(f);
    row = cJSON_GetArrayItem(json_get(root, "rows"), 0);
    assert_int_equal(number(row, "miscounted"), 0);
    assert_int_equal(number(row, "changed"), 1);
    assert_string_equal(json_string(row, "stored_price"), "0.51031");
    assert_string_equal(json_string(row, "config_price"), "0.52021");
    cJSON_Delete(root);
}

static void given_model_gone_from_config_when_repriced_then_counted_as_unknown(void **state)
{
    struct fixture *f = *state;
    cJSON *root;

    insert(f, FIXTURE_AT_MS, "gone", 0);
    root = make_report(f);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "rows")), 0);
    assert_int_equal(number(json_get(root, "total"), "unknown"), 1);
    assert_string_equal(json_string(json_get(root, "total"), "config_price"), "0.51031");
    cJSON_Delete(root);
}

static void given_request_that_used_nothing_when_repriced_then_free(void **state)
{
    struct fixture *f = *state;
    cJSON *root;

    insert(f, FIXTURE_AT_MS, MODEL, 0);
    assert_int_equal(database_exec(ledger_db(f->ledger),
                                   "UPDATE usage SET source = 0, cost = 0, tokens_input = 0,"
                                   " tokens_cached = 0, tokens_output = 0"),
                     0);
    root = make_report(f);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "rows")), 0);
    cJSON_Delete(root);
}

static void given_more_differences_than_rows_when_repriced_then_rest_counted(void **state)
{
    struct fixture *f = *state;
    cJSON *root;
    char sql[512];

    insert(f, FIXTURE_AT_MS, MODEL, 1);
    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             "INSERT INTO usage SELECT randomblob(16), api_key_id, provider, 'm' || i,"
             " tokens_input, tokens_cached, tokens_output, cost, created_at, outcome, source,"
             " http_status, error, streamed, duration_ms, first_byte_ms, price_from, price_input,"
             " price_cached_input, price_output, price_request FROM usage, n",
             REPRICE_ROWS_MAX + 9);
    assert_int_equal(database_exec(ledger_db(f->ledger), sql), 0);
    root = make_report(f);
    assert_int_equal(cJSON_GetArraySize(json_get(root, "rows")), REPRICE_ROWS_MAX);
    assert_int_equal(number(root, "left_out"), 10);
    assert_int_equal(number(json_get(root, "total"), "miscounted"), REPRICE_ROWS_MAX + 10);
    cJSON_Delete(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(given_right_costs_when_repriced_then_no_row),
        TEST(given_candidate_with_its_own_price_when_repriced_then_by_that),
        TEST(given_wrong_cost_when_repriced_then_summed_by_key_and_model),
        TEST(given_other_price_in_config_when_repriced_then_changed),
        TEST(given_model_gone_from_config_when_repriced_then_counted_as_unknown),
        TEST(given_request_that_used_nothing_when_repriced_then_free),
        TEST(given_more_differences_than_rows_when_repriced_then_rest_counted),
#undef TEST
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
