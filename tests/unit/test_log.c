/* log: lines are caught by putting a pipe in the place of standard error. */
#include "server/log.h"
#include "server/rfc3339.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* last: its macro fail() would hide ours */

static int pipe_read = -1, real_stderr = -1;
static char caught[16384];

static int begin(void **state) {
    (void)state;
    int ends[2];
    real_stderr = dup(STDERR_FILENO);
    if (pipe2(ends, O_NONBLOCK) != 0 || dup2(ends[1], STDERR_FILENO) < 0) return -1;
    close(ends[1]);
    pipe_read = ends[0];
    return 0;
}

static int end(void **state) {
    (void)state;
    if (dup2(real_stderr, STDERR_FILENO) < 0) return -1;
    close(real_stderr);
    return close(pipe_read);
}

/* What was written since the last call, without the time of the first line. */
static const char *line(void) {
    ssize_t len = read(pipe_read, caught, sizeof caught - 1);
    caught[len < 0 ? 0 : len] = '\0';
    const char *level = strstr(caught, "level");
    if (!level) return caught;
    return level[-1] == '"' ? level - 1 : level;
}

static void logfmt_quotes_only_what_needs_it(void **state) {
    (void)state;
    log_setup(LOG_INFO, LOG_LOGFMT);
    log_line(LOG_INFO, "ready", "");
    assert_string_equal(line(), "level=info msg=ready\n");
    assert_memory_equal(caught, "ts=20", 5);
    log_line(LOG_WARNING, "route blocked", "route=%s error=%s", "a", "no such topic");
    assert_string_equal(line(),
                        "level=warning msg=\"route blocked\" route=a error=\"no such topic\"\n");
    log_line(LOG_ERROR, "x", "a=%s b=%s c=%s d=%s", "", "a=b", "say \"hi\"\\", "line\nline\t\x01");
    assert_string_equal(line(), "level=error msg=x a=\"\" b=\"a=b\" c=\"say \\\"hi\\\"\\\\\" "
                                "d=\"line\\nline\\t\\u0001\"\n");
    log_line(LOG_DEBUG, "below the level", "");
    assert_string_equal(line(), "");
    assert_false(log_enabled(LOG_DEBUG));
}

static void json_is_valid_whatever_the_bytes(void **state) {
    (void)state;
    log_setup(LOG_DEBUG, LOG_JSON);
    log_line(LOG_DEBUG, "x", "a=%s n=%d", "\"\\\n\x7f", -5);
    assert_string_equal(line(), "\"level\":\"debug\",\"msg\":\"x\","
                                "\"a\":\"\\\"\\\\\\n\\u007f\",\"n\":-5}\n");
    assert_memory_equal(caught, "{\"ts\":\"20", 9);
    /* bare continuation, overlong, surrogate, beyond U+10FFFF, cut off; a C1 control; good ones */
    log_line(LOG_INFO, "x", "a=%s", "\x80|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82");
    assert_string_equal(
        line(), "\"level\":\"info\",\"msg\":\"x\",\"a\":\"\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd|"
                "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|"
                "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\"}\n");
    log_line(LOG_INFO, "x", "a=%s", "\xc2\x9b\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_string_equal(line(), "\"level\":\"info\",\"msg\":\"x\","
                                "\"a\":\"\\u009b\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}\n");
}

