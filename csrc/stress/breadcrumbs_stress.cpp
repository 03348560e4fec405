// Marks in random graphs of a stand-in for the CUDA driver that fails now and then, and in the
// file that they count in, under the sanitizers.
//
//     graphguard_breadcrumbs_stress SEED ROUNDS
//
// Prints one line of counts and ends with 0 if every mark was where the model of it is, and if
// readers saw only what can be while graphs came, were launched by several threads, and went.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/breadcrumb_reader.h"
#include "core/breadcrumbs.h"
#include "cuda/breadcrumbs.h"
#include "cuda/kernel_order.h"
#include "stress/fake_driver.h"

namespace graphguard::stress {
namespace {

constexpr std::array kRefusable = {
    "cuGraphGetNodes",          "cuGraphGetEdges",    "cuGraphNodeGetType",
    "cuCtxGetCurrent",          "cuModuleLoadData",   "cuModuleGetFunction",
    "cuMemHostRegister",        "cuFuncGetName",      "cuMemHostGetDevicePointer",
    "cuGraphAddKernelNode",     "cuGraphAddHostNode", "cuGraphAddMemsetNode",
    "cuGraphAddBatchMemOpNode",
};

struct Counts {
    std::uint64_t graphs = 0;
    std::uint64_t marks = 0;
    std::uint64_t refusals = 0;
    std::uint64_t readings = 0;
    std::atomic<std::uint64_t> failures{0};

    void require(bool holds, const char* what) {
        if (holds) return;
        if (failures.fetch_add(1) < 5) std::cerr << what << '\n';
    }
};

// Memory of a file, in whole pages.
class Pages {
  public:
    Pages() : memory_(static_cast<std::byte*>(std::aligned_alloc(65536, kBytes))) {
        std::memset(memory_.get(), 0, kBytes);
    }
    [[nodiscard]] std::span<std::byte> span() { return {memory_.get(), CrumbWriter::bytes()}; }

    // As the kernel copies it: whole words, in order.
    [[nodiscard]] std::vector<std::byte> copy(std::size_t offset, std::size_t bytes) const {
        std::vector<std::byte> copied(bytes);
        for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
            auto& word = *reinterpret_cast<crumbs::Word*>(memory_.get() + offset + i);
            const std::uint64_t value = word.load(std::memory_order_acquire);
            std::memcpy(copied.data() + i, &value, sizeof value);
        }
        return copied;
    }

  private:
    static constexpr std::size_t kBytes = (CrumbWriter::bytes() + 65535) / 65536 * 65536;
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> memory_;
};

CrumbContents read_all(const Pages& pages) {
    const auto header = pages.copy(0, crumbs::kHeaderBytes);
    const CrumbRegions regions = crumb_regions(header, CrumbWriter::bytes());
    if (!regions.error.empty()) return {.error = regions.error, .identity = {}, .graphs = {}};
    std::array<std::vector<std::byte>, kCrumbRegions> parts;
    std::array<std::span<const std::byte>, kCrumbRegions> spans;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        // A part of 16-bit words may end within a word of the copy.
        const std::size_t whole = (regions.regions[i].bytes + 7) / 8 * 8;
        parts[i] = pages.copy(regions.regions[i].offset, whole);
        spans[i] = std::span(parts[i]).first(regions.regions[i].bytes);
    }
    return read_crumbs(header, spans);
}

// Graphs of a driver that refuses this and that.
class Captures {
  public:
    Captures(std::uint64_t seed, Counts& counts) : random_(seed), counts_(counts) {
        fake_reset();
        fake_set_version(13020);
    }

    void run() {
        const cuda::Driver driver(nullptr);
        counts_.require(driver.present(), "the stand-in was not found");
        CrumbWriter writer(pages_.span(), {1, 2, 3, "host"});
        cuda::GraphMarker marker(driver, writer.device_memory());
        for (int i = 0; i < 12; ++i) {
            const char* const refused = kRefusable[below(kRefusable.size())];
            const bool refuses = below(3) == 0;
            if (refuses) fake_refuse(refused, 1 + below(4));
            capture(driver, writer, marker);
            if (refuses) fake_refuse(refused, 0);
            counts_.refusals += refuses ? 1 : 0;
        }
        counts_.require(fake_capture_mode() == 0, "the thread was left in another capture mode");
        replay(writer);
    }

  private:
    struct Graph {
        void* handle;
        std::vector<cuda::Handle> nodes;
        std::uint32_t place;
    };

    std::size_t below(std::size_t bound) { return random_() % bound; }

    // Kernels, each behind some that were there before, in the order that the driver pleases.
    void* make_graph() {
        void* const graph = fake_graph();
        const std::size_t bytes = 8;
        const std::array<unsigned int, 3> one{1, 1, 1};
        const std::size_t nodes = 1 + below(20);
        for (std::size_t i = 0; i < nodes; ++i) {
            const std::string name = "kernel" + std::to_string(below(5));
            fake_add_kernel(graph, fake_function(name.c_str(), &bytes, 1), nullptr, one.data(),
                            one.data(), 0);
            for (std::size_t edges = i == 0 ? 0 : below(3); edges > 0; --edges) {
                fake_add_edge(fake_node(graph, below(i)), fake_node(graph, i));
            }
        }
        fake_shuffle(random_());
        return graph;
    }

