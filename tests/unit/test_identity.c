#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/identity.h"

struct fixture {
    char dir[40], secret[64], node[64];
    struct buf why;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_identity.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->secret, sizeof(f->secret), "%s/key.secret", f->dir);
    snprintf(f->node, sizeof(f->node), "%s/node", f->dir);
    buf_init(&f->why, 4096);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->secret);
    unlink(f->node);
    assert_int_equal(rmdir(f->dir), 0); /* no half-made file is left */
    buf_clear(&f->why);
    free(f);
    return 0;
}

static void put_file(const char *path, const void *data, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static void given_first_start_when_pepper_is_loaded_then_made_once_and_private(void **state)
{
    struct fixture *f = *state;
    uint8_t first[KEY_PEPPER_BYTES] = {0}, second[KEY_PEPPER_BYTES], zero[KEY_PEPPER_BYTES] = {0};
    struct stat st;

    assert_int_equal(identity_load_pepper(f->dir, first, &f->why), 0);
    assert_int_equal(identity_load_pepper(f->dir, second, &f->why), 0);
    assert_memory_equal(first, second, sizeof(first));
    assert_memory_not_equal(first, zero, sizeof(first));
    assert_int_equal(stat(f->secret, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, KEY_PEPPER_BYTES);
}

static void given_damaged_pepper_when_loaded_then_refused_and_not_replaced(void **state)
{
    struct fixture *f = *state;
    uint8_t pepper[KEY_PEPPER_BYTES];
    struct stat st;

    put_file(f->secret, "short", 5, 0600);
    assert_int_equal(identity_load_pepper(f->dir, pepper, &f->why), -EINVAL);
    assert_non_null(strstr(buf_text(&f->why), f->secret));
    assert_int_equal(stat(f->secret, &st), 0);
    assert_int_equal(st.st_size, 5);
    put_file(f->secret, "0123456789012345678901234567890123456789", 40, 0600);
    assert_int_equal(identity_load_pepper(f->dir, pepper, &f->why), -EINVAL);
}

static void given_pepper_that_others_may_read_when_loaded_then_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t pepper[KEY_PEPPER_BYTES];

    put_file(f->secret, "01234567890123456789012345678901", 32, 0640);
    assert_int_equal(identity_load_pepper(f->dir, pepper, &f->why), -EINVAL);
    assert_non_null(strstr(buf_text(&f->why), "chmod 600"));
}

static void given_first_start_when_node_is_loaded_then_same_number_ever_after(void **state)
{
    struct fixture *f = *state;
    uint32_t first = 0, second = 1;

    assert_int_equal(identity_load_node(f->dir, &first, &f->why), 0);
    assert_int_equal(identity_load_node(f->dir, &second, &f->why), 0);
    assert_int_equal(first, second);
}

static void given_node_file_when_loaded_then_its_digits_count(void **state)
{
    struct fixture *f = *state;
    uint32_t node = 0;

    put_file(f->node, "01ab23cd\n", 9, 0600);
    assert_int_equal(identity_load_node(f->dir, &node, &f->why), 0);
    assert_int_equal(node, 0x01ab23cd);
    put_file(f->node, "01ab23cx", 8, 0600);
    assert_int_equal(identity_load_node(f->dir, &node, &f->why), -EINVAL);
}

static void given_nested_path_when_dir_is_made_then_only_the_last_is_private(void **state)
{
    struct fixture *f = *state;
    char outer[64], inner[80];
    struct stat st;

    snprintf(outer, sizeof(outer), "%s/a", f->dir);
    snprintf(inner, sizeof(inner), "%s/b", outer);
    assert_int_equal(identity_make_dir(inner, 0700), 0);
    assert_int_equal(identity_make_dir(inner, 0700), 0);
    assert_int_equal(stat(inner, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(rmdir(outer), 0);
    assert_int_equal(identity_make_dir("/proc/nothing/here", 0700), -ENOENT);
}

int main(void)
{
#define IDENTITY_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        IDENTITY_TEST(given_first_start_when_pepper_is_loaded_then_made_once_and_private),
        IDENTITY_TEST(given_damaged_pepper_when_loaded_then_refused_and_not_replaced),
        IDENTITY_TEST(given_pepper_that_others_may_read_when_loaded_then_refused),
        IDENTITY_TEST(given_first_start_when_node_is_loaded_then_same_number_ever_after),
        IDENTITY_TEST(given_node_file_when_loaded_then_its_digits_count),
        IDENTITY_TEST(given_nested_path_when_dir_is_made_then_only_the_last_is_private),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
