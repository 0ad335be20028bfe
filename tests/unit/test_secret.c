#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/secret.h"

struct fixture {
    char dir[40];
    char file[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    strcpy(f->dir, "/tmp/test_secret.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof(f->file), "%s/token", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->file);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void write_file(const char *path, const char *data, size_t len)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
}

static void given_environment_when_read_then_value_without_newline(void **state)
{
    char *secret = NULL;
    bool is_literal = true;
    char why[160];

    setenv("TEST_SECRET", "s3cret\n", 1);
    assert_int_equal(secret_read("env:TEST_SECRET", NULL, &secret, &is_literal, why), 0);
    assert_string_equal(secret, "s3cret");
    assert_false(is_literal);
    secret_free(secret);
    unsetenv("TEST_SECRET");
    assert_int_equal(secret_read("env:TEST_SECRET", NULL, &secret, NULL, why), -ENOENT);
    assert_null(secret);
    assert_non_null(strstr(why, "TEST_SECRET"));
    setenv("TEST_SECRET", "\n", 1);
    assert_int_equal(secret_read("env:TEST_SECRET", NULL, &secret, NULL, why), -EINVAL);
}

static void given_file_when_read_then_one_newline_cut(void **state)
{
    const struct fixture *f = *state;
    char reference[80];
    char *secret = NULL;

    snprintf(reference, sizeof(reference), "file:%s", f->file);
    write_file(f->file, "top\n\n", 5);
    assert_int_equal(secret_read(reference, "/nowhere", &secret, NULL, NULL), 0);
    assert_string_equal(secret, "top\n");
    secret_free(secret);
    assert_int_equal(secret_read("file:token", f->dir, &secret, NULL, NULL), 0);
    assert_string_equal(secret, "top\n");
    secret_free(secret);
}

static void given_unusable_file_when_read_then_reason_without_content(void **state)
{
    const struct fixture *f = *state;
    char *secret = NULL;
    char why[160];

    assert_int_equal(secret_read("file:token", f->dir, &secret, NULL, why), -ENOENT);
    assert_non_null(strstr(why, "token"));
    assert_int_equal(secret_read("file:.", f->dir, &secret, NULL, why), -EINVAL);
    write_file(f->file, "", 0);
    assert_int_equal(secret_read("file:token", f->dir, &secret, NULL, why), -EINVAL);
    write_file(f->file, "hush\0hush", 9);
    assert_int_equal(secret_read("file:token", f->dir, &secret, NULL, why), -EINVAL);
    assert_null(strstr(why, "hush"));
    assert_null(secret);
    unlink(f->file);
    assert_int_equal(mkfifo(f->file, 0600), 0);
    assert_int_equal(secret_read("file:token", f->dir, &secret, NULL, why), -EINVAL);
}

static void given_systemd_credential_when_read_then_found_by_name_only(void **state)
{
    const struct fixture *f = *state;
    char *secret = NULL;

    write_file(f->file, "from systemd", 12);
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(secret_read("cred:token", NULL, &secret, NULL, NULL), -ENOENT);
    setenv("CREDENTIALS_DIRECTORY", f->dir, 1);
    assert_int_equal(secret_read("cred:token", NULL, &secret, NULL, NULL), 0);
    assert_string_equal(secret, "from systemd");
    secret_free(secret);
    assert_int_equal(secret_read("cred:../etc/passwd", NULL, &secret, NULL, NULL), -EINVAL);
    assert_int_equal(secret_read("cred:absent", NULL, &secret, NULL, NULL), -ENOENT);
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void given_literal_when_read_then_said_so(void **state)
{
    char *secret = NULL;
    bool is_literal = false;

    assert_int_equal(secret_read("plain", NULL, &secret, &is_literal, NULL), 0);
    assert_string_equal(secret, "plain");
    assert_true(is_literal);
    secret_free(secret);
    assert_int_equal(secret_read("", NULL, &secret, &is_literal, NULL), -EINVAL);
    secret_free(NULL);
}

static void given_known_vectors_when_hashed_then_equal(void **state)
{
    uint8_t digest[DIGEST_BYTES];
    char hex[2 * DIGEST_BYTES + 1];

    assert_int_equal(secret_sha256("abc", 3, digest), 0);
    hex_encode(digest, sizeof(digest), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* RFC 4231, test case 2 */
    assert_int_equal(secret_hmac("Jefe", 4, "what do ya want for nothing?", 28, digest), 0);
    hex_encode(digest, sizeof(digest), hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

static void given_bytes_when_encoded_then_base64url_without_padding(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *text;
    } cases[] = {{"", 0, ""},
                 {"f", 1, "Zg"},
                 {"fo", 2, "Zm8"},
                 {"foo", 3, "Zm9v"},
                 {"foobar", 6, "Zm9vYmFy"},
                 {"\xff\xfe\xfd", 3, "__79"},
                 {"\xfb\xf0", 2, "-_A"}};
    char text[16];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(base64url_encode(cases[i].bytes, cases[i].len, text),
                         strlen(cases[i].text));
        assert_string_equal(text, cases[i].text);
    }
}

static void given_hex_when_decoded_then_bytes_or_refused(void **state)
{
    uint8_t bytes[4];

    assert_int_equal(hex_decode("00fFA5", 6, bytes), 0);
    assert_memory_equal(bytes, "\x00\xff\xa5", 3);
    assert_int_equal(hex_decode("", 0, bytes), 0);
    assert_int_equal(hex_decode("123", 3, bytes), -EINVAL);
    assert_int_equal(hex_decode("1g", 2, bytes), -EINVAL);
    assert_int_equal(hex_decode("-1", 2, bytes), -EINVAL);
}

static void given_random_when_asked_twice_then_different(void **state)
{
    uint8_t a[32], b[32];

    assert_int_equal(secret_random(a, sizeof(a)), 0);
    assert_int_equal(secret_random(b, sizeof(b)), 0);
    assert_false(secret_equal(a, b, sizeof(a)));
    memcpy(b, a, sizeof(b));
    assert_true(secret_equal(a, b, sizeof(a)));
    b[31] ^= 1;
    assert_false(secret_equal(a, b, sizeof(a)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_environment_when_read_then_value_without_newline),
        cmocka_unit_test_setup_teardown(given_file_when_read_then_one_newline_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(given_unusable_file_when_read_then_reason_without_content,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(given_systemd_credential_when_read_then_found_by_name_only,
                                        setup, teardown),
        cmocka_unit_test(given_literal_when_read_then_said_so),
        cmocka_unit_test(given_known_vectors_when_hashed_then_equal),
        cmocka_unit_test(given_bytes_when_encoded_then_base64url_without_padding),
        cmocka_unit_test(given_hex_when_decoded_then_bytes_or_refused),
        cmocka_unit_test(given_random_when_asked_twice_then_different),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