static void every_documented_conversion(void **state) {
    (void)state;
    log_setup(LOG_DEBUG, LOG_JSON);
    log_line(LOG_INFO, "x", "a=%d b=%u c=%ld d=%lu e=%lld f=%llu g=%zu h=%zd i=%jd", -1, 1U, -2L,
             2UL, -3LL, 3ULL, (size_t)4, (ssize_t)-4, (intmax_t)-5);
    assert_string_equal(line(), "\"level\":\"info\",\"msg\":\"x\",\"a\":-1,\"b\":1,\"c\":-2,"
                                "\"d\":2,\"e\":-3,\"f\":3,\"g\":4,\"h\":-4,\"i\":-5}\n");
    log_line(LOG_INFO, "x", "a=%" PRIu64 " b=%" PRId64, UINT64_MAX, INT64_MIN);
    assert_string_equal(line(), "\"level\":\"info\",\"msg\":\"x\",\"a\":18446744073709551615,"
                                "\"b\":-9223372036854775808}\n");
    log_line(LOG_INFO, "x", "a=%x b=%08X c=%c d=%f e=%.2f f=%f g=%g", 255U, 0xabcU, 'c', 0.5, 1.005,
             (double)NAN, 1e9);
    assert_string_equal(line(),
                        "\"level\":\"info\",\"msg\":\"x\",\"a\":\"ff\",\"b\":\"00000ABC\","
                        "\"c\":\"c\",\"d\":0.500000,\"e\":1.00,\"f\":\"nan\",\"g\":1e+09}\n");
    log_line(LOG_INFO, "x", "a=%.*s b=%.2s c=%3d", 3, "abcdef", "xyz", 7);
    assert_string_equal(line(), "\"level\":\"info\",\"msg\":\"x\",\"a\":\"abc\",\"b\":\"xy\","
                                "\"c\":\"  7\"}\n");
    log_line(LOG_INFO, "x", "took=%dms  done=%d/%d part=%d%% state=on", 5, 1, 2, 50);
    assert_string_equal(line(), "\"level\":\"info\",\"msg\":\"x\",\"took\":\"5ms\","
                                "\"done\":\"1/2\",\"part\":\"50%\",\"state\":\"on\"}\n");
}

static void an_unknown_conversion_ends_the_line(void **state) {
    (void)state;
    log_setup(LOG_DEBUG, LOG_LOGFMT);
    log_line(LOG_INFO, "x", "a=%d b=%p c=%s", 1, (void *)0, "never read");
    assert_string_equal(line(), "level=info msg=x a=1 bad_format=true\n");
    log_line(LOG_INFO, "x", "=%d novalue a=%s", 1, "b");
    assert_string_equal(line(), "level=info msg=x =1 a=b\n");
}

static void long_values_are_cut_and_lines_stay_whole(void **state) {
    (void)state;
    static char big[5000];
    memset(big, 'a', sizeof big - 1);
    log_setup(LOG_DEBUG, LOG_LOGFMT);
    log_line(LOG_INFO, "x", "a=%s b=%d", big, 1);
    const char *got = line();
    assert_int_equal(strspn(strstr(got, "a=") + 2, "a"), 2047);
    assert_non_null(strstr(got, " b=1\n"));

    memset(big, '\x01', sizeof big - 1); /* grows six times by escaping */
    for (int json = 0; json < 2; json++) {
        log_setup(LOG_DEBUG, json ? LOG_JSON : LOG_LOGFMT);
        log_line(LOG_INFO, "x", "first=%d a=%s b=%d", 1, big, 2);
        got = line();
        assert_null(strstr(got, "u0001"));
        assert_string_equal(strstr(got, json ? "\"first\"" : "first"),
                            json ? "\"first\":1,\"truncated\":true}\n"
                                 : "first=1 truncated=true\n");
    }
}

static void errno_is_kept(void **state) {
    (void)state;
    errno = ENOSPC;
    log_line(LOG_ERROR, "x", "a=%s", "b");
    assert_int_equal(errno, ENOSPC);
    line();
}

static void a_limit_counts_what_it_leaves_out(void **state) {
    (void)state;
    static log_limit limit;
    log_setup(LOG_DEBUG, LOG_LOGFMT);
    for (int i = 0; i < 5; i++)
        if (log_allowed(&limit, 20)) log_line(LOG_INFO, "often", "i=%d", i);
    assert_string_equal(line(), "level=info msg=often i=0\n");
    usleep(25000);
    assert_true(log_allowed(&limit, 20));
    log_line(LOG_INFO, "often", "");
    assert_string_equal(line(), "level=info msg=often suppressed=4\n");
    log_line(LOG_INFO, "other", "");
    assert_string_equal(line(), "level=info msg=other\n");
}

