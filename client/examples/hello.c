/* One event, published and waited for: hello [TARGET]. */
#include <ingest/publisher.h>
#include <stdio.h>

int main(int argc, char **argv) {
    ingest_publisher_options options;
    ingest_publisher_options_init(&options);
    options.target = argc > 1 ? argv[1] : "localhost:50051";
    ingest_error error;
    ingest_publisher *publisher = ingest_publisher_open(&options, &error);
    if (!publisher) return fprintf(stderr, "%s\n", error.reason), 2;

    ingest_event *event = ingest_transaction_new("shop", "create_user");
    ingest_operation_set_string(ingest_event_add(event, "create_user", "u-1"), "name", "Ada");
    ingest_result result;
    ingest_publish(publisher, event, &result);
    printf("%s: %s %s\n", result.id, ingest_status_text(result.status), result.reason);

    ingest_event_free(event);
    ingest_publisher_close(publisher, 0);
    return result.status == INGEST_OK ? 0 : 1;
}
