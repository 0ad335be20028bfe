#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/unit/forked.h"
#include "usage/spool.h"

#define RING_BYTES ((size_t)40 * USAGE_EVENT_MAX)
#define SEEN_MAX 4096
#define FILES_MAX 32

struct fixture {
    char root[32];
    char dir[48];
    struct outbox_region *region;
    struct outbox *ob;
    uint64_t next_key;
    /* what a scan told */
    uint64_t keys[SEEN_MAX];
    size_t key_count;
    char *files[FILES_MAX];
    size_t file_count;
    char *bad_file;
    char *bad_reason;
    int stop_with; /* what on_record answers */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->root, "/tmp/test_spool.XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->dir, sizeof(f->dir), "%s/spool", f->root);
    f->region = forked_memory(outbox_region_spec(2, RING_BYTES).bytes);
    outbox_region_init(f->region, 2, RING_BYTES);
    f->ob = outbox_slot(f->region, 0);
    *state = f;
    return 0;
}

static void forget(struct fixture *f)
{
    for (size_t i = 0; i < f->file_count; i++)
        free(f->files[i]);
    free(f->bad_file);
    free(f->bad_reason);
    f->bad_file = f->bad_reason = NULL;
    f->key_count = f->file_count = 0;
}

/* How many names are in the directory; the first one that is there. */
static size_t list_dir(struct fixture *f, char first[256])
{
    DIR *dir = opendir(f->dir);
    struct dirent *entry;
    size_t count = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        if (count++ == 0 && first != NULL)
            strcpy(first, entry->d_name);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char name[256], path[400];

    while (list_dir(f, name) > 0) {
        snprintf(path, sizeof(path), "%s/%s", f->dir, name);
        assert_int_equal(unlink(path), 0);
    }
    rmdir(f->dir);
    assert_int_equal(rmdir(f->root), 0);
    munmap(f->region, outbox_region_spec(2, RING_BYTES).bytes);
    forget(f);
    free(f);
    return 0;
}

static void append(struct fixture *f, struct outbox *ob, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct usage_event e = {.key_id = f->next_key++};

        assert_true(outbox_reserve(ob));
        outbox_append(ob, &e);
    }
}

static int on_record(void *arg, const uint8_t *record, size_t len)
{
    struct fixture *f = arg;
    struct usage_event e;
    size_t used;

    assert_int_equal(usage_event_decode(record, len, &e, &used), 0);
    assert_int_equal(used, len);
    assert_true(f->key_count < SEEN_MAX);
    f->keys[f->key_count++] = e.key_id;
    return f->stop_with;
}

static int on_file(void *arg, const char *path)
{
    struct fixture *f = arg;

    assert_true(f->file_count < FILES_MAX);
    f->files[f->file_count++] = strdup(path);
    return 0;
}

static void on_bad(void *arg, const char *path, const char *reason)
{
    struct fixture *f = arg;

    free(f->bad_file);
    free(f->bad_reason);
    f->bad_file = strdup(path);
    f->bad_reason = strdup(reason);
}

static int scan(struct fixture *f)
{
    struct spool_visitor visitor = {on_record, on_file, on_bad, f};

    forget(f);
    return spool_scan(f->dir, &visitor);
}