    void capture(const cuda::Driver& driver, CrumbWriter& writer, cuda::GraphMarker& marker) {
        void* const graph = make_graph();
        fake_set_capture(nullptr, 1, graph, 1);
        const cuda::KernelOrder order = cuda::kernels_in_order(driver, graph);
        std::vector<cuda::Handle> nodes;
        std::vector<std::string_view> texts;
        for (const cuda::OrderedKernel& kernel : order.kernels) {
            if (below(2) == 0) continue;
            nodes.push_back(kernel.node);
            texts.push_back(order.names[kernel.name]);
        }
        if (nodes.empty()) return;
        const auto kind = below(2) == 0 ? CrumbKind::kKernel : CrumbKind::kHost;
        const auto place = writer.add(texts, kind, 0);
        counts_.require(place.has_value(), "there was no room for a graph");
        if (!place) return;
        if (!marker.mark(graph, nodes, writer.numbers(*place), kind).empty()) {
            writer.abandon(*place);
            return;
        }
        ++counts_.graphs;
        counts_.marks += nodes.size();
        graphs_.push_back({graph, nodes, *place});
    }

    // Every graph a few times, the last time with a kernel that stands still.
    void replay(CrumbWriter& writer) {
        for (const Graph& graph : graphs_) {
            const std::uint64_t whole = below(4);
            for (std::uint64_t i = 0; i < whole; ++i) {
                writer.launch(graph.place);
                fake_run(graph.handle, nullptr);
            }
            const std::size_t stuck = below(graph.nodes.size());
            writer.launch(graph.place);
            fake_run(graph.handle, graph.nodes[stuck]);
            const CrumbContents found = read_all(pages_);
            ++counts_.readings;
            counts_.require(found.error.empty() && found.damaged == 0, "the file is damaged");
            const CrumbGraph& state = found.graphs.at(shown_++);
            counts_.require(state.launched == whole + 1 && state.finished == whole,
                            "launches were lost");
            counts_.require(state.reached < state.marks && !state.next.empty(),
                            "a kernel that stands still was passed");
        }
    }

    std::mt19937_64 random_;
    Counts& counts_;
    Pages pages_;
    std::vector<Graph> graphs_;
    std::size_t shown_ = 0;
};

// One thread adds graphs, describes them and lets them go, two launch and pass, two read.
class Threads {
  public:
    explicit Threads(Counts& counts) : counts_(counts), writer_(pages_.span(), {0, 1, 1, "host"}) {
        const std::array<std::string_view, 3> texts{"a", "b", "c"};
        for (std::uint32_t& graph : graphs_) graph = *writer_.add(texts, CrumbKind::kEmulated, 0);
    }

    void run() {
        std::vector<std::thread> threads;
        for (const std::uint32_t graph : graphs_) {
            threads.emplace_back([this, graph] { launch(graph); });
        }
        threads.emplace_back([this] { come_and_go(); });
        for (int i = 0; i < 2; ++i) threads.emplace_back([this] { look(); });
        for (std::thread& thread : threads) thread.join();
        const CrumbContents found = read_all(pages_);
        counts_.require(found.damaged == 0, "something was left half written");
        for (std::size_t i = 0; i < graphs_.size(); ++i) {
            counts_.require(found.graphs.at(i).finished == kReplays, "replays were lost");
        }
    }

  private:
    static constexpr std::uint64_t kReplays = 2000;

    void launch(std::uint32_t graph) {
        for (std::uint64_t i = 0; i < kReplays; ++i) {
            writer_.launch(graph);
            for (std::uint32_t mark = 0; mark < 3; ++mark) writer_.pass(graph, mark);
        }
    }

    void come_and_go() {
        for (int i = 0; i < 300; ++i) {
            const std::string text = "call " + std::to_string(i % 40);
            const std::array<std::string_view, 2> texts{text, text};
            const auto graph = writer_.add(texts, CrumbKind::kEmulated, 0);
            counts_.require(graph.has_value(), "a quiet place was not used again");
            if (!graph) return;
            writer_.describe(*graph, "graph", static_cast<std::uint64_t>(i), texts);
            writer_.describe(graphs_[0], "described", 1, {});
            writer_.retire(*graph);
        }
    }

    void look() {
        std::uint64_t last = 0;
        for (int i = 0; i < 200; ++i) {
            const CrumbContents found = read_all(pages_);
            counts_.require(found.error.empty(), "a header was torn");
            for (const CrumbGraph& graph : found.graphs) {
                counts_.require(graph.finished <= graph.launched, "more finished than launched");
                counts_.require(graph.reached <= graph.marks, "more reached than there are");
            }
            if (found.damaged != 0 || found.graphs.size() < graphs_.size()) continue;
            counts_.require(found.graphs[1].finished >= last, "a replay was taken back");
            last = found.graphs[1].finished;
        }
    }

    Counts& counts_;
    Pages pages_;
    CrumbWriter writer_;
    std::array<std::uint32_t, 2> graphs_{};
};

}  // namespace
}  // namespace graphguard::stress

int main(int argc, char** argv) {
    using namespace graphguard::stress;
    if (argc != 3) {
        std::cerr << "usage: graphguard_breadcrumbs_stress SEED ROUNDS\n";
        return 1;
    }
    const std::uint64_t seed = std::strtoull(argv[1], nullptr, 10);
    const std::uint64_t rounds = std::strtoull(argv[2], nullptr, 10);
    Counts counts;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        Captures(seed + round, counts).run();
        if (round % 20 == 0) Threads(counts).run();
    }
    std::cout << (counts.failures == 0 ? "ok" : "FAILED") << " graphs=" << counts.graphs
              << " marks=" << counts.marks << " refusals=" << counts.refusals
              << " readings=" << counts.readings << " failures=" << counts.failures << '\n';
    return counts.failures == 0 ? 0 : 1;
}
