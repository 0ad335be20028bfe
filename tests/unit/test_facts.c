/* What providers say of themselves: read from their answers, kept in shared memory, shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "router/facts_view.h"
#include "tests/unit/gigachat_kit.h"

#define PROVIDERS 2

/* ---- models_list ---- */

static int decode(const char *text, struct models_list *list)
{
    struct error e = {0};
    int rc = models_list_decode(text, strlen(text), list, &e);

    assert_int_equal(rc, e.number);
    return rc;
}

static void given_lists_when_decoded_then_their_names(void **state)
{
    struct models_list list;
    const char *name;

    assert_int_equal(
        decode("{\"object\":\"list\",\"data\":[{\"id\":\"GigaChat-2\",\"type\":\"chat\"},"
               "{\"id\":\"models/gemini-2.5-pro\"},{\"name\":\"no id\"},{\"id\":\"\"},7]}",
               &list),
        0);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.left_out, 1);
    name = models_list_next(&list, NULL);
    assert_string_equal(name, "GigaChat-2");
    name = models_list_next(&list, name);
    assert_string_equal(name, "gemini-2.5-pro");
    assert_null(models_list_next(&list, name));
    assert_true(models_list_has(&list, "GigaChat-2"));
    assert_false(models_list_has(&list, "GigaChat"));
    assert_int_equal(decode("{\"data\":[]}", &list), 0);
    assert_int_equal(list.count, 0);
    assert_null(models_list_next(&list, NULL));
}

static void given_other_answers_when_decoded_then_refused(void **state)
{
    static const char *const answers[] = {"", "[]", "{}", "{\"data\":{}}", "<html>", "{\"data\":["};
    struct models_list list;

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        assert_int_equal(decode(answers[i], &list), XR_EUPSTREAM);
}

static void given_more_models_than_fit_when_decoded_then_counted(void **state)
{
    const uint32_t many = 4000;
    struct models_list list;
    struct buf text;
    uint32_t found = 0;

    buf_init(&text, SIZE_MAX);
    buf_str(&text, "{\"data\":[");
    for (uint32_t i = 0; i < many; i++)
        buf_printf(&text, "%s{\"id\":\"model-number-%04u\"}", i == 0 ? "" : ",", i);
    buf_str(&text, "]}");
    assert_int_equal(decode(buf_text(&text), &list), 0);
    assert_int_equal(list.count, MODELS_LIST_BYTES / 18);
    assert_int_equal(list.count + list.left_out, many);
    for (const char *name = NULL; (name = models_list_next(&list, name)) != NULL;)
        found++;
    assert_int_equal(found, list.count);
    buf_clear(&text);
}

/* As shared memory may be after a fault: no end anywhere. */
static void given_a_list_without_ends_when_read_then_nothing_outside_it(void **state)
{
    struct models_list *list = malloc(sizeof(*list));

    assert_non_null(list);
    memset(list, 'x', sizeof(*list));
    assert_null(models_list_next(list, NULL));
    assert_false(models_list_has(list, "x"));
    list->names[5] = '\0';
    assert_true(models_list_has(list, "xxxxx"));
    assert_null(models_list_next(list, list->names));
    free(list);
}

/* ---- GigaChat's requests and balance ---- */

static void given_gigachat_when_asked_then_gets_without_body(void **state)
{
    const struct upstream_call call = {.token = "tok", .request_id = "req_1"};
    struct provider_config p = kit_provider();
    struct upstream_request r;
    struct error e = {0};

    upstream_request_init(&r);
    assert_int_equal(kit_ops()->encode_models(&p, &call, &r, &e), 0);
    assert_string_equal(buf_text(&r.head), "GET /v1/models HTTP/1.1\r\nHost: api.giga.chat\r\n"
                                           "User-Agent: xrouter/" XROUTER_VERSION "\r\n"
                                           "Authorization: Bearer tok\r\n"
                                           "Accept: application/json\r\n"
                                           "X-Request-ID: req_1\r\n\r\n");
    assert_int_equal(r.body.len, 0);
    upstream_request_clear(&r);
    upstream_request_init(&r);
    assert_int_equal(kit_ops()->encode_balance(&p, &call, &r, &e), 0);
    assert_memory_equal(r.head.data, "GET /v1/balance HTTP/1.1\r\n", 26);
    upstream_request_clear(&r);
}

static void given_others_when_asked_for_models_then_their_paths_and_keys(void **state)
{
    static char openai[] = "openai", anthropic[] = "anthropic", flavor[] = "openai", key[] = "sk-1";
    static char base[] = "http://h/openai/v1", root[] = "http://h", versioned[] = "http://h/a/v1";
    static const struct {
        char *type, *base_url;
        const char *line, *header;
    } cases[] = {
        {openai, base, "GET /openai/v1/models HTTP/1.1\r\n", "Authorization: Bearer sk-1\r\n"},
        {openai, root, "GET /v1/models HTTP/1.1\r\n", "Authorization: Bearer sk-1\r\n"},
        {anthropic, root, "GET /v1/models?limit=1000 HTTP/1.1\r\n", "x-api-key: sk-1\r\n"},
        {anthropic, versioned, "GET /a/v1/models?limit=1000 HTTP/1.1\r\n",
         "anthropic-version: 2023-06-01\r\n"},
    };
    const struct upstream_call call = {.request_id = "req_1"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct provider_config p = {.type = cases[i].type,
                                    .base_url = cases[i].base_url,
                                    .flavor = flavor,
                                    .credentials = key};
        struct upstream_request r;
        struct error e = {0};

        upstream_request_init(&r);
        assert_int_equal(provider_ops_find(p.type)->encode_models(&p, &call, &r, &e), 0);
        assert_memory_equal(r.head.data, cases[i].line, strlen(cases[i].line));
        assert_non_null(strstr(buf_text(&r.head), cases[i].header));
        assert_null(strstr(buf_text(&r.head), "Content-Length"));
        upstream_request_clear(&r);
    }
}

