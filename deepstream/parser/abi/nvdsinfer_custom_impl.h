// Just enough of DeepStream's nvdsinfer.h and nvdsinfer_custom_impl.h, with the same layout in memory and the same
// function type, to build and test the parser where the SDK is absent. With the SDK its own headers are used instead.
#pragma once

#include <type_traits>
#include <vector>

constexpr unsigned int NVDSINFER_MAX_DIMS = 8;

struct NvDsInferDims {
    unsigned int numDims;
    unsigned int d[NVDSINFER_MAX_DIMS];  // without the batch
    unsigned int numElements;
};

enum NvDsInferDataType { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3, INT64 = 4, UINT8 = 5 };

struct NvDsInferLayerInfo {
    NvDsInferDataType dataType;
    NvDsInferDims inferDims;
    int bindingIndex;
    const char* layerName;
    void* buffer;  // on the host, of one frame
    int isInput;
};

struct NvDsInferNetworkInfo {
    unsigned int width;
    unsigned int height;
    unsigned int channels;
};

using NvDsInferSemSegmentationParseCustomFunc = bool (*)(
    std::vector<NvDsInferLayerInfo> const& outputLayersInfo, NvDsInferNetworkInfo const& networkInfo,
    float segmentationThreshold, unsigned int numClasses, int* classificationMap, float*& classProbabilityMap);

#define CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(function)                                               \
    static_assert(std::is_same<decltype(&function), NvDsInferSemSegmentationParseCustomFunc>::value, \
                  #function " is not a segmentation parser")
