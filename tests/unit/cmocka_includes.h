/* cmocka.h needs these before it, and its macro `fail` stands in the way of our function. */
#ifndef INGEST_TESTS_CMOCKA_INCLUDES_H
#define INGEST_TESTS_CMOCKA_INCLUDES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#undef fail
#undef fail_msg /* built on it */
#define fail_msg(...)                                                                              \
    do {                                                                                           \
        print_error(__VA_ARGS__);                                                                  \
        _fail(__FILE__, __LINE__);                                                                 \
    } while (0)

#endif
