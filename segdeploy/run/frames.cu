// A frame to a network's input and its output to the frame's labels, as `picture/image.py` and `picture/raising.py` have
// it: every place and weight is computed there, and the arithmetic here has the same order and the same rounding (compile
// with -fmad=false). PIXEL, ID and LABEL are the types of the input, of the network's class ids, and of labels.
//
// A label of NONE says that this place cannot be decided here: an id that is no class, or a logit that is no number.

#define NONE ((LABEL)-1)

struct Tap {
    int line, weight;
};

// Between two lines, and how far from the first.
struct Step {
    int first, second;
    float share;
};

// One pixel of the input: the weighted sum of `columnTaps` pixels in each of `rowTaps` lines, in fixed point. Around the
// frame's place the input is black.
extern "C" __global__ void fitFrame(const unsigned char* frame, int frameWidth, const Tap* rows, int rowTaps,
                                    const Tap* columns, int columnTaps, int acrossHalf, int acrossShift, int eachShift,
                                    int downHalf, int downShift, int top, int left, int contentHeight, int contentWidth,
                                    int height, int width, int pixelStride, int channelStride, float mean0, float mean1,
                                    float mean2, float scale0, float scale1, float scale2, PIXEL* input) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const int row = y - top, column = x - left;
    int sums[3] = {0, 0, 0};
    if (row >= 0 && row < contentHeight && column >= 0 && column < contentWidth) {
        for (int i = 0; i < rowTaps; ++i) {
            const Tap below = rows[row * rowTaps + i];
            const unsigned char* line = frame + (size_t)below.line * frameWidth * 3;
            int across[3] = {acrossHalf, acrossHalf, acrossHalf};
            for (int j = 0; j < columnTaps; ++j) {
                const Tap beside = columns[column * columnTaps + j];
                for (int channel = 0; channel < 3; ++channel)
                    across[channel] += line[beside.line * 3 + channel] * beside.weight;
            }
            for (int channel = 0; channel < 3; ++channel)
                sums[channel] += ((across[channel] >> acrossShift) * below.weight) >> eachShift;
        }
        for (int channel = 0; channel < 3; ++channel) sums[channel] = (sums[channel] + downHalf) >> downShift;
    }
    const float means[3] = {mean0, mean1, mean2}, scales[3] = {scale0, scale1, scale2};
    PIXEL* pixel = input + ((size_t)y * width + x) * pixelStride;
    for (int channel = 0; channel < 3; ++channel)
        pixel[(size_t)channel * channelStride] = sizeof(PIXEL) == 1
                                                     ? (PIXEL)sums[channel]
                                                     : (PIXEL)(((float)sums[channel] - means[channel]) * scales[channel]);
}

// The label nearest to a pixel of the frame.
extern "C" __global__ void takeLabels(const ID* ids, int idsWidth, int classes, const int* rows, const int* columns,
                                      int height, int width, LABEL* labels) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const long long id = ids[(size_t)rows[y] * idsWidth + columns[x]];
    labels[(size_t)y * width + x] = id >= 0 && id < classes ? (LABEL)id : NONE;
}

// The class that leads at a logit's place, or -1 where its lead over the classes before it is so small that rounding may
// take it away between here and the next place, or where a logit is no number.
extern "C" __global__ void findLeaders(const float* logits, int classes, int classStride, int pixelStride, int height,
                                       int width, float clear, int* leaders) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const float* pixel = logits + ((size_t)y * width + x) * pixelStride;
    float best = pixel[0], before = best;
    bool numbers = best - best == 0.0f;
    int leader = 0;
    for (int label = 1; label < classes; ++label) {
        const float value = pixel[(size_t)label * classStride];
        numbers = numbers && value - value == 0.0f;
        if (value > best) {
            before = best;
            best = value;
            leader = label;
        }
    }
    const bool leads = leader == 0 || best - before > (best < 0.0f ? -best : best) * clear + 1.17549435e-38f;
    leaders[(size_t)y * width + x] = numbers && leads ? leader : -1;
}

__device__ inline float mixed(float first, float second, float share) {
    return first * (1.0f - share) + second * share;
}

// Logits, or with `rows` and `columns` what they are raised to first: then the input has borders that the frame has not.
struct Logits {
    const float* values;
    const int* leaders;
    int pixelStride, width;
    const Step *rows, *columns;
};

__device__ inline float valueAt(const Logits& logits, const float* plane, int y, int x) {
    const size_t stride = logits.pixelStride, line = stride * logits.width;
    if (!logits.rows) return plane[y * line + x * stride];
    const Step row = logits.rows[y], column = logits.columns[x];
    const float *above = plane + row.first * line, *below = plane + row.second * line;
    return mixed(mixed(above[column.first * stride], above[column.second * stride], column.share),
                 mixed(below[column.first * stride], below[column.second * stride], column.share), row.share);
}

__device__ inline int alike(const int* leaders, int width, const Step& row, const Step& column) {
    const int *above = leaders + (size_t)row.first * width, *below = leaders + (size_t)row.second * width;
    const int leader = above[column.first];
    return leader == above[column.second] && leader == below[column.first] && leader == below[column.second] ? leader : -1;
}

__device__ inline int leaderAt(const Logits& logits, int y, int x) {
    return logits.rows ? alike(logits.leaders, logits.width, logits.rows[y], logits.columns[x])
                       : logits.leaders[(size_t)y * logits.width + x];
}

// The class that is the largest of the interpolated logits, the first where several are equal. Only where the four corners
// have not one clear leader are they interpolated.
extern "C" __global__ void raiseLabels(const float* values, const int* leaders, int classes, int classStride,
                                       int pixelStride, int logitsWidth, const Step* innerRows, const Step* innerColumns,
                                       const Step* rows, const Step* columns, int height, int width, LABEL* labels) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Logits logits = {values, leaders, pixelStride, logitsWidth, innerRows, innerColumns};
    const Step row = rows[y], column = columns[x];
    int label = leaderAt(logits, row.first, column.first);
    if (label < 0 || label != leaderAt(logits, row.first, column.second) ||
        label != leaderAt(logits, row.second, column.first) || label != leaderAt(logits, row.second, column.second)) {
        float best = 0.0f;
        bool numbers = true;
        for (int index = 0; index < classes; ++index) {
            const float* plane = values + (size_t)index * classStride;
            const float above = mixed(valueAt(logits, plane, row.first, column.first),
                                      valueAt(logits, plane, row.first, column.second), column.share);
            const float below = mixed(valueAt(logits, plane, row.second, column.first),
                                      valueAt(logits, plane, row.second, column.second), column.share);
            const float value = mixed(above, below, row.share);
            numbers = numbers && value - value == 0.0f;
            if (index == 0 || value > best) {
                best = value;
                label = index;
            }
        }
        if (!numbers) label = -1;
    }
    labels[(size_t)y * width + x] = label < 0 ? NONE : (LABEL)label;
}
