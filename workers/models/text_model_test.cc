#include "workers/models/text_model.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "workers/models/decoder_family.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

constexpr char kGoldens[] = "tests/goldens/";

std::unique_ptr<TextModel> LoadModel(const std::string& name, at::ScalarType dtype,
                                     TextModelOptions options = {}) {
  // Tiny models: a second thread would only wait for a turn.
  at::set_num_threads(1);
  auto checkpoint = Checkpoint::Open(kGoldens + name, {.dtype = dtype});
  if (!checkpoint.ok()) {
    ADD_FAILURE() << checkpoint.status();
    return nullptr;
  }
  auto model = TextModel::Load(*checkpoint, options);
  if (!model.ok()) {
    ADD_FAILURE() << model.status();
    return nullptr;
  }
  EXPECT_THAT(checkpoint->Unused(), ::testing::IsEmpty());
  return *std::move(model);
}

struct Golden {
  std::vector<int32_t> prompt;
  at::Tensor logits;
  std::vector<int32_t> greedy;
};

std::vector<int32_t> TakeIds(Checkpoint& file, const std::string& name) {
  const at::Tensor ids = *file.TakeAs(name, *file.Shape(name), at::kInt);
  return {ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel()};
}

std::vector<Golden> ReadGoldens(const std::string& name) {
  Checkpoint file = *Checkpoint::OpenFile(absl::StrCat(kGoldens, name, "/golden.safetensors"));
  std::vector<Golden> goldens;
  for (int i = 0; file.Has(absl::StrCat("prompt.", i)); ++i) {
    const std::string logits = absl::StrCat("logits.", i);
    goldens.push_back({TakeIds(file, absl::StrCat("prompt.", i)),
                       *file.Take(logits, *file.Shape(logits)),
                       TakeIds(file, absl::StrCat("greedy.", i))});
  }
  return goldens;
}

// A sample as the batcher sees it: all its known tokens, how many are cached, and its pages.
struct Sample {
  std::vector<int32_t> tokens;
  int64_t cached = 0;
  std::vector<int32_t> pages;

  TextRow NextRow(int64_t count, LogitsOf logits = LogitsOf::kLastToken) const {
    return {.tokens = absl::MakeConstSpan(tokens).subspan(cached, count),
            .start = cached,
            .page_table = pages,
            .logits = logits};
  }
  int64_t waiting() const { return static_cast<int64_t>(tokens.size()) - cached; }
};

// Page ids 0 to count - 1 in random order, dealt out one by one.
class PageDeck {
 public:
  PageDeck(int32_t count, uint32_t seed) : ids_(count) {
    std::iota(ids_.begin(), ids_.end(), 0);
    std::shuffle(ids_.begin(), ids_.end(), std::mt19937(seed));
  }
  void Deal(Sample& sample, int64_t tokens) {
    while (static_cast<int64_t>(sample.pages.size()) * TextModel::kPageTokens < tokens) {
      sample.pages.push_back(ids_.back());
      ids_.pop_back();
    }
  }

 private:
  std::vector<int32_t> ids_;
};

int32_t ArgMax(const at::Tensor& row) { return row.argmax().item<int64_t>(); }

// "gpt2/odd" as part of a test's name.
std::string TestName(const std::string& folder) {
  return absl::StrReplaceAll(folder, {{"/", "_"}});
}

struct GoldenCase {
  std::string folder;
  bool force_aten;
};

class TextModelGoldenTest : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(TextModelGoldenTest, LogitsAndGreedyIdsAreThoseOfTransformers) {
  const auto model =
      LoadModel(GetParam().folder, at::kFloat, {.force_aten = GetParam().force_aten});
  ASSERT_NE(model, nullptr);
  const std::vector<Golden> goldens = ReadGoldens(GetParam().folder);
  ASSERT_EQ(goldens.size(), 4u);
  KvCache cache = model->MakeCache(64);
  PageDeck deck(64, 1);
  std::vector<Sample> samples;
  for (const Golden& golden : goldens) {
    samples.push_back({.tokens = golden.prompt});
    deck.Deal(samples.back(), model->shape().context_tokens);
  }
  for (size_t step = 0; step < 64; ++step) {
    std::vector<TextRow> rows;
    for (const Sample& sample : samples) rows.push_back(sample.NextRow(sample.waiting()));
    const auto logits = model->Run(rows, cache);
    ASSERT_TRUE(logits.ok()) << logits.status();
    for (size_t i = 0; i < samples.size(); ++i) {
      const at::Tensor row = logits->values[logits->first[i]];
      if (step == 0) {
        EXPECT_LE((row - goldens[i].logits).abs().max().item<float>(), 1e-4f) << "prompt " << i;
      }
      ASSERT_EQ(ArgMax(row), goldens[i].greedy[step]) << "prompt " << i << " step " << step;
      samples[i].cached = static_cast<int64_t>(samples[i].tokens.size());
      samples[i].tokens.push_back(ArgMax(row));
    }
  }
}

