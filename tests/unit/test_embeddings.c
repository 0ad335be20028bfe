#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/gigachat_kit.h"

#include "common/json.h"
#include "providers/embeddings.h"
#include "providers/embeddings_request.h"

static void parse(const char *text, struct model_request *req)
{
    struct error e = {0};

    if (embeddings_request_parse(text, strlen(text), req, &e) != 0)
        fail_msg("%s: %s", e.param, e.message);
}

static void refused(const char *text, const char *param)
{
    struct model_request req;
    struct error e = {0};

    assert_int_equal(embeddings_request_parse(text, strlen(text), &req, &e), XR_EINVALID);
    assert_string_equal(e.param, param);
}

static int decode(const struct model_request *req, const char *body, struct kit_answer *a)
{
    struct provider_config p = kit_provider();

    kit_answer_init(a);
    return embeddings_decode(&p, req, &kit_identity, body, strlen(body), &a->out, &a->meter.meter,
                             &a->usage, &a->usage_final, &a->e);
}

static void given_inputs_of_each_shape_when_parsed_then_tokens_are_counted(void **state)
{
    static const struct {
        const char *input;
        int64_t tokens;
    } cases[] = {{"\"a\"", 0}, {"[\"a\",\"b\"]", 0}, {"[1,2,3]", 3}, {"[[1,2],[3]]", 3}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_request req;
        char text[128];

        snprintf(text, sizeof(text), "{\"model\":\"m\",\"input\":%s}", cases[i].input);
        parse(text, &req);
        assert_int_equal(req.operation, OPERATION_EMBEDDINGS);
        assert_int_equal(req.input_tokens, cases[i].tokens);
        assert_false(req.wants_base64);
        model_request_clear(&req);
    }
}

static void given_what_is_no_input_when_parsed_then_the_place_is_named(void **state)
{
    refused("{\"model\":\"m\"}", "input");
    refused("{\"model\":\"m\",\"input\":[]}", "input");
    refused("{\"model\":\"m\",\"input\":\"\"}", "input");
    refused("{\"model\":\"m\",\"input\":{}}", "input");
    refused("{\"model\":\"m\",\"input\":[\"a\",1]}", "input[1]");
    refused("{\"model\":\"m\",\"input\":[1,\"a\"]}", "input[1]");
    refused("{\"model\":\"m\",\"input\":[[1],[]]}", "input[1]");
    refused("{\"model\":\"m\",\"input\":[1.5]}", "input[0]");
    refused("{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"hex\"}", "encoding_format");
    refused("{\"model\":\"m\",\"input\":\"a\",\"dimensions\":0}", "dimensions");
}

static void given_too_many_inputs_when_parsed_then_refused(void **state)
{
    struct buf text;

    buf_init(&text, KIT_MAX);
    buf_str(&text, "{\"model\":\"m\",\"input\":[\"a\"");
    for (int i = 0; i < EMBEDDINGS_INPUTS_MAX; i++)
        buf_str(&text, ",\"a\"");
    buf_str(&text, "]}");
    refused(buf_text(&text), "input");
    buf_clear(&text);
}

static void given_gigachats_answer_when_decoded_then_elements_usage_is_summed(void **state)
{
    struct model_request req;
    struct kit_answer a;

    parse("{\"model\":\"GigaChat\",\"input\":[\"a\",\"b\"]}", &req);
    assert_int_equal(decode(&req,
                            "{\"object\":\"list\",\"model\":\"Embeddings\",\"data\":["
                            "{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.10,-2e-1],"
                            "\"usage\":{\"prompt_tokens\":7}},"
                            "{\"object\":\"embedding\",\"index\":1,\"embedding\":[1],"
                            "\"usage\":{\"prompt_tokens\":5}}]}",
                            &a),
                     0);
    assert_string_equal(buf_text(&a.out),
                        "{\"object\":\"list\",\"model\":\"GigaChat\",\"data\":["
                        "{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.10,-2e-1]},"
                        "{\"object\":\"embedding\",\"index\":1,\"embedding\":[1]}],"
                        "\"usage\":{\"prompt_tokens\":12,\"total_tokens\":12}}");
    assert_true(a.usage_final);
    assert_int_equal(a.usage.input, 12);
    assert_int_equal(a.usage.cached, 0);
    assert_int_equal(a.usage.output, 0);
    kit_answer_clear(&a);
    model_request_clear(&req);
}

static void
given_base64_wanted_when_numbers_come_then_they_become_little_endian_floats(void **state)
{
    struct model_request req;
    struct kit_answer a;

    parse("{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"base64\"}", &req);
    assert_int_equal(decode(&req,
                            " {\"data\":[{\"index\":0,\"embedding\":[1,-2.5]}],"
                            "\"usage\":{\"prompt_tokens\":1,\"total_tokens\":1}}",
                            &a),
                     0);
    /* 00 00 80 3f, 00 00 20 c0 */
    assert_string_equal(buf_text(&a.out),
                        "{\"data\":[{\"index\":0,\"embedding\":\"AACAPwAAIMA=\"}],"
                        "\"usage\":{\"prompt_tokens\":1,\"total_tokens\":1}}");
    kit_answer_clear(&a);
    model_request_clear(&req);
}

static void given_base64_from_the_provider_when_decoded_then_kept(void **state)
{
    struct model_request req;
    struct kit_answer a;

    parse("{\"model\":\"m\",\"input\":[1,2],\"encoding_format\":\"base64\"}", &req);
    assert_int_equal(decode(&req, "{\"data\":[{\"embedding\":\"AACAPw==\"}],\"usage\":null}", &a),
                     0);
    assert_non_null(strstr(buf_text(&a.out), "\"embedding\":\"AACAPw==\""));
    assert_false(a.usage_final);
    kit_answer_clear(&a);
    model_request_clear(&req);
}

