/*
 * The first line tells what it is: a list, or an object that goes on in the next line, is a
 * document; all else is lines. A signal that ends a read is the end, and no error.
 */
#include "client/ingestctl/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "client/publisher/event.h"
#include "client/publisher/json.h"

enum { DOCUMENT_MAX = 64 << 20, DEPTH = 100 };

typedef Google__Protobuf__Value value_message;

struct input {
    FILE *file;
    char id_prefix[INPUT_ID_PREFIX_MAX + 1]; /* "": ids are random */
    bool failed;
    uint64_t number, read_bytes;
    off_t size; /* of the file; 0: not known */
    char *line; /* owned */
    size_t line_size;
    ssize_t line_length;
    bool ahead; /* the line is read, and not given out yet */

    bool document;
    arena memory;               /* of the document */
    const value_message **list; /* in it */
    size_t count, next;
    char error[JSON_WHY_SIZE]; /* the document is none */
};

/* After a read that ended before its time. */
static void note_error(input *it) {
    if (!feof(it->file) && errno != EINTR) it->failed = true;
}

static size_t blanks(const input *it) { return strspn(it->line, " \t\r\n"); }

/* Passes over empty lines. What an error cuts off is no line. */
static bool read_line(input *it) {
    do {
        it->line_length = getline(&it->line, &it->line_size, it->file);
        if (it->line_length < 0 || ferror(it->file)) return note_error(it), false;
        it->number++;
        it->read_bytes += (uint64_t)it->line_length;
    } while (blanks(it) == (size_t)it->line_length);
    return true;
}

/* The rest of the file, behind the first line. */
static char *read_rest(input *it, size_t *len) {
    char *text = malloc(DOCUMENT_MAX + 1);
    if (!text) abort();
    *len = (size_t)it->line_length;
    if (*len > DOCUMENT_MAX) *len = DOCUMENT_MAX;
    memcpy(text, it->line, *len);
    *len += fread(text + *len, 1, DOCUMENT_MAX + 1 - *len, it->file);
    if (*len > DOCUMENT_MAX) it->failed = true;
    if (ferror(it->file)) note_error(it);
    it->read_bytes = *len;
    return text;
}

static void take_document(input *it, const value_message *all) {
    static const value_message *one[1];
    it->list = one;
    it->count = 1;
    one[0] = all;
    if (all->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) return;
    it->list = (const value_message **)all->list_value->values;
    it->count = all->list_value->n_values;
}

static void read_document(input *it) {
    size_t len;
    char *text = read_rest(it, &len);
    it->document = true;
    it->number = 0;
    const value_message *all = NULL;
    if (it->failed)
        (void)snprintf(it->error, sizeof it->error, "cannot be read, or is larger than 64 MiB");
    else
        all = json_value(bytes_of(text, len), DEPTH, &it->memory, it->error);
    free(text);
    it->count = 1; /* its error */
    if (all) take_document(it, all);
}

static bool is_whole_object(const input *it) {
    arena scratch;
    char why[JSON_WHY_SIZE];
    arena_init(&scratch, NULL, 0);
    const bool whole =
        json_object(bytes_of(it->line, (size_t)it->line_length), DEPTH, &scratch, why) != NULL;
    arena_free(&scratch);
    return whole;
}

static bool is_document(const input *it) {
    const char begin = it->line[blanks(it)];
    if (begin == '[') return true;
    if (begin != '{' || is_whole_object(it)) return false;
    const int next = getc(it->file); /* another line, or more of the object? */
    (void)ungetc(next, it->file);
    return next != '{';
}

/* Of all that is ahead in the file, which is where it was afterwards. */
static void hash_file(input *it) {
    char part[65536];
    const off_t start = ftello(it->file);
    size_t len;
    XXH3_state_t *state = XXH3_createState();
    if (!state) abort();
    (void)XXH3_64bits_reset(state);
    while ((len = fread(part, 1, sizeof part, it->file)) > 0)
        (void)XXH3_64bits_update(state, part, len);
    (void)snprintf(it->id_prefix, sizeof it->id_prefix, "%016llx",
                   (unsigned long long)XXH3_64bits_digest(state));
    (void)XXH3_freeState(state);
    if (ferror(it->file) || fseeko(it->file, start, SEEK_SET) != 0) it->failed = true;
}

input *input_open(const char *path, const char *id_prefix) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file) return NULL;
    input *it = calloc(1, sizeof *it);
    if (!it) abort();
    it->file = file;
    arena_init(&it->memory, NULL, 0);
    struct stat status;
    if (fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode)) it->size = status.st_size;
    if (id_prefix)
        (void)snprintf(it->id_prefix, sizeof it->id_prefix, "%s", id_prefix);
    else if (it->size > 0)
        hash_file(it);
    it->ahead = read_line(it);
    if (it->ahead && is_document(it)) read_document(it);
    return it;
}

void input_close(input *it) {
    if (it->file != stdin) (void)fclose(it->file);
    arena_free(&it->memory);
    free(it->line);
    free(it);
}

static ingest_event *make_id(const input *it, ingest_event *event) {
    char id[256];
    if (!it->id_prefix[0] || ingest_event_error(event) || event_has_own_id(event)) return event;
    (void)snprintf(id, sizeof id, "%s-%llu", it->id_prefix, (unsigned long long)it->number);
    ingest_event_set_id(event, id);
    return event;
}

static ingest_event *next_of_document(input *it) {
    if (it->next == it->count) return NULL;
    it->number = ++it->next;
    if (it->error[0] && !it->list) {
        ingest_event *event = ingest_transaction_new("", NULL);
        event_complain(event, "document", "%s", it->error);
        return event;
    }
    return make_id(it, event_from_value(it->list[it->next - 1]));
}

ingest_event *input_next(input *it) {
    if (it->document) return next_of_document(it);
    if (!it->ahead && !read_line(it)) return NULL;
    it->ahead = false;
    return make_id(it, ingest_event_from_json(it->line, (size_t)it->line_length));
}

uint64_t input_number(const input *it) { return it->number; }
const char *input_text(const input *it) { return it->document ? NULL : it->line; }

double input_progress(const input *it) {
    if (it->document) return it->count ? (double)it->next / (double)it->count : 1;
    return it->size > 0 ? (double)it->read_bytes / (double)it->size : -1;
}

bool input_failed(const input *it) { return it->failed; }
