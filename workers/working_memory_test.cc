#include "workers/working_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <utility>

namespace hanmo {
namespace {

constexpr uint64_t kMegabyte = 1 << 20;

at::Tensor Megabytes(int64_t count) { return at::empty({count << 20}, at::kByte); }

class WorkingMemoryTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { CountTensorMemory(); }

  // Blocks are a little larger than asked for.
  static void ExpectMegabytes(const WorkingMemory& memory, uint64_t count) {
    EXPECT_GE(memory.peak_bytes(), count * kMegabyte);
    EXPECT_LT(memory.peak_bytes(), count * kMegabyte + kMegabyte / 16);
  }

  const ComputeDevice cpu_ = *ComputeDevice::Open("cpu");
};

TEST_F(WorkingMemoryTest, IsTheMostAtOnce) {
  const at::Tensor before = Megabytes(3);
  const WorkingMemory memory(cpu_);
  ExpectMegabytes(memory, 0);
  {
    const at::Tensor a = Megabytes(2), b = Megabytes(4);
  }
  const at::Tensor c = Megabytes(5);
  ExpectMegabytes(memory, 6);
}

TEST_F(WorkingMemoryTest, ScopesDoNotSeeEachOthersPeaks) {
  const WorkingMemory outer(cpu_);
  {
    const at::Tensor a = Megabytes(2);
  }
  {
    const WorkingMemory inner(cpu_);
    ExpectMegabytes(inner, 0);
    {
      const at::Tensor b = Megabytes(8);
    }
    ExpectMegabytes(inner, 8);
  }
  ExpectMegabytes(outer, 2);
  const at::Tensor c = Megabytes(3);
  ExpectMegabytes(outer, 3);
}

TEST_F(WorkingMemoryTest, FreedElsewhereIsNotNegative) {
  at::Tensor before = Megabytes(3);
  const WorkingMemory memory(cpu_);
  before.reset();
  const at::Tensor c = Megabytes(1);
  ExpectMegabytes(memory, 0);
}

TEST_F(WorkingMemoryTest, DoesNotSeeWhatIsNotCounted) {
  at::Tensor uncounted;
  const WorkingMemory memory(cpu_);
  {
    const UncountedMemory scope;
    uncounted = Megabytes(8);
  }
  ExpectMegabytes(memory, 0);
  uncounted.reset();
  const at::Tensor c = Megabytes(1);
  ExpectMegabytes(memory, 1);
}

TEST(DeviceMemoryTest, TellsWhatThereIs) {
  const DeviceMemory memory = ComputeDevice::Open("cpu")->memory();
  EXPECT_GT(memory.used, kMegabyte);
  EXPECT_GT(memory.free, kMegabyte);
  EXPECT_GE(memory.total, memory.used);
}

TEST(DeviceMemoryTest, StaysWithinTheControlGroup) {
  const std::string folder = ::testing::TempDir() + "control_group";
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const char* text) {
    std::ofstream(folder + "/" + name) << text;
  };
  const auto limited = [&] {
    DeviceMemory memory{1000, 800, 100};
    LimitToControlGroup(folder, &memory);
    return std::pair(memory.total, memory.free);
  };
  EXPECT_EQ(limited(), std::pair(uint64_t{1000}, uint64_t{800})) << "no files, no limit";
  write("memory.current", "350\n");
  write("memory.stat", "anon 200\ninactive_file 150\n");
  write("memory.max", "max\n");
  EXPECT_EQ(limited(), std::pair(uint64_t{1000}, uint64_t{800}));
  write("memory.max", "500\n");
  EXPECT_EQ(limited(), std::pair(uint64_t{500}, uint64_t{300})) << "what was only read can go";
  write("memory.max", "100\n");
  EXPECT_EQ(limited(), std::pair(uint64_t{100}, uint64_t{0}));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace hanmo
