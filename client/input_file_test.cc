#include "client/input_file.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::string> Text(const std::string& argument, const std::string& in = "") {
  std::istringstream stream(in);
  return ReadText(argument, "--prompt", stream);
}

absl::StatusOr<hanmo::v1::Chat> Messages(const std::string& json) {
  std::istringstream stream(json);
  hanmo::v1::Chat chat;
  if (auto status = ReadMessages("-", stream, &chat); !status.ok()) return status;
  return chat;
}

TEST(InputFileTest, APromptIsTheArgumentOrStdin) {
  EXPECT_EQ(*Text("山水", "ignored"), "山水");
  EXPECT_EQ(*Text("-", "春眠\n不觉晓\n"), "春眠\n不觉晓");
  EXPECT_EQ(*Text("-", "two\n\n"), "two\n");
  EXPECT_EQ(*Text("-", ""), "");
}

TEST(InputFileTest, PromptsAreUtf8WithinTheLimit) {
  EXPECT_EQ(Text("\xff").status().message(), "--prompt: must be valid UTF-8");
  EXPECT_TRUE(Text("-", std::string(kMaxTextBytes, 'a') + "\n").ok());
  EXPECT_EQ(Text("-", std::string(kMaxTextBytes + 1, 'a')).status().message(),
            "--prompt: must be at most 1048576 bytes");
  EXPECT_FALSE(Text("-", std::string(3 * kMaxTextBytes, '\n')).ok());
}

TEST(InputFileTest, AMissingFileIsNamed) {
  const absl::Status status = ReadFile("/no/such/file", 10).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/file"));
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile("/proc/self/status", 10).status()));
}

TEST(InputFileTest, MessagesKeepTheirOrder) {
  const auto chat = Messages(R"([{"role":"system","content":"你是诗人"},
                                 {"role":"user","content":"写一首"}])");
  ASSERT_TRUE(chat.ok()) << chat.status();
  ASSERT_EQ(chat->messages_size(), 2);
  EXPECT_EQ(chat->messages(0).role(), "system");
  EXPECT_EQ(chat->messages(1).content(), "写一首");
}

TEST(InputFileTest, WhatIsNoListOfMessagesIsRefused) {
  EXPECT_THAT(std::string(Messages("{}").status().message()), HasSubstr("must be a JSON list"));
  EXPECT_FALSE(Messages("[").ok());
  EXPECT_FALSE(Messages("").ok());
  EXPECT_THAT(
      std::string(
          Messages(R"([{"role":"user","content":"a"},{"role":"user"}])").status().message()),
      HasSubstr("entry 1 must be"));
  EXPECT_FALSE(Messages(R"([{"role":"user","content":7}])").ok());
  EXPECT_FALSE(Messages(R"([{"role":"user","content":"a","name":"b"}])").ok());
  EXPECT_FALSE(Messages("[\"\xff\"]").ok());
}

}  // namespace
}  // namespace hanmo
