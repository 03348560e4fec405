#include "nccl/known_communicators.h"

#include <new>

namespace graphguard::nccl {

namespace {

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/: the same on every machine.
constexpr std::uint64_t kOffset = 14'695'981'039'346'656'037ULL;
constexpr std::uint64_t kPrime = 1'099'511'628'211ULL;

std::uint64_t fold(std::uint64_t hash, const void* bytes, std::size_t size) noexcept {
    const auto* const data = static_cast<const unsigned char*>(bytes);
    for (std::size_t index = 0; index < size; ++index) {
        hash = (hash ^ data[index]) * kPrime;
    }
    return hash;
}

}  // namespace

void KnownCommunicators::know(Communicator communicator, const Membership& membership) noexcept
    try {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.insert_or_assign(communicator, Entry{membership, 0});
} catch (const std::bad_alloc&) {
    return;
}

void KnownCommunicators::forget(Communicator communicator) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.erase(communicator);
}

std::optional<Membership> KnownCommunicators::find(Communicator communicator) const noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(communicator);
    if (found == entries_.end()) return std::nullopt;
    return found->second.membership;
}

std::uint64_t KnownCommunicators::next_child_hash(Communicator parent,
                                                  std::int64_t color) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(parent);
    if (found == entries_.end() || found->second.membership.hash == 0) return 0;
    const std::uint64_t number = ++found->second.children;
    std::uint64_t hash = fold(kOffset, &found->second.membership.hash, sizeof(std::uint64_t));
    hash = fold(hash, &number, sizeof(number));
    return fold(hash, &color, sizeof(color));
}

KnownCommunicators& known_communicators() noexcept {
    alignas(KnownCommunicators) static unsigned char memory[sizeof(KnownCommunicators)];
    static KnownCommunicators* const instance = ::new (memory) KnownCommunicators;
    return *instance;
}

std::uint64_t hash_of(const UniqueId* ids, int count) noexcept {
    if (ids == nullptr || count <= 0) return 0;
    return fold(kOffset, ids, sizeof(UniqueId) * static_cast<std::size_t>(count));
}

}  // namespace graphguard::nccl
