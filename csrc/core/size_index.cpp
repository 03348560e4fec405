#include "core/size_index.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace graphguard {

namespace {

bool smaller(const SizedGraph& entry, std::uint32_t size) {
    return entry.size < size;
}

}  // namespace

void SizeIndex::insert(std::uint32_t size, std::uint32_t graph) {
    auto place = std::lower_bound(sizes_.begin(), sizes_.end(), size, smaller);
    if (place != sizes_.end() && place->size == size) return;
    place = sizes_.insert(place, SizedGraph{size, graph});
    end_ = std::uint64_t{sizes_.back().size} + 1;

    const std::size_t first = place == sizes_.begin() ? 0 : std::size_t{std::prev(place)->size} + 1;
    const std::size_t end = std::min(std::size_t{size} + 1, std::size_t{kDirectSizes});
    if (direct_.size() < end) direct_.resize(end);
    for (std::size_t n = first; n < end; ++n) direct_[n] = *place;
}

SizedGraph SizeIndex::search(std::uint32_t size) const {
    const auto place = std::lower_bound(sizes_.begin(), sizes_.end(), size, smaller);
    return place == sizes_.end() ? SizedGraph{} : *place;
}

}  // namespace graphguard
