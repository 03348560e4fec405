// The writer of breadcrumbs: how far the replays of this process's graphs have got, in memory that
// other processes read by plain loads, and that outlives the process.
//
// A graph is added when it is captured, with one mark for each of its collectives. After that a
// launch is one store, and the marks are counted up by whoever runs the graph.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/breadcrumb_format.h"

namespace graphguard {

struct CrumbIdentity {
    std::uint32_t rank = 0;
    std::uint32_t world_size = 1;
    std::uint64_t pid = 0;
    std::string host;
};

class CrumbWriter {
  public:
    [[nodiscard]] static constexpr std::size_t bytes() { return sizeof(crumbs::File); }

    // `memory` is borrowed, must be zero, aligned to a page, and of exactly bytes(). Throws
    // std::invalid_argument if it is not.
    CrumbWriter(std::span<std::byte> memory, const CrumbIdentity& identity);

    // Takes a place for a graph with one mark for each text, which says what call it is of.
    // `missing` is how many calls have no mark. Nothing if there is no room.
    std::optional<std::uint32_t> add(std::span<const std::string_view> texts, CrumbKind kind,
                                     std::uint32_t missing);

    // Says what a graph is called; and, with as many texts as it has marks, which calls they are
    // of.
    void describe(std::uint32_t graph, std::string_view name, std::uint64_t digest,
                  std::span<const std::string_view> texts);

    // The graph is launched no more. Its place is used again once nothing of it can be in flight.
    void retire(std::uint32_t graph);

    // The same, for one whose launches are not known: its place is never used again.
    void abandon(std::uint32_t graph);

    // For each launch, just before it. One thread at a time launches a graph.
    void launch(std::uint32_t graph) noexcept {
        if (disowned_.load(std::memory_order_relaxed)) return;
        crumbs::Word& launched = file_->graphs[graph].words[crumbs::kLaunched];
        launched.store(launched.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

    // Takes back a launch() that came to nothing.
    void withdraw(std::uint32_t graph) noexcept {
        if (disowned_.load(std::memory_order_relaxed)) return;
        crumbs::Word& launched = file_->graphs[graph].words[crumbs::kLaunched];
        launched.store(launched.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    }

    // Counts up a mark of a graph that no device runs.
    void pass(std::uint32_t graph, std::uint32_t mark) noexcept;

    // A replay that no device runs has failed: nothing of the graph is in flight.
    void settle(std::uint32_t graph) noexcept;

    [[nodiscard]] std::uint32_t marks(std::uint32_t graph) const { return fields_[graph].marks; }

    // Where the numbers of a graph's marks are; one word each, in order.
    [[nodiscard]] crumbs::Word* numbers(std::uint32_t graph) const {
        return &file_->numbers[fields_[graph].first];
    }

    // What a device writes to: the numbers of all marks, in whole pages.
    [[nodiscard]] std::span<std::byte> device_memory() const {
        return std::as_writable_bytes(std::span(file_->numbers));
    }

    // For the child after a fork: the memory is its parent's. Every later call does nothing.
    void disown() noexcept { disowned_.store(true, std::memory_order_relaxed); }

  private:
    void write_header(const CrumbIdentity& identity);
    void write_graph(std::uint32_t graph);
    void write_texts(std::uint32_t graph, std::span<const std::string_view> texts);
    std::uint16_t text(std::string_view text);
    void leave(std::uint32_t graph, bool may_be_reused);
    [[nodiscard]] bool quiet(std::uint32_t graph) const;
    std::optional<std::uint32_t> place_for(std::uint32_t marks);

    crumbs::File* file_;
    std::atomic<bool> disowned_{false};
    std::mutex lock_;
    std::vector<crumbs::GraphFields> fields_;  // by graph, for those that were ever in use
    std::vector<std::uint32_t> room_;          // marks that the place of a graph has room for
    std::vector<std::uint32_t> retired_;
    std::uint32_t used_marks_ = 0;
    std::unordered_map<std::string, std::uint16_t> texts_;
};

}  // namespace graphguard
