// The part of CUDA that deepstream/parser/segdeploy_parser.cu and segdeploy/run/frames.cu use, on the CPU: each thread of a launch is run after the
// other, in an order that a kernel may not rely on, and memory "of the GPU" is malloc's, so that the sanitizers watch it.
// `g++ -x c++ -include tests/native/emulated_cuda.h segdeploy_parser.cu` is the kernel's own source.
#pragma once

#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>

using std::size_t;

#define __global__
#define __host__
#define __device__

struct dim3 {
    unsigned int x, y, z;
    dim3(unsigned int first = 1, unsigned int second = 1, unsigned int third = 1) : x(first), y(second), z(third) {}
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

#define SEGDEPLOY_LAUNCH(kernel, blocks, threads, stream, ...)                       \
    do {                                                                             \
        gridDim = blocks;                                                            \
        blockDim = threads;                                                          \
        for (blockIdx.y = gridDim.y; blockIdx.y-- > 0;)                              \
            for (blockIdx.x = gridDim.x; blockIdx.x-- > 0;)                          \
                for (threadIdx.y = blockDim.y; threadIdx.y-- > 0;)                   \
                    for (threadIdx.x = blockDim.x; threadIdx.x-- > 0;)               \
                        kernel(__VA_ARGS__);                                         \
    } while (false)

// A kernel by the name NAME_launch, which takes its arguments as cuLaunchKernel does: a pointer to each.
template <typename... Types, size_t... Places>
void emulatedCall(void (*kernel)(Types...), void** arguments, std::index_sequence<Places...>) {
    kernel(*static_cast<Types*>(arguments[Places])...);
}
template <typename... Types>
void emulatedUnpack(void (*kernel)(Types...), void** arguments) {
    emulatedCall(kernel, arguments, std::index_sequence_for<Types...>());
}
#define EMULATED_KERNEL(kernel)                                                                                      \
    extern "C" void kernel##_launch(unsigned int blocksX, unsigned int blocksY, unsigned int threadsX,               \
                                    unsigned int threadsY, void** arguments) {                                       \
        SEGDEPLOY_LAUNCH(emulatedUnpack, dim3(blocksX, blocksY), dim3(threadsX, threadsY), 0, kernel, arguments);    \
    }

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaMemoryType { cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2 };
enum { cudaStreamNonBlocking = 1 };
typedef int* cudaStream_t;
struct cudaPointerAttributes {
    cudaMemoryType type;
};

static std::set<const void*> emulatedMemory;  // what cudaMalloc gave

inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "emulated error"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** place, std::size_t bytes) {
    if (std::getenv("EMULATED_CUDA_IS_FULL")) return cudaErrorMemoryAllocation;
    *place = std::malloc(bytes);
    emulatedMemory.insert(*place);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* place) {
    emulatedMemory.erase(place);
    std::free(place);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    const void* onGpu = kind == cudaMemcpyHostToDevice ? to : from;
    if (!emulatedMemory.count(onGpu)) return cudaErrorInvalidValue;
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* facts, const void* place) {
    facts->type = emulatedMemory.count(place) ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    return std::getenv("EMULATED_CUDA_KNOWS_HOST") || emulatedMemory.count(place) ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
    static int one;
    *stream = &one;
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

// For the tests: a copy of `bytes` bytes in the memory of the GPU, as nvinfer has with disable-output-host-copy=1.
extern "C" __attribute__((used)) inline void* emulatedCopy(const void* from, std::size_t bytes) {
    void* place = nullptr;
    if (cudaMalloc(&place, bytes) != cudaSuccess) return nullptr;
    return std::memcpy(place, from, bytes);
}
