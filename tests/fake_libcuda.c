/* A CUDA driver on the CPU: what segdeploy calls of libcuda, with the signatures of NVIDIA's cuda.h.

Work on a stream is done at once, or recorded while the stream is captured; a copy takes a millisecond. Each call but
the first few wants a context to be current in its thread. Further symbols tell what was called (fake_log), what is
still held (fake_live), and make a call fail (fake_fail). */
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400,
       NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };
enum { STREAM = 0x57, EVENT = 0xE7, GRAPH = 0x64, EXECUTABLE = 0x65 };
#define ROOM (1u << 20)
#define TOTAL (8u << 20)

typedef struct Copy { char *to; const char *from; size_t size; } Copy;
typedef struct Graph { int kind; int broken; int count; Copy copies[64]; } Graph;
typedef struct Stream { int kind; Graph *recorded; } Stream;
typedef struct Event { int kind; float at_ms; } Event;

static int context, ready, live;
static size_t used;
static float clock_ms;
static _Thread_local int depth;
static char log_text[1 << 16], failing[64];
static int failure;
static struct { void *address; size_t size; int pinned; } blocks[1024];

const char *fake_log(void) { return log_text; }
void fake_forget(void) { log_text[0] = 0; }
int fake_live(void) { return live; }
int fake_depth(void) { return depth; }
void fake_fail(const char *function, int code) { snprintf(failing, sizeof failing, "%s", function); failure = code; }

static int told(const char *function, const char *format, ...) {
    size_t length = strlen(log_text);
    va_list values;
    va_start(values, format);
    length += snprintf(log_text + length, sizeof log_text - length, "%s ", function);
    length += vsnprintf(log_text + length, sizeof log_text - length, format, values);
    snprintf(log_text + length, sizeof log_text - length, "\n");
    va_end(values);
    if (!strcmp(failing, function)) { failing[0] = 0; return failure; }
    return ready && depth > 0 ? OK : INVALID_CONTEXT;
}
#define TELL(...) do { int status = told(__VA_ARGS__); if (status) return status; } while (0)
#define DEMAND(object, wanted) if (!(object) || (object)->kind != (wanted)) return INVALID_HANDLE

int cuInit(unsigned flags) { ready = 1; return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return index ? NO_DEVICE : OK; }
int cuDeviceGetName(char *text, int length, int device) { snprintf(text, length, "NVIDIA Fake"); return device == 7 ? OK : NO_DEVICE; }
int cuDeviceGetAttribute(int *value, int kind, int device) { *value = kind == 75 ? 8 : kind == 76 ? 6 : 0; return device == 7 ? OK : NO_DEVICE; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL; return device == 7 ? OK : NO_DEVICE; }
int cuDeviceGetPCIBusId(char *text, int length, int device) { snprintf(text, length, "0000:01:00.0"); return device == 7 ? OK : NO_DEVICE; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return device == 7 ? OK : NO_DEVICE; }
int cuCtxPushCurrent_v2(void *pushed) { if (pushed != &context) return INVALID_CONTEXT; depth++; return OK; }
int cuCtxPopCurrent_v2(void **popped) { if (!depth) return INVALID_CONTEXT; depth--; *popped = &context; return OK; }
int cuCtxSynchronize(void) { TELL("cuCtxSynchronize", ""); return OK; }

/* ---- memory */

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { TELL("cuMemGetInfo", ""); *free_bytes = ROOM - used; *total = TOTAL; return OK; }

static int take(void **made, size_t size, int pinned) {
    if (!size) return INVALID_VALUE;
    if (size > ROOM - used) return OUT_OF_MEMORY;
    for (int place = 0; place < 1024; place++) {
        if (blocks[place].address) continue;
        *made = blocks[place].address = malloc(size);
        memset(*made, 0xA5, size);
        blocks[place].size = size;
        blocks[place].pinned = pinned;
        used += size;
        live++;
        return OK;
    }
    return OUT_OF_MEMORY;
}
static int give(void *address, int pinned) {
    for (int place = 0; place < 1024; place++) {
        if (!address || blocks[place].address != address || blocks[place].pinned != pinned) continue;
        memset(address, 0x5A, blocks[place].size);
        free(address);
        blocks[place].address = NULL;
        used -= blocks[place].size;
        live--;
        return OK;
    }
    return INVALID_VALUE;
}
int cuMemAlloc_v2(uint64_t *made, size_t size) { TELL("cuMemAlloc", "%zu", size); return take((void **)made, size, 0); }
int cuMemFree_v2(uint64_t address) { TELL("cuMemFree", ""); return give((void *)address, 0); }
int cuMemHostAlloc(void **made, size_t size, unsigned flags) { TELL("cuMemHostAlloc", "%zu %u", size, flags); return take(made, size, 1); }
int cuMemFreeHost(void *address) { TELL("cuMemFreeHost", ""); return give(address, 1); }

