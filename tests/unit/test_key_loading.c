#include "tests/unit/keystore_fixture.h"

#include "common/log.h"
#include "usage/key_loading.h"

#define CAPACITY 1600
#define KEYS 1300 /* more than two slices */
#define NOW FIXTURE_AT_MS

static const char CONFIG[] = "{\"limits\":{\"tiers\":{\"free\":{\"rpm\":20}}}}";

struct fixture {
    char dir[64];
    struct config *config;
    struct keystore ks;
    struct key_loading loading;
    char first[KEY_TEXT_BYTES], last[KEY_TEXT_BYTES];
};

static int set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    log_to(-1, -1);
    f.config = fixture_config(CONFIG, "/tmp");
    fixture_open_keys(&f.ks, f.dir, f.config, CAPACITY);
    f.loading.keystore = &f.ks;
    fixture_run(f.ks.ledger, "PRAGMA synchronous = OFF");
    for (int i = 0; i < KEYS; i++) {
        struct key_record r;

        key_record_init(&r);
        snprintf(r.tier, sizeof(r.tier), "free");
        assert_int_equal(keystore_create(&f.ks, NOW + i, &r, i == 0 ? f.first : f.last), 0);
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ledger_close(f->ks.ledger);
    config_unref(f->config);
    fixture_remove_dir(f->dir);
    return 0;
}

/* As another database would. */
static void forget_all_but_first(struct fixture *f)
{
    fixture_run(f->ks.ledger, "DELETE FROM api_keys WHERE id > (SELECT min(id) FROM api_keys)");
}

static uint32_t rpm_of(const struct fixture *f, const char *text)
{
    struct key key;

    return keytable_lookup(f->ks.table, text, KEY_TEXT_LEN, NOW, &key) == 0 ? key.rpm : 0;
}

static size_t working(const struct fixture *f)
{
    uint8_t digest[DIGEST_BYTES];
    struct key key;
    size_t count = 0;

    for (size_t i = 0; i < keytable_count(f->ks.table); i++) {
        keytable_get(f->ks.table, i, digest, &key);
        count += !key.revoked;
    }
    return count;
}

/* Returns how many turns it took. */
static int finish(struct fixture *f)
{
    int turns = 0;

    for (; key_loading_next_ms(&f->loading) != -1; turns++) {
        assert_int_equal(key_loading_next_ms(&f->loading), 0);
        key_loading_turn(&f->loading, 1000);
    }
    return turns;
}

static void given_new_config_when_turned_then_all_keys_follow_in_slices(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(key_loading_next_ms(&f->loading), -1);
    f->config->tiers[0].rpm = 77;
    key_loading_begin(&f->loading, false);
    key_loading_turn(&f->loading, 1000);
    assert_int_equal(rpm_of(f, f->first), 77);
    assert_int_equal(rpm_of(f, f->last), 20);
    assert_int_equal(finish(f), 2);
    assert_int_equal(rpm_of(f, f->last), 77);
    assert_int_equal(working(f), KEYS);
}

static void given_new_config_alone_when_turned_then_no_key_is_looked_for(void **state)
{
    struct fixture *f = *state;

    forget_all_but_first(f);
    key_loading_begin(&f->loading, false);
    finish(f);
    assert_int_equal(working(f), KEYS);
}

static void given_other_database_when_turned_then_keys_it_lacks_are_revoked_in_slices(void **state)
{
    struct fixture *f = *state;

    forget_all_but_first(f);
    key_loading_begin(&f->loading, true);
    key_loading_turn(&f->loading, 1000);
    assert_int_equal(working(f), KEYS - 499);
    assert_int_equal(finish(f), 3); /* two of them, and one that loads */
    assert_int_equal(working(f), 1);
    assert_int_equal(rpm_of(f, f->first), 20);
    assert_int_equal(rpm_of(f, f->last), 0);
}

static void given_new_config_meanwhile_when_turned_then_revoking_goes_on(void **state)
{
    struct fixture *f = *state;

    forget_all_but_first(f);
    key_loading_begin(&f->loading, true);
    key_loading_turn(&f->loading, 1000);
    f->config->tiers[0].rpm = 77;
    key_loading_begin(&f->loading, false);
    assert_int_equal(finish(f), 3);
    assert_int_equal(working(f), 1);
    assert_int_equal(rpm_of(f, f->first), 77);
}

static void given_failing_database_when_turned_then_tried_again_later(void **state)
{
    struct fixture *f = *state;

    forget_all_but_first(f);
    fixture_run(f->ks.ledger, "ALTER TABLE api_keys RENAME TO away");
    key_loading_begin(&f->loading, true);
    key_loading_turn(&f->loading, 1000);
    assert_int_equal(working(f), KEYS);
    assert_int_equal(key_loading_next_ms(&f->loading), 2000);
    fixture_run(f->ks.ledger, "ALTER TABLE away RENAME TO api_keys");
    key_loading_turn(&f->loading, 1999);
    assert_int_equal(working(f), KEYS);
    key_loading_turn(&f->loading, 2000);
    finish(f);
    assert_int_equal(working(f), 1);
}

static void given_full_table_when_other_database_is_loaded_then_old_keys_are_dead(void **state)
{
    struct fixture *f = *state;
    char sql[512];

    snprintf(sql, sizeof(sql),
             "DELETE FROM api_keys;"
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO api_keys (id, key_hash, created_at)"
             " SELECT printf('key_%%016x', i), printf('%%064x', i), 1 FROM n",
             CAPACITY);
    fixture_run(f->ks.ledger, sql);
    key_loading_begin(&f->loading, true);
    for (int i = 0; i < 10; i++)
        key_loading_turn(&f->loading, i * 1000);

    assert_true(key_loading_next_ms(&f->loading) > 0); /* it does not give up */
    assert_int_equal(rpm_of(f, f->first), 0);
    assert_int_equal(working(f), CAPACITY - KEYS); /* as many new ones as there was room for */
}

static void given_start_when_run_then_table_is_what_the_database_has(void **state)
{
    struct fixture *f = *state;

    forget_all_but_first(f);
    f->config->tiers[0].rpm = 77;
    assert_int_equal(key_loading_run(&f->ks), 0);
    assert_int_equal(working(f), 1);
    assert_int_equal(rpm_of(f, f->first), 77);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_new_config_when_turned_then_all_keys_follow_in_slices),
        T(given_new_config_alone_when_turned_then_no_key_is_looked_for),
        T(given_other_database_when_turned_then_keys_it_lacks_are_revoked_in_slices),
        T(given_new_config_meanwhile_when_turned_then_revoking_goes_on),
        T(given_failing_database_when_turned_then_tried_again_later),
        T(given_full_table_when_other_database_is_loaded_then_old_keys_are_dead),
        T(given_start_when_run_then_table_is_what_the_database_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
