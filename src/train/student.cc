#include "train/student.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/modelopt_export.h"
#include "io/safetensors.h"
#include "ops/optim/squared_norm.h"
#include "ops/quant/nvfp4.h"
#include "quantize/quantize.h"

namespace nibble::train {

using model::TensorKind;

namespace {

bool is_decay_or_write_gate(std::string_view name) {
  return name.find("in_proj_a.") != std::string_view::npos || name.find("in_proj_b.") != std::string_view::npos;
}

bool is_norm(TensorKind kind) {
  return kind == TensorKind::norm || kind == TensorKind::gated_norm;
}

std::string module_of(std::string_view tensor_name) {
  return std::string(tensor_name.substr(0, tensor_name.size() - checkpoint::kWeightSuffix.size()));
}

void copy_values(const Tensor& from, const Tensor& to) {
  NIBBLE_CHECK(from.bytes() == to.bytes());
  std::memcpy(to.raw(), from.raw(), from.bytes());
}

Tensor flat(const Tensor& t) {
  return t.empty() ? t : t.reshape({t.elements()});
}

// f32 of a stored tensor.
void widen(const Tensor& stored, const Tensor& to) {
  if (stored.dtype() == DType::f32) return copy_values(stored, to);
  const uint16_t* from = stored.bf16();
  float* out = to.f32();
  for (int64_t i = 0; i < stored.elements(); ++i) out[i] = bf16_to_f32(from[i]);
}

}  // namespace

bool is_block_linear(std::string_view name, TensorKind kind) {
  return kind == TensorKind::linear && name != "lm_head.weight" && !is_decay_or_write_gate(name);
}

// Both walks of visit_weights, over weights and over gradients, become slots.
class Student::Collector : public model::WeightsVisitor {
 public:
  explicit Collector(std::vector<Slot>& slots) : slots_(slots) {}
  void second_walk() { at_ = 0; }

  void linear(const std::string& name, ops::Linear& linear, int64_t out, int64_t in) override {
    if (at_ >= 0) {
      slots_[static_cast<size_t>(at_++)].gradient = &linear.weight;
      return;
    }
    Slot slot;
    slot.name = name + std::string(checkpoint::kWeightSuffix);
    slot.kind = TensorKind::linear;
    slot.shape = slot.file_shape = {out, in};
    slot.linear = &linear;
    slots_.push_back(std::move(slot));
  }
  void tensor(const std::string& name, Tensor& tensor, const Shape& shape, TensorKind kind) override {
    if (at_ >= 0) {
      slots_[static_cast<size_t>(at_++)].gradient = &tensor;
      return;
    }
    Slot slot;
    slot.name = name;
    slot.kind = kind;
    slot.shape = tensor.shape();
    slot.file_shape = shape;
    slot.tensor = &tensor;
    slots_.push_back(std::move(slot));
  }