static void given_no_answer_of_that_shape_when_decoded_then_the_provider_has_failed(void **state)
{
    static const char *const bodies[] = {
        "",
        "nonsense",
        "[]",
        "{}",
        "{\"data\":{}}",
        "{\"data\":[]}",
        "{\"data\":[1]}",
        "{\"data\":[{\"embedding\":7}]}",
        "{\"data\":[{\"embedding\":[\"x\"]}]}",
        "{\"data\":[{\"embedding\":[1e99]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0}]}",
    };
    struct model_request req;

    parse("{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"base64\"}", &req);
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct kit_answer a;

        assert_int_equal(decode(&req, bodies[i], &a), XR_EUPSTREAM);
        assert_false(a.usage_final);
        kit_answer_clear(&a);
    }
    model_request_clear(&req);
}

static void given_a_request_when_encoded_for_gigachat_then_model_and_input_alone(void **state)
{
    struct provider_config p = kit_provider();
    struct model_request req;
    struct upstream_request out;
    struct buf ignored;
    struct error e = {0};

    parse("{\"input\":[\"\\u0451\", \"b\"],\"user\":\"u\",\"encoding_format\":\"base64\","
          "\"model\":\"x\",\"provider\":{\"only\":[\"g\"]}}",
          &req);
    upstream_request_init(&out);
    buf_init(&ignored, 64);
    assert_int_equal(kit_ops()->encode_embeddings(
                         &p, "Embeddings", &req,
                         &(struct upstream_call){.token = "token", .request_id = "req_1"}, &out,
                         &ignored, &e),
                     0);
    assert_string_equal(buf_text(&out.body),
                        "{\"model\":\"Embeddings\",\"input\":[\"\\u0451\", \"b\"]}");
    assert_non_null(strstr(buf_text(&out.head), "POST /v1/embeddings HTTP/1.1\r\n"));
    assert_string_equal(buf_text(&ignored), "user");
    upstream_request_clear(&out);
    buf_clear(&ignored);
    model_request_clear(&req);
}

static void given_what_gigachat_lacks_when_encoded_then_unsupported(void **state)
{
    static const struct {
        const char *text, *param;
    } cases[] = {{"{\"input\":[1]}", "input"},
                 {"{\"input\":\"a\",\"dimensions\":8}", "dimensions"}};
    struct provider_config p = kit_provider();

    for (size_t i = 0; i < 2; i++) {
        struct model_request req;
        struct upstream_request out;
        struct error e = {0};
        struct buf ignored;

        parse(cases[i].text, &req);
        upstream_request_init(&out);
        buf_init(&ignored, 64);
        assert_int_equal(kit_ops()->encode_embeddings(
                             &p, "Embeddings", &req,
                             &(struct upstream_call){.token = "token", .request_id = "req_1"}, &out,
                             &ignored, &e),
                         XR_EUNSUPPORTED);
        assert_string_equal(e.param, cases[i].param);
        upstream_request_clear(&out);
        buf_clear(&ignored);
        model_request_clear(&req);
    }
}

static void given_a_request_when_encoded_for_openai_then_its_bytes_stay(void **state)
{
    static char type[] = "openai", base[] = "https://h/v1", key[] = "sk-x";
    const struct provider_ops *ops = provider_ops_find(type);
    struct provider_config p = {
        .name = type, .type = type, .flavor = type, .base_url = base, .credentials = key};
    struct model_request req;
    struct upstream_request out;
    struct error e = {0};
    struct buf ignored;

    parse("{ \"input\" : [[1, 2]], \"models\":[\"y\"], \"model\":\"x\", "
          "\"extra\":12345678901234567890}",
          &req);
    upstream_request_init(&out);
    buf_init(&ignored, 64);
    assert_int_equal(ops->encode_embeddings(&p, "text-embedding-3-small", &req,
                                            &(struct upstream_call){.request_id = "req_1"}, &out,
                                            &ignored, &e),
                     0);
    assert_string_equal(buf_text(&out.body),
                        "{ \"input\" : [[1, 2]], \"model\":\"text-embedding-3-small\", "
                        "\"extra\":12345678901234567890}");
    assert_non_null(strstr(buf_text(&out.head), "POST /v1/embeddings HTTP/1.1\r\n"));
    upstream_request_clear(&out);
    buf_clear(&ignored);
    model_request_clear(&req);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_inputs_of_each_shape_when_parsed_then_tokens_are_counted),
        cmocka_unit_test(given_what_is_no_input_when_parsed_then_the_place_is_named),
        cmocka_unit_test(given_too_many_inputs_when_parsed_then_refused),
        cmocka_unit_test(given_gigachats_answer_when_decoded_then_elements_usage_is_summed),
        cmocka_unit_test(
            given_base64_wanted_when_numbers_come_then_they_become_little_endian_floats),
        cmocka_unit_test(given_base64_from_the_provider_when_decoded_then_kept),
        cmocka_unit_test(given_no_answer_of_that_shape_when_decoded_then_the_provider_has_failed),
        cmocka_unit_test(given_a_request_when_encoded_for_gigachat_then_model_and_input_alone),
        cmocka_unit_test(given_what_gigachat_lacks_when_encoded_then_unsupported),
        cmocka_unit_test(given_a_request_when_encoded_for_openai_then_its_bytes_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
