// A checksum against accidents and damage, not against an adversary: one wide multiplication for
// two words, whose halves are folded together (the step of wyhash).
#pragma once

#include <cstdint>

namespace graphguard {

constexpr std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    // Neither factor may be zero, or the other one would not count.
    const Wide product = Wide{a ^ 0xA0761D6478BD642FULL} * (b ^ 0xE7037ED1A0B428DBULL);
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

}  // namespace graphguard