static void write_file(struct fixture *f, const char *name, const void *data, size_t len)
{
    char path[400];
    FILE *file;

    mkdir(f->dir, 0700);
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Three records in a row; returns the length of all. */
static size_t three_records(uint8_t out[3 * USAGE_EVENT_MAX])
{
    size_t len = 0;

    for (uint64_t i = 0; i < 3; i++) {
        struct usage_event e = {.key_id = 70 + i};

        len += usage_event_encode(&e, out + len);
    }
    return len;
}

static void given_empty_ring_when_spooled_then_nothing_is_written(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(spool_write(f->dir, 0, f->ob), 0);
    assert_int_equal(list_dir(f, NULL), 0);
}

static void given_no_directory_when_scanned_then_nothing_found(void **state)
{
    assert_int_equal(scan(*state), 0);
}

static void given_events_when_spooled_then_the_ring_is_free_and_the_file_has_them(void **state)
{
    struct fixture *f = *state;
    char name[256];
    struct stat st;

    append(f, f->ob, 100);
    assert_int_equal(spool_write(f->dir, 0, f->ob), outbox_head(f->ob));
    assert_int_equal(outbox_tail(f->ob), outbox_head(f->ob));
    assert_int_equal(outbox_committed(f->ob), 0);
    assert_int_equal(list_dir(f, name), 1);
    assert_int_equal(strlen(name), 22);
    assert_memory_equal(name, "0.0000000", 9);
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->key_count, 100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(f->keys[i], i);
    assert_int_equal(f->file_count, 1);
    assert_string_equal(strrchr(f->files[0], '/') + 1, name);
    assert_int_equal(stat(f->files[0], &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void given_several_files_when_scanned_then_in_the_order_of_writing(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 8; i++) {
        append(f, f->ob, 10);
        assert_true(spool_write(f->dir, 9, f->ob) > 0);
        assert_true(spool_write(f->dir, 9, f->ob) == 0);
        append(f, outbox_slot(f->region, 1), 1);
        assert_true(spool_write(f->dir, 10, outbox_slot(f->region, 1)) > 0);
    }
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->file_count, 16);
    assert_int_equal(f->key_count, 88);
    for (size_t i = 1; i < 80; i++) /* slot 9 before slot 10 */
        assert_true(f->keys[i] > f->keys[i - 1]);
    for (size_t i = 81; i < 88; i++)
        assert_true(f->keys[i] > f->keys[i - 1]);
}

static void given_file_that_was_unlinked_when_spooled_again_then_another_number(void **state)
{
    struct fixture *f = *state;
    char first[256], path[400], second[256];

    append(f, f->ob, 1);
    assert_true(spool_write(f->dir, 0, f->ob) > 0);
    list_dir(f, first);
    /* Not in one millisecond: the number of a file that is gone is told by the clock alone. */
    for (int64_t since = clock_now_at_ms(); clock_now_at_ms() == since;)
        ;
    snprintf(path, sizeof(path), "%s/%s", f->dir, first);
    assert_int_equal(unlink(path), 0);
    append(f, f->ob, 1);
    assert_true(spool_write(f->dir, 0, f->ob) > 0);
    list_dir(f, second);
    assert_true(strcmp(second, first) > 0);
}

static void given_part_of_a_dead_helper_when_spooled_then_removed_and_never_read(void **state)
{
    struct fixture *f = *state;

    write_file(f, "0.00000000000000000007.part", "half", 4);
    write_file(f, "1.00000000000000000007.part", "not mine", 8);
    append(f, f->ob, 3);
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->key_count, 0);
    assert_true(spool_write(f->dir, 0, f->ob) > 0);
    assert_int_equal(list_dir(f, NULL), 2);
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->key_count, 3);
    assert_null(f->bad_file);
}

static void given_disk_that_takes_no_more_when_spooled_then_the_ring_is_unchanged(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, limit;

    append(f, f->ob, 100);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(spool_write(f->dir, 0, f->ob), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(outbox_tail(f->ob), 0);
    assert_int_equal(list_dir(f, NULL), 0);
    assert_true(spool_write(f->dir, 0, f->ob) > 0);
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->key_count, 100);
}

static void
given_directory_that_cannot_be_made_when_spooled_then_the_ring_is_unchanged(void **state)
{
    struct fixture *f = *state;
    char dir[80];

    append(f, f->ob, 1);
    snprintf(dir, sizeof(dir), "%s/missing/spool", f->root);
    assert_int_equal(spool_write(dir, 0, f->ob), -ENOENT);
    assert_int_equal(outbox_tail(f->ob), 0);
}

static void given_visitor_that_stops_when_scanned_then_its_answer_comes_back(void **state)
{
    struct fixture *f = *state;

    append(f, f->ob, 3);
    assert_true(spool_write(f->dir, 0, f->ob) > 0);
    f->stop_with = -ECANCELED;
    assert_int_equal(scan(f), -ECANCELED);
    assert_int_equal(f->key_count, 1);
    assert_int_equal(f->file_count, 0);
}

