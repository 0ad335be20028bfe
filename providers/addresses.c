#include "providers/addresses.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "common/versioned.h"

#define LIST_WORDS VERSIONED_WORDS(sizeof(struct address_list))

_Static_assert(sizeof(struct address_list) % 8 == 0, "copied word by word");

struct host {
    char name[ADDRESS_HOST_BYTES]; /* never changes once counted */
    _Atomic uint64_t version;
    _Atomic uint64_t copies[2 * LIST_WORDS];
};

struct addresses_region {
    _Atomic uint64_t count;
    struct host hosts[ADDRESSES_HOSTS_MAX];
};

static uint64_t region_layout(void)
{
    static const uint64_t LAYOUT[] = {
        1, /* the protocol between versions and copies */
        sizeof(struct addresses_region),
        offsetof(struct addresses_region, hosts),
        sizeof(struct host),
        offsetof(struct host, version),
        offsetof(struct host, copies),
        sizeof(struct address_list),
        ADDRESS_TEXT_BYTES,
        offsetof(struct address_list, count),
        offsetof(struct address_list, looked_up_ms),
        offsetof(struct address_list, error),
    };

    return shm_layout_hash(0, LAYOUT, sizeof(LAYOUT));
}

struct shm_region_spec addresses_region_spec(void)
{
    return (struct shm_region_spec){
        .name = ADDRESSES_REGION,
        .bytes = sizeof(struct addresses_region),
        .layout = region_layout(),
    };
}

void addresses_region_init(struct addresses_region *r)
{
    memset(r, 0, sizeof(*r));
}

struct addresses_region *addresses_region_get(const struct shm *shm)
{
    size_t bytes;
    struct addresses_region *r = shm_region(shm, ADDRESSES_REGION, region_layout(), &bytes);

    return r != NULL && bytes >= sizeof(*r) ? r : NULL;
}

static size_t host_count(const struct addresses_region *r)
{
    return atomic_load_explicit(&r->count, memory_order_acquire);
}

static const struct host *find_host(const struct addresses_region *r, const char *name)
{
    size_t count = host_count(r);

    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(r->hosts[i].name, name) == 0)
            return &r->hosts[i];
    }
    return NULL;
}

static void load_list(const struct host *h, struct address_list *out)
{
    versioned_load(&h->version, h->copies, LIST_WORDS, out, sizeof(*out));
}

int addresses_register(struct addresses_region *r, const char *host)
{
    size_t len = strlen(host);
    size_t count = host_count(r);

    if (len >= ADDRESS_HOST_BYTES)
        return -ENAMETOOLONG;
    if (find_host(r, host) != NULL)
        return 0;
    if (count == ADDRESSES_HOSTS_MAX)
        return -ENOSPC;
    memcpy(r->hosts[count].name, host, len + 1);
    atomic_store_explicit(&r->count, count + 1, memory_order_release);
    return 0;
}

int addresses_lookup(const struct addresses_region *r, const char *host, struct address_list *out)
{
    const struct host *h = find_host(r, host);

    if (h == NULL)
        return -ENOENT;
    load_list(h, out);
    return out->looked_up_ms == 0 ? -EAGAIN : 0;
}

const char *addresses_host(const struct addresses_region *r, size_t index)
{
    return index < host_count(r) ? r->hosts[index].name : NULL;
}

void addresses_publish(struct addresses_region *r, size_t index, const struct address_list *list)
{
    struct address_list next = *list;
    struct host *h;

    if (index >= host_count(r))
        return;
    h = &r->hosts[index];
    if (list->count == 0) {
        load_list(h, &next);
        next.looked_up_ms = list->looked_up_ms;
        next.error = list->error;
    }
    versioned_store(&h->version, h->copies, LIST_WORDS, &next, sizeof(next));
}
