/* ledger_fixture.h - what the tests around the ledger share: a private directory with a database, a
 * key row to refer to, and events. */
#ifndef XROUTER_TESTS_LEDGER_FIXTURE_H
#define XROUTER_TESTS_LEDGER_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "usage/event.h"
#include "usage/ledger.h"

#define FIXTURE_KEY UINT64_C(0x00000000000000a1)
#define FIXTURE_KEY_TEXT "key_00000000000000a1"
#define FIXTURE_AT_MS INT64_C(1772366400000) /* 2026-03-01T12:00:00Z */

static inline void fixture_make_dir(char dir[64])
{
    snprintf(dir, 64, "/tmp/xrouter-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static inline void fixture_remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *e;
    char path[1024];

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        assert_true(snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path));
        if (unlink(path) == -1)
            fixture_remove_dir(path);
    }
    closedir(d);
    rmdir(dir);
}

/* A new ledger in a new directory: DIR/xrouter.db. */
static inline struct ledger *fixture_open(char dir[64])
{
    char path[128], why[DATABASE_WHY_BYTES];
    struct ledger *l;

    fixture_make_dir(dir);
    snprintf(path, sizeof(path), "%s/xrouter.db", dir);
    assert_int_equal(ledger_open(path, &l, why), 0);
    return l;
}

static inline void fixture_run(struct ledger *l, const char *sql)
{
    assert_int_equal(database_exec(ledger_db(l), sql), 0);
}

/* A number straight from the ledger's own connection. */
static inline int64_t fixture_get(struct ledger *l, const char *sql)
{
    int64_t value;

    assert_int_equal(database_get_i64(ledger_db(l), sql, -1, &value), 0);
    return value;
}

static inline void fixture_add_key(struct ledger *l, const char *id, const char *name)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "INSERT INTO api_keys (id, key_hash, name, created_at) VALUES ('%s', '%s', '%s', 1)",
             id, id, name);
    fixture_run(l, sql);
}

/* The id with it. */
static inline void fixture_set_time(struct usage_event *e, int64_t at_ms)
{
    e->created_at_ms = at_ms;
    for (size_t i = 0; i < 6; i++)
        e->id.bytes[i] = (uint8_t)((uint64_t)at_ms >> (40 - 8 * i));
}

/* Event number n of the fixture's key: 100 + n tokens in, 10 cached, 20 out, one attempt. */
static inline struct usage_event fixture_event(uint32_t n)
{
    struct usage_event e = {
        .key_id = FIXTURE_KEY,
        .provider = "gigachat",
        .model = "gigachat/GigaChat-2",
        .tokens_input = 100 + n,
        .tokens_cached = 10,
        .tokens_output = 20,
        .cost_nano = 1000 + n,
        .price = {.input_nano = 500, .output_nano = 500},
        .http_status = 200,
        .outcome = USAGE_OK,
        .source = USAGE_BY_PROVIDER,
        .attempt_count = 1,
        .duration_ms = 350,
        .first_byte_ms = 120,
        .attempts = {{.provider = "gigachat",
                      .model = "GigaChat-2",
                      .started_at_ms = FIXTURE_AT_MS + n,
                      .duration_ms = 340,
                      .http_status = 200,
                      .tokens_input = 100 + n,
                      .tokens_cached = 10,
                      .tokens_output = 20}},
    };

    fixture_set_time(&e, FIXTURE_AT_MS + n);
    for (size_t i = 0; i < 4; i++)
        e.id.bytes[12 + i] = (uint8_t)(n >> (24 - 8 * i));
    return e;
}

static inline void fixture_insert(struct ledger *l, const struct usage_event *e)
{
    assert_int_equal(ledger_begin(l), 0);
    assert_int_equal(ledger_insert(l, e), LEDGER_INSERTED);
    assert_int_equal(ledger_commit(l), 0);
}

#endif
