// hanmo image over a real socket.
#include "client/testing/command_fixture.h"
#include "gmock/gmock.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFinal[] = R"(final { request_id: "r" model: "painter"
    outputs { index: 0 picture { format: PICTURE_FORMAT_PNG width: 64 height: 32 seed: 7 steps: 20
                                 sampler: "ddim" } }
    usage { steps: 20 pictures: 1 } timings { total { seconds: 2 } } })";

class ImageCommandTest : public testing::CommandFixture {
 protected:
  ImageCommandTest() {
    Answer({R"(queued { request_id: "r" position: 1 })", R"(step { index: 0 step: 10 steps: 20 })",
            R"(preview { index: 0 step: 10 data: "small" })",
            R"(step { index: 0 step: 20 steps: 20 })",
            R"(picture { index: 0 offset: 0 total_bytes: 5 data: "\000PN" })",
            R"(picture { index: 0 offset: 3 total_bytes: 5 data: "G\377" })", kFinal});
  }

  ExitCode Paint(std::vector<std::string> flags, const std::string& output = "a.png") {
    flags.insert(flags.begin(), {"image", "--model", "painter", "--prompt", "山水", "--output",
                                 output == "-" ? output : Path(output)});
    return Run(flags);
  }

  const std::string file_ = std::string("\0PNG\xff", 5);
};

TEST_F(ImageCommandTest, ThePictureIsInItsFileAndTheSeedIsTold) {
  EXPECT_EQ(Paint({}), ExitCode::kDone) << err_;
  EXPECT_EQ(Contents("a.png"), file_);
  EXPECT_EQ(Files(), 1u);
  EXPECT_EQ(out_, Path("a.png") + ": 64 x 32, seed 7, 20 steps of ddim\n");
  EXPECT_EQ(err_,
            "queued, 1 request ahead\nstep 10 of 20\nstep 20 of 20\n"
            "painter, 2.00 s, of which 0.00 s in the queue\n");
}

TEST_F(ImageCommandTest, EveryFlagReachesItsField) {
  ASSERT_EQ(
      Paint({"--negative-prompt", "人",      "--width",      "64",  "--height",  "32",
             "--steps",           "20",      "--guidance",   "7.5", "--seed",    "7",
             "--sampler",         "euler_a", "--quality",    "80",  "--preview", Path("p.jpg"),
             "--preview-every",   "10",      "--request-id", "r"},
            "a.webp"),
      ExitCode::kDone)
      << err_;
  EXPECT_EQ(server_.request().DebugString(), testing::ParseProto<hanmo::v1::GenerateRequest>(R"(
                model: "painter" request_id: "r" prompt: "山水"
                picture { negative_prompt: "人" width: 64 height: 32 steps: 20 guidance: 7.5 seed: 7
                          sampler: "euler_a" format: PICTURE_FORMAT_WEBP quality: 80
                          preview_every_steps: 10 })")
                                                 .DebugString());
  EXPECT_EQ(Contents("p.jpg"), "small");
}

TEST_F(ImageCommandTest, StdoutCanHaveThePicture) {
  EXPECT_EQ(Paint({"--format", "jpeg", "--quiet"}, "-"), ExitCode::kDone);
  EXPECT_EQ(out_, file_);
  EXPECT_THAT(err_, HasSubstr("seed 7"));
  EXPECT_EQ(server_.request().picture().format(), hanmo::v1::PICTURE_FORMAT_JPEG);
  terminal_ = true;
  EXPECT_EQ(Paint({}, "-"), ExitCode::kUsage);
}

TEST_F(ImageCommandTest, JsonTellsTheFile) {
  ASSERT_EQ(Paint({"--json", "-q"}), ExitCode::kDone);
  const auto json = Json();
  EXPECT_EQ(json["file"], Path("a.png"));
  EXPECT_EQ(json["format"], "png");
  EXPECT_EQ(json["width"], 64);
  EXPECT_EQ(json["seed"], 7);
  EXPECT_EQ(json["sampler"], "ddim");
  EXPECT_EQ(json["usage"]["steps"], 20);
  EXPECT_EQ(err_, "");
}

TEST_F(ImageCommandTest, SeveralPicturesAreSeveralFiles) {
  Answer({R"(picture { index: 1 offset: 0 total_bytes: 1 data: "b" })",
          R"(picture { index: 0 offset: 0 total_bytes: 1 data: "a" })",
          R"(final { outputs { index: 0 picture { seed: 7 } }
                     outputs { index: 1 picture { seed: 8 } } })"});
  ASSERT_EQ(Paint({"-n", "2"}), ExitCode::kDone);
  EXPECT_EQ(Contents("a-0.png"), "a");
  EXPECT_EQ(Contents("a-1.png"), "b");
  ASSERT_EQ(Paint({"--count", "2"}, "{seed}.png"), ExitCode::kDone);
  EXPECT_EQ(Contents("8.png"), "b");
  EXPECT_EQ(Paint({"--count", "2"}, "-"), ExitCode::kUsage);
}

