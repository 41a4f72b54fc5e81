/*
 * A small service: signups TARGET [CATALOGUE]. Each line of its input, "USER NAME", is a user who
 * signs up. It answers the line when the event is on the server's disk, and goes on reading
 * meanwhile.
 *
 * It shows: the builder with a group of operations and a key, a catalogue to check against,
 * publishing with a callback, the window as back-pressure, and an orderly end.
 */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include <ingest/publisher.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int failures;

/* On the publisher's thread: the fate of one event. */
static void answered(void *arg, const ingest_result *result) {
    char *user = arg;
    if (result->status == INGEST_OK) {
        printf("%s: signed up, event %s\n", user, result->id);
    } else {
        atomic_fetch_add(&failures, 1);
        printf("%s: %s (%s%s)\n", user, ingest_status_text(result->status), result->reason,
               result->maybe_stored ? "; it may be stored all the same" : "");
    }
    (void)fflush(stdout);
    free(user);
}

static void sign_up(ingest_publisher *publisher, const char *user, const char *name) {
    ingest_event *event = ingest_transaction_new("signups", "create_user");
    ingest_event_set_key(event, user); /* all that happens to one user stays in order */
    ingest_operation *create = ingest_event_add(event, "create_user", user);
    ingest_operation_set_string(create, "name", name);
    ingest_operation_set_json(create, "roles", "[\"learner\"]");
    ingest_operation *join = ingest_event_add(event, "add_user_to_org", user);
    ingest_operation_set_string(join, "org", "everyone");

    ingest_result refused;
    char *copy = strdup(user);
    if (ingest_publish_async(publisher, event, 60000, answered, copy, &refused) != INGEST_OK)
        answered(copy, &refused);
    ingest_event_free(event);
}

static ingest_catalogue *load_catalogue(const char *path) {
    static char text[1 << 20];
    char why[256] = "cannot be read";
    FILE *file = fopen(path, "r");
    const size_t len = file ? fread(text, 1, sizeof text, file) : 0;
    ingest_catalogue *known = len ? ingest_catalogue_parse(text, len, why, sizeof why) : NULL;
    if (!known) fprintf(stderr, "%s: %s\n", path, why);
    if (file) (void)fclose(file);
    return known;
}

static void log_line(void *arg, const char *line) { fprintf((FILE *)arg, "publisher: %s\n", line); }

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: signups TARGET [CATALOGUE]\n"), 2;
    ingest_catalogue *known = argc > 2 ? load_catalogue(argv[2]) : NULL;
    if (argc > 2 && !known) return 2;

    ingest_error error;
    ingest_publisher_options options;
    ingest_publisher_options_init(&options);
    options.target = argv[1];
    options.catalogue = known;
    options.log = log_line;
    options.arg = stderr;
    ingest_publisher *publisher = ingest_publisher_open(&options, &error);
    if (!publisher) {
        fprintf(stderr, "%s\n", error.reason);
        ingest_catalogue_free(known);
        return 2;
    }

    char line[512], user[128], name[256];
    while (fgets(line, sizeof line, stdin))
        if (sscanf(line, "%127s %255[^\n]", user, name) == 2) sign_up(publisher, user, name);

    ingest_publisher_close(publisher, 30000); /* waits for what is in flight */
    ingest_catalogue_free(known);
    return failures ? 1 : 0;
}
