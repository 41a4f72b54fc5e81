/* crc32c: the Castagnoli checksum, as RocksDB's files and our records use it. Any thread. */
#ifndef INGEST_STORAGE_CRC32C_H
#define INGEST_STORAGE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Extends `crc`, the checksum of what came before (0 at the start), by `len` bytes. */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len);

/* The portable one, which the above falls back to; visible for its test. */
uint32_t crc32c_extend_portable(uint32_t crc, const void *data, size_t len);

#endif