static void given_file_cut_anywhere_when_scanned_then_its_whole_records_and_bad(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3 * USAGE_EVENT_MAX];
    size_t len = three_records(data);

    for (size_t cut = 0; cut <= len; cut++) {
        write_file(f, "0.00000000000000000001", data, cut);
        assert_int_equal(scan(f), 0);
        assert_int_equal(f->key_count, cut / (len / 3));
        if (cut == 0 || cut % (len / 3) != 0)
            assert_non_null(f->bad_file);
        else
            assert_null(f->bad_file);
        assert_int_equal(f->file_count, f->bad_file == NULL ? 1 : 0);
    }
}

static void given_damaged_record_when_scanned_then_the_others_come_and_bad(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3 * USAGE_EVENT_MAX];
    size_t len = three_records(data);

    data[len / 3 + 40] ^= 1;
    write_file(f, "0.00000000000000000001", data, len);
    assert_int_equal(scan(f), 0);
    assert_int_equal(f->key_count, 2);
    assert_int_equal(f->keys[1], 72);
    assert_string_equal(f->bad_reason, "it holds a usage record that is damaged");
    assert_int_equal(f->file_count, 0);
}

static void given_foreign_file_when_scanned_then_bad_and_the_next_is_read(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3 * USAGE_EVENT_MAX];
    size_t len = three_records(data);
    char foreign[5000];

    memset(foreign, 'x', sizeof(foreign));
    write_file(f, "0.00000000000000000001", foreign, sizeof(foreign));
    write_file(f, "0.00000000000000000002", data, len);
    write_file(f, "0.3", foreign, sizeof(foreign)); /* not a name of ours */
    write_file(f, "README", foreign, sizeof(foreign));
    assert_int_equal(scan(f), 0);
    assert_non_null(strstr(f->bad_file, "/0.00000000000000000001"));
    assert_int_equal(f->key_count, 3);
    assert_int_equal(f->file_count, 1);
}

struct stress {
    char *dir;
    struct outbox *ob;
};

static int spool_all_the_time(void *arg)
{
    struct stress *s = arg;

    for (;;) {
        if (spool_write(s->dir, 0, s->ob) < 0)
            return 1;
        if (getppid() == 1)
            return 0;
    }
}

static void given_helper_killed_at_random_when_scanned_then_no_event_is_missing(void **state)
{
    struct fixture *f = *state;
    struct stress s = {f->dir, f->ob};
    int64_t until = clock_monotonic_ms() + 1500;
    uint8_t *seen;

    srand(6);
    while (clock_monotonic_ms() < until) {
        uint64_t first = f->next_key;
        pid_t pid = forked_start(spool_all_the_time, &s);

        for (int i = rand() % 20; i > 0; i--)
            append(f, f->ob, 5);
        forked_kill_soon(pid, 3000);
        assert_true(outbox_is_sane(f->ob));
        assert_true(spool_write(f->dir, 0, f->ob) >= 0);
        assert_int_equal(scan(f), 0);
        assert_null(f->bad_file);
        seen = calloc(1, SEEN_MAX);
        for (size_t i = 0; i < f->key_count; i++)
            seen[f->keys[i] - first] = 1;
        for (uint64_t key = first; key < f->next_key; key++)
            assert_int_equal(seen[key - first], 1);
        free(seen);
        for (size_t i = 0; i < f->file_count; i++)
            assert_int_equal(unlink(f->files[i]), 0);
        assert_int_equal(list_dir(f, NULL), 0);
    }
    assert_true(f->next_key > 100);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_empty_ring_when_spooled_then_nothing_is_written),
        T(given_no_directory_when_scanned_then_nothing_found),
        T(given_events_when_spooled_then_the_ring_is_free_and_the_file_has_them),
        T(given_several_files_when_scanned_then_in_the_order_of_writing),
        T(given_file_that_was_unlinked_when_spooled_again_then_another_number),
        T(given_part_of_a_dead_helper_when_spooled_then_removed_and_never_read),
        T(given_disk_that_takes_no_more_when_spooled_then_the_ring_is_unchanged),
        T(given_directory_that_cannot_be_made_when_spooled_then_the_ring_is_unchanged),
        T(given_visitor_that_stops_when_scanned_then_its_answer_comes_back),
        T(given_file_cut_anywhere_when_scanned_then_its_whole_records_and_bad),
        T(given_damaged_record_when_scanned_then_the_others_come_and_bad),
        T(given_foreign_file_when_scanned_then_bad_and_the_next_is_read),
        T(given_helper_killed_at_random_when_scanned_then_no_event_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
