#include "cuda/graph_walk.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "cuda/node_reading.h"

namespace graphguard::cuda {

namespace {

// The bytes of whatever tells kernel launches apart.
struct Launch {
    Handle function = nullptr;
    Extent grid{};
    Extent block{};
    std::uint32_t shared_bytes = 0;
    std::uint32_t unused = 0;

    [[nodiscard]] std::string_view bytes() const {
        return {reinterpret_cast<const char*>(this), sizeof *this};
    }
    bool operator==(const Launch& other) const { return bytes() == other.bytes(); }
};
static_assert(sizeof(Launch) == 40, "no padding, or equal launches would have different bytes");

struct LaunchHash {
    std::size_t operator()(const Launch& launch) const {
        return std::hash<std::string_view>{}(launch.bytes());
    }
};

class Walk {
  public:
    explicit Walk(const Driver& driver) : functions_(driver.functions()), reader_(driver) {}

    GraphContents take(Handle graph) {
        std::vector<Handle> nodes;
        if (!nodes_of(graph, nodes)) {
            contents_.error = "the driver did not say which nodes the graph has";
        }
        visit(nodes, 0);
        return std::move(contents_);
    }

  private:
    // The nodes of a graph; false if the driver does not say.
    bool nodes_of(Handle graph, std::vector<Handle>& nodes) {
        if (graph == nullptr || functions_.get_nodes == nullptr) return false;
        std::size_t num_nodes = 0;
        if (functions_.get_nodes(graph, nullptr, &num_nodes) != kSuccess) return false;
        const std::size_t room = kMaxGraphNodes - std::min(seen_, kMaxGraphNodes);
        if (num_nodes > room) {
            contents_.error = "the graph has more than " + std::to_string(kMaxGraphNodes) +
                              " nodes; only as many were looked at";
            num_nodes = room;
        }
        nodes.resize(num_nodes);
        if (num_nodes == 0) return true;
        if (functions_.get_nodes(graph, nodes.data(), &num_nodes) != kSuccess) {
            nodes.clear();
            return false;
        }
        // It says again how many there are, and fills what is left with nulls.
        nodes.resize(std::min(num_nodes, nodes.size()));
        std::erase(nodes, nullptr);
        seen_ += nodes.size();
        return true;
    }

    void visit(const std::vector<Handle>& nodes, int depth) {
        for (Handle const node : nodes) visit_node(node, depth);
    }

    void visit_node(Handle node, int depth) {
        NodeType type{};
        if (functions_.get_node_type == nullptr ||
            functions_.get_node_type(node, &type) != kSuccess) {
            return keep_unreadable("unknown");
        }
        switch (type) {
            case NodeType::kKernel:
                return visit_kernel(node);
            case NodeType::kChild:
            case NodeType::kConditional:
                return visit_holder(node, type, depth);
            default:
                break;
        }
        GraphNode described{.kind = kind_of(type)};
        if (!reader_.describe(node, type, described)) return keep_unreadable(kind_of(type));
        contents_.nodes.push_back(std::move(described));
    }

    void visit_kernel(Handle node) {
        KernelNodeParams params{};
        if (!reader_.kernel_params(node, params)) return keep_unreadable("kernel");
        const Launch launch{params.function != nullptr ? params.function : params.kernel,
                            {params.grid[0], params.grid[1], params.grid[2]},
                            {params.block[0], params.block[1], params.block[2]},
                            params.shared_bytes};
        const auto [place, is_new] = launches_.try_emplace(launch, contents_.nodes.size());
        if (is_new) {
            const KernelDescription& kernel = reader_.kernel(params);
            contents_.nodes.push_back({"kernel", kernel.name, launch.grid, launch.block,
                                       launch.shared_bytes, kernel.parameter_bytes, 0});
        }
        GraphNode& described = contents_.nodes[place->second];
        ++described.count;
        if (described.name == kUnreadable) ++contents_.unreadable;
    }

    void visit_holder(Handle node, NodeType type, int depth) {
        std::vector<Handle> graphs;
        std::string what;
        if (depth >= kMaxGraphDepth || !reader_.held_graphs(node, type, graphs, what)) {
            return keep_unreadable(kind_of(type));
        }
        std::string sizes;
        bool all_read = true;
        for (Handle const graph : graphs) {
            std::vector<Handle> nodes;
            all_read = nodes_of(graph, nodes) && all_read;
            sizes += (sizes.empty() ? "" : ", ") + std::to_string(nodes.size());
            visit(nodes, depth + 1);
        }
        if (!all_read) return keep_unreadable(kind_of(type));
        contents_.nodes.push_back({.kind = kind_of(type),
                                   .name = (what.empty() ? what : what + ": ") + sizes + " nodes"});
    }

    void keep_unreadable(std::string kind) {
        ++contents_.unreadable;
        contents_.nodes.push_back({.kind = std::move(kind), .name = kUnreadable});
    }

    const Functions& functions_;
    NodeReader reader_;
    GraphContents contents_;
    std::unordered_map<Launch, std::size_t, LaunchHash> launches_;
    std::size_t seen_ = 0;
};

}  // namespace

GraphContents walk_graph(const Driver& driver, Handle graph) {
    if (!driver.present()) return {{}, 0, driver.absence()};
    const RelaxedCaptureMode relaxed(driver);
    return Walk(driver).take(graph);
}

}  // namespace graphguard::cuda
