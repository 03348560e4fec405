/* A profiler for the tests: writes the ranges that a process opens and closes to standard error.
 *
 * NVTX loads the library that NVTX_INJECTION64_PATH names and calls InitializeInjectionNvtx2. What
 * stands here of its interface is in nvtxDetail/nvtxTypes.h of NVTX 3. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { CALLBACKS_TABLE = 1, MODULE_CORE2 = 5 };
enum { PUSH = 4, POP = 5, REGISTER_STRING = 10, CREATE_DOMAIN = 12 };

typedef void (*Function)(void);

typedef struct {
    size_t struct_size;
    int (*module_functions)(uint32_t module, Function*** functions, unsigned int* count);
} Callbacks;

typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type;
    const char* message;
} Attributes;

static const char* create_domain(const char* name) { return strdup(name); }

static const char* register_string(const char* domain, const char* text) {
    fprintf(stderr, "register %s: %s\n", domain, text);
    return strdup(text);
}

static int push(const char* domain, const Attributes* attributes) {
    fprintf(stderr, "push %s: %s\n", domain, attributes->message);
    return 0;
}

static int pop(const char* domain) {
    fprintf(stderr, "pop %s\n", domain);
    return 0;
}

int InitializeInjectionNvtx2(const void* (*export_table)(uint32_t)) {
    const Callbacks* callbacks = export_table(CALLBACKS_TABLE);
    Function** functions = NULL;
    unsigned int count = 0;
    if (!callbacks || !callbacks->module_functions(MODULE_CORE2, &functions, &count)) return 0;
    if (count <= CREATE_DOMAIN) return 0;
    *functions[PUSH] = (Function)push;
    *functions[POP] = (Function)pop;
    *functions[REGISTER_STRING] = (Function)register_string;
    *functions[CREATE_DOMAIN] = (Function)create_domain;
    return 1;
}
