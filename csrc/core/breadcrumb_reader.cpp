#include "core/breadcrumb_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "core/name_slot.h"

namespace graphguard {

namespace {

enum Part : std::size_t { kGraphs, kTexts, kTextsOfMarks, kNumbers };

// A copy of the element at a place in a copy of the file, which need not be aligned.
template <typename Element>
Element element(std::span<const std::byte> bytes, std::size_t place) {
    Element found{};
    std::memcpy(&found, bytes.data() + place * sizeof(Element), sizeof(Element));
    return found;
}

std::uint64_t word_at(std::span<const std::byte> header, std::size_t offset) {
    return element<std::uint64_t>(header, offset / sizeof(std::uint64_t));
}

std::string usable(std::span<const std::byte> bytes, std::uint64_t file_bytes) {
    if (bytes.size() < crumbs::kHeaderBytes) {
        return "it has " + std::to_string(bytes.size()) + " bytes, fewer than its header";
    }
    const auto words = element<crumbs::HeaderWords>(bytes, 0);
    const auto header = std::bit_cast<crumbs::HeaderFields>(words);
    if (header.magic != crumbs::kMagic) return "it does not begin as breadcrumbs do";
    if (header.version != crumbs::kVersion) {
        return "it has version " + std::to_string(header.version) + ", and this graphguard reads " +
               std::to_string(crumbs::kVersion);
    }
    if (header.checksum != ring::header_checksum(words)) return "its header is damaged";
    if (header.header_bytes != crumbs::kHeaderBytes || header.record_bytes != crumbs::kGraphBytes ||
        header.capacity != crumbs::kGraphs || header.name_slots != crumbs::kTexts ||
        header.name_slot_bytes != crumbs::kMarks) {
        return "its header gives sizes that this version does not have";
    }
    if (file_bytes != sizeof(crumbs::File)) {
        return "it has " + std::to_string(file_bytes) + " bytes, and breadcrumbs have " +
               std::to_string(sizeof(crumbs::File));
    }
    return {};
}

class Reader {
  public:
    explicit Reader(const std::array<std::span<const std::byte>, kCrumbRegions>& parts)
        : parts_(parts) {}

    void read(CrumbsTold told, CrumbContents& contents) const {
        const std::size_t graphs = parts_[kGraphs].size() / crumbs::kGraphBytes;
        for (std::size_t i = 0; i < graphs; ++i) {
            const auto words = element<crumbs::GraphWords>(parts_[kGraphs], i);
            const std::uint64_t generation = words[crumbs::kGeneration];
            const bool whole =
                generation % 2 == 0 && words[crumbs::kChecksum] == crumbs::graph_checksum(words);
            if (!whole || generation == 0) {
                ++contents.damaged;
                continue;
            }
            const crumbs::GraphFields fields = crumbs::unpack(words);
            if (fields.state == CrumbState::kGone) continue;
            auto graph = graph_of(fields, words[crumbs::kLaunched]);
            if (graph && told == CrumbsTold::kInFlight && graph->launched == graph->finished) {
                continue;
            }
            if (graph) {
                contents.graphs.push_back(std::move(*graph));
            } else {
                ++contents.damaged;
            }
        }
    }

  private:
    // Nothing if what it says cannot be.
    [[nodiscard]] std::optional<CrumbGraph> graph_of(const crumbs::GraphFields& fields,
                                                     std::uint64_t launched) const {
        const std::size_t known = parts_[kNumbers].size() / sizeof(std::uint64_t);
        if (fields.state != CrumbState::kLive || fields.kind > CrumbKind::kEmulated ||
            fields.marks == 0 || fields.first > known || fields.marks > known - fields.first) {
            return std::nullopt;
        }
        CrumbGraph graph{
            .name = text(fields.name),
            .digest = fields.digest,
            .launched = launched,
            .marks = fields.marks,
            .kind = fields.kind,
            .missing = fields.missing,
            .captured_ns = fields.captured_ns,
        };
        if (counts_replays(fields.kind)) {
            follow_numbers(fields, graph);
        } else {
            follow_constants(fields, graph);
        }
        return graph;
    }

    [[nodiscard]] std::uint64_t number(std::uint32_t mark) const {
        return element<std::uint64_t>(parts_[kNumbers], mark);
    }

