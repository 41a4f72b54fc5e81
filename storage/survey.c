/*
 * Order: the dead letters, the outbox against them, the ids against both. Above a route's hint
 * every sequence up to the last must be there as an event or a tombstone; one that is not is
 * looked for one by one, and then lost. Damage never fails the walk.
 */
#include "storage/survey.h"

#include "storage/crc32c.h"
#include "storage/encoding.h"
#include "storage/idempotency.h"
#include "storage/store_meta.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOMBSTONE_SIZE_MAX = 64 };

typedef struct letter_entry {
    uint32_t route;
    uint64_t sequence;
} letter_entry;

typedef struct walk {
    salvage *from;
    event_store *meta;
    store_survey *out;
    survey_put put;
    void *arg;
    letter_entry *letters; /* owned; readable dead letters, ascending */
    size_t letter_count;
    size_t letters_sorted; /* so many of them are in order */
    size_t letter_capacity;
    uint64_t last[STORE_ROUTES_MAX];       /* at least */
    uint64_t first[STORE_ROUTES_MAX];      /* readable record, of a route without a hint; 0: none */
    uint64_t dead_bytes[STORE_ROUTES_MAX]; /* readable */
    /* the outbox */
    uint32_t route;
    uint64_t next;       /* sequence expected next */
    uint64_t cumulative; /* cumulative_bytes of the one before */
} walk;

static outcome put(walk *self, store_family family, bytes key, bytes value, failure *why) {
    return self->put ? self->put(self->arg, family, key, value, why) : ST_OK;
}

static const char *name_of(const walk *self, uint32_t route) {
    const char *name = self->meta->routes[route].name;
    return name[0] ? name : "(unknown)";
}

/* Route and sequence of a key of outbox or dead. */
static bool split_key(bytes key, uint32_t *route, uint64_t *sequence) {
    if (key.len != EVENT_KEY_SIZE || key.data[0] >= STORE_ROUTES_MAX) return false;
    *route = key.data[0];
    *sequence = get_be64(key.data + 1);
    return true;
}

/* ---- meta ------------------------------------------------------------------------------------ */

/* Entries of meta, copied: it is small. */
typedef struct meta_entry {
    uint8_t *data; /* owned; key, then value */
    size_t key_len;
    size_t len;
} meta_entry;

typedef struct meta_entries {
    meta_entry *list; /* owned */
    size_t count;
} meta_entries;

static bytes meta_key_of(const meta_entry *entry) { return bytes_of(entry->data, entry->key_len); }

static void free_entries(meta_entries *entries) {
    for (size_t i = 0; i < entries->count; i++)
        free(entries->list[i].data);
    free(entries->list);
}

/* What the view before had already stays. */
static outcome take_meta(void *arg, bytes key, bytes value, failure *why) {
    meta_entries *entries = arg;
    for (size_t i = 0; i < entries->count; i++)
        if (bytes_equal(meta_key_of(&entries->list[i]), key)) return ST_OK;
    size_t size = (entries->count + 1) * sizeof *entries->list;
    meta_entry *grown = realloc(entries->list, size);
    if (grown) entries->list = grown;
    uint8_t *data = malloc(key.len + value.len + 1);
    if (!grown || !data) {
        free(data);
        return fail(why, ST_NO_MEMORY, "", "no memory for meta");
    }
    put_bytes(put_bytes(data, key), value);
    entries->list[entries->count++] =
        (meta_entry){.data = data, .key_len = key.len, .len = key.len + value.len};
    return ST_OK;
}

static int by_meta_key(const void *a, const void *b) {
    bytes first = meta_key_of(a);
    bytes second = meta_key_of(b);
    size_t common = first.len < second.len ? first.len : second.len;
    int order = common ? memcmp(first.data, second.data, common) : 0;
    return order ? order : (first.len > second.len) - (first.len < second.len);
}

