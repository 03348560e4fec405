#include "core/breadcrumbs.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "core/clock.h"
#include "core/name_slot.h"

namespace graphguard {

CrumbWriter::CrumbWriter(std::span<std::byte> memory, const CrumbIdentity& identity)
    : file_(reinterpret_cast<crumbs::File*>(memory.data())) {
    if (memory.size() != bytes()) {
        throw std::invalid_argument("the memory has not the size of a file of breadcrumbs");
    }
    if (std::bit_cast<std::uintptr_t>(memory.data()) % crumbs::kHeaderBytes != 0) {
        throw std::invalid_argument("the memory of breadcrumbs must be aligned to a page");
    }
    if (file_->header[0].load(std::memory_order_acquire) != 0) {
        throw std::invalid_argument("the memory holds breadcrumbs already");
    }
    // What is launched by one thread does not move when another one adds a graph.
    fields_.reserve(crumbs::kGraphs);
    room_.reserve(crumbs::kGraphs);
    write_header(identity);
}

std::optional<std::uint32_t> CrumbWriter::add(std::span<const std::string_view> texts,
                                              CrumbKind kind, std::uint32_t missing) {
    if (disowned_.load(std::memory_order_relaxed)) return std::nullopt;
    const std::lock_guard guard(lock_);
    const auto graph = texts.size() > crumbs::kMarks
                           ? std::nullopt
                           : place_for(static_cast<std::uint32_t>(texts.size()));
    if (!graph) {
        file_->refused.fetch_add(1, std::memory_order_relaxed);
        return std::nullopt;
    }
    const crumbs::GraphFields before = fields_[*graph];
    fields_[*graph] = {
        .first = before.first,
        .marks = static_cast<std::uint32_t>(texts.size()),
        .state = CrumbState::kLive,
        .kind = kind,
        .missing = missing,
        .captured_ns = nanoseconds_of(CLOCK_MONOTONIC),
    };
    write_texts(*graph, texts);
    write_graph(*graph);
    return graph;
}

void CrumbWriter::describe(std::uint32_t graph, std::string_view name, std::uint64_t digest,
                           std::span<const std::string_view> texts) {
    if (disowned_.load(std::memory_order_relaxed)) return;
    const std::lock_guard guard(lock_);
    if (graph >= fields_.size() || fields_[graph].state != CrumbState::kLive) return;
    fields_[graph].name = text(name);
    fields_[graph].digest = digest;
    if (texts.size() == fields_[graph].marks) write_texts(graph, texts);
    write_graph(graph);
}

void CrumbWriter::retire(std::uint32_t graph) {
    leave(graph, true);
}

void CrumbWriter::abandon(std::uint32_t graph) {
    leave(graph, false);
}

void CrumbWriter::leave(std::uint32_t graph, bool may_be_reused) {
    if (disowned_.load(std::memory_order_relaxed)) return;
    const std::lock_guard guard(lock_);
    if (graph >= fields_.size() || fields_[graph].state != CrumbState::kLive) return;
    fields_[graph].state = CrumbState::kGone;
    write_graph(graph);
    // A constant does not tell whether a replay is in flight.
    if (may_be_reused && counts_replays(fields_[graph].kind)) retired_.push_back(graph);
}

void CrumbWriter::pass(std::uint32_t graph, std::uint32_t mark) noexcept {
    if (disowned_.load(std::memory_order_relaxed) || mark >= fields_[graph].marks) return;
    crumbs::Word& number = numbers(graph)[mark];
    number.store(number.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void CrumbWriter::settle(std::uint32_t graph) noexcept {
    if (disowned_.load(std::memory_order_relaxed)) return;
    const std::uint64_t launched =
        file_->graphs[graph].words[crumbs::kLaunched].load(std::memory_order_relaxed);
    crumbs::Word* const first = numbers(graph);
    for (std::uint32_t i = 0; i < fields_[graph].marks; ++i) {
        first[i].store(launched, std::memory_order_release);
    }
}

// A place whose replays have all passed all marks, or a new one.
std::optional<std::uint32_t> CrumbWriter::place_for(std::uint32_t marks) {
    const auto found = std::ranges::find_if(retired_, [&](std::uint32_t graph) {
        // Half of a place may be wasted, or large ones would be used up by small graphs.
        return room_[graph] >= marks && room_[graph] / 2 <= marks && quiet(graph);
    });
    if (found != retired_.end()) {
        const std::uint32_t graph = *found;
        retired_.erase(found);
        file_->graphs[graph].words[crumbs::kLaunched].store(0, std::memory_order_relaxed);
        crumbs::Word* const first = numbers(graph);
        for (std::uint32_t i = 0; i < room_[graph]; ++i) {
            first[i].store(0, std::memory_order_relaxed);
        }
        return graph;
    }
    if (fields_.size() == crumbs::kGraphs || marks > crumbs::kMarks - used_marks_) {
        return std::nullopt;
    }
    const auto graph = static_cast<std::uint32_t>(fields_.size());
    fields_.push_back({.first = used_marks_});
    room_.push_back(marks);
    used_marks_ += marks;
    file_->used_graphs.store(fields_.size(), std::memory_order_relaxed);
    file_->used_marks.store(used_marks_, std::memory_order_relaxed);
    return graph;
}

bool CrumbWriter::quiet(std::uint32_t graph) const {
    const std::uint64_t launched =
        file_->graphs[graph].words[crumbs::kLaunched].load(std::memory_order_relaxed);
    const std::span passed(numbers(graph), fields_[graph].marks);
    return std::ranges::all_of(passed, [&](const crumbs::Word& number) {
        return number.load(std::memory_order_acquire) == launched;
    });
}

void CrumbWriter::write_texts(std::uint32_t graph, std::span<const std::string_view> texts) {
    std::uint32_t mark = fields_[graph].first;
    for (const std::string_view words : texts) {
        file_->text_of_mark[mark++].store(text(words), std::memory_order_relaxed);
    }
}

void CrumbWriter::write_graph(std::uint32_t graph) {
    auto& slot = file_->graphs[graph].words;
    const std::uint64_t before = slot[crumbs::kGeneration].load(std::memory_order_relaxed);
    const crumbs::GraphWords words = crumbs::pack(before + 2, fields_[graph]);
    slot[crumbs::kGeneration].store(before + 1, std::memory_order_relaxed);
    // Whoever sees one of these sees that the graph is being written.
    for (std::size_t i = 1; i < words.size(); ++i) {
        if (i != crumbs::kLaunched) slot[i].store(words[i], std::memory_order_release);
    }
    slot[crumbs::kGeneration].store(words[crumbs::kGeneration], std::memory_order_release);
}

// The number of a text, the same for the same one.
std::uint16_t CrumbWriter::text(std::string_view text) {
    if (text.empty()) return crumbs::kNoText;
    std::string key(text);
    if (const auto known = texts_.find(key); known != texts_.end()) return known->second;
    if (texts_.size() == crumbs::kTexts) return crumbs::kNoText;
    const auto index = static_cast<std::uint16_t>(texts_.size());
    texts_.emplace(std::move(key), index);
    ring::write_name(file_->texts[index], text);
    file_->used_texts.store(texts_.size(), std::memory_order_release);
    return index;
}

void CrumbWriter::write_header(const CrumbIdentity& identity) {
    const ClockSample now = sample_clocks(TickClock{});
    crumbs::HeaderFields fields{
        .magic = crumbs::kMagic,
        .version = crumbs::kVersion,
        .header_bytes = crumbs::kHeaderBytes,
        .record_bytes = crumbs::kGraphBytes,
        .capacity = crumbs::kGraphs,
        .name_slots = crumbs::kTexts,
        .name_slot_bytes = crumbs::kMarks,
        .rank = identity.rank,
        .world_size = identity.world_size,
        .pid = identity.pid,
        .ticks = now.ticks,
        .monotonic_ns = now.monotonic_ns,
        .realtime_ns = now.realtime_ns,
    };
    const std::string_view host = ring::cut(identity.host, fields.host.size());
    std::ranges::copy(host, fields.host.begin());
    fields.checksum = ring::header_checksum(std::bit_cast<crumbs::HeaderWords>(fields));
    const auto words = std::bit_cast<crumbs::HeaderWords>(fields);
    for (std::size_t i = 1; i < words.size(); ++i) {
        file_->header[i].store(words[i], std::memory_order_relaxed);
    }
    file_->header[0].store(words[0], std::memory_order_release);
}

}  // namespace graphguard
