// Feeds files to a fuzz target, for compilers that come without a fuzzer.
//
//     graphguard_…_replay FILE…
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
    int files = 0;
    for (int i = 1; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        if (!file) {
            std::cerr << "cannot be read: " << argv[i] << "\n";
            return EXIT_FAILURE;
        }
        const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
        // Said before, so that the last line names the file that ended it.
        std::cerr << argv[i] << "\n";
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        ++files;
    }
    std::cout << "ok files=" << files << "\n";
    return EXIT_SUCCESS;
}
