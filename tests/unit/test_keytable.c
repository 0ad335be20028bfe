#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"
#include "tests/unit/forked.h"
#include "usage/keytable.h"

#define CAPACITY 64
#define NOW_AT_MS INT64_C(1795460000000)
#define STRESS_MS 1500

static const uint8_t pepper[KEY_PEPPER_BYTES] = "a pepper of thirty-two bytes ...";

static struct keytable_region *region_new(size_t capacity)
{
    struct keytable_region *r = forked_memory(keytable_region_spec(capacity).bytes);

    keytable_region_init(r, capacity, pepper);
    return r;
}

static int setup(void **state)
{
    *state = region_new(CAPACITY);
    return 0;
}

static int teardown(void **state)
{
    munmap(*state, keytable_region_spec(CAPACITY).bytes);
    return 0;
}

/* The text of a key that always is the same. */
static void text_of(unsigned number, char text[KEY_TEXT_BYTES])
{
    snprintf(text, KEY_TEXT_BYTES, KEY_PREFIX "%043u", number);
}

static int put(struct keytable_region *r, unsigned number, const struct key *key)
{
    char text[KEY_TEXT_BYTES];
    uint8_t digest[DIGEST_BYTES];

    text_of(number, text);
    assert_int_equal(keytable_digest(r, text, KEY_TEXT_LEN, digest), 0);
    return keytable_put(r, digest, key);
}

static int lookup(const struct keytable_region *r, unsigned number, struct key *out)
{
    char text[KEY_TEXT_BYTES];

    text_of(number, text);
    return keytable_lookup(r, text, KEY_TEXT_LEN, NOW_AT_MS, out);
}

static void given_text_when_digested_then_it_is_the_hmac(void **state)
{
    static const size_t lengths[] = {0, 1, 49, 63, 64, 65, 200};
    uint8_t text[200], ours[DIGEST_BYTES], theirs[DIGEST_BYTES];

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(keytable_digest(*state, (const char *)text, lengths[i], ours), 0);
        assert_int_equal(secret_hmac(pepper, sizeof(pepper), text, lengths[i], theirs), 0);
        assert_memory_equal(ours, theirs, DIGEST_BYTES);
    }
}

static void given_key_when_put_then_found_with_all_it_has(void **state)
{
    struct key key = {.id = 7,
                      .expires_at_ms = NOW_AT_MS + 1,
                      .model_count = 2,
                      .models = {11, 22},
                      .rpm = 1,
                      .rpd = 2,
                      .tpm = 3,
                      .tpd = 4,
                      .parallel = 5};
    struct key found;

    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(keytable_count(*state), 1);
    assert_int_equal(lookup(*state, 1, &found), 0);
    assert_int_equal(found.id, 7);
    assert_int_equal(found.expires_at_ms, NOW_AT_MS + 1);
    assert_int_equal(found.model_count, 2);
    assert_memory_equal(found.models, key.models, sizeof(key.models));
    assert_int_equal(found.rpm, 1);
    assert_int_equal(found.rpd, 2);
    assert_int_equal(found.tpm, 3);
    assert_int_equal(found.tpd, 4);
    assert_int_equal(found.parallel, 5);
}

static void given_unknown_key_when_looked_up_then_refused(void **state)
{
    struct key key = {.id = 7}, found;

    assert_int_equal(lookup(*state, 2, &found), XR_EAUTH);
    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(lookup(*state, 2, &found), XR_EAUTH);
}

static void given_text_without_a_keys_shape_when_looked_up_then_invalid(void **state)
{
    static const char *const texts[] = {
        "",
        "sk-xr-",
        "sk-xr-000000000000000000000000000000000000000000",
        "sk-xr-00000000000000000000000000000000000000000000",
        "sk-xx-0000000000000000000000000000000000000000000",
        "sk-xr-000000000000000000000000000000000000000000+",
        "sk-xr-00000000000000000000000000000000000000000\n0",
    };
    struct key found;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(keytable_lookup(*state, texts[i], strlen(texts[i]), NOW_AT_MS, &found),
                         -EINVAL);
}

static void given_key_when_revoked_then_refused_at_once(void **state)
{
    struct key key = {.id = 7}, found;

    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(lookup(*state, 1, &found), 0);
    key.revoked = true;
    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(lookup(*state, 1, &found), XR_EAUTH);
    assert_int_equal(keytable_count(*state), 1);
}

