/* cmocka.h needs these before it. */
#ifndef INGEST_TESTS_CMOCKA_INCLUDES_H
#define INGEST_TESTS_CMOCKA_INCLUDES_H

/* clang-format off: the order matters */
#include <cmocka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format on */

/* Its macro `fail` stands in the way of our function; fail_msg built on it. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                              \
    do {                                                                                           \
        print_error(__VA_ARGS__);                                                                  \
        _fail(__FILE__, __LINE__);                                                                 \
    } while (0)

#endif
