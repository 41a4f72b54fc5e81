/* Commands for effects: what they get, what their ends mean, and that nothing of them stays. */
#include "cmocka_includes.h"

#include "client/ingestctl/effect_command.h"
#include "storage/clock.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const ingest_effect EFFECT = {.kind = INGEST_TABLE,
                                     .name = "user",
                                     .idempotency_key = "shop/e-1/1/table/user",
                                     .attempt = 3,
                                     .source = "shop",
                                     .event_id = "e-1",
                                     .event_type = "create_user",
                                     .key = "u=1",
                                     .operation = "create_user",
                                     .entity_id = "",
                                     .operation_index = 1,
                                     .effect_index = 2};

typedef struct ended {
    ingest_verdict verdict;
    ingest_trouble trouble;
    int64_t took_ms;
} ended;

static ended run_with(const char *script, bytes payload, uint32_t timeout_ms) {
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};
    const effect_command command = {.argv = argv, .timeout_ms = timeout_ms, .grace_ms = 300};
    ended it = {0};
    const int64_t began_ms = clock_monotonic_ms();
    it.verdict = effect_command_run(&command, &EFFECT, payload, &it.trouble);
    it.took_ms = clock_monotonic_ms() - began_ms;
    return it;
}

static ended run(const char *script) { return run_with(script, bytes_of("", 0), 0); }

/* How many descriptors are open; and there must be no child. */
static int leftovers(void) {
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    assert_int_equal(closedir(folder), 0);
    return count;
}

/* What the script has written to its first argument's file. */
static void read_file(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t len = fread(text, 1, size - 1, file);
    text[len] = '\0';
    assert_int_equal(fclose(file), 0);
    assert_int_equal(remove(path), 0);
}

static void it_gets_payload_and_environment(void **state) {
    (void)state;
    char path[] = "/tmp/ingest-effect-XXXXXX";
    char script[128];
    char text[2048];
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(setenv("INGEST_KEY", "of somebody else", 1), 0);
    (void)snprintf(script, sizeof script, "{ cat; echo; env | grep ^INGEST_ | sort; } >%s", path);
    const ended it = run_with(script, bytes_of_string("{\"name\":\"Ada\"}"), 0);
    assert_int_equal(it.verdict, INGEST_DONE);
    read_file(path, text, sizeof text);
    assert_string_equal(text, "{\"name\":\"Ada\"}\n"
                              "INGEST_ATTEMPT=3\n"
                              "INGEST_EFFECT=user\n"
                              "INGEST_EFFECT_INDEX=2\n"
                              "INGEST_EFFECT_KIND=table\n"
                              "INGEST_ENTITY_ID=\n"
                              "INGEST_EVENT_ID=e-1\n"
                              "INGEST_EVENT_TYPE=create_user\n"
                              "INGEST_IDEMPOTENCY_KEY=shop/e-1/1/table/user\n"
                              "INGEST_KEY=u=1\n"
                              "INGEST_OPERATION=create_user\n"
                              "INGEST_OPERATION_INDEX=1\n"
                              "INGEST_SOURCE=shop\n");
    assert_int_equal(unsetenv("INGEST_KEY"), 0);
}

static void expect(const ended *it, ingest_verdict verdict, const char *code, const char *reason) {
    assert_string_equal(it->trouble.code, code);
    assert_string_equal(it->trouble.reason, reason);
    assert_int_equal(it->verdict, verdict);
}

static void its_end_is_the_verdict(void **state) {
    (void)state;
    ended it = run("exit 0");
    expect(&it, INGEST_DONE, "", "");
    it = run("echo nothing of that counts >&2");
    expect(&it, INGEST_DONE, "", "");
    it = run("exit 65");
    expect(&it, INGEST_FINAL, "exit_65", "exit code 65");
    it = run("echo first >&2; echo 'no such user' >&2; echo >&2; exit 65");
    expect(&it, INGEST_FINAL, "exit_65", "no such user");
    it = run("printf 'no newline' >&2; exit 1");
    expect(&it, INGEST_RETRY, "exit_1", "no newline");
    it = run("kill -9 $$");
    expect(&it, INGEST_RETRY, "signal_9", "ended by signal 9");
    char *argv[] = {"/nowhere/no-such-command", NULL};
    const effect_command missing = {.argv = argv};
    it = (ended){0};
    it.verdict = effect_command_run(&missing, &EFFECT, bytes_of("", 0), &it.trouble);
    expect(&it, INGEST_RETRY, "not_started", "/nowhere/no-such-command: No such file or directory");
}