std::vector<GoldenCase> GoldenCases() {
  std::vector<GoldenCase> cases;
  for (const char* folder :
       {"gpt2/wenzhong", "gpt2/bin", "gpt2/odd", "gpt2/sharded", "gpt2/untied",
        "decoders/qwen3_tied", "decoders/qwen3_untied", "decoders/qwen3_linear",
        "decoders/ernie4_5_tied", "decoders/ernie4_5_bias", "decoders/llama"}) {
    for (bool force_aten : {false, true}) cases.push_back({folder, force_aten});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Folders, TextModelGoldenTest, ::testing::ValuesIn(GoldenCases()),
                         [](const auto& info) {
                           return TestName(info.param.folder) +
                                  (info.param.force_aten ? "Aten" : "Cpu");
                         });

struct CompanyCase {
  std::string folder;
  at::ScalarType dtype;
  CpuIsa isa;
};

class TextModelCompanyTest : public ::testing::TestWithParam<CompanyCase> {
 protected:
  // Logits of every position, each computed as a decode step of its own, alone.
  static std::vector<at::Tensor> Alone(const TextModel& model, Sample sample) {
    KvCache cache = model.MakeCache(6);
    PageDeck deck(6, 3);
    deck.Deal(sample, sample.waiting());
    std::vector<at::Tensor> logits;
    for (; sample.waiting() > 0; ++sample.cached) {
      logits.push_back(model.Run({sample.NextRow(1)}, cache)->values[0].clone());
    }
    return logits;
  }
};

TEST_P(TextModelCompanyTest, LogitsAreTheSameBitsInAnyBatchChunkAndPage) {
  const auto model = LoadModel(GetParam().folder, GetParam().dtype, {.isa = GetParam().isa});
  ASSERT_NE(model, nullptr);
  std::mt19937 random(17);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  std::vector<Sample> samples;
  std::vector<std::vector<at::Tensor>> alone;
  for (int64_t i = 0; i < 9; ++i) {
    Sample sample;
    for (int64_t t = 1 + below(90); t > 0; --t) {
      sample.tokens.push_back(static_cast<int32_t>(below(model->shape().vocab_size)));
    }
    alone.push_back(Alone(*model, sample));
    samples.push_back(sample);
  }
  for (uint32_t round = 0; round < 4; ++round) {
    const bool share = round == 0 && GetParam().folder == "gpt2/odd" && GetParam().isa == BestIsa();
    at::set_num_threads(share ? 2 : 1);
    KvCache cache = model->MakeCache(64);
    PageDeck deck(64, round);
    std::vector<Sample> running = samples;
    int64_t compared = 0;
    while (std::any_of(running.begin(), running.end(),
                       [](const Sample& s) { return s.waiting() > 0; })) {
      std::vector<size_t> members;
      std::vector<TextRow> rows;
      for (size_t i = 0; i < running.size(); ++i) {
        Sample& sample = running[i];
        if (sample.waiting() == 0 || below(3) == 0) continue;
        const int64_t count =
            below(2) == 0 ? 1 : 1 + below(std::min<int64_t>(sample.waiting(), 40));
        deck.Deal(sample, sample.cached + count);
        members.push_back(i);
        rows.push_back(sample.NextRow(count, static_cast<LogitsOf>(below(3))));
      }
      const auto logits = model->Run(rows, cache);
      ASSERT_TRUE(logits.ok()) << logits.status();
      for (size_t r = 0; r < rows.size(); ++r) {
        const auto count = static_cast<int64_t>(rows[r].tokens.size());
        const int64_t given = logits->first[r + 1] - logits->first[r];
        for (int64_t i = 0; i < given; ++i, ++compared) {
          const int64_t position = rows[r].start + count - given + i;
          ASSERT_TRUE(at::equal(logits->values[logits->first[r] + i], alone[members[r]][position]))
              << "round " << round << " sample " << members[r] << " position " << position;
        }
        running[members[r]].cached += count;
      }
    }
    EXPECT_GT(compared, 50);
  }
}

std::vector<CompanyCase> CompanyCases() {
  std::vector<CompanyCase> cases;
  for (const CpuIsa isa : SupportedIsas()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const char* folder : {"gpt2/wenzhong", "gpt2/odd", "gpt2/sharded",
                                 "decoders/qwen3_untied", "decoders/ernie4_5_tied"}) {
        cases.push_back({folder, dtype, isa});
      }
    }
  }
  return cases;
}

std::string NameOf(const ::testing::TestParamInfo<CompanyCase>& info) {
  return absl::StrCat(TestName(info.param.folder), at::toString(info.param.dtype),
                      IsaName(info.param.isa));
}

INSTANTIATE_TEST_SUITE_P(Paths, TextModelCompanyTest, ::testing::ValuesIn(CompanyCases()), NameOf);