static void given_a_balance_when_decoded_then_each_models_tokens(void **state)
{
    static const char text[] = "{\"balance\":[{\"usage\":\"GigaChat\",\"value\":100500},"
                               "{\"usage\":\"x\"},{\"usage\":\"Embeddings\",\"value\":0}]}";
    struct account_balances b;
    struct error e = {0};

    assert_int_equal(kit_ops()->decode_balance(text, strlen(text), &b, &e), 0);
    assert_int_equal(b.count, 2);
    assert_string_equal(b.of[0].model, "GigaChat");
    assert_int_equal(b.of[0].tokens, 100500);
    assert_string_equal(b.of[1].model, "Embeddings");
    assert_int_equal(kit_ops()->decode_balance("{}", 2, &b, &e), XR_EUPSTREAM);
    assert_int_equal(b.count, 0);
}

/* ---- shared memory ---- */

struct fixture {
    struct facts_region *region;
    size_t bytes;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->bytes = facts_region_spec(PROVIDERS).bytes;
    f->region = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->region != MAP_FAILED);
    facts_region_init(f->region, PROVIDERS);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->region, f->bytes);
    free(f);
    return 0;
}

static void given_a_turn_when_several_want_it_then_one_has_it(void **state)
{
    struct fixture *f = *state;
    int winners = 0;

    for (int i = 0; i < 8; i++)
        if (fork() == 0)
            _exit(facts_take(f->region, 1, 3, 1000, 500) ? 1 : 0);
    for (int i = 0; i < 8; i++) {
        int status;

        assert_true(wait(&status) > 0);
        winners += WEXITSTATUS(status);
    }
    assert_int_equal(winners, 1);
    assert_false(facts_take(f->region, 1, 3, 1499, 500));
    assert_true(facts_take(f->region, 1, 3, 1500, 500)); /* who had it is dead, or slow */
    facts_plan(f->region, 1, 3, 9000);
    assert_false(facts_take(f->region, 1, 3, 8999, 500));
    assert_true(facts_take(f->region, 1, 3, 9000, 500));
    assert_true(facts_take(f->region, 1, 2, 0, 500)); /* each account has its own */
    assert_false(facts_take(f->region, PROVIDERS, 0, 9000, 500));
    assert_false(facts_take(f->region, 0, CONFIG_ACCOUNTS_MAX, 9000, 500));
}

static void given_values_when_stored_then_loaded_and_shown(void **state)
{
    static const char list[] = "{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}";
    struct fixture *f = *state;
    struct counters_region *names =
        aligned_alloc(64, (counters_region_spec(1, 4, 4).bytes + 63) / 64 * 64);
    struct facts_models models = {.at_ms = 7};
    struct facts_account account = {
        .at_ms = 8, .balances = {.count = 1, .of = {{.model = "GigaChat", .tokens = -5}}}};
    struct buf text;

    assert_non_null(names);
    memset(names, 0, counters_region_spec(1, 4, 4).bytes);
    counters_region_init(names, 1, 4, 4);
    assert_int_equal(counters_register_provider(names, "one"), 0);
    assert_int_equal(counters_register_provider(names, "two"), 1);
    buf_init(&text, SIZE_MAX);
    facts_put_provider(f->region, 1, &text);
    assert_string_equal(buf_text(&text), "\"models_offered\":null,\"balances\":[]");
    buf_reset(&text);
    facts_put_offered(&(struct facts_models){0}, "a", &text);
    assert_string_equal(buf_text(&text), "\"offered\":null");

    assert_int_equal(decode(list, &models.list), 0);
    facts_store_models(f->region, 1, &models);
    facts_store_account(f->region, 1, 4, &account);
    buf_reset(&text);
    facts_put_provider(f->region, 1, &text);
    assert_string_equal(buf_text(&text),
                        "\"models_offered\":2,\"balances\":[{\"account\":4,\"model\":\"GigaChat\","
                        "\"tokens\":-5,\"at_ms\":8}]");
    buf_reset(&text);
    facts_load_models(f->region, 1, &models);
    facts_put_offered(&models, "b", &text);
    facts_put_offered(&models, "c", &text);
    models.list.left_out = 1; /* then it may be among those */
    facts_put_offered(&models, "c", &text);
    assert_string_equal(buf_text(&text), "\"offered\":true,\"offered\":false,\"offered\":null");
    buf_reset(&text);
    facts_put_prometheus(f->region, names, &text);
    assert_non_null(strstr(buf_text(&text),
                           "xrouter_provider_balance_tokens{provider=\"two\",account=\"4\","
                           "model=\"GigaChat\"} -5\n"));
    assert_non_null(
        strstr(buf_text(&text), "xrouter_provider_models_offered{provider=\"two\"} 2\n"));
    assert_null(strstr(buf_text(&text), "{provider=\"one\""));
    buf_clear(&text);
    free(names);
}

int main(void)
{
#define SHARED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_lists_when_decoded_then_their_names),
        cmocka_unit_test(given_other_answers_when_decoded_then_refused),
        cmocka_unit_test(given_more_models_than_fit_when_decoded_then_counted),
        cmocka_unit_test(given_a_list_without_ends_when_read_then_nothing_outside_it),
        cmocka_unit_test(given_gigachat_when_asked_then_gets_without_body),
        cmocka_unit_test(given_others_when_asked_for_models_then_their_paths_and_keys),
        cmocka_unit_test(given_a_balance_when_decoded_then_each_models_tokens),
        SHARED(given_a_turn_when_several_want_it_then_one_has_it),
        SHARED(given_values_when_stored_then_loaded_and_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
