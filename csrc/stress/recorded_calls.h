// The log of NCCL's calls as a program reads it.
#pragma once

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "nccl/call_record.h"
#include "stress/nccl_emulation.h"

namespace graphguard::stress {

// The C interface of the log, by dlsym as Python has it.
struct Log {
    explicit Log(const Library& library)
        : begin(library.symbol<std::int32_t(std::uint64_t)>("graphguard_nccl_begin")),
          end(library.symbol<std::int32_t(std::uint64_t)>("graphguard_nccl_end")),
          take_into(library.symbol<std::size_t(std::uint64_t, nccl::CallRecord*, std::size_t,
                                               std::uint64_t*)>("graphguard_nccl_take")) {}

    std::int32_t (*begin)(std::uint64_t);
    std::int32_t (*end)(std::uint64_t);
    std::size_t (*take_into)(std::uint64_t, nccl::CallRecord*, std::size_t, std::uint64_t*);

    [[nodiscard]] std::vector<nccl::CallRecord> take(std::uint64_t id) const {
        std::vector<nccl::CallRecord> all;
        nccl::CallRecord some[16];
        std::uint64_t dropped = 0;
        while (const std::size_t taken = take_into(id, some, 16, &dropped)) {
            all.insert(all.end(), some, some + taken);
        }
        return all;
    }
};

inline void print(const std::vector<nccl::CallRecord>& calls) {
    for (const nccl::CallRecord& call : calls) {
        std::printf("call operation=%s count=%" PRIu64
                    " dtype=%s root=%d peer=%d rank=%d/%d "
                    "hash=%" PRIx64 " capture=%" PRIu64 " captured=%d group=%" PRIu64
                    " tag=%" PRIu64 " order=%" PRIu64 "\n",
                    call.operation, call.count, call.dtype, call.root, call.peer, call.rank,
                    call.num_ranks, call.communicator_hash, call.capture_id,
                    static_cast<int>(call.captured), call.group, call.user_tag, call.order);
    }
}

}  // namespace graphguard::stress
