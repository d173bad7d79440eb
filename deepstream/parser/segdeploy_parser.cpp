// nvinfer's output parser for graphs of segdeploy, network-type 2:
//   parse-segmentation-func-name=NvDsInferParseSegdeploy
//   custom-lib-path=parser/libsegdeploy_parser.so
//
// It takes one output: labels (int64, int32 or uint8) of the network's own resolution, or float logits C×h×w of any
// resolution, which are raised to the network's bilinearly before the arg-max (pixel centres aligned, as PyTorch's
// align_corners=False and as the papers score). nvinfer's own parser does neither: it reads float only, walks past the
// end of a smaller output, and leaves every pixel without a positive value at class -1.
//
// nvinfer goes on with the class map where a parser refuses a frame, and does not clear it before: so the map is -1
// everywhere before anything else is looked at.
//
// segdeploy_parser.cu includes this file, and computes logits on the GPU.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <vector>

#include "nvdsinfer_custom_impl.h"
#include "segdeploy_logits.h"

namespace segdeploy {

struct Logits {
    const float* values;  // classes x height x width
    unsigned int classes, height, width;
};

struct Map {
    int* classes;  // height x width
    unsigned int height, width;
};

// Of segdeploy_parser.cu: false with the words of an error.
bool raiseOnGpu(const Logits& logits, const Map& map, float threshold, const char** words);
// The labels as the CPU can read them: the buffer itself, or a copy where it is the GPU's.
const void* onHost(const void* buffer, std::size_t bytes, std::vector<unsigned char>& copy, const char** words);

#ifndef SEGDEPLOY_CUDA
const void* onHost(const void* buffer, std::size_t, std::vector<unsigned char>&, const char**) { return buffer; }
#endif

bool refuse(const char* layer, const char* words) {
    std::cerr << "NvDsInferParseSegdeploy: output '" << (layer ? layer : "?") << "' " << words << std::endl;
    return false;
}

template <typename Label>
void copyLabels(const void* buffer, std::size_t pixels, unsigned int numClasses, int* classMap) {
    const Label* labels = static_cast<const Label*>(buffer);
    for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
        const auto label = static_cast<std::int64_t>(labels[pixel]);
        classMap[pixel] = label >= 0 && label < static_cast<std::int64_t>(numClasses) ? static_cast<int>(label) : kNoClass;
    }
}

bool parseLabels(const NvDsInferLayerInfo& layer, const Map& map, unsigned int numClasses) {
    const NvDsInferDims& dims = layer.inferDims;
    std::vector<unsigned int> sides;
    for (unsigned int axis = 0; axis < dims.numDims; ++axis)
        if (dims.d[axis] != 1) sides.push_back(dims.d[axis]);
    std::vector<unsigned int> wanted;
    for (unsigned int side : {map.height, map.width})
        if (side != 1) wanted.push_back(side);
    if (sides != wanted) return refuse(layer.layerName, "has labels of another resolution than the network's input");
    const std::size_t pixels = static_cast<std::size_t>(map.width) * map.height;
    const std::size_t bytes = layer.dataType == INT64 ? 8 : layer.dataType == INT32 ? 4 : 1;
    std::vector<unsigned char> copy;
    const char* words = nullptr;
    const void* labels = onHost(layer.buffer, pixels * bytes, copy, &words);
    if (!labels) return refuse(layer.layerName, words);
    switch (layer.dataType) {
        case INT64: copyLabels<std::int64_t>(labels, pixels, numClasses, map.classes); return true;
        case INT32: copyLabels<std::int32_t>(labels, pixels, numClasses, map.classes); return true;
        default: copyLabels<std::uint8_t>(labels, pixels, numClasses, map.classes); return true;
    }
}