static void given_revoked_key_that_is_not_there_when_put_then_no_entry_is_used(void **state)
{
    struct key key = {.id = 7, .revoked = true}, found;

    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(keytable_count(*state), 0);
    assert_int_equal(lookup(*state, 1, &found), XR_EAUTH);
}

static void given_key_when_its_time_comes_then_expired_and_told_whose_it_is(void **state)
{
    struct key key = {.id = 7, .expires_at_ms = NOW_AT_MS}, found;

    assert_int_equal(put(*state, 1, &key), 0);
    assert_int_equal(lookup(*state, 1, &found), XR_EEXPIRED);
    assert_int_equal(found.id, 7);
}

static void given_full_table_when_one_more_is_put_then_no_space_but_replacing_works(void **state)
{
    struct key key = {0}, found;

    for (unsigned i = 0; i < CAPACITY; i++) {
        key.id = i + 1;
        assert_int_equal(put(*state, i, &key), 0);
    }
    assert_int_equal(put(*state, CAPACITY, &key), -ENOSPC);
    key.id = 1000;
    assert_int_equal(put(*state, 0, &key), 0);
    assert_int_equal(lookup(*state, 0, &found), 0);
    assert_int_equal(found.id, 1000);
    for (unsigned i = 1; i < CAPACITY; i++) {
        assert_int_equal(lookup(*state, i, &found), 0);
        assert_int_equal(found.id, i + 1);
    }
    assert_int_equal(lookup(*state, CAPACITY, &found), XR_EAUTH);
}

