// What one pixel's logits say, for the CPU's loop and for the GPU's kernel: the same arithmetic in the same order, so
// that both give the same class (compile with -ffp-contract=off and -fmad=false).
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define SEGDEPLOY_BOTH __host__ __device__ inline
#else
#define SEGDEPLOY_BOTH inline
#endif

namespace segdeploy {

constexpr int kNoClass = -1;

// One place of a bilinear enlargement: the two sources and the weight of the second. Pixel centres are aligned, as
// PyTorch's align_corners=False does.
struct Tap {
    unsigned int first, second;
    float weight;
};

SEGDEPLOY_BOTH Tap tapAt(unsigned int at, unsigned int source, unsigned int target) {
    const float ratio = static_cast<float>(source) / static_cast<float>(target);
    const float place = ratio * (static_cast<float>(at) + 0.5f) - 0.5f;
    const float inside = place > 0.0f ? place : 0.0f;
    Tap tap;
    tap.first = static_cast<unsigned int>(inside);
    if (tap.first > source - 1) tap.first = source - 1;
    tap.second = tap.first + 1 < source ? tap.first + 1 : source - 1;
    tap.weight = inside - static_cast<float>(tap.first);
    return tap;
}

// A weight of 0 takes nothing of `second`, which may be infinite.
SEGDEPLOY_BOTH float mix(float first, float second, float weight) {
    return weight == 0.0f ? first : (1.0f - weight) * first + weight * second;
}

// The classes of a pixel, one after the other. A class of -infinity never wins. One NaN poisons `best`, which nothing
// beats then: such a pixel has no class, because what made the NaN has made the others too.
struct Running {
    float best, sum;
    int label;
};

SEGDEPLOY_BOTH Running nothingYet() {
    Running running;
    running.best = -INFINITY;
    running.sum = 0.0f;
    running.label = kNoClass;
    return running;
}

template <bool kSums>
SEGDEPLOY_BOTH void take(float value, int label, float& best, float& sum, int& winner) {
    const bool wins = value > best;
    if (kSums && value > -INFINITY)
        sum = wins ? sum * expf(best - value) + 1.0f : sum + expf(value - best);
    const bool poisons = value != value;
    winner = wins ? label : winner;
    best = wins || poisons ? value : best;
}

// The winner, if it has at least the probability `threshold`; `sum` is that of exp(value - best).
SEGDEPLOY_BOTH int decided(float best, float sum, int winner, float threshold) {
    if (!(best > -INFINITY)) return kNoClass;
    return threshold > 0.0f && !(1.0f / sum >= threshold) ? kNoClass : winner;
}

}  // namespace segdeploy
