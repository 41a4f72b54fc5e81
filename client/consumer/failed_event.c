#include "client/consumer/failed_event.h"

#include <stdlib.h>

#include "server/codec.h"
#include "server/event_json.h"
#include "storage/utf8.h"

static bool grow(char **buffer, size_t *size, size_t needed) {
    if (needed <= *size) return true;
    size_t larger = needed + needed / 2;
    char *moved = realloc(*buffer, larger);
    if (!moved) return false;
    *buffer = moved;
    *size = larger;
    return true;
}

/* What is not UTF-8, and NUL, becomes '?': these texts may come from anybody's record. */
static const char *put_text(char **at, bytes text) {
    char *begin = *at;
    char *out = begin;
    while (text.len > 0) {
        size_t sound = utf8_prefix(text);
        for (size_t i = 0; i < sound; i++)
            *out++ = (char)text.data[i];
        if (sound < text.len) {
            *out++ = '?';
            sound++;
        }
        text = bytes_of(text.data + sound, text.len - sound);
    }
    *out++ = '\0';
    *at = out;
    return begin;
}

static bool show_texts(failed_view *view, const failed_record *record) {
    const bytes texts[] = {record->source, record->id,        record->type,
                           record->key,    record->operation, record->effect,
                           record->code,   record->reason,    record->topic};
    ingest_failed_event *event = &view->event;
    const char **const shown[] = {&event->source, &event->event_id,  &event->event_type,
                                  &event->key,    &event->operation, &event->effect,
                                  &event->code,   &event->reason,    &event->topic};
    enum { TEXTS = sizeof texts / sizeof *texts };
    size_t needed = 0;
    for (int i = 0; i < TEXTS; i++)
        needed += texts[i].len + 1;
    if (!grow(&view->texts, &view->texts_size, needed)) return false;
    char *at = view->texts;
    for (int i = 0; i < TEXTS; i++)
        *shown[i] = put_text(&at, texts[i]);
    return true;
}

/* NULL: the bytes are no event. */
static Ingest__V1__Event *unpack(const failed_record *record) {
    const ProtobufCMessageDescriptor *type = &ingest__v1__event__descriptor;
    if (record->opaque || codec_check(type, record->event, CODEC_LIMITS_DEFAULT, NULL) != ST_OK)
        return NULL;
    return codec_unpack(type, record->event, NULL);
}

static size_t write_json(const Ingest__V1__Event *event, bytes value, char *out, size_t capacity) {
    return event ? event_json_write(event, out, capacity)
                 : event_json_write_opaque(value, out, capacity);
}

static bool show_json(failed_view *view, const failed_record *record) {
    Ingest__V1__Event *event = unpack(record);
    size_t len = write_json(event, record->event, view->json, view->json_size);
    bool done = true;
    if (len >= view->json_size) {
        done = grow(&view->json, &view->json_size, len + 1);
        if (done) (void)write_json(event, record->event, view->json, len);
    }
    if (done) view->json[len] = '\0';
    view->event.json = done ? view->json : NULL;
    if (event) ingest__v1__event__free_unpacked(event, NULL);
    return done;
}

static ingest_failed_state public_state(failed_state state) {
    if (state == FAILED_WAITING) return INGEST_FAILED_WAITING;
    return state == FAILED_HELD ? INGEST_FAILED_HELD : INGEST_FAILED_GIVEN_UP;
}

bool failed_view_show(failed_view *view, const failed_record *record, bool with_event) {
    const bool waits = record->state == FAILED_WAITING;
    view->event = (ingest_failed_event){.number = record->number,
                                        .state = public_state(record->state),
                                        .effects_done = record->effects_done,
                                        .effects = record->effects,
                                        .attempts = record->attempts,
                                        .first_failed_ms = record->first_failed_ms,
                                        .last_failed_ms = record->last_failed_ms,
                                        .next_attempt_ms = waits ? record->next_attempt_ms : 0,
                                        .partition = record->partition,
                                        .offset = record->offset};
    return show_texts(view, record) && (!with_event || show_json(view, record));
}

void failed_view_free(failed_view *view) {
    free(view->texts);
    free(view->json);
    *view = (failed_view){0};
}
