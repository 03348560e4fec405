// The NCCL that the interposer stands in front of, and the addresses of its functions.
#pragma once

#include <atomic>

namespace graphguard::nccl {

// One function of the real library. Trampolines read `address` at offset 0, in assembly.
struct Slot {
    std::atomic<void*> address;
    const char* name;

    // The address in the real library, or that of a function which returns an error of NCCL where
    // there is no such function.
    [[nodiscard]] void* resolve() noexcept;

    template <typename Function>
    [[nodiscard]] Function* as() noexcept {
        void* const known = address.load(std::memory_order_acquire);
        return reinterpret_cast<Function*>(known != nullptr ? known : resolve());
    }

    // None where the real library has no such function.
    [[nodiscard]] void* find() const noexcept;
};
static_assert(std::atomic<void*>::is_always_lock_free);
static_assert(sizeof(Slot) == 2 * sizeof(void*));

struct RealLibrary {
    void* handle = nullptr;
    const char* path = "";     // absolute
    const char* absence = "";  // why there is none
};

// Found and loaded by the first thread that asks. Where it is looked for, in this order: what the
// environment variable GRAPHGUARD_NCCL_SO names; an NCCL that the process has loaded already;
// nvidia/nccl/lib beside the packages that are loaded; the directories of the dynamic loader.
const RealLibrary& real_library() noexcept;

}  // namespace graphguard::nccl
