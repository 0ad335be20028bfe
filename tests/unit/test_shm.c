#define _GNU_SOURCE 1 /* memmem */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/shm.h"

static const uint8_t start_id[SHM_START_ID_BYTES] = "0123456789abcde";

static const struct shm_region_spec specs[] = {
    {"first", 5000, 11},
    {"second", 16, 22},
};

struct fixture {
    char dir[32];
    char name[SHM_NAME_BYTES];
    struct shm *shm;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/test_shm.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(shm_instance_name(f->dir, ".test", f->name), 0);
    assert_int_equal(shm_create(f->name, 0640, specs, 2, start_id, &f->shm), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    shm_close(f->shm);
    shm_unlink_name(f->name);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void given_runtime_dir_when_named_then_same_for_any_spelling(void **state)
{
    struct fixture *f = *state;
    char path[64], name[SHM_NAME_BYTES];

    snprintf(path, sizeof(path), "%s/./", f->dir);
    assert_int_equal(shm_instance_name(path, ".test", name), 0);
    assert_string_equal(name, f->name);
    assert_int_equal(strncmp(name, "/xrouter-", 9), 0);
    assert_int_equal(strlen(name), 9 + 12 + 5);
    assert_int_equal(shm_instance_name("/nonexistent/dir", "", name), -ENOENT);
}

static void given_new_object_when_regions_are_asked_then_zeroed_page_aligned_and_apart(void **state)
{
    struct fixture *f = *state;
    size_t bytes = 0;
    char *first = shm_region(f->shm, "first", 11, &bytes);
    char *second;

    assert_non_null(first);
    assert_int_equal(bytes, 5000);
    assert_int_equal((uintptr_t)first % 4096, 0);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(first[i], 0);
    second = shm_region(f->shm, "second", 22, &bytes);
    assert_int_equal(bytes, 16);
    assert_int_equal((uintptr_t)second % 4096, 0);
    assert_true(second >= first + 5000);
    assert_null(shm_region(f->shm, "third", 11, NULL));
}

static void given_region_when_layout_differs_then_it_is_not_given(void **state)
{
    struct fixture *f = *state;

    assert_null(shm_region(f->shm, "first", 12, NULL));
}

static void given_existing_object_when_created_again_then_eexist_and_old_one_stays(void **state)
{
    struct fixture *f = *state;
    struct shm *other;

    assert_int_equal(shm_create(f->name, 0640, specs, 2, start_id, &other), -EEXIST);
    assert_null(other);
    assert_int_equal(shm_attach(f->name, false, &other, NULL), 0);
    shm_close(other);
}

static void given_object_when_attached_then_writes_are_seen_and_start_id_is_equal(void **state)
{
    struct fixture *f = *state;
    struct shm *other;
    char *mine = shm_region(f->shm, "first", 11, NULL);
    char *theirs;

    assert_int_equal(shm_attach(f->name, true, &other, NULL), 0);
    theirs = shm_region(other, "first", 11, NULL);
    strcpy(theirs, "hello");
    assert_string_equal(mine, "hello");
    assert_memory_equal(shm_start_id(other), start_id, SHM_START_ID_BYTES);
    shm_close(other);
}

static void given_mode_when_created_then_umask_does_not_change_it(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    int fd = shm_open(f->name, O_RDONLY, 0);

    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_true(st.st_blocks * 512 >= st.st_size); /* allocated, not promised */
}

static void given_no_object_when_attached_then_enoent(void **state)
{
    struct shm *shm;

    assert_int_equal(shm_attach("/xrouter-test-none", false, &shm, NULL), -ENOENT);
    assert_null(shm);
}

static void given_foreign_or_cut_object_when_attached_then_eproto_with_reason(void **state)
{
    struct fixture *f = *state;
    struct shm *other;
    const char *why = NULL;
    int fd = shm_open(f->name, O_RDWR, 0);
    uint64_t magic;

    assert_int_equal(pread(fd, &magic, sizeof(magic), 0), sizeof(magic));
    assert_int_equal(pwrite(fd, "garbage!", 8, 0), 8);
    assert_int_equal(shm_attach(f->name, false, &other, &why), -EPROTO);
    assert_non_null(why);
    assert_int_equal(pwrite(fd, &magic, sizeof(magic), 0), sizeof(magic));
    assert_int_equal(ftruncate(fd, 8192), 0);
    why = NULL;
    assert_int_equal(shm_attach(f->name, false, &other, &why), -EPROTO);
    assert_non_null(why);
    assert_int_equal(ftruncate(fd, 10), 0);
    assert_int_equal(shm_attach(f->name, false, &other, &why), -EPROTO);
    close(fd);
}

static void given_damaged_region_table_when_attached_then_eproto(void **state)
{
    struct fixture *f = *state;
    struct shm *other;
    uint8_t page[4096];
    uint64_t wide = UINT64_MAX - 4095;
    int fd = shm_open(f->name, O_RDWR, 0);
    char *name;

    assert_int_equal(pread(fd, page, sizeof(page), 0), sizeof(page));
    name = memmem(page, sizeof(page), "first", 6);
    assert_non_null(name);
    /* The entry's offset stands right behind its name. */
    assert_int_equal(pwrite(fd, &wide, sizeof(wide), name + 24 - (char *)page), sizeof(wide));
    assert_int_equal(shm_attach(f->name, false, &other, NULL), -EPROTO);
    close(fd);
}

static void given_sizes_that_overflow_when_created_then_error_and_no_object(void **state)
{
    const struct shm_region_spec huge[] = {{"a", SIZE_MAX - 100, 1}, {"b", 4096, 1}};
    struct shm *shm;

    assert_int_equal(shm_create("/xrouter-test-huge", 0600, huge, 2, start_id, &shm), -EOVERFLOW);
    assert_int_equal(shm_attach("/xrouter-test-huge", false, &shm, NULL), -ENOENT);
}

static void given_too_little_room_when_created_then_error_and_no_object(void **state)
{
    const struct shm_region_spec big[] = {{"a", (size_t)1 << 52, 1}};
    struct shm *shm;
    int rc = shm_create("/xrouter-test-big", 0600, big, 1, start_id, &shm);

    assert_true(rc == -ENOSPC || rc == -EFBIG);
    assert_int_equal(shm_attach("/xrouter-test-big", false, &shm, NULL), -ENOENT);
}

static void given_object_when_renamed_then_found_under_the_new_name_only(void **state)
{
    struct fixture *f = *state;
    char aside[SHM_NAME_BYTES + 8];
    struct shm *other;

    snprintf(aside, sizeof(aside), "%s.aside", f->name);
    assert_int_equal(shm_rename_name(f->name, aside), 0);
    assert_int_equal(shm_attach(f->name, false, &other, NULL), -ENOENT);
    assert_int_equal(shm_attach(aside, false, &other, NULL), 0);
    shm_close(other);
    assert_int_equal(shm_unlink_name(aside), 0);
    assert_int_equal(shm_unlink_name(aside), 0);
}

int main(void)
{
#define SHM_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        SHM_TEST(given_runtime_dir_when_named_then_same_for_any_spelling),
        SHM_TEST(given_new_object_when_regions_are_asked_then_zeroed_page_aligned_and_apart),
        SHM_TEST(given_region_when_layout_differs_then_it_is_not_given),
        SHM_TEST(given_existing_object_when_created_again_then_eexist_and_old_one_stays),
        SHM_TEST(given_object_when_attached_then_writes_are_seen_and_start_id_is_equal),
        SHM_TEST(given_mode_when_created_then_umask_does_not_change_it),
        SHM_TEST(given_no_object_when_attached_then_enoent),
        SHM_TEST(given_foreign_or_cut_object_when_attached_then_eproto_with_reason),
        SHM_TEST(given_damaged_region_table_when_attached_then_eproto),
        SHM_TEST(given_sizes_that_overflow_when_created_then_error_and_no_object),
        SHM_TEST(given_too_little_room_when_created_then_error_and_no_object),
        SHM_TEST(given_object_when_renamed_then_found_under_the_new_name_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
