#include "tensor/device.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tensor/upload.h"

namespace nibble {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};

// Without a GPU, without a driver and without CUDA in the build alike.
TEST(Device, SaysWhyItDoesNotOpen) {
  const auto gpu = open_device(kGpu);
  if (gpu.ok()) GTEST_SKIP() << "there is one: " << gpu->name;
  const Status status = gpu.status();
  EXPECT_TRUE(status.code() == Code::unavailable || status.code() == Code::unsupported) << status.text();
  EXPECT_NE(status.message().find("--device cuda"), std::string::npos) << status.text();
  EXPECT_NE(status.hint().find("--device cpu"), std::string::npos) << status.text();
  EXPECT_EQ(Stream::open(kGpu).status().code(), status.code());
}

TEST(Device, ThereIsNoHundredthGpu) {
  const auto gpu = open_device({DeviceKind::cuda, 99});
  ASSERT_FALSE(gpu.ok());
  EXPECT_FALSE(gpu.status().hint().empty()) << gpu.status().text();
}

TEST(Device, OutOfMemoryNamesWhatIsFreeAndHarmsNothing) {
  const auto gpu = open_device(kGpu);
  if (!gpu.ok()) GTEST_SKIP() << "no GPU: " << gpu.status().text();
  const auto buffer = Buffer::on(kGpu, size_t{1} << 50);
  EXPECT_EQ(buffer.status().code(), Code::out_of_memory) << buffer.status().text();
  EXPECT_NE(buffer.status().message().find("are free"), std::string::npos) << buffer.status().text();
  EXPECT_NE(buffer.status().hint().find("--slots"), std::string::npos);
  EXPECT_TRUE(Buffer::on(kGpu, 1 << 20).ok());
}

// 700 is cudaErrorIllegalAddress: from then on the device answers nothing.
TEST(Stream, KeepsItsFirstError) {
  const auto stream = Stream::open(kGpu);
  if (!stream.ok()) GTEST_SKIP() << "no GPU: " << stream.status().text();
  (*stream)->note(700, "attention");
  (*stream)->note(2, "norm");
  const Status status = (*stream)->wait();
  EXPECT_EQ(status.code(), Code::device);
  EXPECT_NE(status.message().find("attention"), std::string::npos) << status.text();
  EXPECT_NE(status.hint().find("start nibble again"), std::string::npos);
  EXPECT_EQ((*stream)->capture([] {}).status().code(), Code::device);
  EXPECT_TRUE((*Stream::open(kGpu))->wait().ok()) << "of this stream alone";
}

TEST(Upload, BringsEveryByte) {
  auto stream = Stream::open(kGpu);
  if (!stream.ok()) GTEST_SKIP() << "no GPU: " << stream.status().text();
  ThreadPool pool(3);
  Context cx(pool, Numeric::bf16_act, **stream);
  const auto upload = std::move(Upload::open(cx)).value();
  // Small ones, one that needs the pinned memory twice over, odd sizes.
  const std::vector<size_t> sizes = {1, 4096, (size_t{150} << 20) + 7, 13, size_t{9} << 20, size_t{64} << 20};
  std::vector<std::vector<std::byte>> sources;
  std::vector<Buffer> buffers;
  for (const size_t size : sizes) {
    auto& source = sources.emplace_back(size);
    for (size_t i = 0; i < size; ++i) source[i] = static_cast<std::byte>((i * 2654435761u) >> 13);
    buffers.push_back(std::move(Buffer::on(kGpu, size)).value());
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::byte> passing = sources[i];
    upload->copy(passing.data(), buffers[i].data(), sizes[i]);
    std::ranges::fill(passing, std::byte{0});  // no longer needed
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::byte> got(sizes[i]);
    (*stream)->copy(buffers[i].data(), got.data(), got.size());
    ASSERT_TRUE((*stream)->wait().ok());
    EXPECT_EQ(got, sources[i]) << sizes[i];
  }
}

}  // namespace
}  // namespace nibble
