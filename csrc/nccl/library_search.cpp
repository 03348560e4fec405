#include "nccl/library_search.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

namespace graphguard::nccl {

namespace {

constexpr std::string_view kName = "libnccl.so.2";

// Device and inode: a path may lead to the interposer through any number of links.
using File = std::pair<dev_t, ino_t>;

std::optional<File> file_of(const std::string& path) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
    return File{status.st_dev, status.st_ino};
}

std::string own_path() {
    Dl_info info{};
    return dladdr(reinterpret_cast<void*>(&own_path), &info) != 0 ? info.dli_fname : "";
}

std::vector<std::string> loaded_objects() {
    std::vector<std::string> paths;
    const auto add = [](dl_phdr_info* info, std::size_t, void* into) {
        if (info->dlpi_name != nullptr && *info->dlpi_name == '/') {
            static_cast<std::vector<std::string>*>(into)->emplace_back(info->dlpi_name);
        }
        return 0;
    };
    dl_iterate_phdr(add, &paths);
    return paths;
}

bool is_nccl(std::string_view path) {
    return path.substr(path.rfind('/') + 1).starts_with("libnccl.so");
}

// The folder that a package was installed into: NVIDIA's wheels install beside torch and cupy.
std::string packages_of(std::string_view path) {
    for (const std::string_view folder : {"/site-packages/", "/dist-packages/"}) {
        const std::size_t at = path.rfind(folder);
        if (at != std::string_view::npos) return std::string(path.substr(0, at + folder.size()));
    }
    return "";
}

// LD_LIBRARY_PATH and the loader's default directories.
std::vector<std::string> loader_directories() {
    std::vector<std::string> directories;
    void* const program = dlopen(nullptr, RTLD_NOW);
    Dl_serinfo size{};
    if (program == nullptr || dlinfo(program, RTLD_DI_SERINFOSIZE, &size) != 0) return directories;
    std::vector<char> memory(size.dls_size);
    auto* const found = reinterpret_cast<Dl_serinfo*>(memory.data());
    *found = size;
    if (dlinfo(program, RTLD_DI_SERINFO, found) != 0) return directories;
    for (unsigned int index = 0; index < found->dls_cnt; ++index) {
        directories.emplace_back(found->dls_serpath[index].dls_name);
    }
    return directories;
}

// What the loader's cache says. It would answer to the name with the version with the interposer,
// but the link without one, which comes with NCCL's headers, is another name to it.
std::string cached_path() {
    void* const handle = dlopen("libnccl.so", RTLD_LAZY | RTLD_LOCAL);
    link_map* map = nullptr;
    if (handle == nullptr || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) return "";
    return map->l_name;
}

class Candidates {
  public:
    void add(std::string path) {
        if (path.empty() || path.front() != '/') return;
        const std::optional<File> file = file_of(path);
        if (!file.has_value() || file == own_ || std::ranges::count(files_, *file) != 0) return;
        files_.push_back(*file);
        paths_.push_back(std::move(path));
    }

    std::vector<std::string> take() { return std::move(paths_); }

  private:
    std::optional<File> own_ = file_of(own_path());
    std::vector<File> files_;
    std::vector<std::string> paths_;
};

std::string absolute(const char* path) {
    char* const resolved = realpath(path, nullptr);
    const std::string text = resolved != nullptr ? resolved : "";
    std::free(resolved);
    return text;
}

}  // namespace

std::vector<std::string> library_candidates() {
    Candidates candidates;
    if (const char* chosen = std::getenv("GRAPHGUARD_NCCL_SO"); chosen != nullptr && *chosen) {
        candidates.add(absolute(chosen));
        return candidates.take();
    }
    const std::vector<std::string> objects = loaded_objects();
    for (const std::string& path : objects) {
        if (is_nccl(path)) candidates.add(path);
    }
    const std::string wheel = "nvidia/nccl/lib/" + std::string(kName);
    for (const std::string& path : objects) {
        const std::string packages = packages_of(path);
        if (!packages.empty()) candidates.add(packages + wheel);
    }
    for (const std::string& directory : loader_directories()) {
        candidates.add(directory + "/" + std::string(kName));
    }
    candidates.add(cached_path());
    return candidates.take();
}

}  // namespace graphguard::nccl
