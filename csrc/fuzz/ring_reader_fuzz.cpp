// Reads whatever the fuzzer makes up as a black box. Besides what the sanitizers see, what is read
// must hold together: whoever gets it relies on that and checks nothing again.
//
// tests/data/ring-corpus has inputs that reach whatever was reached so far, and every input that
// once found a fault. After a run it is made anew with
//
//     graphguard_ring_fuzz -set_cover_merge=1 -max_len=3000 NEW tests/data/ring-corpus FOUND
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/ring_reader.h"
#include "fuzz/ring_input.h"

namespace graphguard::fuzz {
namespace {

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::abort();
}

// Memory of exactly this size, so that a read beyond it is seen.
RingContents read_at(std::span<const std::uint8_t> file, std::size_t offset) {
    const auto memory = std::make_unique<std::byte[]>(file.size() + offset);
    if (!file.empty()) std::memcpy(memory.get() + offset, file.data(), file.size());
    return read_ring({memory.get() + offset, file.size()});
}

void require_order(const RingContents& contents) {
    std::uint64_t last = 0;
    for (const RingRecord& record : contents.records) {
        require(record.number > last, "numbers rise");
        require(record.time_ns <= std::uint64_t{std::numeric_limits<std::int64_t>::max()},
                "a time fits into 64 bits with a sign");
        last = record.number;
    }
}

void require_sense(const RingContents& contents, std::size_t bytes) {
    if (!contents.error.empty()) {
        require(contents.records.empty() && contents.names.empty() && contents.damaged == 0,
                "there is nothing where there is an error");
        return;
    }
    const std::size_t capacity = contents.identity.capacity;
    require(bytes == ring::bytes_for(contents.identity.capacity), "the capacity is the file's");
    require(contents.identity.host.size() <= ring::kHostBytes, "a host fits its field");
    require(contents.names.size() <= ring::kNameSlots, "names fit their slots");
    require(contents.names.empty() || contents.names.back().has_value(), "the last name is there");
    for (const auto& name : contents.names) {
        require(!name || name->size() <= ring::kNameBytes, "a name fits its slot");
    }
    require(contents.records.size() + contents.damaged <= capacity + ring::kNameSlots,
            "no slot counts twice");
    require(contents.records.capacity() <= 2 * capacity, "no more memory than the file implies");
    require_order(contents);
}

void require_same(const RingContents& a, const RingContents& b) {
    require(a.error == b.error && a.names == b.names && a.damaged == b.damaged &&
                a.written == b.written && a.records.size() == b.records.size(),
            "where the bytes lie does not matter");
    for (std::size_t i = 0; i < a.records.size(); ++i) {
        const auto words = [](const RingRecord& each) {
            return ring::pack(each.number, each.time_ns, each.fields);
        };
        require(words(a.records[i]) == words(b.records[i]),
                "where the bytes lie does not matter to a record");
    }
}

}  // namespace
}  // namespace graphguard::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace graphguard::fuzz;
    const std::vector<std::uint8_t> file = expand({data, size});
    const graphguard::RingContents contents = read_at(file, 0);
    require_sense(contents, file.size());
    require_same(contents, read_at(file, 1));
    return 0;
}
