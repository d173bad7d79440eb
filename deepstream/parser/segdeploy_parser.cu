// The output parser with logits raised and decided on the GPU: nvinfer parses in one thread, and the CPU takes tens of
// milliseconds for a frame. Everything else is segdeploy_parser.cpp.
//
// nvinfer gives outputs in the host's memory, or in the GPU's with disable-output-host-copy=1, which this parser takes
// too. The class map is the host's.
#ifndef SEGDEPLOY_LAUNCH
#include <cuda_runtime.h>
#define SEGDEPLOY_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

#define SEGDEPLOY_CUDA
#include "segdeploy_parser.cpp"

namespace segdeploy {

template <bool kSums>
__global__ void raiseKernel(const float* values, unsigned int classes, unsigned int height, unsigned int width,
                            int* map, unsigned int mapHeight, unsigned int mapWidth, float threshold) {
    const unsigned int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= mapWidth || y >= mapHeight) return;
    const Tap row = tapAt(y, height, mapHeight), column = tapAt(x, width, mapWidth);
    Running running = nothingYet();
    for (unsigned int label = 0; label < classes; ++label) {
        const float* plane = values + static_cast<std::size_t>(label) * height * width;
        const float* above = plane + static_cast<std::size_t>(row.first) * width;
        const float* below = plane + static_cast<std::size_t>(row.second) * width;
        const float value = mix(mix(above[column.first], above[column.second], column.weight),
                                mix(below[column.first], below[column.second], column.weight), row.weight);
        take<kSums>(value, static_cast<int>(label), running.best, running.sum, running.label);
    }
    map[static_cast<std::size_t>(y) * mapWidth + x] = decided(running.best, running.sum, running.label, threshold);
}

// Memory of the GPU that is kept from frame to frame, by the one thread in which nvinfer parses.
class Memory {
  public:
    ~Memory() { cudaFree(place_); }

    void* of(std::size_t bytes, int device) {
        if (bytes > bytes_ || device != device_) {
            cudaFree(place_);
            place_ = nullptr;
            bytes_ = cudaMalloc(&place_, bytes) == cudaSuccess ? bytes : 0;
            device_ = device;
        }
        return bytes_ ? place_ : nullptr;
    }

  private:
    void* place_ = nullptr;
    std::size_t bytes_ = 0;
    int device_ = -1;
};

// A stream of its own: the default one would wait for the network's.
cudaStream_t ownStream(int device) {
    thread_local cudaStream_t stream = nullptr;
    thread_local int streamDevice = -1;
    if (device != streamDevice) {
        if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return nullptr;
        streamDevice = device;
    }
    return stream;
}

bool isOnGpu(const void* buffer) {
    cudaPointerAttributes facts;
    if (cudaPointerGetAttributes(&facts, buffer) != cudaSuccess) {
        cudaGetLastError();  // an address that CUDA does not know is the host's
        return false;
    }
    return facts.type == cudaMemoryTypeDevice;
}

const void* onHost(const void* buffer, std::size_t bytes, std::vector<unsigned char>& copy, const char** words) {
    if (!isOnGpu(buffer)) return buffer;
    copy.resize(bytes);
    const cudaError_t error = cudaMemcpy(copy.data(), buffer, bytes, cudaMemcpyDeviceToHost);
    *words = cudaGetErrorString(error);
    return error == cudaSuccess ? copy.data() : nullptr;
}

bool raiseOnGpu(const Logits& logits, const Map& map, float threshold, const char** words) {
    thread_local Memory inputs, outputs;
    const std::size_t planes = static_cast<std::size_t>(logits.classes) * logits.height * logits.width * sizeof(float);
    const std::size_t pixels = static_cast<std::size_t>(map.height) * map.width;
    *words = "cannot be raised on the GPU: it has no memory or no stream left";
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return false;
    const cudaStream_t stream = ownStream(device);
    int* classes = static_cast<int*>(outputs.of(pixels * sizeof(int), device));
    const bool there = isOnGpu(logits.values);
    const float* values = there ? logits.values : static_cast<const float*>(inputs.of(planes, device));
    if (!stream || !classes || !values) return false;
    cudaError_t error = cudaSuccess;
    if (!there)
        error = cudaMemcpyAsync(const_cast<float*>(values), logits.values, planes, cudaMemcpyHostToDevice, stream);
    const dim3 threads(32, 8), blocks((map.width + 31) / 32, (map.height + 7) / 8);
    if (error == cudaSuccess && threshold > 0.0f)
        SEGDEPLOY_LAUNCH(raiseKernel<true>, blocks, threads, stream, values, logits.classes, logits.height, logits.width,
                         classes, map.height, map.width, threshold);
    else if (error == cudaSuccess)
        SEGDEPLOY_LAUNCH(raiseKernel<false>, blocks, threads, stream, values, logits.classes, logits.height,
                         logits.width, classes, map.height, map.width, 0.0f);
    if (error == cudaSuccess) error = cudaGetLastError();
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(map.classes, classes, pixels * sizeof(int), cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    *words = cudaGetErrorString(error);
    return error == cudaSuccess;
}

}  // namespace segdeploy
