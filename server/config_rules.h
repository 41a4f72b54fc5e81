/*
 * config_rules: what the table cannot say: which properties of librdkafka stay ours, what must be
 * given, and which values do not go together. Behind config.c. Pure.
 */
#ifndef INGEST_SERVER_CONFIG_RULES_H
#define INGEST_SERVER_CONFIG_RULES_H

#include "server/config.h"

#define CONFIG_SECRET_MARK "(set)" /* how config_print shows a secret */

/* ST_INVALID when the property may not be set, or not to this value; fills the reason only. */
MUST_CHECK outcome config_check_property(const char *name, const char *value, failure *why);
/* Whether the property's value must not be printed. */
bool config_is_secret(const char *name);
/* Checks the whole; fills in the topics that were left to their default. */
MUST_CHECK outcome config_check(config *all, failure *why);

#endif
