/* Without SA_RESTART, so that reading standard input does not keep a command. */
#include "client/ingestctl/stop.h"

#include <signal.h>

static volatile sig_atomic_t asked;

static void note(int number) {
    (void)number;
    asked = 1;
}

void stop_on_signals(void) {
    const struct sigaction once = {.sa_handler = note, .sa_flags = SA_RESETHAND};
    (void)sigaction(SIGINT, &once, NULL);
    (void)sigaction(SIGTERM, &once, NULL);
}

bool stop_asked(void) { return asked; }
