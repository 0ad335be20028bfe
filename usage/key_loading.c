#include "usage/key_loading.h"

#include <string.h>

#include "common/log.h"

#define SLICE 500 /* keys */
#define RETRY_MS 1000

static void tell_revoked(uint64_t count)
{
    if (count > 0)
        log_event(LOG_WARN, "keys_revoked", "",
                  "%llu keys do not work any more: the database that is in use now does not have "
                  "them",
                  (unsigned long long)count);
}

int key_loading_run(const struct keystore *keystore)
{
    size_t swept = 0;
    uint64_t after = 0, revoked = 0;
    int n;

    do {
        n = keystore_sweep(keystore, &swept, SLICE, &revoked);
    } while (n == SLICE);
    tell_revoked(revoked);
    if (n < 0)
        return n;
    do {
        n = keystore_load(keystore, &after, SLICE, true);
    } while (n == SLICE);
    return n < 0 ? n : 0;
}

void key_loading_begin(struct key_loading *l, bool is_other)
{
    l->is_due = true;
    l->after = 0;
    l->at_ms = 0;
    if (!is_other) /* one that goes on is not cut short by a new config */
        return;
    l->is_other = true;
    l->is_sweeping = true;
    l->swept = 0;
    l->revoked = 0;
}

/* 0 or -errno. */
static int sweep(struct key_loading *l)
{
    int n = keystore_sweep(l->keystore, &l->swept, SLICE, &l->revoked);

    if (n < 0)
        return n;
    l->is_sweeping = n == SLICE;
    if (!l->is_sweeping)
        tell_revoked(l->revoked);
    return 0;
}

static int load(struct key_loading *l)
{
    int n = keystore_load(l->keystore, &l->after, SLICE, l->is_other);

    if (n < 0)
        return n;
    l->is_due = n == SLICE;
    l->is_other = l->is_other && l->is_due;
    return 0;
}

void key_loading_turn(struct key_loading *l, int64_t now_ms)
{
    int rc;

    if (!l->is_due || now_ms < l->at_ms)
        return;
    rc = l->is_sweeping ? sweep(l) : load(l);
    if (rc < 0 && l->at_ms == 0)
        log_event(LOG_ERROR, "keys_not_loaded", "",
                  "the key table does not follow the config and the database yet: %s",
                  strerror(-rc));
    l->at_ms = rc < 0 ? now_ms + RETRY_MS : 0;
}

int64_t key_loading_next_ms(const struct key_loading *l)
{
    return l->is_due ? l->at_ms : -1;
}