 private:
  std::vector<Slot>& slots_;
  int64_t at_ = -1;
};

Tensor Student::own(DType type, const Shape& shape) {
  return buffers_.emplace_back(Buffer::for_tensor(type, shape)).tensor(type, shape);
}

Result<std::unique_ptr<Student>> Student::create(Context& cx, const Path& folder, checkpoint::LoadedModel model,
                                                 const StudentOptions& options) {
  std::unique_ptr<Student> student(new Student(options));
  NIBBLE_TRY(strategy, quantize::find_strategy(options.strategy));
  quantize::QuantizeOptions plan_options;
  plan_options.quantize = options.quantize;
  plan_options.exclude = options.exclude;
  if (!options.input_amax.empty()) {
    plan_options.recipe = quantize::uniform_recipe(quantize::Scales::max, quantize::Inputs::a4);
  }
  NIBBLE_TRY(job, quantize::plan_folder(folder, plan_options));
  student->strategy_ = strategy;
  student->weights_ = std::move(model.weights);
  NIBBLE_RETURN_IF_ERROR(student->find_slots(job.weights, !model.adapter.empty()));
  NIBBLE_RETURN_IF_ERROR(student->choose_quantized(job.plan));
  for (Slot& slot : student->slots_) {
    if (slot.stored.empty()) continue;
    if (options.lora.rank > 0) {
      student->make_adapter(slot);
    } else if (student->is_trained(slot)) {
      student->make_trained(slot);
    }
  }
  student->refresh(cx);
  for (Slot& slot : student->slots_) {
    if (slot.group >= 0) student->remember_codes(slot);
  }
  return student;
}

Status Student::find_slots(const SafetensorsFolder& files, bool merged_adapter) {
  gradients_ = model::blank_weights(weights_.config, weights_.prefix, weights_.tied);
  Collector collector(slots_);
  model::visit_weights(weights_, collector);
  collector.second_walk();
  model::visit_weights(gradients_, collector);

  const bool linears_change = options_.quantize || options_.lora.rank > 0 || merged_adapter;
  for (Slot& slot : slots_) {
    const SafetensorsFolder::Entry* entry = files.find(slot.name);
    if (entry == nullptr) return not_found("train: {}: expected it in the folder of the model, got none", slot.name);
    const TensorInfo& info = *entry->info;
    if (info.type != DType::bf16 && info.type != DType::f32) {
      return unsupported("train: {}: expected BF16 or F32, got {}", slot.name, info.dtype)
          .with_hint("F16 overflows in training; convert the checkpoint to BF16 first");
    }
    if (!is_trained(slot) && !(slot.linear != nullptr && linears_change)) continue;  // it keeps its mapped view
    slot.stored = own(*info.type, slot.shape);
    NIBBLE_TRY(in_file, entry->file->tensor(info));
    // A merged adapter is in memory alone; vectors are f32 there whatever the file holds.
    copy_values(slot.linear != nullptr ? slot.linear->weight : in_file, slot.stored);
  }
  return {};
}

Status Student::choose_quantized(const quantize::Plan& plan) {
  NIBBLE_TRY(input_scales, quantize::group_input_scales(plan, options_.input_amax));
  std::map<std::string_view, const quantize::PlannedTensor*> planned;
  for (const quantize::PlannedTensor& tensor : plan.tensors) {
    if (tensor.quantized()) planned.emplace(tensor.name, &tensor);
  }
  if (options_.tie_groups) groups_.resize(static_cast<size_t>(plan.groups));
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    const auto found = planned.find(slot.name);
    if (found == planned.end()) continue;
    if (!options_.tie_groups) groups_.emplace_back();
    slot.group = options_.tie_groups ? found->second->group : static_cast<int64_t>(groups_.size()) - 1;
    groups_[static_cast<size_t>(slot.group)].members.push_back(i);

    ops::Linear& linear = *slot.linear;
    linear.format = ops::WeightFormat::nvfp4;
    linear.weight = own(DType::u8, {linear.out, linear.in / 2});
    linear.block_scale = own(DType::f8e4m3, {linear.out, linear.in / kNvfp4Block});
    linear.input_scale = input_scales[static_cast<size_t>(found->second->group)];
    if (linear.input_scale > 0) linear.inputs = ops::InputRounding::nvfp4;
  }
  return {};
}

bool Student::is_trained(const Slot& slot) const {
  if (options_.lora.rank > 0) return false;
  if (options_.trainable == Trainable::all) return true;
  if (options_.trainable == Trainable::linears_and_norms && is_norm(slot.kind)) return true;
  return is_block_linear(slot.name, slot.kind);
}

ops::Moment Student::moment(int64_t n) {
  switch (options_.moments) {
    case ops::MomentFormat::f32:
      return {own(DType::f32, {n}), {}};
    case ops::MomentFormat::bf16:
      return {own(DType::bf16, {n}), {}};
    case ops::MomentFormat::q8:
      return {own(DType::u8, {n}), own(DType::f32, {(n + 255) / 256})};
  }
  return {};
}

void Student::add_trained(std::string name, const Tensor& w, const Tensor& low, const Tensor& gradient, bool decay) {
  const int64_t n = w.elements();
  trained_.push_back({std::move(name), {flat(w), flat(low), flat(gradient), moment(n), moment(n)}, decay});
}

void Student::remember_codes(Slot& slot) {
  const ops::Linear& linear = *slot.linear;
  slot.first_codes = own(DType::u8, linear.weight.shape());
  slot.last_codes = own(DType::u8, linear.weight.shape());
  slot.first_scales = own(DType::f8e4m3, linear.block_scale.shape());
  copy_values(linear.weight, slot.first_codes);
  copy_values(linear.weight, slot.last_codes);
  copy_values(linear.block_scale, slot.first_scales);
}

