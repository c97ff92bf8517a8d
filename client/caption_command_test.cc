// hanmo caption over a real socket.
#include <fstream>

#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

class CaptionCommandTest : public testing::CommandFixture {
 protected:
  CaptionCommandTest() {
    std::ofstream(Path("boat.png"), std::ios::binary) << "picture";
    Answer({R"(text { index: 0 text: "一叶" token_ids: 5 })",
            R"(text { index: 0 text: "扁舟" token_ids: 6 })",
            R"(final { request_id: "r" model: "scribe"
                       outputs { index: 0 text { text: "一叶扁舟" token_ids: [5, 6] seed: 42
                                                 finish_reason: FINISH_REASON_EOS } }
                       timings { total { seconds: 1 } } })"});
  }
};

TEST_F(CaptionCommandTest, ThePictureIsSentAndItsTextIsStdout) {
  ASSERT_EQ(Run({"caption", "--model", "scribe", "--image", Path("boat.png")}), ExitCode::kDone);
  EXPECT_EQ(out_, "一叶扁舟\n");
  EXPECT_EQ(err_, "scribe, seed 42, 2 tokens, ended by eos, 1.00 s\n");
  EXPECT_EQ(server_.request().DebugString(),
            testing::ParseProto<hanmo::v1::GenerateRequest>(
                R"(model: "scribe" parts { parts { picture { data: "picture" } } } text {})")
                .DebugString());
}

TEST_F(CaptionCommandTest, FlagsOfTextsAndTheBeginningReachTheirFields) {
  ASSERT_EQ(Run({"caption", "-", "--model", "scribe", "--begin", "湖上", "--echo", "-n", "1",
                 "--seed", "7", "--top-k", "3", "--max-tokens", "9"},
                "from stdin"),
            ExitCode::kDone);
  EXPECT_EQ(out_, "湖上一叶扁舟\n");
  const hanmo::v1::GenerateRequest sent = server_.request();
  ASSERT_EQ(sent.parts().parts_size(), 2);
  EXPECT_EQ(sent.parts().parts(0).picture().data(), "from stdin");
  EXPECT_EQ(sent.parts().parts(1).text(), "湖上");
  EXPECT_EQ(sent.text().seed(), 7u);
  EXPECT_EQ(sent.text().top_k(), 3u);
  EXPECT_EQ(sent.text().max_tokens(), 9u);
}

TEST_F(CaptionCommandTest, ARoundTripIsScored) {
  ASSERT_EQ(Run({"caption", "--model", "scribe", Path("boat.png"), "--expect", "两叶扁舟"}),
            ExitCode::kDone);
  EXPECT_THAT(err_, HasSubstr("ended by eos, agreement 0.750"));
  ASSERT_EQ(
      Run({"caption", "--model", "scribe", Path("boat.png"), "--expect", "一叶扁舟", "--json"}),
      ExitCode::kDone);
  EXPECT_EQ(Json()["agreement"], nlohmann::json({1.0}));
  EXPECT_EQ(Json()["text"], "一叶扁舟");
}

TEST_F(CaptionCommandTest, AFileThatCannotBeReadIsTold) {
  EXPECT_NE(Run({"caption", "--model", "scribe", Path("none.png")}), ExitCode::kDone);
  EXPECT_THAT(err_, HasSubstr("--image: "));
  EXPECT_THAT(err_, HasSubstr("none.png"));
  EXPECT_NE(Run({"caption", "--model", "scribe", "-"}, std::string((16 << 20) + 1, 'x')),
            ExitCode::kDone);
  EXPECT_THAT(err_, HasSubstr("--image: must be at most 16777216 bytes"));
  EXPECT_EQ(Run({"caption", "--model", "scribe"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--image"));
}

}  // namespace
}  // namespace hanmo
