// A library that is linked with NCCL, as torch and cupy are: DT_NEEDED libnccl.so.2, and a path to
// the real one of its own.
#include <cstddef>

extern "C" {

int ncclAllReduce(const void*, void*, std::size_t, int, int, void*, void*);

__attribute__((visibility("default"))) int consumer_all_reduce(std::size_t count,
                                                               void* communicator, void* stream) {
    return ncclAllReduce(nullptr, nullptr, count, 7, 0, communicator, stream);
}

#ifdef GRAPHGUARD_NEWER_NCCL
int ncclOfTheFuture();

__attribute__((visibility("default"))) int consumer_of_the_future() {
    return ncclOfTheFuture();
}
#endif
}
