#include "server/telemetry/log.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// Everything that a log wrote until its end.
std::string AllWritten(LogFormat format, const std::function<void(Log&)>& use) {
  std::FILE* file = std::tmpfile();
  {
    Log log(LogLevel::kInfo, format, fileno(file));
    use(log);
  }
  std::rewind(file);
  std::string text;
  char bytes[4096];
  size_t size = 0;
  while ((size = std::fread(bytes, 1, sizeof(bytes), file)) > 0) text.append(bytes, size);
  std::fclose(file);
  return text;
}

std::string Written(LogFormat format, absl::string_view message,
                    std::initializer_list<LogField> fields) {
  return AllWritten(format, [&](Log& log) {
    log.Write(LogLevel::kDebug, "below the level");
    log.Write(LogLevel::kInfo, message, fields);
  });
}

TEST(LogTest, JsonLinesParseWhateverIsInThem) {
  const std::string line = Written(LogFormat::kJson, "said \"hi\"\n",
                                   {{"model", "墨\\"},
                                    {"broken", absl::string_view("a\xff\xe5", 3)},
                                    {"ms", 1.5},
                                    {"n", int64_t{3}}});
  const auto json = nlohmann::json::parse(line, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << line;
  EXPECT_EQ(json["message"], "said \"hi\"\n");
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["model"], "墨\\");
  EXPECT_EQ(json["broken"], "a\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(json["ms"], 1.5);
  EXPECT_EQ(json["n"], 3);
  EXPECT_THAT(json["time"].get<std::string>(), MatchesRegex("....-..-..T..:..:..\\....Z"));
}

TEST(LogTest, TextLinesQuoteWhatIsNotPlain) {
  const std::string line =
      Written(LogFormat::kText, "request", {{"id", "a-1"}, {"detail", "two words\n"}, {"e", ""}});
  EXPECT_THAT(line, HasSubstr(" info request id=a-1 detail=\"two words\\u000a\" e=\"\"\n"));
  EXPECT_EQ(line.find("below"), std::string::npos);
}

TEST(LogTest, LinesOfSeveralThreadsStayWhole) {
  const std::string text = AllWritten(LogFormat::kText, [](Log& log) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&log] {
        for (int n = 0; n < 100; ++n) log.Write(LogLevel::kInfo, "line", {{"end", "x"}});
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 400);
  size_t whole = 0;
  for (size_t at = text.find(" info line end=x\n"); at != std::string::npos;
       at = text.find(" info line end=x\n", at + 1)) {
    ++whole;
  }
  EXPECT_EQ(whole, 400u);
}

TEST(LogTest, AWarningIsWrittenAtOnce) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  Log log(LogLevel::kInfo, LogFormat::kText, pipe_fds[1]);
  log.Write(LogLevel::kWarning, "worker lost");
  char bytes[256];
  const ssize_t size = read(pipe_fds[0], bytes, sizeof(bytes));  // while the log lives
  EXPECT_THAT(std::string(bytes, size), HasSubstr(" warning worker lost\n"));
}

TEST(LogTest, AFloodIsDroppedAndCounted) {
  const std::string large(300000, 'x');
  const std::string text = AllWritten(LogFormat::kText, [&](Log& log) {
    for (int i = 0; i < 8; ++i) log.Write(LogLevel::kInfo, large);
  });
  EXPECT_LE(text.size(), 3 * large.size() + 1000);
  EXPECT_THAT(text, HasSubstr(" warning log lines dropped count=5\n"));
}

}  // namespace
}  // namespace hanmo
