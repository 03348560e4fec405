// A short text in a file that is read while it is written: whole, or not there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "core/ring_format.h"

namespace graphguard::ring {

// As much of a text as fits, without half a character at its end.
inline std::string_view cut(std::string_view text, std::size_t bytes) {
    if (text.size() <= bytes) return text;
    const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; };
    while (bytes > 0 && continues(text[bytes])) --bytes;
    return text.substr(0, bytes);
}

// Writes a text into an empty slot, cut to what it holds.
inline void write_name(NameSlot& slot, std::string_view text) {
    constexpr std::string_view kCutMark = "\u2026";
    std::string kept(cut(text, kNameBytes));
    if (kept.size() < text.size()) {
        kept = std::string(cut(text, kNameBytes - kCutMark.size())).append(kCutMark);
    }
    NameWords words{};
    std::memcpy(&words[1], kept.data(), kept.size());
    words[0] = kept.size();
    words[0] |= std::uint64_t{name_checksum(words)} << 32U;
    for (std::size_t i = 1; i < words.size(); ++i) {
        slot.words[i].store(words[i], std::memory_order_relaxed);
    }
    slot.words[0].store(words[0], std::memory_order_release);
}

// What a slot's words say, in place; nothing where they are not whole.
inline const char* whole_name(const NameWords& words, std::size_t& length) {
    length = static_cast<std::size_t>(words[0] & 0xFFFFFFFFULL);
    const bool whole = length <= kNameBytes && words[0] >> 32U == name_checksum(words);
    return whole ? reinterpret_cast<const char*>(&words[1]) : nullptr;
}

}  // namespace graphguard::ring