    // Launches were copied before numbers were, and those that graphguard has not seen do not
    // count: a mark that was passed more often tells of more launches.
    void follow_numbers(const crumbs::GraphFields& fields, CrumbGraph& graph) const {
        std::uint64_t least = UINT64_MAX;
        std::uint64_t most = 0;
        for (std::uint32_t i = 0; i < fields.marks; ++i) {
            least = std::min(least, number(fields.first + i));
            most = std::max(most, number(fields.first + i));
        }
        graph.finished = least;
        graph.launched = std::max(graph.launched, most);
        if (graph.launched == graph.finished) return;
        follow(fields, graph, [&](std::uint64_t passed) { return passed > least; });
    }

    // A constant is set back by the replay that begins, so that one which has passed every mark
    // cannot be told from one that is queued behind it.
    void follow_constants(const crumbs::GraphFields& fields, CrumbGraph& graph) const {
        const auto has_passed = [](std::uint64_t value) { return value != 0; };
        follow(fields, graph, has_passed);
        const bool all = graph.reached == graph.marks;
        graph.finished = graph.launched - (all || graph.launched == 0 ? 0 : 1);
        if (!all && graph.launched != 0) return;
        graph.reached = 0;
        graph.next.clear();
    }

    template <typename HasPassed>
    void follow(const crumbs::GraphFields& fields, CrumbGraph& graph,
                const HasPassed& has_passed) const {
        bool found = false;
        for (std::uint32_t mark = fields.first; mark < fields.first + fields.marks; ++mark) {
            if (has_passed(number(mark))) {
                ++graph.reached;
            } else if (!found) {
                found = true;
                graph.next = text(text_of(mark));
            }
        }
    }

    [[nodiscard]] std::uint16_t text_of(std::uint32_t mark) const {
        const auto bytes = parts_[kTextsOfMarks];
        if (mark >= bytes.size() / sizeof(std::uint16_t)) return crumbs::kNoText;
        return element<std::uint16_t>(bytes, mark);
    }

    [[nodiscard]] std::string text(std::uint16_t index) const {
        if (index >= parts_[kTexts].size() / sizeof(crumbs::NameWords)) return {};
        const auto words = element<crumbs::NameWords>(parts_[kTexts], index);
        std::size_t length = 0;
        const char* const start = ring::whole_name(words, length);
        return start == nullptr ? std::string() : std::string(start, length);
    }

    const std::array<std::span<const std::byte>, kCrumbRegions>& parts_;
};

}  // namespace

CrumbRegions crumb_regions(std::span<const std::byte> header, std::uint64_t bytes) {
    CrumbRegions found{.error = usable(header, bytes)};
    if (!found.error.empty()) return found;
    const auto used = [&](std::size_t offset, std::uint64_t most) {
        return static_cast<std::size_t>(std::min(word_at(header, offset), most));
    };
    const std::size_t marks = used(offsetof(crumbs::File, used_marks), crumbs::kMarks);
    found.regions = {{
        {offsetof(crumbs::File, graphs),
         used(offsetof(crumbs::File, used_graphs), crumbs::kGraphs) * crumbs::kGraphBytes},
        {offsetof(crumbs::File, texts),
         used(offsetof(crumbs::File, used_texts), crumbs::kTexts) * sizeof(crumbs::NameWords)},
        {offsetof(crumbs::File, text_of_mark), marks * sizeof(std::uint16_t)},
        {offsetof(crumbs::File, numbers), marks * sizeof(std::uint64_t)},
    }};
    return found;
}

CrumbContents read_crumbs(std::span<const std::byte> header,
                          const std::array<std::span<const std::byte>, kCrumbRegions>& parts,
                          CrumbsTold told) {
    CrumbContents contents;
    contents.error = usable(header, sizeof(crumbs::File));
    if (!contents.error.empty()) return contents;
    const auto fields =
        std::bit_cast<crumbs::HeaderFields>(element<crumbs::HeaderWords>(header, 0));
    const auto host_end = std::ranges::find(fields.host, '\0');
    contents.identity = {fields.rank, fields.world_size, fields.pid,
                         std::string(fields.host.begin(), host_end)};
    contents.refused = word_at(header, offsetof(crumbs::File, refused));
    Reader(parts).read(told, contents);
    return contents;
}

}  // namespace graphguard