static void given_digests_with_one_hash_when_put_then_each_is_found(void **state)
{
    struct keytable_region *r = *state;
    uint8_t digest[DIGEST_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    /* All begin at the index's last word and go round its end. */
    for (unsigned i = 0; i < CAPACITY; i++) {
        struct key key = {.id = i};

        digest[31] = (uint8_t)i;
        assert_int_equal(keytable_put(r, digest, &key), 0);
    }
    assert_int_equal(keytable_count(r), CAPACITY);
    for (unsigned i = 0; i < CAPACITY; i++) {
        struct key key = {.id = 100 + i};

        digest[31] = (uint8_t)i;
        assert_int_equal(keytable_put(r, digest, &key), 0); /* replaces: it was found */
    }
    assert_int_equal(keytable_count(r), CAPACITY);
}

static void given_key_with_models_when_asked_then_only_those(void **state)
{
    struct key key = {.model_count = 2};

    key.models[0] = keytable_model_hash("a/one", 5);
    key.models[1] = keytable_model_hash("a/two", 5);
    assert_true(key_may_use_model(&key, "a/one"));
    assert_true(key_may_use_model(&key, "a/two"));
    assert_false(key_may_use_model(&key, "a/three"));
    key.model_count = 0;
    assert_true(key_may_use_model(&key, "a/three"));
}

static void given_new_key_texts_when_made_then_shaped_like_keys_and_different(void **state)
{
    char a[KEY_TEXT_BYTES], b[KEY_TEXT_BYTES];
    struct key found;

    assert_int_equal(key_text_make(a), 0);
    assert_int_equal(key_text_make(b), 0);
    assert_int_equal(strlen(a), KEY_TEXT_LEN);
    assert_string_not_equal(a, b);
    assert_int_equal(keytable_lookup(*state, a, strlen(a), NOW_AT_MS, &found), XR_EAUTH);
}

static void given_key_id_when_written_and_read_then_the_same(void **state)
{
    char text[KEY_ID_TEXT_BYTES];
    uint64_t id;

    key_id_format(0x00ab00000000cdefu, text);
    assert_string_equal(text, "key_00ab00000000cdef");
    assert_int_equal(key_id_parse(text, &id), 0);
    assert_int_equal(id, 0x00ab00000000cdefu);
    assert_int_equal(key_id_parse("key_00ab00000000cde", &id), -EINVAL);
    assert_int_equal(key_id_parse("key_00ab00000000cdefa", &id), -EINVAL);
    assert_int_equal(key_id_parse("kex_00ab00000000cdef", &id), -EINVAL);
    assert_int_equal(key_id_parse("key_00ab00000000cdeg", &id), -EINVAL);
}

/* ---- a writer killed at random ---- */

#define STRESS_KEYS 16

/* Every field says the same number, so that a mixture shows. */
static struct key uniform_key(uint32_t n)
{
    struct key key = {.id = n, .expires_at_ms = NOW_AT_MS + 1 + n, .model_count = KEY_MODELS_MAX};

    for (size_t i = 0; i < KEY_MODELS_MAX; i++)
        key.models[i] = n;
    key.rpm = key.rpd = key.tpm = key.tpd = key.parallel = n;
    return key;
}

static void assert_uniform(const struct key *key)
{
    struct key expected = uniform_key((uint32_t)key->id);

    assert_int_equal(key->expires_at_ms, expected.expires_at_ms);
    assert_memory_equal(key->models, expected.models, sizeof(expected.models));
    assert_int_equal(key->rpm, expected.rpm);
    assert_int_equal(key->rpd, expected.rpd);
    assert_int_equal(key->tpm, expected.tpm);
    assert_int_equal(key->tpd, expected.tpd);
    assert_int_equal(key->parallel, expected.parallel);
}

struct stress {
    struct keytable_region *r;
    _Atomic bool is_over;
    uint32_t generation;
};

static int put_all_the_time(void *arg)
{
    struct stress *s = arg;

    while (!s->is_over) {
        struct key key = uniform_key(++s->generation);

        if (put(s->r, s->generation % STRESS_KEYS, &key) != 0)
            return 1;
    }
    return 0;
}

static void given_writer_killed_at_random_when_looked_up_then_whole_entries(void **state)
{
    struct stress *s = forked_memory(sizeof(*s));
    int64_t until = clock_monotonic_ms() + STRESS_MS;
    uint32_t latest[STRESS_KEYS] = {0};
    unsigned found_count = 0;

    s->r = region_new(1024);
    srand(2);
    while (clock_monotonic_ms() < until) {
        pid_t pid = forked_start(put_all_the_time, s);
        int64_t looked = clock_monotonic_us() + rand() % 2000;

        for (unsigned i = 0; clock_monotonic_us() < looked; i++) {
            unsigned number = i % STRESS_KEYS;
            struct key found;

            if (lookup(s->r, number, &found) != 0) {
                assert_int_equal(latest[number], 0); /* once there, always there */
                continue;
            }
            assert_uniform(&found);
            assert_int_equal(found.id % STRESS_KEYS, number);
            assert_true(found.id >= latest[number]);
            latest[number] = (uint32_t)found.id;
            found_count++;
        }
        forked_kill_soon(pid, 100);
    }
    assert_true(found_count > 1000);
    /* A writer that dies between an entry and its index word wastes it: at most one a death. */
    assert_in_range(keytable_count(s->r), STRESS_KEYS, STRESS_KEYS + 8);
}

static void given_table_in_shared_memory_when_attached_then_found(void **state)
{
    const struct shm_region_spec spec = keytable_region_spec(CAPACITY);
    const uint8_t start_id[SHM_START_ID_BYTES] = "start";
    char name[SHM_NAME_BYTES];
    struct shm *shm;

    snprintf(name, sizeof(name), "/xrouter-test-keytable-%d", (int)getpid());
    assert_int_equal(shm_create(name, 0600, &spec, 1, start_id, &shm), 0);
    assert_null(keytable_region_get(shm)); /* not filled in yet */
    keytable_region_init(shm_region(shm, KEYTABLE_REGION, spec.layout, NULL), CAPACITY, pepper);
    assert_non_null(keytable_region_get(shm));
    shm_close(shm);
    shm_unlink_name(name);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(given_text_when_digested_then_it_is_the_hmac),
        T(given_key_when_put_then_found_with_all_it_has),
        T(given_unknown_key_when_looked_up_then_refused),
        T(given_text_without_a_keys_shape_when_looked_up_then_invalid),
        T(given_key_when_revoked_then_refused_at_once),
        T(given_revoked_key_that_is_not_there_when_put_then_no_entry_is_used),
        T(given_key_when_its_time_comes_then_expired_and_told_whose_it_is),
        T(given_full_table_when_one_more_is_put_then_no_space_but_replacing_works),
        T(given_digests_with_one_hash_when_put_then_each_is_found),
        T(given_key_with_models_when_asked_then_only_those),
        T(given_new_key_texts_when_made_then_shaped_like_keys_and_different),
        T(given_key_id_when_written_and_read_then_the_same),
        T(given_writer_killed_at_random_when_looked_up_then_whole_entries),
        T(given_table_in_shared_memory_when_attached_then_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
