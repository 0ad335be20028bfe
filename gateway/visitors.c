#include "gateway/visitors.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/secret.h"

#define PLACES 8192 /* a power of two */
#define PROBES 16   /* places that an address may have */
#define MINUTE_MS 60000
#define NETWORK_BYTES 8 /* of an IPv6 address */

struct visitor {
    uint64_t address; /* 0 = nobody's yet */
    uint32_t connections;
    uint32_t wrong_keys;
    int64_t minute_ms; /* when the minute of the wrong keys began */
};

struct visitors {
    uint64_t seed; /* nobody outside can choose addresses that share places */
    struct visitor places[PLACES];
    struct visitor others; /* for whom there is none */
};

struct visitors *visitors_new(void)
{
    struct visitors *v = calloc(1, sizeof(*v));

    if (v != NULL && secret_random((uint8_t *)&v->seed, sizeof(v->seed)) < 0) {
        free(v);
        return NULL;
    }
    return v;
}

void visitors_free(struct visitors *v)
{
    free(v);
}

static uint64_t address_of(const struct sockaddr_storage *address)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)address;
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)address;
    uint64_t network = 0;
    uint32_t ip = 0;

    if (address->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        memcpy(&network, &six->sin6_addr, NETWORK_BYTES);
        return network != 0 ? network : 1; /* "::1" and its kin */
    }
    if (address->ss_family == AF_INET6)
        memcpy(&ip, six->sin6_addr.s6_addr + 12, sizeof(ip));
    else
        memcpy(&ip, &four->sin_addr, sizeof(ip));
    return UINT64_C(1) << 32 | ip; /* no network of IPv6: those begin with other bits */
}

static size_t home_of(const struct visitors *v, uint64_t address)
{
    uint64_t x = address ^ v->seed;

    /* The end of splitmix64. */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (size_t)(x ^ x >> 31) % PLACES;
}

static bool is_idle(const struct visitor *p, int64_t now_ms)
{
    return p->connections == 0 && now_ms - p->minute_ms >= MINUTE_MS;
}

static struct visitor *find(struct visitors *v, uint64_t address, int64_t now_ms)
{
    size_t home = home_of(v, address);
    struct visitor *free_place = NULL;

    for (size_t i = 0; i < PROBES; i++) {
        struct visitor *p = &v->places[(home + i) % PLACES];

        if (p->address == address)
            return p;
        if (free_place == NULL && (p->address == 0 || is_idle(p, now_ms)))
            free_place = p;
    }
    if (free_place == NULL)
        return &v->others;
    *free_place = (struct visitor){.address = address, .minute_ms = now_ms - MINUTE_MS};
    return free_place;
}

struct visitor *visitor_enter(struct visitors *v, const struct sockaddr_storage *address,
                              uint32_t most, int64_t now_ms)
{
    struct visitor *p = find(v, address_of(address), now_ms);

    if (most > 0 && p->connections >= most && p != &v->others)
        return NULL;
    p->connections++;
    return p;
}

void visitor_leave(struct visitor *visitor)
{
    if (visitor != NULL)
        visitor->connections--;
}

int64_t visitor_note_wrong_key(struct visitor *visitor, uint32_t most, int64_t now_ms)
{
    if (visitor == NULL || most == 0)
        return 0;
    if (now_ms - visitor->minute_ms >= MINUTE_MS) {
        visitor->minute_ms = now_ms;
        visitor->wrong_keys = 0;
    }
    if (visitor->wrong_keys >= most)
        return visitor->minute_ms + MINUTE_MS - now_ms;
    visitor->wrong_keys++;
    return 0;
}