/* ---- streams and events */

int cuStreamCreate(Stream **made, unsigned flags) {
    TELL("cuStreamCreate", "%u", flags);
    *made = calloc(1, sizeof **made);
    (*made)->kind = STREAM;
    live++;
    return OK;
}
int cuStreamDestroy_v2(Stream *stream) { TELL("cuStreamDestroy", ""); DEMAND(stream, STREAM); stream->kind = 0; live--; return OK; }
int cuStreamSynchronize(Stream *stream) {
    TELL("cuStreamSynchronize", "");
    DEMAND(stream, STREAM);
    if (!stream->recorded) return OK;
    stream->recorded->broken = 1;
    return CAPTURE_UNSUPPORTED;
}
static void done(Copy copy) { memmove(copy.to, copy.from, copy.size); clock_ms += 1; }
static int copied(Stream *stream, void *to, const void *from, size_t size) {
    Copy copy = {to, from, size};
    DEMAND(stream, STREAM);
    if (stream->recorded) stream->recorded->copies[stream->recorded->count++] = copy;
    else done(copy);
    return OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, Stream *stream) { TELL("cuMemcpyHtoDAsync", "%zu", size); return copied(stream, (void *)to, from, size); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, Stream *stream) { TELL("cuMemcpyDtoHAsync", "%zu", size); return copied(stream, to, (void *)from, size); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, Stream *stream) { TELL("cuMemcpyDtoDAsync", "%zu", size); return copied(stream, (void *)to, (void *)from, size); }

int cuEventCreate(Event **made, unsigned flags) {
    TELL("cuEventCreate", "%u", flags);
    *made = calloc(1, sizeof **made);
    (*made)->kind = EVENT;
    (*made)->at_ms = -1;
    live++;
    return OK;
}
int cuEventDestroy_v2(Event *event) { TELL("cuEventDestroy", ""); DEMAND(event, EVENT); event->kind = 0; live--; return OK; }
int cuEventRecord(Event *event, Stream *stream) {
    TELL("cuEventRecord", "%s", (uintptr_t)stream <= 2 ? "default" : "");
    DEMAND(event, EVENT);
    if ((uintptr_t)stream > 2) DEMAND(stream, STREAM);
    event->at_ms = clock_ms;
    return OK;
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) { TELL("cuStreamWaitEvent", "%u", flags); DEMAND(stream, STREAM); DEMAND(event, EVENT); return OK; }
int cuEventSynchronize(Event *event) { TELL("cuEventSynchronize", ""); DEMAND(event, EVENT); return OK; }
int cuEventElapsedTime(float *ms, Event *start, Event *end) {
    TELL("cuEventElapsedTime", "");
    DEMAND(start, EVENT);
    DEMAND(end, EVENT);
    *ms = end->at_ms - start->at_ms;
    return start->at_ms < 0 || end->at_ms < 0 ? INVALID_HANDLE : OK;
}

/* ---- kernels: a module's image is the path of a library, which has each kernel as NAME_launch */

int cuModuleLoadData(void **made, const void *image) {
    TELL("cuModuleLoadData", "");
    if (!(*made = dlopen(image, RTLD_NOW))) return NO_BINARY;
    live++;
    return OK;
}
int cuModuleUnload(void *module) { TELL("cuModuleUnload", ""); live--; return dlclose(module) ? INVALID_HANDLE : OK; }
int cuModuleGetFunction(void **made, void *module, const char *name) {
    char entry[64];
    TELL("cuModuleGetFunction", "%s", name);
    snprintf(entry, sizeof entry, "%s_launch", name);
    return (*made = dlsym(module, entry)) ? OK : NOT_FOUND;
}
int cuLaunchKernel(void *kernel, unsigned across, unsigned down, unsigned deep, unsigned x, unsigned y, unsigned z,
                   unsigned shared, Stream *stream, void **arguments, void **more) {
    TELL("cuLaunchKernel", "%u %u %u, %u %u %u", across, down, deep, x, y, z);
    DEMAND(stream, STREAM);
    if (stream->recorded) return CAPTURE_UNSUPPORTED;
    ((void (*)(unsigned, unsigned, unsigned, unsigned, void **))kernel)(across, down, x, y, arguments);
    clock_ms += 1;
    return OK;
}