static bool has_entry(const meta_entries *entries, bytes key) {
    for (size_t i = 0; i < entries->count; i++)
        if (bytes_equal(meta_key_of(&entries->list[i]), key)) return true;
    return false;
}

static bool has_route_entry(const meta_entries *entries, const char *prefix, uint32_t route) {
    uint8_t key[16];
    bytes end = bytes_of(&(uint8_t){(uint8_t)route}, 1);
    uint8_t *at = put_bytes(put_bytes(key, bytes_of_string(prefix)), end);
    return has_entry(entries, bytes_of(key, (size_t)(at - key)));
}

/* Every store has these, and every route its three. */
static bool is_whole(salvage *from, const meta_entries *entries, const event_store *meta) {
    bool whole = has_entry(entries, bytes_of_string("format")) &&
                 has_entry(entries, bytes_of_string("store")) && meta->incarnation_count > 0;
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        bool named = has_route_entry(entries, "route/", i);
        bool counted = has_route_entry(entries, "ledger/", i);
        from->anchored[i] = has_route_entry(entries, "anchor/", i);
        whole = whole && named == counted && named == from->anchored[i];
        whole = whole && named == (i < meta->route_count);
    }
    return whole;
}

/* Reads what can be understood; `whole` when that is everything. */
static outcome load_entries(salvage *from, const meta_entries *entries, event_store *meta,
                            bool *whole, failure *why) {
    uint32_t format = 0;
    *whole = true;
    for (size_t i = 0; i < entries->count; i++) {
        const meta_entry *entry = &entries->list[i];
        bytes value = bytes_of(entry->data + entry->key_len, entry->len - entry->key_len);
        outcome result = meta_load_entry(meta, meta_key_of(entry), value, &format);
        if (result == ST_NO_MEMORY) return fail(why, result, "", "no memory for meta");
        if (result != ST_OK) *whole = false;
    }
    *whole = is_whole(from, entries, meta) && *whole;
    if (format <= STORE_FORMAT) return ST_OK;
    return fail(why, ST_PRECONDITION, "format",
                "%s was written by a newer version (store format %u, this program knows %u)",
                meta->directory, format, STORE_FORMAT);
}

static outcome make_meta(salvage *from, meta_entries *entries, event_store **meta, bool *whole,
                         failure *why) {
    store_options options;
    store_options_init(&options);
    options.directory = from->directory;
    *meta = store_new(&options);
    if (!*meta) return fail(why, ST_NO_MEMORY, "", "no memory for meta");
    if (entries->count) qsort(entries->list, entries->count, sizeof *entries->list, by_meta_key);
    outcome result = load_entries(from, entries, *meta, whole, why);
    if (result != ST_OK) store_free(*meta);
    return result;
}

static outcome end_reading(void *arg, bytes key, bytes value, failure *why) {
    (void)arg, (void)key, (void)value, (void)why;
    return ST_PRECONDITION;
}

static bool has_records(salvage *from) {
    bool any = false;
    for (int view = 0; view < from->view_count; view++)
        any = any || salvage_read_view(from, view, FAMILY_OUTBOX, end_reading, NULL, NULL) != ST_OK;
    return any;
}

outcome survey_meta(salvage *from, event_store **meta, failure *why) {
    meta_entries entries = {0};
    bool whole = false;
    outcome result = salvage_read_view(from, 0, FAMILY_META, take_meta, &entries, why);
    if (result == ST_OK) result = make_meta(from, &entries, meta, &whole, why);
    if (result == ST_OK && !(whole && from->complete[FAMILY_META])) {
        store_free(*meta);
        result = salvage_rebuild(from, why);
        for (int view = 1; result == ST_OK && view < from->view_count; view++)
            result = salvage_read_view(from, view, FAMILY_META, take_meta, &entries, why);
        if (result == ST_OK) result = make_meta(from, &entries, meta, &whole, why);
    }
    bool empty = entries.count == 0;
    free_entries(&entries);
    if (result != ST_OK || whole) return result;
    if (empty && !from->witnessed && !has_records(from)) {
        store_free(*meta);
        return fail(why, ST_NOT_FOUND, "",
                    "%s has no store yet: its first start was cut short, the next one will do",
                    from->directory);
    }
    from->survey->identity_lost = true;
    result = salvage_note(from->survey, why, "meta is not whole: the store's id, or more, is gone");
    if (result != ST_OK) store_free(*meta);
    return result;
}

