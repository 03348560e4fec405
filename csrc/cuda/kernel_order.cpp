#include "cuda/kernel_order.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <unordered_map>
#include <utility>

#include "cuda/graph_walk.h"
#include "cuda/node_reading.h"

namespace graphguard::cuda {

namespace {

class Ordering {
  public:
    explicit Ordering(const Driver& driver) : functions_(driver.functions()), reader_(driver) {}

    KernelOrder take(Handle graph) {
        if (!read_nodes(graph)) {
            order_.error = "the driver did not say which nodes the graph has";
        } else if (!read_edges(graph)) {
            order_.error = "the driver did not say how the nodes of the graph depend on each other";
        } else {
            follow();
        }
        return std::move(order_);
    }

  private:
    bool read_nodes(Handle graph) {
        std::size_t count = 0;
        if (graph == nullptr || functions_.get_nodes == nullptr ||
            functions_.get_nodes(graph, nullptr, &count) != kSuccess || count > kMaxGraphNodes) {
            return false;
        }
        nodes_.resize(count);
        if (count != 0 && functions_.get_nodes(graph, nodes_.data(), &count) != kSuccess) {
            return false;
        }
        nodes_.resize(std::min(count, nodes_.size()));
        places_.reserve(nodes_.size());
        for (std::size_t i = 0; i < nodes_.size(); ++i) places_.emplace(nodes_[i], i);
        return true;
    }

    // The annotated form where there is one: the driver refuses the other for edges that say more
    // than that one node runs after the other.
    Result ask_edges(Handle graph, Handle* from, Handle* to, EdgeData* data, std::size_t* count) {
        if (functions_.get_edges_v2 != nullptr) {
            return functions_.get_edges_v2(graph, from, to, data, count);
        }
        return functions_.get_edges == nullptr ? -1 : functions_.get_edges(graph, from, to, count);
    }

    bool read_edges(Handle graph) {
        after_.resize(nodes_.size());
        waits_for_.resize(nodes_.size());
        std::size_t count = 0;
        if (ask_edges(graph, nullptr, nullptr, nullptr, &count) != kSuccess) return false;
        if (count == 0) return true;
        std::vector<Handle> from(count);
        std::vector<Handle> to(count);
        std::vector<EdgeData> data(count);
        if (ask_edges(graph, from.data(), to.data(), data.data(), &count) != kSuccess) return false;
        for (std::size_t i = 0; i < std::min(count, from.size()); ++i) {
            const auto first = places_.find(from[i]);
            const auto second = places_.find(to[i]);
            if (first == places_.end() || second == places_.end()) continue;
            after_[first->second].push_back(second->second);
            ++waits_for_[second->second];
        }
        return true;
    }

    void follow() {
        std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> ready;
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            if (waits_for_[i] == 0) ready.push(i);
        }
        while (!ready.empty()) {
            const std::size_t place = ready.top();
            ready.pop();
            keep_kernel(nodes_[place]);
            for (const std::size_t next : after_[place]) {
                if (--waits_for_[next] == 0) ready.push(next);
            }
        }
    }

    void keep_kernel(Handle node) {
        NodeType type{};
        KernelNodeParams params{};
        if (functions_.get_node_type == nullptr ||
            functions_.get_node_type(node, &type) != kSuccess || type != NodeType::kKernel ||
            !reader_.kernel_params(node, params)) {
            return;
        }
        const Handle function = params.function != nullptr ? params.function : params.kernel;
        const auto next = static_cast<std::uint32_t>(order_.names.size());
        const auto [known, is_new] = names_.try_emplace(function, next);
        if (is_new) order_.names.push_back(reader_.kernel(params).name);
        order_.kernels.push_back({node, known->second});
    }

    const Functions& functions_;
    NodeReader reader_;
    KernelOrder order_;
    std::vector<Handle> nodes_;
    std::unordered_map<Handle, std::size_t> places_;
    std::vector<std::vector<std::size_t>> after_;
    std::vector<std::size_t> waits_for_;
    std::unordered_map<Handle, std::uint32_t> names_;
};

}  // namespace

KernelOrder kernels_in_order(const Driver& driver, Handle graph) {
    if (!driver.present()) return {{}, {}, driver.absence()};
    const RelaxedCaptureMode relaxed(driver);
    return Ordering(driver).take(graph);
}

}  // namespace graphguard::cuda