void Student::make_trained(Slot& slot) {
  *slot.gradient = own(DType::f32, slot.shape);
  const Tensor low = slot.stored.dtype() == DType::bf16 ? own(DType::u16, slot.shape) : Tensor();
  add_trained(slot.name, slot.stored, low, *slot.gradient,
              slot.linear != nullptr && !is_decay_or_write_gate(slot.name));
}

void Student::make_adapter(Slot& slot) {
  if (!is_block_linear(slot.name, slot.kind)) return;
  const int64_t out = slot.shape[0], in = slot.shape[1], r = options_.lora.rank;
  Adapter adapter;
  adapter.base = own(DType::f32, slot.shape);
  widen(slot.stored, adapter.base);
  adapter.a = own(DType::f32, {in, r});
  adapter.b = own(DType::f32, {out, r});
  adapter.a_gradient = own(DType::f32, {in, r});
  adapter.b_gradient = own(DType::f32, {out, r});
  *slot.gradient = own(DType::f32, slot.shape);
  // PEFT's start: A uniform in +-1/sqrt(in), B zero, so that training begins at the base model.
  Rng rng(options_.seed, trained_.size());
  const float bound = 1.0f / std::sqrt(static_cast<float>(in));
  for (float& x : adapter.a.f32_span()) x = bound * (2 * rng.uniform() - 1);
  const std::string module = module_of(slot.name);
  add_trained(module + ".lora_A.weight", adapter.a, {}, adapter.a_gradient, true);
  add_trained(module + ".lora_B.weight", adapter.b, {}, adapter.b_gradient, true);
  slot.adapter = adapter;
}

double Student::lora_scale() const {
  const auto rank = static_cast<double>(options_.lora.rank);
  return options_.lora.alpha > 0 ? options_.lora.alpha / rank : 2.0;
}

void Student::clear_gradients() {
  for (Slot& slot : slots_) {
    if (!slot.gradient->empty()) std::memset(slot.gradient->raw(), 0, slot.gradient->bytes());
    if (!slot.adapter) continue;
    std::memset(slot.adapter->a_gradient.raw(), 0, slot.adapter->a_gradient.bytes());
    std::memset(slot.adapter->b_gradient.raw(), 0, slot.adapter->b_gradient.bytes());
  }
}

double Student::gradient_norm(Context& cx) {
  const auto scale = static_cast<float>(lora_scale());
  for (Slot& slot : slots_) {
    if (!slot.adapter) continue;
    // stored = base + scale * B A is linear(B, A^T): its own gradients are those of the adapter.
    Adapter& adapter = *slot.adapter;
    for (float& x : slot.gradient->f32_span()) x *= scale;
    Tensor da = adapter.a_gradient, db = adapter.b_gradient;
    ops::linear_vjp(cx, *slot.gradient, adapter.b, model::dense_linear(adapter.a), db, da);
  }
  double sum = 0;
  for (const TrainedTensor& tensor : trained_) sum += ops::squared_norm(cx, tensor.parameter.grad);
  return std::sqrt(sum);
}

std::string Student::first_not_finite(Context& cx) const {
  for (const TrainedTensor& tensor : trained_) {
    if (!std::isfinite(ops::squared_norm(cx, tensor.parameter.grad))) return tensor.name;
  }
  return {};
}

void Student::update(Context& cx, const ops::AdamW& options) {
  for (size_t i = 0; i < trained_.size(); ++i) {
    ops::AdamW own_options = options;
    if (!trained_[i].decay) own_options.weight_decay = 0;
    const ops::RandomKey key{options_.seed, static_cast<uint64_t>(options.step), 0, static_cast<uint32_t>(i)};
    ops::adamw(cx, own_options, key, trained_[i].parameter);
  }
  refresh(cx);
}

void Student::refresh(Context& cx) {
  for (const Slot& slot : slots_) {
    if (slot.stored.empty()) continue;
    if (slot.adapter) merge_adapter(cx, slot);
    if (slot.group >= 0) continue;
    if (slot.linear != nullptr) {
      slot.linear->weight = slot.stored;
      slot.linear->format = slot.stored.dtype() == DType::f32 ? ops::WeightFormat::f32 : ops::WeightFormat::bf16;
    } else if (slot.kind == TensorKind::embedding) {
      *slot.tensor = slot.stored;
      if (weights_.tied) weights_.lm_head = model::dense_linear(slot.stored);
    } else {
      widen(slot.stored, *slot.tensor);
    }
  }
  for (Group& group : groups_) {
    if (options_.scales == Scales::dynamic || !scales_chosen_) choose_group_scales(cx, group);
    for (size_t i : group.members) {
      const ops::Linear& linear = *slots_[i].linear;
      ops::nvfp4_encode(cx, slots_[i].stored, group.scale, linear.block_scale, linear.weight);
    }
  }
  scales_chosen_ = true;
}

