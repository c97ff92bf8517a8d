#include "server/text/chat_template.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::StrEq;

nlohmann::json Goldens() {
  std::ifstream file("tests/goldens/tokenizers/chat.json");
  return nlohmann::json::parse(file);
}

std::vector<ChatMessage> Messages(const nlohmann::json& json) {
  std::vector<ChatMessage> messages;
  for (const auto& message : json) messages.push_back({message["role"], message["content"]});
  return messages;
}

absl::StatusOr<std::string> Render(const std::string& source,
                                   const std::vector<ChatMessage>& messages,
                                   const ChatOptions& options = {}) {
  auto chat_template = ChatTemplate::FromSource(source, {{"eos_token", "</s>"}});
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(messages, options);
}

TEST(ChatTemplateTest, PromptsEqualThoseOfTransformers) {
  const nlohmann::json goldens = Goldens();
  const std::map<std::string, std::string> special_tokens = goldens["special_tokens"];
  ASSERT_GE(goldens["cases"].size(), 30u);
  for (const auto& golden : goldens["cases"]) {
    const auto chat_template =
        ChatTemplate::FromSource(golden["template"].get<std::string>(), special_tokens);
    ASSERT_TRUE(chat_template.ok()) << golden["name"] << chat_template.status();
    const auto prompt = (*chat_template)
                            ->Render(Messages(golden["messages"]),
                                     {.add_generation_prompt = golden["add_generation_prompt"]});
    if (golden.contains("error")) {
      EXPECT_EQ(prompt.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(prompt.status().message(), HasSubstr(golden["error"].get<std::string>()));
    } else {
      ASSERT_TRUE(prompt.ok()) << golden["name"] << prompt.status();
      EXPECT_THAT(*prompt, StrEq(golden["prompt"].get<std::string>())) << golden["name"];
    }
  }
}

TEST(ChatTemplateTest, ShowsTheGivenTime) {
  setenv("TZ", "UTC", 1);
  const auto prompt = Render("{{ strftime_now('%d %B %Y %H:%M') }}", {},
                             {.now = absl::FromUnixSeconds(1'700'000'000)});
  EXPECT_EQ(prompt.value(), "14 November 2023 22:13");
}

TEST(ChatTemplateTest, SwitchesThinkingWhereTheTemplateDoes) {
  const std::string source =
      "{% if enable_thinking is not defined %}own{% elif enable_thinking %}on{% else %}off"
      "{% endif %}";
  EXPECT_EQ(Render(source, {}).value(), "own");
  EXPECT_EQ(Render(source, {}, {.thinking = true}).value(), "on");
  EXPECT_EQ(Render(source, {}, {.thinking = false}).value(), "off");
  EXPECT_TRUE((*ChatTemplate::FromSource(source, {}))->has_thinking_switch());
  EXPECT_FALSE((*ChatTemplate::FromSource("{{ messages }}", {}))->has_thinking_switch());
}

TEST(ChatTemplateTest, RefusesBrokenTemplatesWithTheLine) {
  const absl::Status status = Render("a\n{% if %}", {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("chat_template"));
  EXPECT_THAT(status.message(), HasSubstr(":2"));
}

TEST(ChatTemplateTest, RefusesMessagesThatAreNotUtf8) {
  const absl::Status status = Render("", {{"user", "ok"}, {"user", "\xff"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("messages[1]"));
}

TEST(ChatTemplateTest, BoundsWorkAndOutput) {
  const std::string loops =
      "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(Render(loops, {}).status().message(), HasSubstr("fuel"));
  const std::string flood = "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}";
  EXPECT_THAT(Render(flood, {}).status().message(), HasSubstr("messages: "));
  const std::string recursion = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
  EXPECT_THAT(Render(recursion, {}).status().message(), HasSubstr("recursion"));
  EXPECT_FALSE(Render(std::string(size_t{2} << 20, ' '), {}).ok());
  // A value of 2^40 items that share their parts.
  std::string doubling = "{% set x = 'ab' %}";
  for (int i = 0; i < 40; ++i) doubling += "{% set x = [x, x] %}";
  for (const char* use : {"{{ x }}", "{{ x | tojson }}", "{{ x | string }}"}) {
    EXPECT_THAT(Render(doubling + use, {}).status().message(), HasSubstr("too long")) << use;
  }
}

TEST(ChatTemplateTest, ReachesNoFilesAndNoUnknownNames) {
  for (const char* source : {"{% include 'a' %}", "{{ open('/etc/passwd') }}", "{{ messages.a.b }}",
                             "{{ ''.__class__.mro() }}", "{{ missing | nofilter }}"}) {
    EXPECT_EQ(Render(source, {}).status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
}

class ChatTemplateFolderTest : public ::testing::Test {
 protected:
  ChatTemplateFolderTest() : folder_(::testing::TempDir() + "/chat_template_test_folder") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Write("vocab.json", R"({"a": 0, "<|endoftext|>": 1})");
    Write("merges.txt", "");
  }

  void Write(const char* name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }

  absl::StatusOr<std::string> RenderFolder() {
    const auto tokenizer = Tokenizer::Load(folder_).value();
    const auto chat_template = ChatTemplate::Load(folder_, *tokenizer);
    if (!chat_template.ok()) return chat_template.status();
    const std::vector<ChatMessage> messages = {{"user", "山"}};
    return (*chat_template)->Render(messages, {});
  }

  const std::filesystem::path folder_;
};

TEST_F(ChatTemplateFolderTest, SaysWhenThereIsNone) {
  EXPECT_EQ(RenderFolder().status().code(), absl::StatusCode::kNotFound);
  Write("tokenizer_config.json", "{}");
  EXPECT_EQ(RenderFolder().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ChatTemplateFolderTest, ReadsTheConfigAndPrefersTheFile) {
  Write("tokenizer_config.json", R"({"chat_template": "config {{ eos_token }}"})");
  EXPECT_EQ(RenderFolder().value(), "config <|endoftext|>");
  Write("chat_template.jinja", "file {{ messages[0].content }}");
  EXPECT_EQ(RenderFolder().value(), "file 山");
}

TEST_F(ChatTemplateFolderTest, TakesTheDefaultOfSeveral) {
  Write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(RenderFolder().value(), "plain");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": 1}]})");
  EXPECT_EQ(RenderFolder().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanmo
