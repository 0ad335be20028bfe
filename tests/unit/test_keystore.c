#include "tests/unit/keystore_fixture.h"

#include <errno.h>

#include "common/error.h"
#include "common/json.h"

#define CAPACITY 16
#define NOW FIXTURE_AT_MS

static const char CONFIG[] =
    "{\"limits\":{\"tiers\":{\"free\":{\"rpm\":20,\"rpd\":200,\"parallel\":5}}},"
    "\"providers\":[{\"name\":\"gigachat\",\"type\":\"gigachat\",\"base_url\":\"http://"
    "127.0.0.1:1\","
    "\"auth_url\":\"http://127.0.0.1:1/oauth\",\"credentials\":\"YTpi\"}],"
    "\"models\":[{\"id\":\"gigachat/GigaChat-2\",\"aliases\":[\"GigaChat\"],"
    "\"candidates\":[{\"provider\":\"gigachat\",\"model\":\"GigaChat-2\"}]}]}";

struct fixture {
    char dir[64];
    struct config *config;
    struct keystore ks;
};

static int set_up(void **state)
{
    static struct fixture f;

    f.config = fixture_config(CONFIG, "/tmp");
    fixture_open_keys(&f.ks, f.dir, f.config, CAPACITY);
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

static int decode(const struct fixture *f, const char *request, struct key_record *out,
                  char why[KEY_WHY_BYTES])
{
    cJSON *json = json_parse(request, strlen(request), &JSON_LIMITS_DEFAULT, NULL, NULL);
    int rc;

    assert_non_null(json);
    rc = key_record_decode(json, f->config, out, why);
    cJSON_Delete(json);
    return rc;
}

static void create(const struct fixture *f, const char *request, struct key_record *out,
                   char text[KEY_TEXT_BYTES])
{
    char why[KEY_WHY_BYTES] = "";

    if (decode(f, request, out, why) != 0)
        fail_msg("%s", why);
    assert_int_equal(keystore_create(&f->ks, NOW, out, text), 0);
}

static int lookup(const struct fixture *f, const char *text, struct key *out)
{
    return keytable_lookup(f->ks.table, text, strlen(text), NOW, out);
}

static void given_key_when_created_then_found_by_workers_and_durable(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char text[KEY_TEXT_BYTES];
    struct key key;

    create(f,
           "{\"name\":\"demo\",\"tier\":\"free\",\"models\":[\"GigaChat\",\"gigachat/GigaChat-2\"],"
           "\"limits\":{\"rpm\":7,\"tpm\":1000}}",
           &made, text);

    assert_int_equal(lookup(f, text, &key), 0);
    assert_true(key.id == made.id);
    assert_int_equal(key.rpm, 7);   /* its own */
    assert_int_equal(key.rpd, 200); /* the tier's */
    assert_int_equal(key.tpm, 1000);
    assert_int_equal(key.tpd, 0);
    assert_int_equal(key.parallel, 5);
    assert_int_equal(key.model_count, 1); /* the alias is that model */
    assert_true(key_may_use_model(&key, "gigachat/GigaChat-2"));
    assert_false(key_may_use_model(&key, "other"));

    assert_int_equal(keystore_find(&f->ks, "demo", &found), 0);
    assert_true(found.id == made.id);
    assert_string_equal(found.tier, "free");
    assert_string_equal(found.models[0], "gigachat/GigaChat-2");
    assert_int_equal(found.limits[KEY_TPM], 1000);
    assert_int_equal(found.limits[KEY_TPD], KEY_LIMIT_UNSET);
    assert_int_equal(found.created_at_ms, NOW);
}

static void given_key_when_stored_then_its_text_is_nowhere_in_the_row(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES], sql[256];

    create(f, "{\"name\":\"demo\"}", &made, text);

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM api_keys WHERE key_hash <> '%s' AND length(key_hash) = 64",
             text);
    assert_int_equal(fixture_get(f->ks.ledger, sql), 1);
}

static void given_active_name_when_created_again_then_exists_until_revoked(void **state)
{
    struct fixture *f = *state;
    struct key_record made, again, found;
    char text[KEY_TEXT_BYTES], why[KEY_WHY_BYTES];

    create(f, "{\"name\":\"demo\"}", &made, text);
    assert_int_equal(decode(f, "{\"name\":\"demo\"}", &again, why), 0);
    assert_int_equal(keystore_create(&f->ks, NOW, &again, text), -EEXIST);
    assert_int_equal(text[0], '\0');

    assert_int_equal(keystore_revoke(&f->ks, "demo", NOW, &found), 0);
    create(f, "{\"name\":\"demo\"}", &again, text);
    assert_int_equal(keystore_find(&f->ks, "demo", &found), 0);
    assert_true(found.id == again.id);
}

static void given_key_when_revoked_then_dead_in_table_and_again_is_the_same(void **state)
{
    struct fixture *f = *state;
    struct key_record made, revoked;
    char text[KEY_TEXT_BYTES], id[KEY_ID_TEXT_BYTES];
    struct key key;

    create(f, "{\"name\":\"demo\"}", &made, text);
    key_id_format(made.id, id);

    assert_int_equal(keystore_revoke(&f->ks, id, NOW + 5, &revoked), 0);
    assert_int_equal(lookup(f, text, &key), XR_EAUTH);
    assert_int_equal(keystore_revoke(&f->ks, id, NOW + 9, &revoked), 0);
    assert_int_equal(revoked.revoked_at_ms, NOW + 5);
    assert_int_equal(keystore_find(&f->ks, "demo", &revoked), -ENOENT); /* no longer by name */
    assert_int_equal(keystore_find(&f->ks, id, &revoked), 0);
}

static void given_failing_database_when_revoked_then_key_works_on(void **state)
{
    struct fixture *f = *state;
    struct key_record made, revoked;
    char text[KEY_TEXT_BYTES];
    struct key key;

    create(f, "{\"name\":\"demo\"}", &made, text);
    assert_int_equal(database_exec(ledger_db(f->ks.ledger), "PRAGMA query_only = 1"), 0);

    assert_int_equal(keystore_revoke(&f->ks, "demo", NOW, &revoked), -EROFS);
    assert_int_equal(lookup(f, text, &key), 0);
}

static void given_expired_key_when_looked_up_then_expired(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES];
    struct key key;

    create(f, "{\"expires_at\":\"2026-03-01T12:00:00Z\"}", &made, text);
    assert_int_equal(lookup(f, text, &key), XR_EEXPIRED);
}

static void given_full_table_when_created_then_refused_and_no_row(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES], why[KEY_WHY_BYTES];

    for (size_t i = 0; i < CAPACITY; i++)
        create(f, "{}", &made, text);
    assert_int_equal(decode(f, "{\"name\":\"late\"}", &made, why), 0);
    assert_int_equal(keystore_create(&f->ks, NOW, &made, text), -EUSERS);

    assert_int_equal(fixture_get(f->ks.ledger, "SELECT count(*) FROM api_keys"), CAPACITY);
    assert_int_not_equal(sqlite3_get_autocommit(ledger_db(f->ks.ledger)), 0);
}

static void given_keys_in_database_when_loaded_then_table_has_them_but_no_revoked(void **state)
{
    struct fixture *f = *state;
    struct key_record a, b;
    char text_a[KEY_TEXT_BYTES], text_b[KEY_TEXT_BYTES];
    struct key key;
    uint64_t after = 0;

    create(f, "{\"name\":\"a\"}", &a, text_a);
    create(f, "{\"name\":\"b\"}", &b, text_b);
    assert_int_equal(keystore_revoke(&f->ks, "b", NOW, &b), 0);
    f->ks.table = fixture_table(CAPACITY, FIXTURE_SECRET); /* as after a restart */

    assert_int_equal(keystore_load(&f->ks, &after, 100, false), 2);
    assert_int_equal(keytable_count(f->ks.table), 1);
    assert_int_equal(lookup(f, text_a, &key), 0);
    assert_int_equal(lookup(f, text_b, &key), XR_EAUTH);
}

static void given_new_tier_values_when_loaded_again_then_limits_follow(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES];
    struct key key;
    uint64_t after = 0;

    create(f, "{\"tier\":\"free\"}", &made, text);
    f->config->tiers[0].rpm = 99;
    assert_int_equal(keystore_load(&f->ks, &after, 100, false), 1);

    assert_int_equal(lookup(f, text, &key), 0);
    assert_int_equal(key.rpm, 99);
}

static void given_other_secret_when_checked_then_rejected(void **state)
{
    struct fixture *f = *state;
    char why[KEY_WHY_BYTES];

    assert_int_equal(keystore_check_secret(&f->ks, why), 0);
    assert_int_equal(keystore_check_secret(&f->ks, why), 0);
    f->ks.table = fixture_table(CAPACITY, FIXTURE_SECRET + 1);

    assert_int_equal(keystore_check_secret(&f->ks, why), -EKEYREJECTED);
    assert_non_null(strstr(why, "key.secret"));
}

static void given_keys_when_listed_in_pages_then_all_in_order_of_creation(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES], name[32], why[KEY_WHY_BYTES];
    uint64_t after = 0;
    size_t total = 0;
    struct buf out;

    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "{\"name\":\"k%d\"}", i);
        assert_int_equal(decode(f, name, &made, why), 0);
        assert_int_equal(keystore_create(&f->ks, NOW + i, &made, text), 0);
    }
    buf_init(&out, 1 << 20);
    for (;;) {
        int n = keystore_list(&f->ks, &after, 2, NOW, &out);

        assert_true(n >= 0);
        total += (size_t)n;
        if (n < 2)
            break;
    }
    assert_int_equal(total, 5);
    for (int i = 0; i < 4; i++) {
        const char *this, *next;

        snprintf(name, sizeof(name), "\"k%d\"", i);
        this = strstr(buf_text(&out), name);
        snprintf(name, sizeof(name), "\"k%d\"", i + 1);
        next = strstr(buf_text(&out), name);
        assert_non_null(this);
        assert_true(this < next);
    }
    assert_null(strstr(buf_text(&out), "sk-xr-"));
    assert_non_null(strstr(buf_text(&out), "\"state\":\"active\""));
    buf_clear(&out);
}

static void given_bad_requests_when_decoded_then_the_field_is_named(void **state)
{
    static const struct {
        const char *request;
        const char *expected;
    } CASES[] = {
        {"{\"name\":5}", "name: must be a string"},
        {"{\"name\":\"\"}", "name: must have 1 to 64"},
        {"{\"name\":\"12345678901234567890123456789012345678901234567890123456789012345\"}",
         "name: must have 1 to 64"},
        {"{\"name\":\"a\\nb\"}", "name: control"},
        {"{\"name\":\"a\\u0085b\"}", "name: control"},
        {"{\"name\":\"key_00000000000000a1\"}", "id"},
        {"{\"name\":\"sk-xr-abc\"}", "key itself"},
        {"{\"tier\":\"gold\"}", "tier: \"gold\""},
        {"{\"models\":\"x\"}", "models: must be an array"},
        {"{\"models\":[\"nope\"]}", "\"nope\" is not one"},
        {"{\"expires_at\":\"tomorrow\"}", "expires_at"},
        {"{\"limits\":[]}", "limits: must be an object"},
        {"{\"limits\":{\"rps\":1}}", "limits.rps"},
        {"{\"limits\":{\"rpm\":-1}}", "limits.rpm"},
        {"{\"limits\":{\"rpm\":1.5}}", "limits.rpm"},
        {"{\"limits\":{\"rpm\":4294967296}}", "limits.rpm"},
        {"{\"limits\":{\"spend_year\":\"1\"}}", "limits.spend_year"},
        {"{\"limits\":{\"spend_day\":1}}", "limits.spend_day"},
        {"{\"limits\":{\"spend_day\":\"0\"}}", "limits.spend_day"},
        {"{\"limits\":{\"spend_week\":\"-1\"}}", "limits.spend_week"},
        {"{\"limits\":{\"spend_month\":\"4000000001\"}}", "limits.spend_month"},
        {"{\"limits\":{\"spend_month\":\"0.0000000001\"}}", "limits.spend_month"},
        {"{\"credits\":5}", "credits: must be"},
        {"{\"credits\":\"-0.1\"}", "credits: must be"},
        {"{\"credits\":\"4000000000.000000001\"}", "credits: must be"},
    };
    struct fixture *f = *state;
    struct key_record record;

    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char why[KEY_WHY_BYTES] = "";

        assert_int_equal(decode(f, CASES[i].request, &record, why), -EINVAL);
        if (strstr(why, CASES[i].expected) == NULL)
            fail_msg("%s: %s", CASES[i].request, why);
    }
}

static void given_64_letters_of_four_bytes_when_decoded_then_accepted(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char request[512] = "{\"name\":\"", text[KEY_TEXT_BYTES];

    for (int i = 0; i < 64; i++)
        strcat(request, "\xf0\x9f\x94\x91");
    strcat(request, "\"}");
    create(f, request, &made, text);
    assert_int_equal(keystore_find(&f->ks, made.name, &found), 0);
    assert_int_equal(strlen(found.name), 256);
}

static void given_created_key_when_encoded_then_the_documented_object(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES], expected[512], id[KEY_ID_TEXT_BYTES];
    struct buf out;

    create(f, "{\"name\":\"d\\\"q\",\"limits\":{\"rpm\":0}}", &made, text);
    buf_init(&out, 4096);
    key_record_encode(&made, text, NOW, &out);
    key_id_format(made.id, id);
    snprintf(expected, sizeof(expected),
             "{\"id\":\"%s\",\"key\":\"%s\",\"name\":\"d\\\"q\",\"created_at\":"
             "\"2026-03-01T12:00:00.000Z\",\"expires_at\":null,\"models\":[],\"tier\":null,"
             "\"limits\":{\"rpm\":0},\"balance\":null}",
             id, text);
    assert_string_equal(buf_text(&out), expected);
    buf_clear(&out);
}

/* ---- credits and spending limits ---- */

static void
given_credits_and_spending_limits_when_created_then_stored_shown_and_marked(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char text[KEY_TEXT_BYTES];
    struct key key;
    struct buf out;

    create(f,
           "{\"name\":\"paid\",\"credits\":\"12.5\",\"limits\":{\"rpm\":3,\"spend_day\":\"0.5\","
           "\"spend_month\":\"4000000000\"}}",
           &made, text);
    assert_int_equal(lookup(f, text, &key), 0);
    assert_true(account_key_id(f->ks.accounts, key.account) == made.id);
    assert_true(account_is_marked(f->ks.accounts, key.account));

    assert_int_equal(keystore_find(&f->ks, "paid", &found), 0);
    assert_int_equal(found.balance_nano, 12500000000);
    assert_int_equal(found.spending_nano[SPEND_DAY], 500000000);
    assert_int_equal(found.spending_nano[SPEND_WEEK], ACCOUNT_UNLIMITED);
    assert_int_equal(found.spending_nano[SPEND_MONTH], ACCOUNT_MAX_NANO);
    buf_init(&out, 4096);
    key_record_encode(&found, NULL, NOW, &out);
    assert_non_null(strstr(buf_text(&out), "\"limits\":{\"rpm\":3,\"spend_day\":\"0.5\","
                                           "\"spend_month\":\"4000000000\"},\"balance\":\"12.5\""));
    buf_clear(&out);
    assert_int_equal(fixture_get(f->ks.ledger, "SELECT amount = 12500000000 AND balance = amount"
                                               " AND kind = 'add' FROM credit_ledger"),
                     1);
}

static void given_key_without_limits_when_created_then_no_entry_and_no_mark(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES];
    struct key key;

    create(f, "{}", &made, text);
    assert_int_equal(lookup(f, text, &key), 0);
    assert_false(account_is_limited(f->ks.accounts, key.account));
    assert_int_equal(accounts_marks(f->ks.accounts), 0);
    assert_int_equal(fixture_get(f->ks.ledger, "SELECT count(*) FROM credit_ledger"), 0);
}

static void given_changed_config_when_loaded_again_then_nobody_is_counted_anew(void **state)
{
    struct fixture *f = *state;
    struct key_record made;
    char text[KEY_TEXT_BYTES];
    uint64_t after = 0, marks;

    create(f, "{\"credits\":\"1\"}", &made, text);
    marks = accounts_marks(f->ks.accounts);
    assert_int_equal(keystore_load(&f->ks, &after, 100, false), 1);
    assert_true(accounts_marks(f->ks.accounts) == marks);
    after = 0;
    assert_int_equal(keystore_load(&f->ks, &after, 100, true), 1);
    assert_true(accounts_marks(f->ks.accounts) > marks);
}

/* ---- changing ---- */

static int update(const struct fixture *f, const char *name, const char *request,
                  struct key_record *out, char why[KEY_WHY_BYTES])
{
    cJSON *json = json_parse(request, strlen(request), &JSON_LIMITS_DEFAULT, NULL, NULL);
    int rc;

    assert_non_null(json);
    assert_int_equal(keystore_find(&f->ks, name, out), 0);
    rc = key_record_apply(json, f->config, out, why);
    cJSON_Delete(json);
    return rc < 0 ? rc : keystore_update(&f->ks, out);
}

