#include "cuda/symbol_names.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace graphguard::cuda {

namespace {

constexpr std::size_t kMaxName = std::size_t{1} << 16U;

struct Free {
    void operator()(char* memory) const { std::free(memory); }
};

}  // namespace

std::string readable_name(const char* name) {
    const std::string_view given(name, strnlen(name, kMaxName));
    // One that is cut is no name of C++ any more, and a demangler need not be tried on it.
    if (given.size() == kMaxName || !given.starts_with("_Z")) return std::string(given);
    int status = 0;
    const std::unique_ptr<char, Free> readable(
        abi::__cxa_demangle(name, nullptr, nullptr, &status));
    if (status != 0 || readable == nullptr) return std::string(given);
    return std::string(readable.get(), strnlen(readable.get(), kMaxName));
}

std::string name_at(const void* address) {
    Dl_info info{};
    if (dladdr(address, &info) == 0) return {};
    // glibc names a symbol only if the address lies within it, so a function that the library keeps
    // to itself does not get the name of its neighbour.
    if (info.dli_sname != nullptr) return readable_name(info.dli_sname);
    if (info.dli_fname == nullptr) return {};
    const std::string_view path(info.dli_fname, strnlen(info.dli_fname, kMaxName));
    return "in " + std::string(path.substr(path.rfind('/') + 1));
}

}  // namespace graphguard::cuda
