/* UTF-8 as the API takes it: RFC 3629, and no NUL. */
#ifndef INGEST_STORAGE_UTF8_H
#define INGEST_STORAGE_UTF8_H

#include "storage/bytes.h"

/* How many bytes from the start are whole UTF-8 characters other than NUL. */
size_t utf8_prefix(bytes text);

#endif
