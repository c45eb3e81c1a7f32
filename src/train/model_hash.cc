#include "train/model_hash.h"

#include <algorithm>
#include <bit>

#include "base/sha256.h"

namespace nibble::train {
namespace {

// Values are hashed in pieces of this size, side by side, and the pieces' hashes one after the other.
constexpr size_t kPiece = size_t{8} << 20;

struct Part {
  std::string name;  // with format, shape and scales
  std::vector<std::span<const std::byte>> pieces;
};

class Collector : public model::WeightsVisitor {
 public:
  void linear(const std::string& name, ops::Linear& w, int64_t, int64_t) override {
    const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
    Part& part = parts.emplace_back();
    part.name = fmt::format("{} {} {} {} {:08x} {:08x}", name, nibble::name(w.weight.dtype()), w.out, w.in,
                            bits(w.tensor_scale), bits(w.inputs == ops::InputRounding::none ? 0 : w.input_scale));
    if (w.inputs == ops::InputRounding::nvfp4_token) part.name += " nvfp4_token";
    if (w.inputs == ops::InputRounding::fp8) part.name += " fp8";
    add(w.weight, part);
    for (const Tensor* tensor : {&w.block_scale, &w.channel_scale, &w.low_rank_a, &w.low_rank_b}) {
      if (!tensor->empty()) add(*tensor, part);
    }
  }
  void tensor(const std::string& name, Tensor& tensor, const Shape& shape, model::TensorKind) override {
    Part& part = parts.emplace_back();
    part.name = fmt::format("{} {} {}", name, nibble::name(tensor.dtype()), shape.text());
    add(tensor, part);
  }

  std::vector<Part> parts;
  size_t bytes = 0;

 private:
  void add(const Tensor& tensor, Part& part) {
    const std::span all(static_cast<const std::byte*>(tensor.raw()), tensor.bytes());
    for (size_t at = 0; at < all.size(); at += kPiece) {
      part.pieces.push_back(all.subspan(at, std::min(kPiece, all.size() - at)));
    }
    bytes += all.size();
  }
};

}  // namespace

Result<ModelHash> hash_model(Context& cx, model::Weights& weights, std::string_view description,
                             const Progress& progress) {
  Collector collector;
  model::visit_weights(weights, collector);
  Collector head;
  head.linear("lm_head", weights.lm_head, weights.lm_head.out, weights.lm_head.in);
  collector.parts.push_back(std::move(head.parts.front()));  // the last: once more where it has a tensor of its own
  collector.bytes += head.bytes;

  std::vector<std::span<const std::byte>> pieces;
  for (const Part& part : collector.parts) pieces.insert(pieces.end(), part.pieces.begin(), part.pieces.end());
  std::vector<std::string> digests(pieces.size());
  const size_t at_once = 4 * static_cast<size_t>(cx.pool.threads());
  size_t read = 0;
  for (size_t begin = 0; begin < pieces.size(); begin += at_once) {
    if (cx.cancel.cancelled()) return cancelled("teacher: stopped while its weights were read");
    const size_t count = std::min(at_once, pieces.size() - begin);
    cx.pool.parallel_for(static_cast<int64_t>(count), 1, [&](int64_t from, int64_t to) {
      for (auto i = begin + static_cast<size_t>(from); i < begin + static_cast<size_t>(to); ++i) {
        digests[i] = Sha256().add_values(pieces[i]).hex();
      }
    });
    for (size_t i = begin; i < begin + count; ++i) read += pieces[i].size();
    report(progress, read, collector.bytes, "");
  }
  for (const MappedFile& file : weights.mappings) file.drop(0, file.bytes().size());

  ModelHash hash;
  Sha256 all;
  all.add(description);
  auto digest = digests.begin();
  for (const Part& part : collector.parts) {
    Sha256 one;
    one.add(part.name);
    for (size_t i = 0; i < part.pieces.size(); ++i) one.add(*digest++);
    hash.head = one.hex();
    all.add(hash.head);
  }
  hash.all = all.hex();
  return hash;
}

}  // namespace nibble::train
