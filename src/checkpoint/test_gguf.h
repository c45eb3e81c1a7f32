// GGUF files that tests make, load and change.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "checkpoint/gguf_export.h"
#include "checkpoint/gguf_unpack.h"
#include "checkpoint/load.h"
#include "io/gguf.h"

namespace nibble::checkpoint::testing {

/// These must succeed; if they do not, the test fails and what comes back is empty.
GgufExport exported(const Path& folder, const Path& file, std::optional<GgufMatrices> matrices = std::nullopt);
LoadedModel loaded(const Path& path);
GgufUnpack unpacked(const Path& file, const Path& folder);

/// The same file without some keys, and with changes to tensors.
using Edit = std::function<void(std::string_view name, std::span<std::byte> bytes)>;
/// What stands in a tensor's place, in its shape.
struct Replacement {
  GgmlType type;
  std::span<const std::byte> bytes;
};
using Replace = std::function<std::optional<Replacement>(std::string_view name)>;
void rewrite(const Path& from, const Path& to, const std::function<bool(std::string_view key)>& keep,
             const Edit& edit = {}, const Replace& replace = {});

/// A folder with r = Hv/Hk value heads per key head, every tensor random, as BF16 but for released F32 vectors.
void write_random(const Path& folder, int64_t ratio, bool tied, int64_t mtp, int64_t hidden = 64);

}  // namespace nibble::checkpoint::testing
