/* Without SA_RESTART, so that reading standard input does not keep a command. */
#include "client/ingestctl/stop.h"

#include <signal.h>

static volatile sig_atomic_t asked;
static void (*volatile hook)(void);

static void note(int number) {
    (void)number;
    asked = 1;
    if (hook) hook();
}

void stop_on_signals(void) {
    const struct sigaction once = {.sa_handler = note, .sa_flags = SA_RESETHAND};
    (void)sigaction(SIGINT, &once, NULL);
    (void)sigaction(SIGTERM, &once, NULL);
}

void stop_calls(void (*then)(void)) { hook = then; }

bool stop_asked(void) { return asked; }
