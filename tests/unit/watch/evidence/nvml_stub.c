// A libnvidia-ml.so.1 of one GPU, for the tests of what is asked of the real one.
#include <string.h>

typedef int Return;
typedef struct { unsigned gpu, memory; } Utilisation;
typedef struct { unsigned long long total, free, used; } Memory;

enum { kNotSupported = 3 };
static int the_gpu;

Return nvmlInit_v2(void) { return 0; }
Return nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
Return nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(Return code) { return code == kNotSupported ? "Not Supported" : "Error"; }
Return nvmlDeviceGetCount_v2(unsigned* count) { *count = 1; return 0; }
Return nvmlSystemGetDriverVersion(char* text, unsigned size) {
    strncpy(text, "580.01", size);
    return 0;
}
Return nvmlDeviceGetHandleByIndex_v2(unsigned index, void** handle) {
    (void)index;
    *handle = &the_gpu;
    return 0;
}
Return nvmlDeviceGetName(void* gpu, char* text, unsigned size) {
    (void)gpu;
    strncpy(text, "Stub GPU", size);
    return 0;
}
Return nvmlDeviceGetUtilizationRates(void* gpu, Utilisation* out) {
    (void)gpu;
    out->gpu = 100;
    out->memory = 3;
    return 0;
}
Return nvmlDeviceGetMemoryInfo(void* gpu, Memory* out) {
    (void)gpu;
    out->total = 80;
    out->free = 20;
    out->used = 60;
    return 0;
}
Return nvmlDeviceGetTemperature(void* gpu, int sensor, unsigned* out) {
    (void)gpu, (void)sensor;
    *out = 71;
    return 0;
}
Return nvmlDeviceGetNvLinkState(void* gpu, unsigned link, unsigned* active) {
    (void)gpu;
    *active = 1;
    return link < 2 ? 0 : kNotSupported;
}
Return nvmlDeviceGetNvLinkErrorCounter(void* gpu, unsigned link, int counter,
                                       unsigned long long* out) {
    (void)gpu;
    *out = 10 * link + (unsigned)counter;
    return 0;
}
