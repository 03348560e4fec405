// What NCCL calls its operations, data types and reductions, in graphguard's and torch's words.
#pragma once

#include <cstdint>

namespace graphguard::nccl {

inline constexpr const char* kUnknownWord = "unknown";

// From the texts that NCCL gives a profiler plugin: `AllReduce`, `ncclBfloat16`. A text that is not
// in the table is returned as it is, for a newer NCCL may have new ones.
const char* operation_word(const char* nccl_text) noexcept;
const char* dtype_word(const char* nccl_text) noexcept;

// From ncclDataType_t and ncclRedOp_t, as a caller of NCCL gives them. A reduction beyond those
// that NCCL has built in was made by ncclRedOpCreatePreMulSum.
const char* dtype_word(std::int32_t nccl_data_type) noexcept;
const char* reduction_word(std::int32_t nccl_reduction) noexcept;

}  // namespace graphguard::nccl
