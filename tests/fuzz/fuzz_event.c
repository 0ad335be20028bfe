/* Any bytes as usage records: nothing is read outside them, and what decodes encodes to the same
 * bytes again. The input is tried as it is and with its framing and CRC put right, because no
 * fuzzer guesses a CRC. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "usage/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_record(const uint8_t *record, size_t len)
{
    uint8_t again[USAGE_EVENT_MAX];
    struct usage_event event;
    size_t used;
    int rc = usage_event_decode(record, len, &event, &used);

    require(used <= len);
    if (rc != 0)
        return;
    require(event.attempt_count <= USAGE_ATTEMPTS_MAX);
    require(memchr(event.provider, '\0', USAGE_NAME_BYTES) != NULL);
    require(memchr(event.model, '\0', USAGE_NAME_BYTES) != NULL);
    require(usage_event_encode(&event, again) == used);
    require(memcmp(again, record, used) == 0);
}

/* The input becomes what follows the CRC of a record of its length. */
static void check_as_contents(const uint8_t *data, size_t size, uint8_t version)
{
    struct usage_event none = {0};
    uint8_t record[USAGE_EVENT_MAX];
    size_t room = sizeof(record) - 12;
    uint32_t len, crc;

    usage_event_encode(&none, record); /* for its magic */
    record[3] = version;
    memcpy(record + 12, data, size < room ? size : room);
    len = (uint32_t)(12 + (size < room ? size : room)) / 8 * 8;
    if (len < 16)
        return;
    memcpy(record + 4, &len, sizeof(len));
    crc = crc32c(0, record + 12, len - 12);
    memcpy(record + 8, &crc, sizeof(crc));
    check_record(record, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_record(data, size);
    for (uint8_t version = 1; version <= USAGE_RECORD_VERSION; version++)
        check_as_contents(data, size, version);
    return 0;
}