static void a_flood_of_errors_is_kept_short(void **state) {
    (void)state;
    const ended it = run("i=0; while [ $i -lt 3000 ]; do echo 'a line of many' >&2; i=$((i+1)); "
                         "done; echo the last >&2; exit 2");
    expect(&it, INGEST_RETRY, "exit_2", "the last");
    const ended longer = run("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 2");
    assert_int_equal(strlen(longer.trouble.reason), sizeof longer.trouble.reason - 1);
}

static void payloads_of_any_size_read_or_not(void **state) {
    (void)state;
    enum { SIZE = 3 << 20 };
    char *large = malloc(SIZE);
    memset(large, 'x', SIZE);
    const bytes payload = bytes_of(large, SIZE);
    assert_int_equal(run_with("[ $(wc -c) -eq 3145728 ]", payload, 0).verdict, INGEST_DONE);
    assert_int_equal(run_with("exit 0", payload, 0).verdict, INGEST_DONE);
    assert_int_equal(run_with("exec <&-; exit 0", payload, 0).verdict, INGEST_DONE);
    assert_int_equal(run_with("head -c 10 >/dev/null; exit 65", payload, 0).verdict, INGEST_FINAL);
    assert_int_equal(run_with("[ $(wc -c) -eq 0 ]", bytes_of(NULL, 0), 0).verdict, INGEST_DONE);
    free(large);
}

static void what_takes_too_long_is_ended(void **state) {
    (void)state;
    ended it = run_with("sleep 100", bytes_of("", 0), 200);
    expect(&it, INGEST_RETRY, "timeout", "took longer than 200 ms");
    assert_in_range(it.took_ms, 200, 10000);
    it = run_with("trap '' TERM; while :; do sleep 0.05; done", bytes_of("", 0), 200);
    expect(&it, INGEST_RETRY, "timeout", "took longer than 200 ms");
    assert_in_range(it.took_ms, 500, 20000);
    it = run_with("trap 'exit 0' TERM; sleep 100 & wait", bytes_of("", 0), 200);
    expect(&it, INGEST_RETRY, "timeout", "took longer than 200 ms");
}

static void what_it_started_ends_with_it(void **state) {
    (void)state;
    char path[] = "/tmp/ingest-effect-XXXXXX";
    char script[128];
    char text[32];
    assert_int_equal(close(mkstemp(path)), 0);
    (void)snprintf(script, sizeof script, "sleep 100 & echo $! >%s; wait", path);
    (void)run_with(script, bytes_of("", 0), 300);
    read_file(path, text, sizeof text);
    const pid_t other = (pid_t)strtol(text, NULL, 10);
    assert_true(other > 1);
    for (int i = 0; i < 500 && kill(other, 0) == 0; i++) {
        char stat_path[64];
        char line[256] = "";
        (void)snprintf(stat_path, sizeof stat_path, "/proc/%d/stat", (int)other);
        FILE *file = fopen(stat_path, "r"); /* a zombie that nobody else has reaped yet is fine */
        if (!file) break;
        (void)fgets(line, sizeof line, file);
        (void)fclose(file);
        if (strstr(line, ") Z ")) break;
        assert_true(i < 499);
        usleep(10000);
    }
}

static void what_it_left_behind_holds_nobody_up(void **state) {
    (void)state;
    const ended it = run("sleep 3 & echo $! >/dev/null; exit 0");
    assert_int_equal(it.verdict, INGEST_DONE);
    assert_in_range(it.took_ms, 0, 2500);
}

static void *run_many(void *arg) {
    (void)arg;
    for (int i = 0; i < 40; i++) {
        const ended it = run_with(i % 2 ? "cat >/dev/null; echo no >&2; exit 65" : "cat >/dev/null",
                                  bytes_of("payload", 7), 60000);
        assert_int_equal(it.verdict, i % 2 ? INGEST_FINAL : INGEST_DONE);
        if (i % 2) assert_string_equal(it.trouble.reason, "no");
    }
    return NULL;
}

static void many_at_once_leave_nothing(void **state) {
    (void)state;
    pthread_t threads[8];
    const int before = leftovers();
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_many, NULL), 0);
    for (int i = 0; i < 8; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(leftovers(), before);
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_gets_payload_and_environment),
        cmocka_unit_test(its_end_is_the_verdict),
        cmocka_unit_test(a_flood_of_errors_is_kept_short),
        cmocka_unit_test(payloads_of_any_size_read_or_not),
        cmocka_unit_test(what_takes_too_long_is_ended),
        cmocka_unit_test(what_it_started_ends_with_it),
        cmocka_unit_test(what_it_left_behind_holds_nobody_up),
        cmocka_unit_test(many_at_once_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
