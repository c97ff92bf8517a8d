#include "server/rpc/wire_message.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;
using ::testing::HasSubstr;

// In several slices, as the network cuts it.
grpc::ByteBuffer Bytes(const std::string& bytes) {
  const size_t half = bytes.size() / 2;
  const grpc::Slice slices[] = {grpc::Slice(bytes.substr(0, half)),
                                grpc::Slice(bytes.substr(half))};
  return grpc::ByteBuffer(slices, 2);
}

TEST(WireMessageTest, RoundTrip) {
  GenerateRequest sent;
  sent.set_prompt(std::string(100000, 'a'));
  GenerateRequest received;
  ASSERT_TRUE(ParseMessage(SerializeMessage(sent), &received).ok());
  EXPECT_EQ(received.SerializeAsString(), sent.SerializeAsString());
  ASSERT_TRUE(ParseMessage(SerializeMessage(GenerateRequest()), &received).ok());
}

TEST(WireMessageTest, InvalidUtf8IsNamed) {
  // The C++ setters do not check, so the bytes can be built with them.
  GenerateRequest sent;
  sent.set_prompt("a\xff");
  GenerateRequest received;
  EXPECT_EQ(ParseMessage(Bytes(sent.SerializePartialAsString()), &received).message(),
            "prompt: must be valid UTF-8");
  sent.set_prompt("a");
  sent.mutable_picture()->set_negative_prompt("\xe5\xb1");
  EXPECT_EQ(ParseMessage(Bytes(sent.SerializePartialAsString()), &received).message(),
            "picture.negative_prompt: must be valid UTF-8");
  sent.mutable_chat()->add_messages()->set_content("\xed\xa0\x80");
  sent.clear_picture();
  EXPECT_EQ(ParseMessage(Bytes(sent.SerializePartialAsString()), &received).message(),
            "chat.messages.content: must be valid UTF-8");
}

TEST(WireMessageTest, OtherBytesAreNoMessage) {
  GenerateRequest received;
  const absl::Status status = ParseMessage(Bytes("\x0a\xff\xff\xff\xff\x0f rubbish"), &received);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("hanmo.v1.GenerateRequest"));
}

}  // namespace
}  // namespace hanmo
