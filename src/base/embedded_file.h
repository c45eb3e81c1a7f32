// A file that was compiled into the binary (cmake/embed.cmake).
#pragma once

#include <span>
#include <string_view>

namespace nibble {

struct EmbeddedFile {
  std::string_view path;  // relative to the folder that was embedded
  std::string_view text;
};

}  // namespace nibble