/* ---- dead letters --------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    const letter_entry *first = a;
    const letter_entry *second = b;
    if (first->route != second->route) return first->route < second->route ? -1 : 1;
    return (first->sequence > second->sequence) - (first->sequence < second->sequence);
}

static bool has_letter(const walk *self, uint32_t route, uint64_t sequence) {
    letter_entry wanted = {route, sequence};
    return self->letters_sorted && bsearch(&wanted, self->letters, self->letters_sorted,
                                           sizeof *self->letters, by_key) != NULL;
}

static outcome add_letter(walk *self, uint32_t route, uint64_t sequence, failure *why) {
    if (self->letter_count == self->letter_capacity) {
        size_t capacity = self->letter_capacity ? 2 * self->letter_capacity : 256;
        letter_entry *grown = realloc(self->letters, capacity * sizeof *grown);
        if (!grown) return fail(why, ST_NO_MEMORY, "", "no memory for the dead letters");
        self->letters = grown;
        self->letter_capacity = capacity;
    }
    self->letters[self->letter_count++] = (letter_entry){route, sequence};
    return ST_OK;
}

static outcome take_letter(void *arg, bytes key, bytes value, failure *why) {
    walk *self = arg;
    uint32_t route;
    uint64_t sequence;
    dead_letter letter;
    failure flaw = {0};
    if (!split_key(key, &route, &sequence))
        return salvage_note(self->out, why, "dead letters: a key that is none");
    if (dead_letter_decode(sequence, value, &letter, &flaw) != ST_OK)
        return salvage_note(self->out, why, "route %s: %s", name_of(self, route), flaw.reason);
    /* What an earlier view had stays. */
    if (has_letter(self, route, sequence)) return ST_OK;
    self->out->routes[route].dead++;
    self->dead_bytes[route] += EVENT_KEY_SIZE + value.len;
    outcome result = put(self, FAMILY_DEAD, key, value, why);
    return result == ST_OK ? add_letter(self, route, sequence, why) : result;
}

static void sort_letters(walk *self) {
    if (self->letter_count) qsort(self->letters, self->letter_count, sizeof *self->letters, by_key);
    self->letters_sorted = self->letter_count;
}

static outcome walk_dead(walk *self, failure *why) {
    outcome result = salvage_read_view(self->from, 0, FAMILY_DEAD, take_letter, self, why);
    sort_letters(self);
    if (result != ST_OK || self->from->complete[FAMILY_DEAD]) return result;
    result = salvage_rebuild(self->from, why);
    for (int view = 1; result == ST_OK && view < self->from->view_count; view++) {
        result = salvage_read_view(self->from, view, FAMILY_DEAD, take_letter, self, why);
        sort_letters(self);
    }
    return result;
}

/* ---- the outbox ------------------------------------------------------------------------------ */

static outcome add_loss(walk *self, uint64_t sequence, bool dead, failure *why) {
    store_survey *out = self->out;
    store_loss *latest = out->loss_count ? &out->losses[out->loss_count - 1] : NULL;
    out->routes[self->route].lost++;
    if (latest && latest->route == self->route && latest->dead == dead &&
        latest->last + 1 == sequence) {
        latest->last = sequence;
        return ST_OK;
    }
    store_loss *grown = realloc(out->losses, (out->loss_count + 1) * sizeof *grown);
    if (!grown) return fail(why, ST_NO_MEMORY, "", "no memory for the losses");
    out->losses = grown;
    grown[out->loss_count++] =
        (store_loss){.route = self->route, .first = sequence, .last = sequence, .dead = dead};
    return ST_OK;
}

