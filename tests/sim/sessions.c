#include "tests/sim/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/ids.h"
#include "tests/sim/rules.h"

#define SESSION_SLOTS 1024
#define PROBES 8 /* neighbours that share a place before one is forgotten */
#define MESSAGES_MAX 64

struct session {
    uint64_t key; /* 0: free */
    size_t count;
    uint64_t messages[MESSAGES_MAX]; /* hashes */
};

struct sessions {
    struct session slots[SESSION_SLOTS];
};

struct sessions *sessions_new(void)
{
    return calloc(1, sizeof(struct sessions));
}

void sessions_free(struct sessions *sessions)
{
    free(sessions);
}

void sessions_reset(struct sessions *sessions)
{
    for (size_t i = 0; i < SESSION_SLOTS; i++)
        sessions->slots[i].key = 0;
}

/* The session's slot, or a free one near its place; where there is none, the first there. */
static struct session *find_slot(struct sessions *sessions, uint64_t key)
{
    size_t place = (size_t)(key >> 1) % SESSION_SLOTS;
    struct session *room = NULL;

    for (size_t i = 0; i < PROBES; i++) {
        struct session *slot = &sessions->slots[(place + i) % SESSION_SLOTS];

        if (slot->key == key)
            return slot;
        if (slot->key == 0 && room == NULL)
            room = slot;
    }
    return room != NULL ? room : &sessions->slots[place];
}

uint64_t sessions_cached_tokens(struct sessions *sessions, const char *id, size_t id_len,
                                const cJSON *messages)
{
    uint64_t key = hash_bytes(1, id, id_len) | 1;
    struct session *session = find_slot(sessions, key);
    uint64_t cached = 0;
    size_t known = session->key == key ? session->count : 0;
    size_t at = 0;
    const cJSON *message;

    session->key = key;
    cJSON_ArrayForEach(message, messages)
    {
        const char *content = json_string(message, "content");
        size_t len = content == NULL ? 0 : strlen(content);
        uint64_t hash = hash_bytes((uint64_t)role_of(message), content, len);

        if (at == MESSAGES_MAX)
            break;
        if (at < known && session->messages[at] == hash)
            cached += count_tokens(count_code_points(content, len));
        else
            known = 0; /* the shared beginning ends here */
        session->messages[at++] = hash;
    }
    session->count = at;
    return cached;
}
