/*
 * At start the descriptor set is scanned once, on the wire, into two small tables: files by name
 * and symbols by full name. An answer is a file and all that it imports, borrowed from the set.
 * v1 and v1alpha differ in their package name only; the messages of v1 serve both.
 */
#include "server/reflection_service.h"

#include <stdio.h>
#include <stdlib.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "server/codec.h"
#include "server/status_details.h"

/* Field numbers of descriptor.proto. */
enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_DEPENDENCY = 3 };
enum { FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };
enum { ANY_NAME = 1 }; /* of messages, enums, services and methods alike */
enum { MESSAGE_NESTED = 3, MESSAGE_ENUM = 4 };
enum { SERVICE_METHOD = 2 };

enum { SYMBOL_MAX = 512, NESTING_MAX = 16 };

typedef struct file_entry {
    bytes name, package, body; /* body: a FileDescriptorProto */
} file_entry;

typedef struct symbol_entry {
    char *name; /* owned */
    size_t file;
} symbol_entry;

struct reflection_service {
    file_entry *files; /* owned */
    size_t file_count;
    symbol_entry *symbols; /* owned */
    size_t symbol_count, symbol_room;
    const char **services; /* owned; the names are borrowed */
    size_t service_count;
};

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;
#define ASKED(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define ANSWER(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

/* ---- scan ---------------------------------------------------------------------------------- */

static bytes field_of(bytes message, uint32_t number) {
    bytes body;
    unsigned count;
    return codec_find_field(message, number, &body, &count) ? body : bytes_of(NULL, 0);
}

static bool add_symbol(reflection_service *reflection, const char *name, size_t file) {
    if (reflection->symbol_count == reflection->symbol_room) {
        size_t room = reflection->symbol_room ? 2 * reflection->symbol_room : 64;
        symbol_entry *larger = realloc(reflection->symbols, room * sizeof *larger);
        if (!larger) return false;
        reflection->symbols = larger;
        reflection->symbol_room = room;
    }
    char *copy = strdup(name);
    if (!copy) return false;
    reflection->symbols[reflection->symbol_count++] = (symbol_entry){.name = copy, .file = file};
    return true;
}

/* What a declaration may hold: its fields that are declarations themselves. */
typedef struct kind {
    const struct kind_field {
        uint32_t number;
        const struct kind *kind;
    } * fields;
    size_t field_count;
} kind;

static const kind LEAF = {.fields = NULL, .field_count = 0}; /* enum, method */
static const struct kind_field SERVICE_FIELDS[] = {{SERVICE_METHOD, &LEAF}};
static const kind SERVICE = {.fields = SERVICE_FIELDS, .field_count = 1};
static const kind MESSAGE;
static const struct kind_field MESSAGE_FIELDS[] = {{MESSAGE_NESTED, &MESSAGE},
                                                   {MESSAGE_ENUM, &LEAF}};
static const kind MESSAGE = {.fields = MESSAGE_FIELDS, .field_count = 2};
static const struct kind_field FILE_FIELDS[] = {
    {FILE_MESSAGE, &MESSAGE}, {FILE_ENUM, &LEAF}, {FILE_SERVICE, &SERVICE}};
static const kind FILE_KIND = {.fields = FILE_FIELDS, .field_count = 3};

/* Adds the declarations in `body`, whose own full name is `scope`. */
static bool add_declarations(reflection_service *reflection, bytes body, const kind *of,
                             const char *scope, size_t file, int depth) {
    if (depth > NESTING_MAX) return false;
    codec_field field;
    while (codec_next(&body, &field)) {
        for (size_t i = 0; i < of->field_count; i++) {
            if (of->fields[i].number != field.number) continue;
            char name[SYMBOL_MAX];
            const bytes own = field_of(field.body, ANY_NAME);
            int len = snprintf(name, sizeof name, "%s%s%.*s", scope, scope[0] ? "." : "",
                               (int)own.len, (const char *)own.data);
            if (len < 0 || (size_t)len >= sizeof name) return false;
            if (!add_symbol(reflection, name, file)) return false;
            if (!add_declarations(reflection, field.body, of->fields[i].kind, name, file,
                                  depth + 1))
                return false;
        }
    }
    return body.len == 0;
}

