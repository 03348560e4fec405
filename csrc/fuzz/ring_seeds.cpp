// Writes the inputs from which the fuzzer of the black box's reader starts.
//
//     graphguard_ring_seeds FOLDER
//
// Each is a box that the writer wrote, as a whole file or in the short form of ring_input.h, with
// and without repairs.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "core/ring.h"
#include "fuzz/ring_input.h"
#include "stress/known_records.h"

namespace graphguard::fuzz {
namespace {

constexpr std::array<std::uint8_t, 4> kRepairs = {
    0,
    kRepairHeader | kRepairSize,
    kRepairHeader | kRepairSize | kRepairRecords | kRepairNumbers,
    kRepairHeader | kRepairSize | kRepairRecords | kRepairNumbers | kRepairNames,
};

struct Shape {
    std::uint32_t capacity = 0;
    std::uint8_t names = 0;
    std::uint32_t records = 0;
};

// Empty, part full, full and several times round.
constexpr std::array<Shape, 6> kShapes = {
    {{1, 0, 0}, {1, 1, 3}, {2, 1, 4}, {4, 2, 1}, {8, 3, 7}, {16, 2, 100}}};

class BoxOf {
  public:
    explicit BoxOf(const Shape& shape)
        : words_(RingWriter::bytes_for(shape.capacity) / sizeof(std::uint64_t)) {
        RingWriter writer(std::as_writable_bytes(std::span(words_)),
                          {1, 2, 4711, "seed.example", shape.capacity});
        for (std::uint8_t i = 0; i < shape.names; ++i) {
            writer.name("role " + std::string(std::size_t{i} * 100, 'x'));
        }
        for (std::uint32_t i = 1; i <= shape.records; ++i) {
            writer.write(stress::known_record(static_cast<std::uint16_t>(i % 3), i));
        }
    }

    [[nodiscard]] std::span<const std::byte> bytes() const {
        return std::as_bytes(std::span(words_));
    }

  private:
    std::vector<std::uint64_t> words_;
};

void write(const std::string& path, const std::vector<std::uint8_t>& input) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(input.data()),
               static_cast<std::streamsize>(input.size()));
    if (!file.flush()) throw std::runtime_error("cannot be written: " + path);
}

void write_seeds(const std::string& folder) {
    int number = 0;
    const auto next = [&] { return folder + "/seed-" + std::to_string(number++); };
    for (const Shape& shape : kShapes) {
        const BoxOf box(shape);
        for (const std::uint8_t repairs : kRepairs) {
            write(next(), compress(box.bytes(), repairs, shape.names));
        }
    }
    std::vector<std::uint8_t> raw = {kRaw};
    for (const std::byte byte : BoxOf(kShapes[1]).bytes()) {
        raw.push_back(std::to_integer<std::uint8_t>(byte));
    }
    write(next(), raw);
    raw.resize(raw.size() / 2);
    write(next(), raw);
}

}  // namespace
}  // namespace graphguard::fuzz

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: graphguard_ring_seeds FOLDER\n";
        return EXIT_FAILURE;
    }
    try {
        graphguard::fuzz::write_seeds(argv[1]);
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
