#include "router/ranking.h"

#include <assert.h>
#include <string.h>

#include "common/json.h"

#define TYPICAL_TOKENS 1000         /* of a prompt, and of an answer */
#define SHARE_ONE UINT64_C(1000000) /* all slots of a provider */

/* Smaller is earlier; listed counts most. */
struct rank {
    uint64_t listed;   /* in the request's order; behind it = not there */
    uint64_t priority; /* the config's; 0 where the request asks for a sort of its own */
    uint64_t value;    /* by the strategy */
};

typedef uint64_t (*rank_fn)(const struct route_setup *setup, const struct route_candidate *c);

static uint64_t rank_in_file(const struct route_setup *setup, const struct route_candidate *c)
{
    return 0; /* sorting leaves equal ones where they are */
}

static uint64_t rank_by_latency(const struct route_setup *setup, const struct route_candidate *c)
{
    const struct target *t;
    int index;

    if (setup->targets == NULL)
        return 0;
    index = targets_find(setup->targets, c->provider->name, c->config->model);
    t = index >= 0 ? target_at(setup->targets, (size_t)index) : NULL;
    return t != NULL ? atomic_load_explicit(&t->first_byte_us, memory_order_relaxed) : 0;
}

static uint64_t rank_by_cost(const struct route_setup *setup, const struct route_candidate *c)
{
    return (uint64_t)money_cost_nano(&c->price, TYPICAL_TOKENS, 0, TYPICAL_TOKENS);
}

static uint64_t rank_by_load(const struct route_setup *setup, const struct route_candidate *c)
{
    uint32_t taken, waiting;
    uint64_t slots;
    int index;

    if (setup->queue == NULL || setup->counters == NULL)
        return 0;
    index = counters_find_provider(setup->counters, c->provider->name);
    if (index < 0)
        return 0;
    queue_look(setup->queue, (size_t)index, &taken, &waiting);
    slots = (uint64_t)c->provider->max_concurrent * (c->provider->account_count + 1);
    return ((uint64_t)taken + waiting) * SHARE_ONE / slots;
}

static const struct {
    const char *name;
    rank_fn rank;
} STRATEGIES[] = {
    {"priority", rank_in_file}, {"weighted", rank_in_file}, {"latency", rank_by_latency},
    {"cost", rank_by_cost},     {"busy", rank_by_load},
};

static const rank_fn SORTS[] = {[CHAT_SORT_PRICE] = rank_by_cost,
                                [CHAT_SORT_THROUGHPUT] = rank_by_load,
                                [CHAT_SORT_LATENCY] = rank_by_latency};

static rank_fn rank_of(const struct route_setup *setup, const struct model_config *model)
{
    if (setup->request->wishes.sort != CHAT_SORT_NONE)
        return SORTS[setup->request->wishes.sort];
    for (size_t i = 0; i < sizeof(STRATEGIES) / sizeof(STRATEGIES[0]); i++)
        if (strcmp(STRATEGIES[i].name, model->strategy) == 0)
            return STRATEGIES[i].rank;
    assert(false); /* the option's words are those of the table */
    return rank_in_file;
}

/* Where the provider is in the request's order; behind all if it is not. */
static uint64_t place_in_order(const cJSON *order, const char *provider)
{
    const cJSON *item;
    uint64_t place = 0;

    cJSON_ArrayForEach(item, order)
    {
        if (strcmp(item->valuestring, provider) == 0)
            break;
        place++;
    }
    return place;
}

static int compare(const struct rank *a, const struct rank *b)
{
    if (a->listed != b->listed)
        return a->listed < b->listed ? -1 : 1;
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    return (a->value > b->value) - (a->value < b->value);
}

/* By insertion: a few, often in order already, and equal ones must stay. */
static void sort(struct route_candidate *candidates, struct rank *ranks, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const struct route_candidate moved = candidates[i];
        const struct rank rank = ranks[i];
        size_t at = i;

        for (; at > 0 && compare(&ranks[at - 1], &rank) > 0; at--) {
            candidates[at] = candidates[at - 1];
            ranks[at] = ranks[at - 1];
        }
        candidates[at] = moved;
        ranks[at] = rank;
    }
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* One after the other is drawn by its weight among those that are left; who weighs nothing is never
 * drawn and ends up behind. */
static void draw(struct route_candidate *candidates, size_t count, uint64_t *random)
{
    uint64_t left = 0;

    for (size_t i = 0; i < count; i++)
        left += candidates[i].config->weight;
    for (size_t i = 0; i < count && left > 0; i++) {
        uint64_t mark = next_random(random) % left;
        struct route_candidate drawn;
        size_t at = i;

        for (; mark >= candidates[at].config->weight; at++)
            mark -= candidates[at].config->weight;
        drawn = candidates[at];
        left -= drawn.config->weight;
        memmove(&candidates[i + 1], &candidates[i], (at - i) * sizeof(drawn));
        candidates[i] = drawn;
    }
}

void ranking_order(const struct route_setup *setup, struct route_candidate *candidates,
                   size_t count, uint64_t *random)
{
    const struct chat_wishes *wishes = &setup->request->wishes;
    struct rank ranks[CONFIG_CANDIDATES_MAX];
    rank_fn rank;
    size_t end;

    if (count < 2)
        return;
    assert(count <= CONFIG_CANDIDATES_MAX);
    rank = rank_of(setup, candidates[0].model);
    for (size_t i = 0; i < count; i++)
        ranks[i] = (struct rank){
            .listed = place_in_order(wishes->order, candidates[i].provider->name),
            .priority = wishes->sort == CHAT_SORT_NONE ? candidates[i].config->priority : 0,
            .value = rank(setup, &candidates[i])};
    sort(candidates, ranks, count);
    if (wishes->sort != CHAT_SORT_NONE || strcmp(candidates[0].model->strategy, "weighted") != 0)
        return;
    for (size_t i = 0; i < count; i = end) {
        for (end = i + 1; end < count && compare(&ranks[i], &ranks[end]) == 0; end++)
            ;
        draw(&candidates[i], end - i, random);
    }
}
