// Runs whole command lines against a FakeServer.
#ifndef HANMO_CLIENT_TESTING_COMMAND_FIXTURE_H_
#define HANMO_CLIENT_TESTING_COMMAND_FIXTURE_H_

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "client/command_line.h"
#include "client/testing/fake_server.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace hanmo::testing {

template <typename Message>
Message ParseProto(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

class CommandFixture : public ::testing::Test {
 protected:
  CommandFixture() {
    std::string pattern = ::testing::TempDir() + "/command_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~CommandFixture() override { std::filesystem::remove_all(folder_); }

  // With --server; output is in out_ and err_ afterwards.
  ExitCode Run(std::vector<std::string> arguments, const std::string& in = "") {
    arguments.insert(arguments.begin() + 1, {"--server", server_.address()});
    std::istringstream stdin_text(in);
    std::ostringstream out;
    std::ostringstream err;
    Interrupts interrupts;
    const ExitCode code =
        RunCommandLine(arguments, {stdin_text, out, err, terminal_, terminal_, 80, &interrupts});
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  void Answer(const std::vector<std::string>& events) {
    server_.events.clear();
    for (const std::string& event : events) {
      server_.events.push_back(ParseProto<hanmo::v1::GenerateStreamResponse>(event));
    }
  }

  nlohmann::json Json() const { return nlohmann::json::parse(out_, nullptr, false); }

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  std::string Contents(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  size_t Files() const { return std::distance(std::filesystem::directory_iterator(folder_), {}); }

  FakeServer server_;
  bool terminal_ = false;
  std::string folder_;
  std::string out_;
  std::string err_;
};

}  // namespace hanmo::testing

#endif  // HANMO_CLIENT_TESTING_COMMAND_FIXTURE_H_
