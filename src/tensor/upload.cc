#include "tensor/upload.h"

#include <algorithm>
#include <cstring>

namespace nibble {
namespace {

constexpr size_t kPinnedBytes = size_t{64} << 20;
constexpr size_t kPiece = size_t{8} << 20;  // is filled while the one before is on its way
constexpr int64_t kGrain = 256 << 10;       // of one thread

}  // namespace

Result<std::unique_ptr<Upload>> Upload::open(Context& cx) {
  NIBBLE_CHECK(cx.device.is_cuda());
  NIBBLE_TRY(pinned, PinnedBuffer::allocate(kPinnedBytes));
  return std::unique_ptr<Upload>(new Upload(cx, std::move(pinned)));
}

void Upload::copy(const void* from, void* to, size_t bytes) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  for (size_t done = 0; done < bytes;) {
    if (used_ == pinned_.bytes()) {
      // Its start is needed again. What is still on its way is the last piece; a failure is reported by who waits last.
      (void)cx_.stream->wait();
      used_ = 0;
    }
    const size_t piece = std::min({bytes - done, kPiece, pinned_.bytes() - used_});
    std::byte* const staged = pinned_.data() + used_;
    cx_.pool.parallel_for(static_cast<int64_t>(piece), kGrain, [&](int64_t begin, int64_t end) {
      std::memcpy(staged + begin, source + done + begin, static_cast<size_t>(end - begin));
    });
    cx_.stream->copy(staged, target + done, piece);
    used_ += piece;
    done += piece;
  }
}

}  // namespace nibble