static log_limit shared_limit;

static void *many_lines(void *arg) {
    for (int i = 0; i < 100; i++) {
        log_line(LOG_INFO, "thread", "n=%d", *(int *)arg);
        (void)log_allowed(&shared_limit, 1);
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state) {
    (void)state;
    log_setup(LOG_DEBUG, LOG_LOGFMT);
    pthread_t threads[2];
    int names[2] = {1, 2};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_lines, &names[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    int count = 0;
    line();
    for (char *next, *at = caught; (next = strchr(at, '\n')); at = next + 1, count++) {
        *next = '\0';
        assert_memory_equal(at, "ts=", 3);
        assert_memory_equal(next - 4, " n=", 3);
    }
    assert_int_equal(count, 200);
}

static void times(void **state) {
    (void)state;
    static const struct {
        int64_t seconds;
        int32_t nanos;
        rfc3339_fraction fraction;
        const char *text;
    } CASES[] = {
        {0, 0, RFC3339_SHORTEST, "1970-01-01T00:00:00Z"},
        {0, 0, RFC3339_MILLIS, "1970-01-01T00:00:00.000Z"},
        {1709210096, 120000000, RFC3339_SHORTEST, "2024-02-29T12:34:56.120Z"},
        {1709210096, 120000, RFC3339_SHORTEST, "2024-02-29T12:34:56.000120Z"},
        {1709210096, 12, RFC3339_SHORTEST, "2024-02-29T12:34:56.000000012Z"},
        {1709210096, 999999999, RFC3339_MILLIS, "2024-02-29T12:34:56.999Z"},
        {-1, 999999999, RFC3339_SHORTEST, "1969-12-31T23:59:59.999999999Z"},
        {-62135596800, 0, RFC3339_SHORTEST, "0001-01-01T00:00:00Z"},
        {253402300799, 0, RFC3339_SHORTEST, "9999-12-31T23:59:59Z"},
        {INT64_MAX, -1, RFC3339_SHORTEST, "9999-12-31T23:59:59Z"},
        {951782400, 0, RFC3339_SHORTEST, "2000-02-29T00:00:00Z"},
    };
    char text[RFC3339_SIZE];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        size_t len = rfc3339_write(CASES[i].seconds, CASES[i].nanos, CASES[i].fraction, text);
        assert_string_equal(text, CASES[i].text);
        assert_int_equal(len, strlen(text));
    }
    /* every day of four centuries and a bit, against the C library */
    for (int64_t day = -200000; day < 200000; day++) {
        time_t seconds = (time_t)(day * 86400 + 3723);
        struct tm parts;
        char expected[32];
        gmtime_r(&seconds, &parts);
        strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%SZ", &parts);
        rfc3339_write(seconds, 0, RFC3339_SHORTEST, text);
        if (strcmp(text, expected) != 0) fail_msg("%s is not %s", text, expected);
    }
}

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        cmocka_unit_test_setup_teardown(logfmt_quotes_only_what_needs_it, begin, end),
        cmocka_unit_test_setup_teardown(json_is_valid_whatever_the_bytes, begin, end),
        cmocka_unit_test_setup_teardown(every_documented_conversion, begin, end),
        cmocka_unit_test_setup_teardown(an_unknown_conversion_ends_the_line, begin, end),
        cmocka_unit_test_setup_teardown(long_values_are_cut_and_lines_stay_whole, begin, end),
        cmocka_unit_test_setup_teardown(errno_is_kept, begin, end),
        cmocka_unit_test_setup_teardown(a_limit_counts_what_it_leaves_out, begin, end),
        cmocka_unit_test_setup_teardown(lines_of_threads_do_not_mix, begin, end),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests_name("log", TESTS, NULL, NULL);
}