static void given_key_when_updated_then_only_what_is_named_changes(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char text[KEY_TEXT_BYTES], why[KEY_WHY_BYTES];
    struct key key;

    create(f,
           "{\"name\":\"demo\",\"tier\":\"free\",\"models\":[\"GigaChat\"],\"expires_at\":"
           "\"2027-01-01T00:00:00Z\",\"credits\":\"3\",\"limits\":{\"rpm\":7,\"tpm\":1000,"
           "\"spend_day\":\"1\",\"spend_week\":\"2\"}}",
           &made, text);
    assert_int_equal(update(f, "demo",
                            "{\"name\":\"other\",\"limits\":{\"rpm\":null,\"rpd\":5,"
                            "\"spend_day\":null,\"spend_month\":\"9\"}}",
                            &found, why),
                     0);
    assert_int_equal(lookup(f, text, &key), 0);
    assert_true(key.id == made.id);
    assert_int_equal(key.rpm, 20); /* the tier's again */
    assert_int_equal(key.rpd, 5);
    assert_int_equal(key.tpm, 1000);
    assert_int_equal(keystore_find(&f->ks, "demo", &found), -ENOENT);
    assert_int_equal(keystore_find(&f->ks, "other", &found), 0);
    assert_int_equal(found.spending_nano[SPEND_DAY], ACCOUNT_UNLIMITED);
    assert_int_equal(found.spending_nano[SPEND_WEEK], 2000000000);
    assert_int_equal(found.spending_nano[SPEND_MONTH], 9000000000);
    assert_int_equal(found.balance_nano, 3000000000);
    assert_int_equal(found.model_count, 1);
    assert_string_equal(found.tier, "free");
    assert_int_equal(found.expires_at_ms, made.expires_at_ms);

    assert_int_equal(update(f, "other",
                            "{\"name\":null,\"tier\":null,\"models\":null,"
                            "\"expires_at\":null,\"limits\":null}",
                            &found, why),
                     0);
    assert_int_equal(lookup(f, text, &key), 0);
    assert_int_equal(key.rpm, 0);
    assert_int_equal(key.expires_at_ms, 0);
    assert_int_equal(key.model_count, 0);
    assert_int_equal(fixture_get(f->ks.ledger,
                                 "SELECT count(*) FROM api_keys WHERE name IS NULL AND tier IS NULL"
                                 " AND expires_at IS NULL AND models = '[]' AND spend_week IS NULL"
                                 " AND rpd IS NULL AND balance = 3000000000"),
                     1);
}

static void given_key_when_updated_then_marked_only_if_spending_changed(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char text[KEY_TEXT_BYTES], why[KEY_WHY_BYTES];
    uint64_t marks;

    create(f, "{\"name\":\"demo\",\"credits\":\"3\"}", &made, text);
    marks = accounts_marks(f->ks.accounts);
    assert_int_equal(update(f, "demo", "{\"limits\":{\"rpm\":1}}", &found, why), 0);
    assert_true(accounts_marks(f->ks.accounts) == marks);
    assert_int_equal(update(f, "demo", "{\"limits\":{\"spend_day\":\"1\"}}", &found, why), 0);
    assert_true(accounts_marks(f->ks.accounts) == marks + 1);
}

static void given_taken_name_or_revoked_key_when_updated_then_refused(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char text[KEY_TEXT_BYTES], why[KEY_WHY_BYTES], id[KEY_ID_TEXT_BYTES];

    create(f, "{\"name\":\"a\"}", &made, text);
    create(f, "{\"name\":\"b\"}", &made, text);
    assert_int_equal(update(f, "b", "{\"name\":\"a\"}", &found, why), -EEXIST);
    assert_int_equal(update(f, "b", "{\"name\":\"b\",\"limits\":{\"rpm\":1}}", &found, why), 0);
    key_id_format(made.id, id);
    assert_int_equal(keystore_revoke(&f->ks, id, NOW, &found), 0);
    assert_int_equal(update(f, id, "{\"limits\":{\"rpm\":2}}", &found, why), -EKEYREVOKED);
    assert_int_equal(keystore_rotate(&f->ks, id, &found, text), -EKEYREVOKED);
}

