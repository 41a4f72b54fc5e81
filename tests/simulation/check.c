#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "server/position.h"

static size_t index_of(const message *record) { return strtoul(record->id + 1, NULL, 10); }

/* ---- positions ---------------------------------------------------------------------------------
 */

/* The last committed one of this store; with `open`, also what may still be committed. */
static bool last_position(const volume *disk, bool open, position *out) {
    char key[POSITION_KEY_SIZE];
    bool found = false;
    position_key(&disk->id, "life", key);
    for (int32_t number = 0; number < cluster_partition_count("positions"); number++) {
        const partition *in = cluster_find("positions", number);
        for (int64_t i = 0; i < in->end; i++) {
            const entry *each = &in->log[i];
            bool counts = each->fate == FATE_COMMITTED || (open && each->fate == FATE_OPEN);
            if (each->kind != ENTRY_RECORD || !counts) continue;
            if (!bytes_equal(each->record->key, bytes_of_string(key))) continue;
            found = position_decode(each->record->value, out, NULL) == ST_OK;
        }
    }
    return found;
}

/* Whether the volume can have given that out; see store_check_position. */
static bool is_known(const volume *disk, const position *at) {
    if (at->sequence == 0) return true;
    for (size_t i = 0; i < disk->opening_count; i++)
        if (uuid_equal(&disk->openings[i].id, &at->incarnation))
            return at->sequence <=
                   (i + 1 < disk->opening_count ? disk->openings[i + 1].last_at_open : disk->last);
    return false;
}

void check_note_loss(life *it, const partition *from, int64_t kept) {
    for (int64_t i = kept; i < from->end; i++) {
        const entry *each = &from->log[i];
        if (each->kind != ENTRY_RECORD) continue;
        if (strcmp(from->topic, "positions") == 0)
            it->may_double = true;
        else
            it->lost[index_of(each->record)] = true;
    }
}

void check_expect_halt(life *it) {
    const volume *disk = it->hosts[0].disk;
    position at;
    bool found = last_position(disk, true, &at);
    it->must_halt = found ? at.sequence < disk->anchor.sequence : disk->anchor.has_published;
    trace("Kafka's position is %lld now", found ? (long long)at.sequence : -1);
}

static bool must_halt(const life *it, const host *on) {
    position at;
    bool found = last_position(on->disk, false, &at);
    switch (it->kind) {
    case KIND_ROLLED_BACK:
    case KIND_CLONED:
        return found && !is_known(on->disk, &at);
    case KIND_LOST:
        return it->must_halt;
    default:
        return false;
    }
}

/* ---- what was read ------------------------------------------------------------------------------
 */

typedef struct reading {
    unsigned parts[LIFE_EVENTS][4];
    unsigned total[LIFE_EVENTS];
} reading;

static void check_order(const life *it, const partition *in, const message *record,
                        uint64_t *last_of_key) {
    uint64_t *last = &last_of_key[record->key.data[1] - '0'];
    if (it->kind == KIND_WHOLE && record->sequence < *last)
        world_violate("P4: %s/%d has %llu of key %.*s after %llu", in->topic, in->number,
                      LLU(record->sequence), (int)record->key.len, (const char *)record->key.data,
                      LLU(*last));
    *last = record->sequence;
}

static void read_partition(const life *it, const partition *in, reading *out) {
    uint64_t last_of_key[10] = {0};
    int64_t end = cluster_last_stable(in);
    if (end != in->end)
        world_violate("%s/%d is held up at %lld", in->topic, in->number, (long long)end);
    for (int64_t i = 0; i < end; i++) {
        const entry *each = &in->log[i];
        if (each->kind != ENTRY_RECORD || each->fate != FATE_COMMITTED) continue;
        size_t which = index_of(each->record);
        out->parts[which][each->record->part]++;
        out->total[which] = each->record->parts;
        it->figures->events++;
        check_order(it, in, each->record, last_of_key);
    }
}

