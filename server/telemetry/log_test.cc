#include "server/telemetry/log.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "spdlog/sinks/ostream_sink.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

std::string Written(LogFormat format, absl::string_view message,
                    std::initializer_list<LogField> fields) {
  std::ostringstream stream;
  {
    Log log(LogLevel::kInfo, format, std::make_shared<spdlog::sinks::ostream_sink_mt>(stream));
    log.Write(LogLevel::kDebug, "below the level");
    log.Write(LogLevel::kInfo, message, fields);
  }
  return stream.str();
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

}  // namespace
}  // namespace hanmo