static void given_key_when_rotated_then_new_text_works_and_old_is_dead_for_good(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char old[KEY_TEXT_BYTES], text[KEY_TEXT_BYTES];
    uint64_t after = 0;
    struct key before, key;

    create(f, "{\"name\":\"demo\",\"credits\":\"3\",\"limits\":{\"rpm\":7}}", &made, old);
    assert_int_equal(lookup(f, old, &before), 0);
    assert_int_equal(keystore_rotate(&f->ks, "demo", &found, text), 0);
    assert_true(found.id == made.id);
    assert_int_equal(lookup(f, old, &key), XR_EAUTH);
    assert_int_equal(lookup(f, text, &key), 0);
    assert_true(key.id == made.id && key.rpm == 7 && key.account == before.account);

    assert_int_equal(keystore_load(&f->ks, &after, 100, true), 1); /* the writer restarts */
    assert_int_equal(lookup(f, old, &key), XR_EAUTH);
    assert_int_equal(lookup(f, text, &key), 0);
}

static void given_failing_database_when_rotated_then_old_text_works_on(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found;
    char old[KEY_TEXT_BYTES], text[KEY_TEXT_BYTES] = "x";
    struct key key;

    create(f, "{\"name\":\"demo\"}", &made, old);
    assert_int_equal(database_exec(ledger_db(f->ks.ledger), "PRAGMA query_only = 1"), 0);
    assert_int_equal(keystore_rotate(&f->ks, "demo", &found, text), -EROFS);
    assert_int_equal(text[0], '\0');
    assert_int_equal(lookup(f, old, &key), 0);
}

static void given_database_that_was_taken_away_when_keys_change_then_nothing_does(void **state)
{
    struct fixture *f = *state;
    struct key_record made, found, other;
    char old[KEY_TEXT_BYTES], text[KEY_TEXT_BYTES];
    char path[128], away[128], why[KEY_WHY_BYTES];
    struct key key;

    create(f, "{\"name\":\"demo\"}", &made, old);
    assert_int_equal(decode(f, "{\"name\":\"other\"}", &other, why), 0);
    snprintf(path, sizeof(path), "%s/xrouter.db", f->dir);
    snprintf(away, sizeof(away), "%s/away.db", f->dir);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(rename(path, away), 0);
        if (i == 0)
            assert_int_equal(keystore_create(&f->ks, NOW, &other, text), -ESTALE);
        else if (i == 1)
            assert_int_equal(keystore_rotate(&f->ks, "demo", &found, text), -ESTALE);
        else if (i == 2)
            assert_int_equal(keystore_revoke(&f->ks, "demo", NOW, &found), -ESTALE);
        else
            assert_int_equal(keystore_update(&f->ks, &made), -ESTALE);
        assert_int_equal(rename(away, path), 0);
        assert_int_equal(ledger_reopen(f->ks.ledger), 0);
        assert_int_equal(lookup(f, old, &key), 0);
    }
    assert_int_equal(fixture_get(f->ks.ledger, "SELECT count(*) FROM api_keys"), 1);
    assert_int_equal(keystore_revoke(&f->ks, "demo", NOW, &found), 0);
    assert_int_equal(lookup(f, old, &key), XR_EAUTH);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(given_key_when_created_then_found_by_workers_and_durable),
        T(given_key_when_stored_then_its_text_is_nowhere_in_the_row),
        T(given_active_name_when_created_again_then_exists_until_revoked),
        T(given_key_when_revoked_then_dead_in_table_and_again_is_the_same),
        T(given_failing_database_when_revoked_then_key_works_on),
        T(given_expired_key_when_looked_up_then_expired),
        T(given_full_table_when_created_then_refused_and_no_row),
        T(given_keys_in_database_when_loaded_then_table_has_them_but_no_revoked),
        T(given_new_tier_values_when_loaded_again_then_limits_follow),
        T(given_other_secret_when_checked_then_rejected),
        T(given_keys_when_listed_in_pages_then_all_in_order_of_creation),
        T(given_bad_requests_when_decoded_then_the_field_is_named),
        T(given_64_letters_of_four_bytes_when_decoded_then_accepted),
        T(given_created_key_when_encoded_then_the_documented_object),
        T(given_credits_and_spending_limits_when_created_then_stored_shown_and_marked),
        T(given_key_without_limits_when_created_then_no_entry_and_no_mark),
        T(given_changed_config_when_loaded_again_then_nobody_is_counted_anew),
        T(given_key_when_updated_then_only_what_is_named_changes),
        T(given_key_when_updated_then_marked_only_if_spending_changed),
        T(given_taken_name_or_revoked_key_when_updated_then_refused),
        T(given_key_when_rotated_then_new_text_works_and_old_is_dead_for_good),
        T(given_failing_database_when_rotated_then_old_text_works_on),
        T(given_database_that_was_taken_away_when_keys_change_then_nothing_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