static bool scan(reflection_service *reflection, bytes set) {
    bytes body;
    unsigned count;
    if (!codec_find_field(set, SET_FILE, &body, &count)) return false;
    reflection->files = calloc(count, sizeof *reflection->files);
    if (!reflection->files) return false;
    codec_field field;
    while (codec_next(&set, &field)) {
        if (field.number != SET_FILE) continue;
        file_entry *file = &reflection->files[reflection->file_count];
        *file = (file_entry){.name = field_of(field.body, FILE_NAME),
                             .package = field_of(field.body, FILE_PACKAGE),
                             .body = field.body};
        char package[SYMBOL_MAX];
        int len = snprintf(package, sizeof package, "%.*s", (int)file->package.len,
                           (const char *)file->package.data);
        if (len < 0 || (size_t)len >= sizeof package) return false;
        if (!add_declarations(reflection, field.body, &FILE_KIND, package, reflection->file_count++,
                              0))
            return false;
    }
    return true;
}

static const symbol_entry *find_symbol(const reflection_service *reflection, const char *name) {
    for (size_t i = 0; i < reflection->symbol_count; i++)
        if (strcmp(reflection->symbols[i].name, name) == 0) return &reflection->symbols[i];
    return NULL;
}

/* file_count when there is none. */
static size_t find_file(const reflection_service *reflection, bytes name) {
    size_t i = 0;
    while (i < reflection->file_count && !bytes_equal(reflection->files[i].name, name))
        i++;
    return i;
}

outcome reflection_new(bytes descriptor_set, const char *const *services, size_t service_count,
                       reflection_service **reflection, failure *why) {
    *reflection = NULL;
    reflection_service *made = calloc(1, sizeof *made);
    if (!made) return fail(why, ST_NO_MEMORY, "", "reflection");
    made->services = calloc(service_count + 1, sizeof *made->services);
    if (!made->services || !scan(made, descriptor_set)) {
        reflection_free(made);
        return fail(why, ST_CORRUPT, "", "reflection: the descriptor set cannot be read");
    }
    for (size_t i = 0; i < service_count; i++)
        if (find_symbol(made, services[i])) made->services[made->service_count++] = services[i];
    *reflection = made;
    return ST_OK;
}

void reflection_free(reflection_service *reflection) {
    if (!reflection) return;
    for (size_t i = 0; i < reflection->symbol_count; i++)
        free(reflection->symbols[i].name);
    free(reflection->symbols);
    free(reflection->files);
    free(reflection->services);
    free(reflection);
}

/* ---- answers; each sends one response -------------------------------------------------------- */

static void answer_error(rpc_call *call, reflection_response *response, outcome code,
                         const char *text) {
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = outcome_grpc_code(code);
    error.error_message = (char *)text;
    response->message_response_case = ANSWER(ERROR_RESPONSE);
    response->error_response = &error;
    rpc_send(call, &response->base);
}

/* Adds a file and, behind it, what it imports and was not added yet. */
static void add_file(const reflection_service *reflection, size_t index, bool *added,
                     Grpc__Reflection__V1__FileDescriptorResponse *files) {
    if (index == reflection->file_count || added[index]) return;
    added[index] = true;
    bytes rest = reflection->files[index].body;
    files->file_descriptor_proto[files->n_file_descriptor_proto++] =
        (ProtobufCBinaryData){.len = rest.len, .data = (uint8_t *)rest.data};
    codec_field field;
    while (codec_next(&rest, &field))
        if (field.number == FILE_DEPENDENCY)
            add_file(reflection, find_file(reflection, field.body), added, files);
}

static void answer_file(rpc_call *call, reflection_response *response, size_t index) {
    const reflection_service *reflection = rpc_service(call);
    Grpc__Reflection__V1__FileDescriptorResponse files =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    bool *added = calloc(reflection->file_count, sizeof *added);
    files.file_descriptor_proto =
        calloc(reflection->file_count, sizeof *files.file_descriptor_proto);
    if (added && files.file_descriptor_proto) {
        add_file(reflection, index, added, &files);
        response->message_response_case = ANSWER(FILE_DESCRIPTOR_RESPONSE);
        response->file_descriptor_response = &files;
        rpc_send(call, &response->base);
    } else {
        answer_error(call, response, ST_NO_MEMORY, "out of memory");
    }
    free(files.file_descriptor_proto);
    free(added);
}