/* ---- graphs */

int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    TELL("cuStreamBeginCapture", "%d", mode);
    DEMAND(stream, STREAM);
    stream->recorded = calloc(1, sizeof(Graph));
    stream->recorded->kind = GRAPH;
    live++;
    return OK;
}
int cuStreamEndCapture(Stream *stream, Graph **made) {
    int status = told("cuStreamEndCapture", "");
    Graph *graph;
    DEMAND(stream, STREAM);
    graph = stream->recorded;
    stream->recorded = NULL;
    *made = NULL;
    if (!graph) return CAPTURE_INVALIDATED;
    if (graph->broken || status) { live--; return status ? status : CAPTURE_INVALIDATED; }
    *made = graph;
    return OK;
}
int cuGraphInstantiateWithFlags(Graph **made, Graph *graph, unsigned long long flags) {
    TELL("cuGraphInstantiate", "%llu", flags);
    DEMAND(graph, GRAPH);
    *made = malloc(sizeof **made);
    **made = *graph;
    (*made)->kind = EXECUTABLE;
    live++;
    return OK;
}
int cuGraphDestroy(Graph *graph) { TELL("cuGraphDestroy", ""); DEMAND(graph, GRAPH); graph->kind = 0; live--; return OK; }
int cuGraphExecDestroy(Graph *graph) { TELL("cuGraphExecDestroy", ""); DEMAND(graph, EXECUTABLE); graph->kind = 0; live--; return OK; }
int cuGraphLaunch(Graph *graph, Stream *stream) {
    TELL("cuGraphLaunch", "");
    DEMAND(graph, EXECUTABLE);
    DEMAND(stream, STREAM);
    for (int place = 0; place < graph->count; place++) done(graph->copies[place]);
    return OK;
}

/* ---- how cuda-python finds them: by the name without its version */

#define ENTRY(name) {#name, (void *)name}
#define SECOND(name) {#name, (void *)name##_v2}
static const struct { const char *name; void *function; } ENTRIES[] = {
    ENTRY(cuInit), ENTRY(cuDriverGetVersion), ENTRY(cuDeviceGetCount), ENTRY(cuDeviceGet), ENTRY(cuDeviceGetName),
    ENTRY(cuDeviceGetAttribute), SECOND(cuDeviceTotalMem), ENTRY(cuDeviceGetPCIBusId), ENTRY(cuDevicePrimaryCtxRetain),
    SECOND(cuCtxPushCurrent), SECOND(cuCtxPopCurrent), ENTRY(cuCtxSynchronize), SECOND(cuMemGetInfo), SECOND(cuMemAlloc),
    SECOND(cuMemFree), ENTRY(cuMemHostAlloc), ENTRY(cuMemFreeHost), ENTRY(cuStreamCreate), SECOND(cuStreamDestroy),
    ENTRY(cuStreamSynchronize), SECOND(cuMemcpyHtoDAsync), SECOND(cuMemcpyDtoHAsync), SECOND(cuMemcpyDtoDAsync),
    ENTRY(cuEventCreate), SECOND(cuEventDestroy), ENTRY(cuEventRecord), ENTRY(cuStreamWaitEvent),
    ENTRY(cuEventSynchronize), ENTRY(cuEventElapsedTime), SECOND(cuStreamBeginCapture), ENTRY(cuStreamEndCapture),
    ENTRY(cuGraphInstantiateWithFlags), ENTRY(cuGraphDestroy), ENTRY(cuGraphExecDestroy), ENTRY(cuGraphLaunch),
    ENTRY(cuModuleLoadData), ENTRY(cuModuleGetFunction), ENTRY(cuModuleUnload), ENTRY(cuLaunchKernel),
};
int cuGetProcAddress_v2(const char *symbol, void **found, int version, uint64_t flags, int *status) {
    *found = NULL;
    for (size_t place = 0; place < sizeof ENTRIES / sizeof *ENTRIES; place++)
        if (!strcmp(ENTRIES[place].name, symbol)) *found = ENTRIES[place].function;
    if (status) *status = *found ? 0 : 1;
    return OK;
}
int cuGetProcAddress(const char *symbol, void **found, int version, uint64_t flags) { return cuGetProcAddress_v2(symbol, found, version, flags, NULL); }