static outcome put_tombstone(walk *self, record_kind kind, uint64_t sequence, int64_t accepted_ms,
                             failure *why) {
    uint8_t key[EVENT_KEY_SIZE];
    uint8_t value[TOMBSTONE_SIZE_MAX];
    event_record record = {.kind = kind,
                           .sequence = sequence,
                           .cumulative_bytes = self->cumulative,
                           .accepted_ms = accepted_ms};
    record_encode(&record, value);
    if (kind == RECORD_LOST && !meta_add_moved(&self->meta->routes[self->route], sequence))
        return fail(why, ST_NO_MEMORY, "", "no memory for the losses");
    return put(self, FAMILY_OUTBOX, event_key(key, self->route, sequence),
               bytes_of(value, record_encoded_size(&record)), why);
}

static outcome lose(walk *self, uint64_t sequence, bool dead, failure *why) {
    outcome result = add_loss(self, sequence, dead, why);
    return result == ST_OK ? put_tombstone(self, RECORD_LOST, sequence, 0, why) : result;
}

/* A sound record of the sequence that is next. */
static outcome keep(walk *self, const event_record *record, bytes value, failure *why) {
    route_survey *route = &self->out->routes[self->route];
    uint8_t key[EVENT_KEY_SIZE];
    if (record->cumulative_bytes > self->cumulative) self->cumulative = record->cumulative_bytes;
    switch (record->kind) {
    case RECORD_EVENT:
        if (has_letter(self, self->route, record->sequence)) /* an old copy, from before the bury */
            return put_tombstone(self, RECORD_MOVED, record->sequence, record->accepted_ms, why);
        route->events++;
        break;
    case RECORD_MOVED:
        if (has_letter(self, self->route, record->sequence)) break;
        return lose(self, record->sequence, true, why);
    case RECORD_LOST:
        route->lost_before++;
        return put_tombstone(self, RECORD_LOST, record->sequence, record->accepted_ms, why);
    }
    return put(self, FAMILY_OUTBOX, event_key(key, self->route, record->sequence), value, why);
}

/* Looks for a record where the reading in order did not find it, sound, and keeps or loses it. */
static outcome find(walk *self, uint64_t sequence, failure *why) {
    uint8_t key[EVENT_KEY_SIZE];
    bool more = salvage_may_have_more(self->from, FAMILY_OUTBOX);
    outcome result = more ? salvage_rebuild(self->from, why) : ST_OK;
    if (result != ST_OK) return result;
    for (int view = 0; view < self->from->view_count; view++) {
        char *value;
        size_t len;
        event_record record;
        salvage_get(self->from, view, FAMILY_OUTBOX, event_key(key, self->route, sequence), &value,
                    &len);
        if (!value) continue;
        bool sound = record_decode(sequence, bytes_of(value, len), &record, NULL) == ST_OK;
        if (sound) result = keep(self, &record, bytes_of(value, len), why);
        rocksdb_free(value);
        if (sound) return result;
    }
    if (has_letter(self, self->route, sequence))
        return put_tombstone(self, RECORD_MOVED, sequence, 0, why);
    return lose(self, sequence, false, why);
}

static outcome find_up_to(walk *self, uint64_t last, failure *why) {
    outcome result = ST_OK;
    for (; result == ST_OK && self->next <= last; self->next++)
        result = find(self, self->next, why);
    return result;
}

/* Nothing is missing in a sound store. */
static outcome find_missing(walk *self, uint64_t last, failure *why) {
    outcome result = salvage_note(
        self->out, why, "route %s: records %llu to %llu are not in their place",
        name_of(self, self->route), (unsigned long long)self->next, (unsigned long long)last);
    return result == ST_OK ? find_up_to(self, last, why) : result;
}

