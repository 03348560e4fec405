// Measures a call of NCCL through the interposer against the same call without it, of an NCCL that
// does nothing.
//
//   graphguard_interposer_bench INTERPOSER NCCL [DRIVER]
//
// Prints JSON, in nanoseconds a call, each the median of repetitions that take turns: an all-reduce
// directly, through the interposer while nothing is recorded, and while it is; and a function that
// is only passed on, directly and through the interposer. With DRIVER, each recorded call asks it
// whether its stream is being captured.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <vector>

#include "nccl/call_record.h"
#include "nccl/nccl_types.h"

namespace graphguard::nccl {
namespace {

constexpr std::size_t kCalls = 10'000;
constexpr std::size_t kRepetitions = 31;

using AllReduce = Result(const void*, void*, std::size_t, int, int, Communicator, Stream);
using GetVersion = Result(int*);
using InitRank = Result(Communicator*, int, UniqueId, int);
using Begin = std::int32_t(std::uint64_t);
using Take = std::size_t(std::uint64_t, CallRecord*, std::size_t, std::uint64_t*);

class Library {
  public:
    explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        if (handle_ == nullptr) fail(path);
    }

    template <typename Function>
    [[nodiscard]] Function* find(const char* name) const {
        void* const found = dlsym(handle_, name);
        if (found == nullptr) fail(name);
        return reinterpret_cast<Function*>(found);
    }

  private:
    [[noreturn]] static void fail(const char* what) {
        std::cerr << "cannot load " << what << "\n";
        std::exit(1);
    }

    void* handle_;
};

template <typename Call>
double once(const Call& call) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t index = 0; index < kCalls; ++index) call();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    return taken.count() / static_cast<double>(kCalls);
}

class Series {
  public:
    template <typename Call>
    void measure(const Call& call) {
        times_.push_back(once(call));
    }

    [[nodiscard]] double median() {
        const auto middle = times_.begin() + static_cast<std::ptrdiff_t>(times_.size() / 2);
        std::nth_element(times_.begin(), middle, times_.end());
        return *middle;
    }

  private:
    std::vector<double> times_;
};

struct Figures {
    Series direct, idle, recorded, passed_directly, passed_on;
};

void measure(const Library& interposer, const Library& real, Figures& figures) {
    auto* const direct = real.find<AllReduce>("ncclAllReduce");
    auto* const interposed = interposer.find<AllReduce>("ncclAllReduce");
    auto* const version = real.find<GetVersion>("ncclGetVersion");
    auto* const passed_version = interposer.find<GetVersion>("ncclGetVersion");
    auto* const begin = interposer.find<Begin>("graphguard_nccl_begin");
    auto* const end = interposer.find<Begin>("graphguard_nccl_end");
    auto* const take = interposer.find<Take>("graphguard_nccl_take");
    Communicator communicator = nullptr;
    interposer.find<InitRank>("ncclCommInitRank")(&communicator, 2, UniqueId{}, 0);
    auto* const stream = reinterpret_cast<Stream>(std::uintptr_t{100});
    std::vector<CallRecord> taken(kCalls);
    const auto call = [&](AllReduce* function) {
        return [=] { function(nullptr, nullptr, 1024, 7, 0, communicator, stream); };
    };
    int answer = 0;
    for (std::size_t repetition = 0; repetition < kRepetitions; ++repetition) {
        figures.direct.measure(call(direct));
        figures.idle.measure(call(interposed));
        begin(0);
        figures.recorded.measure(call(interposed));
        end(0);
        if (take(0, taken.data(), taken.size(), nullptr) != kCalls) std::exit(1);
        figures.passed_directly.measure([&] { version(&answer); });
        figures.passed_on.measure([&] { passed_version(&answer); });
    }
}

}  // namespace
}  // namespace graphguard::nccl

int main(int argc, char** argv) {
    if (argc < 3) return 1;
    setenv("GRAPHGUARD_NCCL_SO", argv[2], 1);
    setenv("GRAPHGUARD_CUDA_DRIVER", argc > 3 ? argv[3] : "/nowhere/libcuda.so.1", 1);
    const graphguard::nccl::Library real(argv[2]);
    const graphguard::nccl::Library interposer(argv[1]);
    graphguard::nccl::Figures figures;
    graphguard::nccl::measure(interposer, real, figures);
    std::cout << "{\"direct\": " << figures.direct.median()
              << ", \"idle\": " << figures.idle.median()
              << ", \"recorded\": " << figures.recorded.median()
              << ", \"passed_directly\": " << figures.passed_directly.median()
              << ", \"passed_on\": " << figures.passed_on.median() << "}\n";
    return 0;
}