static void check_event(life *it, const reading *read, size_t which) {
    const event *of = &it->events[which];
    unsigned least = read->parts[which][0], most = least;
    for (unsigned i = 1; i < read->total[which]; i++) {
        unsigned count = read->parts[which][i];
        least = count < least ? count : least;
        most = count > most ? count : most;
    }
    if (of->id[0] == 'p' && most > 0) world_violate("%s was refused, and is read", of->id);
    if (least != most && !it->lost[which])
        world_violate("P3: of %s one part is read %u times, another %u times", of->id, least, most);
    if (most > 1 && !it->may_double) world_violate("P2: %s is read %u times", of->id, most);
    if (most > 0 && read->total[which] > 1) it->figures->groups++;
    if (of->acknowledged) it->figures->acknowledged++;
}

static bool is_dead_anywhere(const life *it, const event *of) {
    for (size_t v = 0; v < it->host_count; v++) {
        const volume *disk = it->hosts[v].disk;
        for (uint64_t sequence = 1; sequence <= disk->last; sequence++)
            if (disk->events[sequence] == of && disk->dead[sequence]) return true;
    }
    return false;
}

/* All that the volume holds is read, or dead. */
static void check_volume(life *it, const volume *disk, const reading *read) {
    for (uint64_t sequence = 1; sequence <= disk->last; sequence++) {
        const event *of = disk->events[sequence];
        size_t which = (size_t)(of - it->events);
        bool dead = is_dead_anywhere(it, of);
        for (uint64_t other = sequence + 1; other <= disk->last; other++)
            if (disk->events[other] == of) world_violate("P5: %s is there twice", of->id);
        if (dead) it->figures->dead++;
        if (dead && of->id[0] != 'p') world_violate("%s is dead for no reason", of->id);
        if (dead || read->parts[which][0] > 0 || it->lost[which]) continue;
        if (of->id[0] == 'p' && it->kind != KIND_WHOLE) continue; /* a dead letter rolled back */
        world_violate("P1: %s, sequence %llu, is neither read nor dead", of->id, LLU(sequence));
    }
}

/* ---- the end
 * ------------------------------------------------------------------------------------- */

static bool is_settled(host *on) {
    publisher_status status;
    if (host_is_halted(on, &status)) return true;
    return on->store && volume_position(on->store) == on->disk->last;
}

bool check_finished(life *it) {
    for (size_t i = 0; i < it->submitted; i++)
        if (!it->events[i].acknowledged) return false;
    for (size_t i = 0; i < it->host_count; i++)
        if (!is_settled(&it->hosts[i])) return false;
    return true;
}

static void check_acknowledged(life *it) {
    for (size_t i = 0; i < it->submitted; i++) {
        const event *of = &it->events[i];
        const volume *disk = it->home[i]->disk;
        bool held = false;
        for (uint64_t sequence = 1; sequence <= disk->last; sequence++)
            held = held || disk->events[sequence] == of;
        if (of->acknowledged && !held && it->kind != KIND_ROLLED_BACK)
            world_violate("P1: %s was acknowledged, and the store has it not", of->id);
    }
}

static void check_host(life *it, host *on, const reading *read) {
    publisher_status status;
    bool halted = host_is_halted(on, &status);
    bool must = must_halt(it, on);
    if (halted) {
        it->figures->halted++;
        if (!must && it->kind != KIND_LOST)
            world_violate("halted without need: %s", status.last_error);
        return;
    }
    /* A clone that has published all that it has does not look again. */
    if (must && it->kind != KIND_CLONED)
        world_violate("goes on although store and Kafka contradict each other");
    if (!is_settled(on))
        world_violate("does not come to the end: settled %llu of %llu, %s",
                      LLU(volume_position(on->store)), LLU(on->disk->last), status.last_error);
    check_volume(it, on->disk, read);
}

void check_promises(life *it) {
    static reading read;
    memset(&read, 0, sizeof read);
    for (size_t i = 0; cluster_partition(i); i++)
        if (strcmp(cluster_partition(i)->topic, "positions") != 0)
            read_partition(it, cluster_partition(i), &read);
    if (!check_finished(it)) world_violate("does not come to the end");
    for (size_t i = 0; i < it->host_count; i++)
        check_host(it, &it->hosts[i], &read);
    for (size_t i = 0; i < it->submitted; i++)
        check_event(it, &read, i);
    check_acknowledged(it);
}
