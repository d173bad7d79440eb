// A libFuzzer target for deepstream/parser: the bytes choose type, sides, classes, threshold and values of an output, and
// the parser must fill the class map with -1 to classes-1 whatever they are, and touch no byte outside of it.
//
//   clang++ -std=c++14 -g -O1 -fsanitize=fuzzer,address,undefined -ffp-contract=off -Ideepstream/parser/abi \
//       -Ideepstream/parser -o fuzz_parser tests/native/fuzz_parser.cpp && ./fuzz_parser -max_total_time=600
//
// With -DSEGDEPLOY_EMULATED it is the kernel's source, which has to give the CPU's classes too.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef SEGDEPLOY_EMULATED
#include "emulated_cuda.h"

#include "segdeploy_parser.cu"
#else
#include "segdeploy_parser.cpp"
#endif

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 16) return 0;
    const unsigned int classes = data[0] % 33, height = 1 + data[1] % 48, width = 1 + data[2] % 48;
    NvDsInferLayerInfo layer;
    std::memset(&layer, 0, sizeof(layer));
    layer.dataType = static_cast<NvDsInferDataType>(data[3] % 6);
    layer.inferDims.numDims = data[4] % 5;
    std::size_t elements = 1;
    for (unsigned int axis = 0; axis < layer.inferDims.numDims; ++axis) {
        const unsigned int own[] = {classes, 1u + data[5] % 24, 1u + data[6] % 24, 1u + data[7] % 4};
        const unsigned int whole[] = {1u, height, width, 1u};
        layer.inferDims.d[axis] = data[8] % 3 ? own[axis] : whole[axis];
        elements *= layer.inferDims.d[axis];
    }
    layer.inferDims.numElements = static_cast<unsigned int>(elements);
    layer.layerName = data[9] % 8 ? "output" : nullptr;
    const unsigned int sizes[] = {4, 2, 1, 4, 8, 1};
    std::vector<std::uint8_t> values(elements * sizes[layer.dataType]);
    for (std::size_t at = 0; at < values.size(); ++at) values[at] = data[(16 + at) % size];
    layer.buffer = data[10] % 16 ? static_cast<void*>(values.data()) : nullptr;
    float threshold = 0.0f;
    if (data[11] % 2) std::memcpy(&threshold, data + 12, sizeof(threshold));
    std::vector<int> map(static_cast<std::size_t>(height) * width, 123456789);
    float* probabilities = nullptr;
    const std::vector<NvDsInferLayerInfo> layers(data[9] % 16 == 1 ? 2 : 1, layer);
    NvDsInferParseSegdeploy(layers, {width, height, 3}, threshold, classes, map.data(), probabilities);
    for (int label : map)
        if (label < -1 || label >= static_cast<int>(classes)) std::abort();
#ifdef SEGDEPLOY_EMULATED
    const NvDsInferDims& dims = layer.inferDims;
    if (layers.size() == 1 && layer.buffer && layer.dataType == FLOAT && dims.numDims == 3 && classes && dims.d[0] == classes) {
        std::vector<int> again(map.size());
        const segdeploy::Logits logits = {reinterpret_cast<float*>(values.data()), classes, dims.d[1], dims.d[2]};
        if (threshold > 0.0f)
            segdeploy::raiseOnCpu<true>(logits, {again.data(), height, width}, threshold);
        else
            segdeploy::raiseOnCpu<false>(logits, {again.data(), height, width}, 0.0f);
        if (again != map) std::abort();
    }
#endif
    return 0;
}
