#include "nccl/real_library.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "nccl/library_search.h"
#include "nccl/nccl_types.h"

namespace graphguard::nccl {

namespace {

// They stand for functions with any arguments: those are in registers, or the caller takes them
// off the stack again.
Result without_library() noexcept {
    return kSystemError;
}

Result without_function() noexcept {
    return kInvalidUsage;
}

RealLibrary load() {
    static std::string path;
    static std::string absence;
    for (const std::string& candidate : library_candidates()) {
        // Global, so that names which the interposer does not know yet are found behind it.
        void* const handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_GLOBAL);
        if (handle == nullptr) {
            const char* const why = dlerror();
            absence += (absence.empty() ? "" : "; ") + std::string(why != nullptr ? why : "");
        } else {
            path = candidate;
            return {handle, path.c_str(), ""};
        }
    }
    if (absence.empty()) absence = "no libnccl.so.2 was found; name one with GRAPHGUARD_NCCL_SO";
    std::fprintf(stderr, "graphguard: the interposer has no NCCL to call: %s\n", absence.c_str());
    return {nullptr, "", absence.c_str()};
}

}  // namespace

const RealLibrary& real_library() noexcept {
    static const RealLibrary library = [] {
        try {
            return load();
        } catch (const std::exception&) {
            return RealLibrary{nullptr, "", "no memory is left"};
        }
    }();
    return library;
}

void* Slot::find() const noexcept {
    const RealLibrary& library = real_library();
    return library.handle == nullptr ? nullptr : dlsym(library.handle, name);
}

void* Slot::resolve() noexcept {
    void* found = find();
    if (found == nullptr) {
        const RealLibrary& library = real_library();
        const bool loaded = library.handle != nullptr;
        if (loaded) {
            std::fprintf(stderr, "graphguard: %s was called, which %s does not have\n", name,
                         library.path);
        }
        found = reinterpret_cast<void*>(loaded ? &without_function : &without_library);
    }
    address.store(found, std::memory_order_release);
    return found;
}

}  // namespace graphguard::nccl
