/*
 * groups: puts split transactions together again. Each part waits here for the others; a group that
 * is whole waits for earlier ones of its key, by the sequence that its server gave it. Parts are
 * told of by the headers of their records (ce_storeid, ce_sequence, ce_source, ce_groupid,
 * ce_groupindex, ce_groupsize). Pure; one thread.
 */
#ifndef INGEST_CLIENT_GROUPS_H
#define INGEST_CLIENT_GROUPS_H

#include "storage/bytes.h"
#include "storage/status.h"

enum { GROUP_PARTS_MAX = 1000 };

typedef struct group_part {
    bytes store, source, id, key;
    uint64_t sequence;
    uint32_t index, size;
    void *part; /* the caller's */
} group_part;

/* A group that is told of; `parts` has NULL for those that are missing. Lasts for the call. */
typedef struct group_view {
    void *const *parts;
    uint32_t size, have;
} group_view;

typedef struct groups groups;

typedef void group_ready(void *arg, const group_view *group);

groups *groups_new(void); /* NULL: no memory */
void groups_free(groups *it);

/* Takes a part in; `ready` is called for each group that is whole by it, or comes to its turn.
 * ST_INVALID: the headers contradict themselves, or the part is there already. */
MUST_CHECK outcome groups_add(groups *it, const group_part *part, int64_t now_ms,
                              group_ready *ready, void *arg, failure *why);
/* Waits no longer for groups whose last part came before this time; these are told to `torn`. */
void groups_give_up(groups *it, int64_t before_ms, group_ready *torn, group_ready *ready,
                    void *arg);
/* Forgets the groups that have a part which `concerns` says yes to, telling each to `gone`: its
 * partition went, and the records with it. */
void groups_drop(groups *it, bool (*concerns)(void *arg, const void *part), group_ready *gone,
                 void *arg);
size_t groups_count(const groups *it);

#endif