TEST(TextModelTest, LowerPrecisionStaysCloseToFloat32) {
  for (const auto& [folder, dtype, tolerance] : {std::tuple{"gpt2/odd", at::kBFloat16, 0.25f},
                                                 {"gpt2/odd", at::kHalf, 0.03f},
                                                 {"decoders/qwen3_tied", at::kBFloat16, 0.25f},
                                                 {"decoders/qwen3_tied", at::kHalf, 0.03f},
                                                 {"decoders/ernie4_5_tied", at::kBFloat16, 0.25f},
                                                 {"decoders/ernie4_5_tied", at::kHalf, 0.03f}}) {
    for (const bool force_aten : {false, true}) {
      const auto model = LoadModel(folder, dtype, {.force_aten = force_aten});
      ASSERT_NE(model, nullptr);
      KvCache cache = model->MakeCache(4);
      const Golden golden = ReadGoldens(folder)[3];
      const std::vector<int32_t> pages = {2, 0};
      const TextRow row{.tokens = golden.prompt, .page_table = pages};
      const auto logits = model->Run({row}, cache);
      ASSERT_TRUE(logits.ok()) << logits.status();
      const float difference = (logits->values[0] - golden.logits).abs().max().item<float>();
      // Relative to logits that spread over ±4: the types keep 8 and 11 bits of every activation.
      EXPECT_LE(difference, tolerance) << folder << " " << at::toString(dtype);
      EXPECT_GT(difference, 0) << "not computed in " << at::toString(dtype);
    }
  }
}

TEST(TextModelTest, RejectsRowsOutOfRange) {
  const auto model = LoadModel("gpt2/bin", at::kFloat);
  ASSERT_NE(model, nullptr);
  KvCache cache = model->MakeCache(2);
  const std::vector<int32_t> token = {1}, bad_token = {61}, negative = {-1}, none;
  const std::vector<int32_t> pages = {0, 1}, bad_page = {2};
  const std::pair<TextRow, const char*> cases[] = {
      {{.tokens = none, .page_table = pages}, "row 0: tokens must not be empty"},
      {{.tokens = bad_token, .page_table = pages}, "token id 61 is not within 0 to 60"},
      {{.tokens = negative, .page_table = pages}, "token id -1"},
      {{.tokens = token, .start = 96, .page_table = pages}, "not within 0 to 95"},
      {{.tokens = token, .start = -1, .page_table = pages}, "not within 0 to 95"},
      {{.tokens = token, .start = 32, .page_table = pages}, "2 pages, 3 are needed"},
      {{.tokens = token, .page_table = bad_page}, "page 2 is not within 0 to 1"},
  };
  for (const auto& [row, message] : cases) {
    const auto logits = model->Run({row}, cache);
    EXPECT_EQ(logits.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(logits.status().message(), HasSubstr(message));
  }
}

TEST(DecoderConfigTest, NamesTheBadField) {
  const std::tuple<const DecoderFamily*, const char*, const char*> cases[] = {
      {&kGpt2Family, R"({"model_type": "llama"})", "model_type"},
      {&kGpt2Family, R"({"n_head": 7})", "n_head"},
      {&kGpt2Family, R"({"activation_function": "sin"})", "activation_function"},
      {&kGpt2Family, R"({"n_embd": -1})", "n_embd"},
      {&kGpt2Family, R"({"n_layer": "two"})", "n_layer"},
      {&kGpt2Family, R"({"vocab_size": 1e30})", "vocab_size"},
      {&kQwen3Family, R"({"num_key_value_heads": 5})", "num_key_value_heads"},
      {&kQwen3Family, R"({"head_dim": 7})", "head_dim"},
      {&kQwen3Family, R"({"use_sliding_window": true})", "use_sliding_window"},
      {&kQwen3Family, R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})",
       "rope_parameters.rope_type"},
      {&kQwen3Family, R"({"rope_parameters": {"type": "dynamic"}})", "rope_parameters.rope_type"},
      {&kErnie45Family, R"({"rope_parameters": {"rope_theta": 0}})", "rope_parameters.rope_theta"},
      {&kErnie45Family, R"({"hidden_act": "tanh"})", "hidden_act"},
      {&kLlamaFamily, R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
  };
  for (const auto& [family, text, field] : cases) {
    const auto config = family->parse(nlohmann::json::parse(text));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(config.status().message(), HasSubstr(field)) << text;
  }
}

TEST(DecoderConfigTest, ReadsBothSpellingsOfRope) {
  for (const char* text :
       {R"({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2}})",
        R"({"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2}})"}) {
    const auto config = kQwen3Family.parse(nlohmann::json::parse(text));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope.theta, 1e6) << text;
    EXPECT_EQ(config->rope.factor, 2) << text;
  }
}

}  // namespace
}  // namespace hanmo
