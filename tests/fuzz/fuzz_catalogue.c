/* A catalogue file: refused with its line, or every entry is found by its name. */
#include "fuzz.h"

#include "storage/catalogue.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    catalogue *all;
    failure why = {0};
    if (catalogue_parse(bytes_of(data, size), &all, &why) != ST_OK) {
        PROMISE(why.field[0] && why.reason[0]);
        return 0;
    }
    for (size_t i = 0; i < catalogue_count(all); i++) {
        const catalogue_entry *entry = catalogue_at(all, i);
        PROMISE(catalogue_find(all, bytes_of(entry->name, strlen(entry->name))) == entry);
    }
    catalogue_free(all);
    return 0;
}