// Class by class along a row, so that the compiler can take several pixels at once.
template <bool kSums>
void raiseOnCpu(const Logits& logits, const Map& map, float threshold) {
    std::vector<Tap> columns(map.width);
    for (unsigned int x = 0; x < map.width; ++x) columns[x] = tapAt(x, logits.width, map.width);
    std::vector<float> best(map.width), sum(map.width);
    for (unsigned int y = 0; y < map.height; ++y) {
        int* classes = map.classes + static_cast<std::size_t>(y) * map.width;
        const Tap row = tapAt(y, logits.height, map.height);
        const Running nothing = nothingYet();
        std::fill(best.begin(), best.end(), nothing.best);
        std::fill(sum.begin(), sum.end(), nothing.sum);
        std::fill(classes, classes + map.width, nothing.label);
        for (unsigned int label = 0; label < logits.classes; ++label) {
            const float* plane = logits.values + static_cast<std::size_t>(label) * logits.height * logits.width;
            const float* above = plane + static_cast<std::size_t>(row.first) * logits.width;
            const float* below = plane + static_cast<std::size_t>(row.second) * logits.width;
            for (unsigned int x = 0; x < map.width; ++x) {
                const Tap& column = columns[x];
                const float value = mix(mix(above[column.first], above[column.second], column.weight),
                                        mix(below[column.first], below[column.second], column.weight), row.weight);
                take<kSums>(value, static_cast<int>(label), best[x], sum[x], classes[x]);
            }
        }
        for (unsigned int x = 0; x < map.width; ++x) classes[x] = decided(best[x], sum[x], classes[x], threshold);
    }
}

bool parseLogits(const NvDsInferLayerInfo& layer, const Map& map, float threshold, unsigned int numClasses) {
    const NvDsInferDims& dims = layer.inferDims;
    if (dims.numDims != 3 || dims.d[1] == 0 || dims.d[2] == 0)
        return refuse(layer.layerName, "is float but not logits, classes x height x width");
    if (dims.d[0] != numClasses)
        return refuse(layer.layerName, "has another number of channels than num-detected-classes");
    const Logits logits = {static_cast<const float*>(layer.buffer), numClasses, dims.d[1], dims.d[2]};
#ifdef SEGDEPLOY_CUDA
    const char* words = nullptr;
    if (!raiseOnGpu(logits, map, threshold, &words)) {
        std::fill(map.classes, map.classes + static_cast<std::size_t>(map.width) * map.height, kNoClass);
        return refuse(layer.layerName, words);
    }
#else
    if (threshold > 0.0f)
        raiseOnCpu<true>(logits, map, threshold);
    else
        raiseOnCpu<false>(logits, map, 0.0f);
#endif
    return true;
}

bool parse(const NvDsInferLayerInfo& layer, const Map& map, float threshold, unsigned int numClasses) {
    if (!layer.buffer || numClasses == 0)
        return refuse(layer.layerName, "cannot be parsed: no buffer, or num-detected-classes is 0");
    if (layer.inferDims.numDims > NVDSINFER_MAX_DIMS) return refuse(layer.layerName, "has more sides than nvinfer has");
    switch (layer.dataType) {
        case INT64:
        case INT32:
        case UINT8: return parseLabels(layer, map, numClasses);
        case FLOAT: return parseLogits(layer, map, threshold, numClasses);
        default: return refuse(layer.layerName, "is neither int64, int32, uint8 nor float");
    }
}

}  // namespace segdeploy

extern "C" bool NvDsInferParseSegdeploy(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                        NvDsInferNetworkInfo const& networkInfo, float segmentationThreshold,
                                        unsigned int numClasses, int* classificationMap,
                                        float*& classProbabilityMap);

extern "C" bool NvDsInferParseSegdeploy(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                        NvDsInferNetworkInfo const& networkInfo, float segmentationThreshold,
                                        unsigned int numClasses, int* classificationMap,
                                        float*& classProbabilityMap) {
    classProbabilityMap = nullptr;  // a map of nvinfer's own keeping: it would be read height x width x classes
    if (!classificationMap) return segdeploy::refuse(nullptr, "cannot be parsed: there is no class map to fill");
    const segdeploy::Map map = {classificationMap, networkInfo.height, networkInfo.width};
    const std::size_t pixels = static_cast<std::size_t>(map.width) * map.height;
    std::fill(classificationMap, classificationMap + pixels, segdeploy::kNoClass);
    if (outputLayersInfo.size() != 1) {
        std::cerr << "NvDsInferParseSegdeploy: expected one output, the network has " << outputLayersInfo.size()
                  << std::endl;
        return false;
    }
    const NvDsInferLayerInfo& layer = outputLayersInfo.front();
    try {  // nothing may be thrown into nvinfer
        return segdeploy::parse(layer, map, segmentationThreshold, numClasses);
    } catch (const std::exception& error) {
        return segdeploy::refuse(layer.layerName, error.what());
    }
}

CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(NvDsInferParseSegdeploy);
