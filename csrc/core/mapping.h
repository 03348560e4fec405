// A file mapped into memory, shared with whoever else maps it, for as long as the object lives.
#pragma once

#include <cstddef>
#include <span>

namespace graphguard {

class Mapping {
  public:
    // Maps the first `bytes` bytes, readable and writable, with every page present. The descriptor
    // may be closed afterwards. Throws std::system_error if the file is smaller, if it cannot be
    // mapped, or if there is no room for its pages: then writing would have ended the process.
    Mapping(int descriptor, std::size_t bytes);
    ~Mapping();
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    [[nodiscard]] std::span<std::byte> memory() const { return memory_; }

  private:
    void unmap() noexcept;

    std::span<std::byte> memory_;
};

}  // namespace graphguard