static void answer_services(rpc_call *call, reflection_response *response) {
    const reflection_service *reflection = rpc_service(call);
    const size_t count = reflection->service_count;
    Grpc__Reflection__V1__ServiceResponse *each = calloc(count + 1, sizeof *each);
    Grpc__Reflection__V1__ServiceResponse **all = calloc(count + 1, sizeof *all);
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    if (each && all) {
        for (size_t i = 0; i < count; i++) {
            grpc__reflection__v1__service_response__init(&each[i]);
            each[i].name = (char *)reflection->services[i];
            all[i] = &each[i];
        }
        list.n_service = count;
        list.service = all;
        response->message_response_case = ANSWER(LIST_SERVICES_RESPONSE);
        response->list_services_response = &list;
        rpc_send(call, &response->base);
    } else {
        answer_error(call, response, ST_NO_MEMORY, "out of memory");
    }
    free(all);
    free(each);
}

/* We declare no extensions; a known message has an empty list of them. */
static void answer_extension_numbers(rpc_call *call, reflection_response *response, char *type) {
    if (!find_symbol(rpc_service(call), type)) {
        answer_error(call, response, ST_NOT_FOUND, "type not found");
        return;
    }
    Grpc__Reflection__V1__ExtensionNumberResponse numbers =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    numbers.base_type_name = type;
    response->message_response_case = ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = &numbers;
    rpc_send(call, &response->base);
}

static void answer(rpc_call *call, reflection_request *request) {
    const reflection_service *reflection = rpc_service(call);
    reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    const symbol_entry *symbol;
    size_t file;
    switch (request->message_request_case) {
    case ASKED(LIST_SERVICES):
        answer_services(call, &response);
        return;
    case ASKED(FILE_CONTAINING_SYMBOL):
        symbol = find_symbol(reflection, request->file_containing_symbol);
        if (symbol)
            answer_file(call, &response, symbol->file);
        else
            answer_error(call, &response, ST_NOT_FOUND, "symbol not found");
        return;
    case ASKED(FILE_BY_FILENAME):
        file = find_file(reflection, bytes_of_string(request->file_by_filename));
        if (file < reflection->file_count)
            answer_file(call, &response, file);
        else
            answer_error(call, &response, ST_NOT_FOUND, "file not found");
        return;
    case ASKED(FILE_CONTAINING_EXTENSION):
        answer_error(call, &response, ST_NOT_FOUND, "extension not found");
        return;
    case ASKED(ALL_EXTENSION_NUMBERS_OF_TYPE):
        answer_extension_numbers(call, &response, request->all_extension_numbers_of_type);
        return;
    default:
        answer_error(call, &response, ST_INVALID, "no question asked");
    }
}

/* ---- methods --------------------------------------------------------------------------------- */

/* Not from the call's memory: a stream may ask without end. */
static void on_message(rpc_call *call, bytes message) {
    failure why;
    const ProtobufCMessageDescriptor *type =
        &grpc__reflection__v1__server_reflection_request__descriptor;
    reflection_request *request = NULL;
    if (codec_check(type, message, CODEC_LIMITS_DEFAULT, &why) == ST_OK) {
        request = codec_unpack(type, message, NULL);
        if (!request) (void)fail(&why, ST_NO_MEMORY, "", "out of memory");
    }
    if (!request) {
        rpc_fail_with(call, &why, 0);
        return;
    }
    answer(call, request);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    rpc_message_done(call, 1);
}

static void on_half_close(rpc_call *call) { rpc_fail(call, 0, NULL, bytes_of(NULL, 0)); }

static void on_cancel(rpc_call *call) {
    failure why;
    (void)fail(&why, ST_STOPPING, "", "the stream ends");
    rpc_fail_with(call, &why, 0);
}

size_t reflection_methods(reflection_service *reflection, rpc_method out[REFLECTION_METHODS]) {
    static const char *const PATHS[REFLECTION_METHODS] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    };
    for (int i = 0; i < REFLECTION_METHODS; i++)
        out[i] = (rpc_method){.path = PATHS[i],
                              .kind = RPC_BIDI,
                              .on_message = on_message,
                              .on_half_close = on_half_close,
                              .on_cancel = on_cancel,
                              .service = reflection};
    return REFLECTION_METHODS;
}
