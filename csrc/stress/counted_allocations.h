// Replaces operator new by one that counts what its thread allocates. For one source file of a
// binary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace graphguard::stress {

inline thread_local std::uint64_t allocations = 0;

inline void* counted_allocation(std::size_t size) {
    ++allocations;
    return std::malloc(size == 0 ? 1 : size);
}

inline void* counted_allocation_or_throw(std::size_t size) {
    if (void* memory = counted_allocation(size)) return memory;
    throw std::bad_alloc();
}

}  // namespace graphguard::stress

// Every form is replaced, because the sanitizer's own forms do not lead to each other.
void* operator new(std::size_t size) {
    return graphguard::stress::counted_allocation_or_throw(size);
}
void* operator new[](std::size_t size) {
    return graphguard::stress::counted_allocation_or_throw(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return graphguard::stress::counted_allocation(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return graphguard::stress::counted_allocation(size);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete[](void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
    std::free(memory);
}