void Student::choose_group_scales(Context& cx, Group& group) {
  float amax = 0;
  for (size_t i : group.members) amax = std::max(amax, ops::tensor_amax(cx, slots_[i].stored).amax);
  group.scale = nvfp4_tensor_scale(amax, strategy_.range);
  for (size_t i : group.members) {
    slots_[i].linear->tensor_scale = group.scale.ws2;
    strategy_.choose_scales(cx, slots_[i].stored, group.scale, slots_[i].linear->block_scale);
  }
}

void Student::merge_adapter(Context& cx, const Slot& slot) {
  const Arena::Scope scope(cx.arena);
  const Adapter& adapter = *slot.adapter;
  Tensor product = cx.arena.f32(slot.shape);
  ops::linear(cx, adapter.b, model::dense_linear(adapter.a), product);
  const auto scale = static_cast<float>(lora_scale());
  const float* base = adapter.base.f32();
  const float* delta = product.f32();
  for (int64_t i = 0; i < product.elements(); ++i) {
    const float merged = base[i] + scale * delta[i];
    if (slot.stored.dtype() == DType::f32) {
      slot.stored.f32()[i] = merged;
    } else {
      slot.stored.bf16()[i] = f32_to_bf16(merged);
    }
  }
}

namespace {

// Bytes hold two codes of which both zeros are one.
int64_t differing_codes(const Tensor& a, const Tensor& b) {
  const auto canonical = [](int code) { return code == 8 ? 0 : code; };
  int64_t count = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    const int x = a.u8()[i], y = b.u8()[i];
    if (x == y) continue;
    count += canonical(x & 15) != canonical(y & 15);
    count += canonical(x >> 4) != canonical(y >> 4);
  }
  return count;
}

}  // namespace

Flips Student::count_flips(Context& cx) {
  Flips flips;
  for (Slot& slot : slots_) {
    if (slot.group < 0) continue;
    const ops::Linear& linear = *slot.linear;
    flips.weights += linear.out * linear.in;
    flips.flipped += differing_codes(linear.weight, slot.first_codes);
    flips.newly_flipped += differing_codes(linear.weight, slot.last_codes);
    copy_values(linear.weight, slot.last_codes);
    const int64_t blocks = linear.block_scale.elements();
    flips.blocks += blocks;
    const Arena::Scope scope(cx.arena);
    const Tensor values = cx.arena.f32(slot.shape);
    widen(slot.stored, values);
    for (int64_t b = 0; b < blocks; ++b) {
      flips.scales_flipped += linear.block_scale.u8()[b] != slot.first_scales.u8()[b];
      float amax = 0;
      for (int64_t i = 0; i < kNvfp4Block; ++i) amax = std::max(amax, std::abs(values.f32()[b * kNvfp4Block + i]));
      flips.clipped += amax > 6.5f * nvfp4_step(linear.block_scale.u8()[b], linear.tensor_scale);
    }
  }
  return flips;
}

uint64_t Student::bytes() const {
  uint64_t sum = 0;
  for (const Buffer& buffer : buffers_) sum += buffer.bytes();
  return sum;
}

int64_t Student::trained_elements() const {
  int64_t sum = 0;
  for (const TrainedTensor& tensor : trained_) sum += tensor.parameter.w.elements();
  return sum;
}

std::vector<StoredTensor> Student::stored() const {
  std::vector<StoredTensor> list;
  for (const Slot& slot : slots_) {
    if (!slot.stored.empty()) list.push_back({slot.name, slot.stored.reshape(slot.file_shape)});
  }
  return list;
}

std::vector<QuantizedLinear> Student::quantized() const {
  std::vector<QuantizedLinear> list;
  for (const Slot& slot : slots_) {
    if (slot.group >= 0) list.push_back({module_of(slot.name), slot.linear});
  }
  return list;
}

std::vector<LoraPair> Student::adapters() const {
  std::vector<LoraPair> list;
  for (const Slot& slot : slots_) {
    if (slot.adapter) list.push_back({module_of(slot.name), slot.adapter->a, slot.adapter->b});
  }
  return list;
}

}  // namespace nibble::train
