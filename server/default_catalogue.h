/* default_catalogue: default_catalogue.tsv, built in as an array; for catalogue_parse. */
#ifndef INGEST_SERVER_DEFAULT_CATALOGUE_H
#define INGEST_SERVER_DEFAULT_CATALOGUE_H

#include <stddef.h>

extern const unsigned char ingest_default_catalogue[];
extern const size_t ingest_default_catalogue_size;

#endif
