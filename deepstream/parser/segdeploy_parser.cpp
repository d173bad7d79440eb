// nvinfer's output parser for graphs of segdeploy, network-type 2:
//   parse-segmentation-func-name=NvDsInferParseSegdeploy
//   custom-lib-path=parser/libsegdeploy_parser.so
//
// It takes one output: labels (int64, int32 or uint8) of the network's own resolution, or float logits C×h×w of any
// resolution, which are raised to the network's bilinearly before the arg-max (pixel centres aligned, as PyTorch's
// align_corners=False and as the papers score). nvinfer's own parser does neither: it reads float only, walks past the
// end of a smaller output, and leaves every pixel without a positive value at class -1.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <iostream>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

constexpr int kNoClass = -1;

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

bool parseLabels(const NvDsInferLayerInfo& layer, const NvDsInferNetworkInfo& network, unsigned int numClasses,
                 int* classMap) {
    const std::size_t pixels = static_cast<std::size_t>(network.width) * network.height;
    const NvDsInferDims& dims = layer.inferDims;
    std::vector<unsigned int> sides;
    for (unsigned int axis = 0; axis < dims.numDims; ++axis)
        if (dims.d[axis] != 1) sides.push_back(dims.d[axis]);
    std::vector<unsigned int> wanted;
    for (unsigned int side : {network.height, network.width})
        if (side != 1) wanted.push_back(side);
    if (sides != wanted) return refuse(layer.layerName, "has labels of another resolution than the network's input");
    switch (layer.dataType) {
        case INT64: copyLabels<std::int64_t>(layer.buffer, pixels, numClasses, classMap); return true;
        case INT32: copyLabels<std::int32_t>(layer.buffer, pixels, numClasses, classMap); return true;
        default: copyLabels<std::uint8_t>(layer.buffer, pixels, numClasses, classMap); return true;
    }
}

// One axis of a bilinear enlargement: for each target the two sources and the weight of the second.
struct Taps {
    std::vector<unsigned int> first, second;
    std::vector<float> weight;

    Taps(unsigned int source, unsigned int target) : first(target), second(target), weight(target) {
        const float ratio = static_cast<float>(source) / static_cast<float>(target);
        for (unsigned int at = 0; at < target; ++at) {
            const float place = std::max(ratio * (static_cast<float>(at) + 0.5f) - 0.5f, 0.0f);
            first[at] = std::min(static_cast<unsigned int>(place), source - 1);
            second[at] = std::min(first[at] + 1, source - 1);
            weight[at] = place - static_cast<float>(first[at]);
        }
    }
};

bool parseLogits(const NvDsInferLayerInfo& layer, const NvDsInferNetworkInfo& network, float threshold,
                 unsigned int numClasses, int* classMap) {
    const NvDsInferDims& dims = layer.inferDims;
    if (dims.numDims != 3 || dims.d[1] == 0 || dims.d[2] == 0)
        return refuse(layer.layerName, "is float but not logits, classes x height x width");
    if (dims.d[0] != numClasses)
        return refuse(layer.layerName, "has another number of channels than num-detected-classes");
    const unsigned int height = dims.d[1], width = dims.d[2];
    const Taps rows(height, network.height), columns(width, network.width);
    const float* logits = static_cast<const float*>(layer.buffer);
    std::vector<float> best(network.width), sum(network.width);
    // With a threshold the sum of exponentials is kept beside the maximum, so that the winner's probability is known.
    for (unsigned int y = 0; y < network.height; ++y) {
        int* classes = classMap + static_cast<std::size_t>(y) * network.width;
        const float lower = rows.weight[y], upper = 1.0f - lower;
        for (unsigned int label = 0; label < numClasses; ++label) {
            const float* plane = logits + static_cast<std::size_t>(label) * height * width;
            const float* above = plane + static_cast<std::size_t>(rows.first[y]) * width;
            const float* below = plane + static_cast<std::size_t>(rows.second[y]) * width;
            for (unsigned int x = 0; x < network.width; ++x) {
                const unsigned int left = columns.first[x], right = columns.second[x];
                const float after = columns.weight[x], before = 1.0f - after;
                const float value = upper * (before * above[left] + after * above[right]) +
                                    lower * (before * below[left] + after * below[right]);
                const bool wins = label == 0 || value > best[x];
                if (threshold > 0.0f)
                    sum[x] = label == 0 ? 1.0f
                             : wins     ? sum[x] * std::exp(best[x] - value) + 1.0f
                                        : sum[x] + std::exp(value - best[x]);
                if (wins) {
                    best[x] = value;
                    classes[x] = static_cast<int>(label);
                }
            }
        }
        if (threshold > 0.0f)
            for (unsigned int x = 0; x < network.width; ++x)
                if (1.0f / sum[x] < threshold) classes[x] = kNoClass;
    }
    return true;
}

}  // namespace

extern "C" bool NvDsInferParseSegdeploy(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                        NvDsInferNetworkInfo const& networkInfo, float segmentationThreshold,
                                        unsigned int numClasses, int* classificationMap,
                                        float*& classProbabilityMap);

extern "C" bool NvDsInferParseSegdeploy(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                        NvDsInferNetworkInfo const& networkInfo, float segmentationThreshold,
                                        unsigned int numClasses, int* classificationMap,
                                        float*& classProbabilityMap) {
    classProbabilityMap = nullptr;  // a map of nvinfer's own keeping: it would be read height x width x classes
    if (outputLayersInfo.size() != 1) {
        std::cerr << "NvDsInferParseSegdeploy: expected one output, the network has " << outputLayersInfo.size()
                  << std::endl;
        return false;
    }
    const NvDsInferLayerInfo& layer = outputLayersInfo.front();
    if (!classificationMap || !layer.buffer || numClasses == 0)
        return refuse(layer.layerName, "cannot be parsed: no buffer, or num-detected-classes is 0");
    try {  // nothing may be thrown into nvinfer
        switch (layer.dataType) {
            case INT64:
            case INT32:
            case UINT8: return parseLabels(layer, networkInfo, numClasses, classificationMap);
            case FLOAT:
                return parseLogits(layer, networkInfo, segmentationThreshold, numClasses, classificationMap);
            default: return refuse(layer.layerName, "is neither int64, int32, uint8 nor float");
        }
    } catch (const std::exception& error) {
        return refuse(layer.layerName, error.what());
    }
}

CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(NvDsInferParseSegdeploy);
