/* crc32c.h - CRC-32C (Castagnoli), the checksum of whatever must be recognised after a crash. */
#ifndef XROUTER_COMMON_CRC32C_H
#define XROUTER_COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from crc; start with 0. The processor's instruction where there is one. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
