#include "core/mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace graphguard {

namespace {

[[noreturn]] void fail(int error, const char* what) {
    throw std::system_error(error, std::generic_category(), what);
}

// MAP_POPULATE only reads the pages of a shared mapping; the first write to each would still stop
// for the kernel. Kernels before 5.14 do not know the request, and nothing is lost but that time.
void make_writable(std::span<std::byte> memory) {
#if defined(MADV_POPULATE_WRITE)
    constexpr int kPopulateWrite = MADV_POPULATE_WRITE;
#else
    constexpr int kPopulateWrite = 23;
#endif
    if (madvise(memory.data(), memory.size(), kPopulateWrite) == 0) return;
    const int error = errno;
    if (error == EINVAL || error == ENOSYS) return;
    munmap(memory.data(), memory.size());
    // The kernel says EFAULT where a write would raise SIGBUS: there is no room for the page.
    fail(error == EFAULT ? ENOSPC : error, "the pages of the mapped file cannot be written");
}

}  // namespace

Mapping::Mapping(int descriptor, std::size_t bytes) {
    struct stat status{};
    if (fstat(descriptor, &status) != 0) fail(errno, "the file to map cannot be looked at");
    if (bytes == 0 || !std::in_range<off_t>(bytes) || static_cast<off_t>(bytes) > status.st_size) {
        fail(EINVAL, "the file is smaller than what is to be mapped");
    }
    void* const start =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    if (start == MAP_FAILED) fail(errno, "the file cannot be mapped");
    make_writable({static_cast<std::byte*>(start), bytes});
    memory_ = {static_cast<std::byte*>(start), bytes};
}

Mapping::~Mapping() {
    unmap();
}

Mapping::Mapping(Mapping&& other) noexcept : memory_(std::exchange(other.memory_, {})) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        unmap();
        memory_ = std::exchange(other.memory_, {});
    }
    return *this;
}

void Mapping::unmap() noexcept {
    if (!memory_.empty()) munmap(memory_.data(), memory_.size());
}

}  // namespace graphguard
