/*
 * reflection_service: grpc.reflection.v1 and v1alpha, so that grpcurl works without proto files.
 * Reads a serialized google.protobuf.FileDescriptorSet, the one embedded in the program as a rule.
 */
#ifndef INGEST_SERVER_REFLECTION_SERVICE_H
#define INGEST_SERVER_REFLECTION_SERVICE_H

#include "server/rpc.h"

enum { REFLECTION_METHODS = 2 };

/* Made by the build from our protos and what they import. */
extern const unsigned char ingest_descriptor_set[];
extern const size_t ingest_descriptor_set_size;

typedef struct reflection_service reflection_service;

/*
 * `services`: full names to list, such as "ingest.v1.IngestService"; those that the set does not
 * declare are left out. Both are borrowed and must outlive the service. ST_CORRUPT when the set
 * cannot be read, ST_NO_MEMORY.
 */
MUST_CHECK outcome reflection_new(bytes descriptor_set, const char *const *services,
                                  size_t service_count, reflection_service **reflection,
                                  failure *why);
void reflection_free(reflection_service *reflection); /* after its servers are drained */
size_t reflection_methods(reflection_service *reflection, rpc_method out[REFLECTION_METHODS]);

#endif