static void begin_route(walk *self, uint32_t route) {
    const route_durable *at = &self->meta->routes[route].synced;
    self->route = route;
    self->next = at->anchor.sequence + 1;
    self->cumulative = at->anchor_cumulative;
    self->meta->routes[route].moved_count = 0; /* filled by the walk */
}

static outcome finish_route(walk *self, failure *why) {
    uint64_t last = self->last[self->route];
    outcome result = self->next <= last ? find_missing(self, last, why) : ST_OK;
    self->meta->routes[self->route].synced.last = self->next - 1;
    return result;
}

static outcome go_to_route(walk *self, uint32_t route, failure *why) {
    outcome result = ST_OK;
    while (result == ST_OK && self->route < route) {
        result = finish_route(self, why);
        begin_route(self, self->route + 1);
    }
    return result;
}

static outcome take_record(void *arg, bytes key, bytes value, failure *why) {
    walk *self = arg;
    uint32_t route;
    uint64_t sequence;
    event_record record;
    failure flaw = {0};
    if (!split_key(key, &route, &sequence))
        return salvage_note(self->out, why, "outbox: a key that is none");
    outcome result = go_to_route(self, route, why);
    if (result != ST_OK || sequence < self->next) return result; /* settled */
    if (sequence > self->next) result = find_missing(self, sequence - 1, why);
    if (result != ST_OK) return result;
    if (record_decode(sequence, value, &record, &flaw) == ST_OK) {
        self->next++;
        return keep(self, &record, value, why);
    }
    result = salvage_note(self->out, why, "route %s: %s", name_of(self, route), flaw.reason);
    return result == ST_OK ? find_up_to(self, sequence, why) : result;
}

static outcome see_last(void *arg, bytes key, bytes value, failure *why) {
    walk *self = arg;
    uint32_t route;
    uint64_t sequence;
    event_record record;
    if (!split_key(key, &route, &sequence) || sequence <= self->last[route]) return ST_OK;
    if (record_decode(sequence, value, &record, why) == ST_OK) self->last[route] = sequence;
    return ST_OK;
}

static outcome see_first(void *arg, bytes key, bytes value, failure *why) {
    walk *self = arg;
    uint32_t route;
    uint64_t sequence;
    event_record record;
    if (!split_key(key, &route, &sequence) || self->from->anchored[route]) return ST_OK;
    if (self->first[route] && sequence >= self->first[route]) return ST_OK;
    if (record_decode(sequence, value, &record, why) != ST_OK) return ST_OK;
    route_durable *at = &self->meta->routes[route].synced;
    self->first[route] = sequence;
    at->anchor.sequence = sequence - 1;
    at->anchor_cumulative = record.cumulative_bytes - (record.kind == RECORD_EVENT ? value.len : 0);
    return ST_OK;
}

/* A route whose hint is gone begins with what is readable of it. */
static outcome find_hints(walk *self, failure *why) {
    outcome result = salvage_rebuild(self->from, why);
    for (int view = 0; result == ST_OK && view < self->from->view_count; view++)
        result = salvage_read_view(self->from, view, FAMILY_OUTBOX, see_first, self, why);
    return result;
}

/* How far each route has come at least, by all that says so. */
static outcome see_lasts(walk *self, failure *why) {
    event_store *meta = self->meta;
    for (uint32_t i = 0; i < STORE_ROUTES_MAX; i++) {
        self->last[i] = meta->routes[i].synced.anchor.sequence;
        if (self->from->seen.last[i] > self->last[i]) self->last[i] = self->from->seen.last[i];
        for (size_t j = 0; j < meta->incarnation_count; j++)
            if (meta->incarnations[j].last_at_open[i] > self->last[i])
                self->last[i] = meta->incarnations[j].last_at_open[i];
    }
    /* Tables that the MANIFEST should name and does not. */
    if (!salvage_may_have_more(self->from, FAMILY_OUTBOX)) return ST_OK;
    outcome result = salvage_rebuild(self->from, why);
    for (int view = 1; result == ST_OK && view < self->from->view_count; view++)
        result = salvage_read_view(self->from, view, FAMILY_OUTBOX, see_last, self, why);
    return result;
}

static outcome walk_outbox(walk *self, failure *why) {
    outcome result = self->out->identity_lost ? find_hints(self, why) : ST_OK;
    if (result == ST_OK) result = see_lasts(self, why);
    begin_route(self, 0);
    if (result == ST_OK)
        result = salvage_read_view(self->from, 0, FAMILY_OUTBOX, take_record, self, why);
    if (result == ST_OK) result = go_to_route(self, STORE_ROUTES_MAX - 1, why);
    return result == ST_OK ? finish_route(self, why) : result;
}

/* ---- ids ------------------------------------------------------------------------------------- */

static bool is_lost(const walk *self, uint32_t route, uint64_t sequence) {
    size_t low = 0;
    size_t high = self->out->loss_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const store_loss *loss = &self->out->losses[middle];
        bool before = loss->route != route ? loss->route < route : loss->last < sequence;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    const store_loss *loss = &self->out->losses[low];
    return low < self->out->loss_count && loss->route == route && loss->first <= sequence;
}

/* The id of a lost event is left out: sent again, the event is to be taken. */
static outcome take_id(void *arg, bytes key, bytes value, failure *why) {
    walk *self = arg;
    id_entry entry;
    if (!id_value_get(value, &entry)) return salvage_note(self->out, why, "an id is malformed");
    const route_durable *at = &self->meta->routes[entry.route].synced;
    if (entry.sequence > at->last)
        return salvage_note(self->out, why, "route %s: an id names record %llu, of %llu",
                            name_of(self, entry.route), (unsigned long long)entry.sequence,
                            (unsigned long long)at->last);
    if (is_lost(self, entry.route, entry.sequence)) return ST_OK;
    if (entry.dead && !has_letter(self, entry.route, entry.sequence)) return ST_OK;
    self->out->ids++;
    return put(self, FAMILY_IDS, key, value, why);
}

/* The oldest view first, so that the first has the last word. */
static outcome walk_ids(walk *self, failure *why) {
    salvage *from = self->from;
    outcome result = salvage_read_view(from, 0, FAMILY_IDS, take_id, self, why);
    self->out->ids_incomplete = !from->complete[FAMILY_IDS];
    if (result != ST_OK || from->complete[FAMILY_IDS]) return result;
    result = salvage_rebuild(from, why);
    for (int view = from->view_count - 1; result == ST_OK && view >= 0; view--)
        result = salvage_read_view(from, view, FAMILY_IDS, take_id, self, why);
    return result;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Buries that the evidence saw and the ledger has not: at most so many dead letters are gone. An
 * event whose bury is lost is pending again, when the hint has not passed it. */
static uint64_t count_lost_buries(const walk *self, uint32_t route) {
    uint32_t counted = (uint32_t)self->meta->routes[route].synced.ledger.buried;
    uint32_t lost = self->from->seen.buried[route] - counted;
    return self->from->witnessed && lost < UINT32_MAX / 2 ? lost : 0;
}

/* The ledger against what is there; and as it will be. */
static outcome settle_ledger(walk *self, uint32_t number, failure *why) {
    route_survey *route = &self->out->routes[number];
    route_durable *at = &self->meta->routes[number].synced;
    route_ledger *ledger = &at->ledger;
    outcome result = ST_OK;
    uint64_t dead_lost = 0;
    for (size_t i = 0; i < self->out->loss_count; i++) {
        const store_loss *loss = &self->out->losses[i];
        if (loss->route == number && loss->dead) dead_lost += loss->last - loss->first + 1;
    }
    uint64_t buried_lost = count_lost_buries(self, number);
    uint64_t expected = ledger->dead + buried_lost;
    if (expected > route->dead + dead_lost)
        route->dead_missing = expected - route->dead - dead_lost;
    ledger->buried += buried_lost;
    bool agrees = ledger->dead == route->dead && ledger->dead_bytes == self->dead_bytes[number];
    if (!agrees)
        result =
            salvage_note(self->out, why,
                         "route %s: the ledger counts %llu dead letters of %llu bytes, but "
                         "%llu of %llu bytes are readable",
                         name_of(self, number), (unsigned long long)ledger->dead,
                         (unsigned long long)ledger->dead_bytes, (unsigned long long)route->dead,
                         (unsigned long long)self->dead_bytes[number]);
    route->lost += route->dead_missing;
    ledger->dead = route->dead;
    ledger->dead_bytes = self->dead_bytes[number];
    if (ledger->buried < ledger->dead) ledger->buried = ledger->dead;
    ledger->lost += route->lost;
    route->hint = at->anchor.sequence;
    route->last = at->last;
    (void)snprintf(route->name, sizeof route->name, "%s", self->meta->routes[number].name);
    self->out->events_lost += route->lost;
    return result;
}

static outcome check_writes(walk *self, failure *why) {
    const store_db *first = &self->from->views[0];
    uint64_t seen = self->from->seen.writes;
    uint64_t here = first->handle ? rocksdb_get_latest_sequence_number(first->handle) : 0;
    if (!first->handle || here >= seen) return ST_OK;
    return salvage_note(self->out, why, "%llu writes that had been synced are missing at the end",
                        (unsigned long long)(seen - here));
}

static uint32_t count_routes(const walk *self) {
    uint32_t count = self->meta->route_count;
    for (uint32_t i = count; i < STORE_ROUTES_MAX; i++)
        if (self->meta->routes[i].synced.last || self->out->routes[i].dead) count = i + 1;
    return count;
}

/* Stays the same for the same damage, and no other has it. */
static void name_damage(store_survey *out) {
    uint32_t crc = crc32c_extend(0, (const uint8_t *)&out->store, sizeof out->store);
    for (size_t i = 0; i < out->loss_count; i++) {
        uint64_t loss[] = {out->losses[i].route, out->losses[i].first, out->losses[i].last};
        crc = crc32c_extend(crc, (const uint8_t *)loss, sizeof loss);
    }
    for (uint32_t i = 0; i < out->route_count; i++) {
        const route_survey *route = &out->routes[i];
        uint64_t facts[] = {route->hint, route->last, route->events, route->dead, route->lost};
        crc = crc32c_extend(crc, (const uint8_t *)facts, sizeof facts);
    }
    (void)snprintf(out->damage_id, sizeof out->damage_id, "%08x", crc);
}

outcome survey_walk(salvage *from, event_store *meta, survey_put put_entry, void *arg,
                    failure *why) {
    walk self = {.from = from, .meta = meta, .out = from->survey, .put = put_entry, .arg = arg};
    outcome result = check_writes(&self, why);
    if (result == ST_OK) result = walk_dead(&self, why);
    if (result == ST_OK) result = walk_outbox(&self, why);
    if (result == ST_OK) result = walk_ids(&self, why);
    self.out->route_count = count_routes(&self);
    for (uint32_t i = 0; result == ST_OK && i < self.out->route_count; i++)
        result = settle_ledger(&self, i, why);
    free(self.letters);
    if (result != ST_OK) return result;
    self.out->store = meta->id;
    self.out->sound = self.out->damage_count == 0 && self.out->events_lost == 0;
    if (!self.out->sound) name_damage(self.out);
    return ST_OK;
}

void store_survey_free(store_survey *survey) {
    free(survey->damages);
    free(survey->losses);
    *survey = (store_survey){0};
}
