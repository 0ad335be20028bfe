/* Files of a request at GigaChat: what is taken, how it is uploaded, where its id stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "providers/chat_request.h"
#include "tests/unit/gigachat_kit.h"

#define IMAGE "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AAEC\"}}"
#define URL(url) "{\"type\":\"image_url\",\"image_url\":{\"url\":\"" url "\"}}"
#define DOCUMENT                                                                             \
    "{\"type\":\"file\",\"file\":{\"filename\":\"a\\\"b\",\"file_data\":\"data:application/" \
    "pdf;base64,JVBE\"}}"
#define AUDIO "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAEC\",\"format\":\"mp3\"}}"
#define TEXT "{\"type\":\"text\",\"text\":\"see\"}"
#define USER(parts) "{\"role\":\"user\",\"content\":[" parts "]}"
#define CHAT(messages) "{\"model\":\"m\",\"messages\":[" messages "]}"

static int count(const char *text, size_t *found, struct error *e)
{
    struct model_request req;
    int rc;

    memset(e, 0, sizeof(*e));
    kit_parse(text, &req);
    rc = kit_ops()->count_uploads(&req, found, e);
    model_request_clear(&req);
    return rc;
}

static void given_files_of_all_kinds_when_counted_then_each_is_one(void **state)
{
    struct error e;
    size_t found;

    assert_int_equal(count(CHAT("{\"role\":\"user\",\"content\":\"x\"}"), &found, &e), 0);
    assert_int_equal(found, 0);
    assert_int_equal(
        count(CHAT(USER(TEXT "," IMAGE "," AUDIO "," DOCUMENT) "," USER(IMAGE)), &found, &e), 0);
    assert_int_equal(found, 4);
}

static void given_what_gigachat_does_not_take_when_counted_then_refused_by_place(void **state)
{
#define TWO USER(IMAGE) "," USER(IMAGE)
    static const struct {
        const char *text, *param;
        int number;
    } cases[] = {
        {CHAT(USER(IMAGE "," IMAGE)), "messages[0].content[1].image_url.url", XR_EUNSUPPORTED},
        {CHAT(TWO "," TWO "," TWO "," TWO "," TWO "," USER(IMAGE)),
         "messages[10].content[0].image_url.url", XR_EUNSUPPORTED},
        {CHAT(USER(DOCUMENT) "," USER(DOCUMENT)), "messages[1].content[0].file.file_data",
         XR_EUNSUPPORTED},
        {CHAT(USER(URL("https://h/a.png"))), "messages[0].content[0].image_url.url", XR_EINVALID},
        {CHAT(USER(URL("data:image/webp;base64,AAEC"))), "messages[0].content[0].image_url.url",
         XR_EINVALID},
        {CHAT(USER(URL("data:application/pdf;base64,AAEC"))),
         "messages[0].content[0].image_url.url", XR_EINVALID},
        {CHAT(USER("{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}")),
         "messages[0].content[0].file.file_data", XR_EUNSUPPORTED},
        {CHAT(USER("{\"type\":\"file\",\"file\":{\"file_data\":\"data:image/png;base64,AAEC\"}}")),
         "messages[0].content[0].file.file_data", XR_EINVALID},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e;
        size_t found;

        assert_int_equal(count(cases[i].text, &found, &e), cases[i].number);
        assert_string_equal(e.param, cases[i].param);
    }
}

static int encode_upload(const char *text, size_t index, struct upstream_request *out,
                         struct error *e)
{
    const struct upstream_call call = {.token = "tok", .request_id = "req-1"};
    struct provider_config p = kit_provider();
    struct model_request req;
    int rc;

    memset(e, 0, sizeof(*e));
    kit_parse(text, &req);
    upstream_request_init(out);
    rc = kit_ops()->encode_upload(&p, &req, index, &call, out, e);
    model_request_clear(&req);
    return rc;
}

static void given_a_document_when_uploaded_then_a_form_without_its_name(void **state)
{
    struct upstream_request out;
    struct error e;
    char boundary[33] = "", expected[600];
    const char *at;
    int n;

    assert_int_equal(encode_upload(CHAT(USER(IMAGE "," DOCUMENT)), 1, &out, &e), 0);
    assert_non_null(strstr(buf_text(&out.head), "/files HTTP/1.1\r\n"));
    assert_non_null(strstr(buf_text(&out.head), "\r\nAuthorization: Bearer tok\r\n"));
    at = strstr(buf_text(&out.head), "boundary=");
    assert_non_null(at);
    memcpy(boundary, at + strlen("boundary="), 32);
    n = snprintf(
        expected, sizeof(expected),
        "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file-2.pdf\"\r\n"
        "Content-Type: application/pdf\r\n\r\n%%PD\r\n--%s\r\n"
        "Content-Disposition: form-data; name=\"purpose\"\r\n\r\ngeneral\r\n--%s--\r\n",
        boundary, boundary, boundary);
    assert_int_equal(out.body.len, n);
    assert_memory_equal(out.body.data, expected, out.body.len);
    upstream_request_clear(&out);
}

static void given_no_base64_when_uploaded_then_refused_by_place(void **state)
{
    struct upstream_request out;
    struct error e;

    assert_int_equal(encode_upload(CHAT(USER(URL("data:image/png;base64,AA\\r\\nX"))), 0, &out, &e),
                     XR_EINVALID);
    assert_string_equal(e.param, "messages[0].content[0].image_url.url");
    upstream_request_clear(&out);
}

static void given_answers_to_an_upload_when_decoded_then_only_plain_ids(void **state)
{
    static const char *const bad[] = {"",
                                      "{}",
                                      "{\"id\":\"\"}",
                                      "{\"id\":7}",
                                      "{\"id\":\"a/../b\"}",
                                      "{\"id\":\"a\\r\\nb\"}",
                                      "<html>"};
    char id[FILE_ID_BYTES];
    struct error e = {0};

    assert_int_equal(kit_ops()->decode_upload("{\"id\":\"3f3f-c0e_\"}", 18, id, &e), 0);
    assert_string_equal(id, "3f3f-c0e_");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(kit_ops()->decode_upload(bad[i], strlen(bad[i]), id, &e), XR_EUPSTREAM);
}

static void expect_body(const char *text, const struct file_ids *files, int rc, const char *part)
{
    const struct upstream_call call = {.token = "tok", .request_id = "req-1", .files = files};
    struct provider_config p = kit_provider();
    struct upstream_request out;
    struct model_request req;
    struct error e = {0};
    struct buf ignored;

    kit_parse(text, &req);
    upstream_request_init(&out);
    buf_init(&ignored, 100);
    assert_int_equal(kit_ops()->encode_chat(&p, "Up", &req, &call, &out, &ignored, &e), rc);
    if (rc == 0 && strstr(buf_text(&out.body), part) == NULL)
        fail_msg("no %s in %s", part, buf_text(&out.body));
    upstream_request_clear(&out);
    buf_clear(&ignored);
    model_request_clear(&req);
}

static void given_uploaded_files_when_encoded_then_ids_in_their_messages(void **state)
{
    const struct file_ids files = {.id = {"one", "two"}, .count = 2};

    expect_body(CHAT(USER(TEXT "," IMAGE) "," USER(IMAGE)), &files, 0,
                "[{\"role\":\"user\",\"content\":\"see\",\"attachments\":[\"one\"]},"
                "{\"role\":\"user\",\"content\":\"\",\"attachments\":[\"two\"]}]");
    /* Neighbours still become one message, if one of them alone has files. */
    expect_body(CHAT(USER(IMAGE "," TEXT) "," USER(TEXT)), &files, 0,
                "[{\"role\":\"user\",\"content\":\"see\\nsee\",\"attachments\":[\"one\"]}]");
    expect_body(CHAT(USER(DOCUMENT)), &files, 0, "\"function_call\":\"auto\"");
    expect_body(CHAT(USER(IMAGE)), NULL, XR_EINTERNAL, "");
}

static void given_a_file_when_removed_then_by_its_path(void **state)
{
    const struct upstream_call call = {.token = "tok", .request_id = "req-1"};
    struct provider_config p = kit_provider();
    struct upstream_request out;
    struct error e = {0};

    upstream_request_init(&out);
    assert_int_equal(kit_ops()->encode_removal(&p, "one", &call, &out, &e), 0);
    assert_non_null(strstr(buf_text(&out.head), "/files/one/delete HTTP/1.1\r\n"));
    assert_int_equal(out.body.len, 0);
    upstream_request_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_files_of_all_kinds_when_counted_then_each_is_one),
        cmocka_unit_test(given_what_gigachat_does_not_take_when_counted_then_refused_by_place),
        cmocka_unit_test(given_a_document_when_uploaded_then_a_form_without_its_name),
        cmocka_unit_test(given_no_base64_when_uploaded_then_refused_by_place),
        cmocka_unit_test(given_answers_to_an_upload_when_decoded_then_only_plain_ids),
        cmocka_unit_test(given_uploaded_files_when_encoded_then_ids_in_their_messages),
        cmocka_unit_test(given_a_file_when_removed_then_by_its_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