TEST_F(ImageCommandTest, ATornPictureLeavesNoFile) {
  server_.events.erase(server_.events.begin() + 5);
  EXPECT_EQ(Paint({"--json"}), ExitCode::kServerFault);
  EXPECT_EQ(Json()["error"]["code"], "DATA_LOSS");
  server_.events.erase(server_.events.begin() + 4);
  server_.events.insert(server_.events.begin() + 4,
                        testing::ParseProto<hanmo::v1::GenerateStreamResponse>(
                            R"(picture { index: 0 offset: 3 total_bytes: 5 data: "G\377" })"));
  EXPECT_EQ(Paint({}), ExitCode::kServerFault);
  EXPECT_THAT(err_, HasSubstr("out of order"));
  EXPECT_EQ(Files(), 0u);
}

TEST_F(ImageCommandTest, AnErrorLeavesTheOldFile) {
  ASSERT_EQ(Paint({}), ExitCode::kDone);
  server_.events.resize(5);
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
  EXPECT_EQ(Paint({}), ExitCode::kBusy);
  EXPECT_EQ(Contents("a.png"), file_);
  EXPECT_EQ(Files(), 1u);
}

TEST_F(ImageCommandTest, TheBestPicturesComeFirstWithTheirScores) {
  Answer({R"(step { index: 7 step: 20 steps: 20 })",
          R"(picture { index: 2 offset: 0 total_bytes: 3 data: "two" })",
          R"(picture { index: 7 offset: 0 total_bytes: 5 data: "seven" })",
          R"(final { request_id: "r" model: "painter"
            outputs { index: 7 picture { format: PICTURE_FORMAT_PNG width: 64 height: 32 seed: 17
                                         steps: 20 sampler: "ddim" score: 0.25 } }
            outputs { index: 2 picture { format: PICTURE_FORMAT_PNG width: 64 height: 32 seed: 12
                                         steps: 20 sampler: "ddim" score: -0.125 } } })"});
  ASSERT_EQ(Paint({"-n", "2", "--best-of", "8"}), ExitCode::kDone) << err_;
  EXPECT_EQ(Contents("a-0.png"), "seven");
  EXPECT_EQ(Contents("a-1.png"), "two");
  EXPECT_THAT(out_, HasSubstr("a-0.png: 64 x 32, seed 17, 20 steps of ddim, score 0.2500\n"));
  EXPECT_THAT(out_, HasSubstr("seed 12, 20 steps of ddim, score -0.1250\n"));
  ASSERT_EQ(Paint({"-n", "2", "--best-of", "8", "--json"}), ExitCode::kDone);
  EXPECT_EQ(Json()["outputs"][1]["score"], -0.125);
}

TEST_F(ImageCommandTest, WrongFlagsAreToldBeforeAnythingIsSent) {
  EXPECT_EQ(Paint({"--steps", "1001"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--steps: must be a whole number, 1 to 1000, got \"1001\""));
  EXPECT_EQ(Paint({"-n", "4", "--best-of", "3"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--best-of: must be at least --count"));
  EXPECT_EQ(Paint({"--best-of", "65"}), ExitCode::kUsage);
  EXPECT_EQ(Paint({"--sampler", "dpm"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("ddim, pndm, euler, euler_a, dpmpp_2m, lcm, unipc"));
  EXPECT_EQ(Paint({}, "a.gif"), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--output: must end in .png, .jpg, .jpeg or .webp"));
  EXPECT_EQ(Paint({"--format", "jpeg"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--format: jpeg contradicts the name"));
  EXPECT_EQ(Paint({"--quality", "90"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--quality: is for JPEG and WebP"));
  EXPECT_EQ(Paint({"--preview", Path("p.png")}), ExitCode::kUsage);
  EXPECT_EQ(Paint({"--preview", Path("{seed}.jpg")}), ExitCode::kUsage);
  EXPECT_EQ(Paint({"--preview-every", "3"}), ExitCode::kUsage);
  EXPECT_EQ(Paint({}, "no/such/folder/a.png"), ExitCode::kFile);
  EXPECT_EQ(Run({"image", "--prompt", "山"}), ExitCode::kUsage);
  EXPECT_THAT(err_, HasSubstr("--output is required"));
  EXPECT_EQ(server_.calls(), 0);
}

TEST_F(ImageCommandTest, ATerminalGetsABarThatGoesAway) {
  terminal_ = true;
  ASSERT_EQ(Paint({}), ExitCode::kDone);
  EXPECT_THAT(err_, HasSubstr("[===============>"));
  EXPECT_THAT(err_, HasSubstr("\r\x1b[Kpainter, 2.00 s"));
  EXPECT_THAT(out_, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace hanmo
