/* survey: what `store verify` and `store repair` found, printed. */
#ifndef INGEST_CLIENT_INGESTCTL_SURVEY_H
#define INGEST_CLIENT_INGESTCTL_SURVEY_H

#include "client/ingestctl/command.h"
#include "storage/offline.h"

/* For people, or as one JSON object. `directory` as the operator typed it. */
void print_survey(FILE *out, const char *directory, const store_survey *survey);
void print_survey_json(FILE *out, const char *directory, const store_survey *survey);

#endif
