/* Blocks: reads the MANIFEST and every log once. Fails as the header says, or with ST_IO. */
#include "storage/database_check.h"

#include "storage/folder.h"
#include "storage/manifest.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

outcome database_check(const char *directory, const char *database, const evidence_state *seen,
                       database_cuts *cuts, failure *why) {
    char tail[PATH_SIZE];
    manifest_facts manifest;
    manifest_extent extent = {seen->manifest_number, seen->manifest_size};
    *cuts = (database_cuts){0};
    outcome result = manifest_check(database, &extent, &manifest, why);
    if (result != ST_OK) return result;
    path_join(tail, directory, "torn-tail");
    bool manifest_torn = manifest.extent.size != manifest.size;
    wal_bounds bounds = {.flushed_known = manifest.flushed_known,
                         .flushed = manifest.flushed,
                         .needs = manifest.logs,
                         .synced = seen->writes,
                         .manifest_torn = manifest_torn};
    result = wal_check(database, tail, &bounds, &cuts->log, why);
    if (result != ST_OK || !manifest_torn) return result;
    (void)snprintf(cuts->manifest, sizeof cuts->manifest, "%s", manifest.file);
    cuts->manifest_kept = manifest.extent.size;
    path_join(tail, directory, "torn-manifest");
    return manifest_repair(database, &manifest, tail, why);
}

static int is_data(const struct dirent *entry) {
    const char *suffix = strrchr(entry->d_name, '.');
    return suffix && (strcmp(suffix, ".sst") == 0 || strcmp(suffix, ".log") == 0);
}

outcome database_exists(const char *directory, const char *database, bool witnessed, bool *exists,
                        failure *why) {
    char path[PATH_SIZE];
    struct dirent **files = NULL;
    path_join(path, database, "CURRENT");
    *exists = access(path, F_OK) == 0;
    if (*exists) return ST_OK;
    int count = scandir(database, &files, is_data, NULL);
    for (int i = 0; i < count; i++)
        free(files[i]);
    free(files);
    if (count <= 0 && !witnessed) return ST_OK;
    return fail(why, ST_CORRUPT, count > 0 ? "db" : "evidence", "%s: %s", directory,
                count > 0 ? "db/CURRENT is gone, but tables or logs are there"
                          : "the database is gone, but the evidence file says that it had data");
}
