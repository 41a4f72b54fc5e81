/* Calendar arithmetic by hand: gmtime_r and strftime cost ten times as much, for every event. */
#include "server/rfc3339.h"

#define SECONDS_PER_DAY 86400
#define SECONDS_MIN INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define SECONDS_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

static char *put_digits(char *at, uint32_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + digits;
}

/* Days since 1970-01-01 to a date: http://howardhinnant.github.io/date_algorithms.html. Its years
 * begin in March, so that the leap day is the last one. */
static void civil_from_days(int64_t days, uint32_t *year, uint32_t *month, uint32_t *day) {
    uint32_t since_0000_march = (uint32_t)(days + 719468); /* not negative from year 1 on */
    uint32_t era = since_0000_march / 146097;
    uint32_t day_of_era = since_0000_march % 146097;
    uint32_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint32_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint32_t month_from_march = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    *month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    *year = era * 400 + year_of_era + (*month <= 2);
}

size_t rfc3339_write(int64_t seconds, int32_t nanos, rfc3339_fraction fraction,
                     char text[RFC3339_SIZE]) {
    if (seconds < SECONDS_MIN) seconds = SECONDS_MIN;
    if (seconds > SECONDS_MAX) seconds = SECONDS_MAX;
    uint32_t nano = nanos < 0 || nanos > 999999999 ? 0 : (uint32_t)nanos;

    int64_t days = seconds / SECONDS_PER_DAY;
    int64_t rest = seconds % SECONDS_PER_DAY;
    if (rest < 0) {
        rest += SECONDS_PER_DAY;
        days--;
    }
    uint32_t year, month, day, second = (uint32_t)rest;
    civil_from_days(days, &year, &month, &day);

    char *at = put_digits(text, year, 4);
    *at++ = '-';
    at = put_digits(at, month, 2);
    *at++ = '-';
    at = put_digits(at, day, 2);
    *at++ = 'T';
    at = put_digits(at, second / 3600, 2);
    *at++ = ':';
    at = put_digits(at, second / 60 % 60, 2);
    *at++ = ':';
    at = put_digits(at, second % 60, 2);
    if (fraction == RFC3339_MILLIS || nano != 0) {
        *at++ = '.';
        if (fraction == RFC3339_MILLIS || nano % 1000000 == 0)
            at = put_digits(at, nano / 1000000, 3);
        else if (nano % 1000 == 0)
            at = put_digits(at, nano / 1000, 6);
        else
            at = put_digits(at, nano, 9);
    }
    *at++ = 'Z';
    *at = '\0';
    return (size_t)(at - text);
}
