#include "tensor/marks.h"

#include <cstring>

#include "base/clock.h"

namespace nibble {

Result<Marks> Marks::create(const Context& cx, size_t most) {
  Marks marks(cx);
  marks.most_ = most;
  NIBBLE_TRY(times, Buffer::on(cx.device, bytes_needed(most)));
  marks.times_ = std::move(times);
  marks.ops_.reserve(most);
  return marks;
}

void Marks::write() {
  uint64_t* to = reinterpret_cast<uint64_t*>(times_.data()) + ops_.size();
  if (cx_->device.is_cuda()) return write_clock_cuda(*cx_, to);
  *to = static_cast<uint64_t>(now_s() * 1e9);
}

void Marks::begin() {
  ops_.clear();
  write();
}

void Marks::mark(uint8_t op) {
  NIBBLE_CHECK(ops_.size() < most_);
  ops_.push_back(op);
  write();
}

Result<std::vector<Lap>> Marks::laps() {
  std::vector<uint64_t> times(ops_.size() + 1);
  const size_t bytes = times.size() * sizeof(uint64_t);
  if (cx_->device.is_cuda()) {
    cx_->stream->copy(times_.data(), times.data(), bytes);
    NIBBLE_RETURN_IF_ERROR(cx_->stream->wait());
  } else {
    std::memcpy(times.data(), times_.data(), bytes);
  }
  std::vector<Lap> laps;
  for (size_t i = 0; i < ops_.size(); ++i) {
    laps.push_back({ops_[i], static_cast<double>(times[i + 1] - times[i]) * 1e-3});
  }
  return laps;
}

}  // namespace nibble
