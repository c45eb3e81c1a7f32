// For tests: a folder of its own, removed with everything in it at the end.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"

namespace nibble::train {

class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "nibble-train-XXXXXX").string();
    dir_ = ::mkdtemp(name.data());
  }
  ~TestFolder() { std::filesystem::remove_all(dir_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  Path operator/(const Path& name) const { return dir_ / name; }
  Path write(const Path& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return dir_ / name;
  }

 private:
  Path dir_;
};

}  // namespace nibble::train
