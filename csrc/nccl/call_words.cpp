#include "nccl/call_words.h"

#include <array>
#include <cstddef>
#include <cstring>

namespace graphguard::nccl {

namespace {

struct Translation {
    const char* nccl;
    const char* word;
};

// NCCL's src/collectives.cc, ncclFuncToString.
constexpr std::array kOperations = {
    Translation{"AllReduce", "all_reduce"},
    Translation{"AllGather", "all_gather"},
    Translation{"ReduceScatter", "reduce_scatter"},
    Translation{"Broadcast", "broadcast"},
    Translation{"Reduce", "reduce"},
    Translation{"Send", "send"},
    Translation{"Recv", "recv"},
    Translation{"SendRecv", "send_recv"},
    Translation{"AlltoAll", "all_to_all"},
    Translation{"Gather", "gather"},
    Translation{"Scatter", "scatter"},
    Translation{"PutSignal", "put_signal"},
    Translation{"Signal", "signal"},
    Translation{"WaitSignal", "wait_signal"},
    Translation{"Invalid", kUnknownWord},
};

// In the order of ncclDataType_t; torch's names. The texts are those of ncclDatatypeToString.
constexpr std::array kDataTypes = {
    Translation{"ncclInt8", "int8"},
    Translation{"ncclUint8", "uint8"},
    Translation{"ncclInt32", "int32"},
    Translation{"ncclUint32", "uint32"},
    Translation{"ncclInt64", "int64"},
    Translation{"ncclUint64", "uint64"},
    Translation{"ncclFloat16", "float16"},
    Translation{"ncclFloat32", "float32"},
    Translation{"ncclFloat64", "float64"},
    Translation{"ncclBfloat16", "bfloat16"},
    Translation{"ncclFloat8e4m3", "float8_e4m3fn"},
    Translation{"ncclFloat8e5m2", "float8_e5m2"},
};

// ncclDatatypeToString of NCCL 2.27 to 2.32 has a text for every type but ncclUint8. A test looks
// for that in each release, for a newer one may have more types without a text.
constexpr const char* kTextOfUint8 = "Unknown";

// In the order of ncclRedOp_t.
constexpr std::array kReductions = {"sum", "product", "max", "min", "avg"};

template <std::size_t kSize>
const char* translate(const std::array<Translation, kSize>& table, const char* text) noexcept {
    if (text == nullptr) return kUnknownWord;
    for (const Translation& one : table) {
        if (std::strcmp(one.nccl, text) == 0) return one.word;
    }
    return text;
}

}  // namespace

const char* operation_word(const char* nccl_text) noexcept {
    return translate(kOperations, nccl_text);
}

const char* dtype_word(const char* nccl_text) noexcept {
    if (nccl_text != nullptr && std::strcmp(nccl_text, kTextOfUint8) == 0) return "uint8";
    return translate(kDataTypes, nccl_text);
}

const char* dtype_word(std::int32_t nccl_data_type) noexcept {
    const auto index = static_cast<std::size_t>(nccl_data_type);
    return nccl_data_type >= 0 && index < kDataTypes.size() ? kDataTypes[index].word : kUnknownWord;
}

const char* reduction_word(std::int32_t nccl_reduction) noexcept {
    const auto index = static_cast<std::size_t>(nccl_reduction);
    if (nccl_reduction < 0) return kUnknownWord;
    return index < kReductions.size() ? kReductions[index] : "premul_sum";
}

}  // namespace graphguard::nccl
