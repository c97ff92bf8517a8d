#include "workers/models/ernie_vilg.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/models/ernie_vilg_slots.h"
#include "workers/models/testing/golden.h"

namespace hanmo {
namespace {

using ::hanmo::testing::OpenFolder;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kGoldens[] = "tests/goldens/ernie_vilg/";
constexpr const char* kFolders[] = {"post", "pre", "sandwich", "dense", "whole"};

// Where the weights are: "whole" is a pipeline.
std::string WeightsOf(const std::string& name) {
  return absl::StrCat(kGoldens, name, name == "whole" ? "/transformer" : "");
}

std::unique_ptr<ErnieVilg> LoadModel(const std::string& name, at::ScalarType dtype = at::kFloat,
                                     TextModelOptions options = {}) {
  // Tiny models: a second thread would only wait for a turn.
  at::set_num_threads(1);
  Checkpoint checkpoint = OpenFolder(WeightsOf(name), dtype);
  auto model = ErnieVilg::Load(checkpoint, options);
  if (!model.ok()) {
    ADD_FAILURE() << model.status();
    return nullptr;
  }
  EXPECT_THAT(checkpoint.Unused(), IsEmpty());
  return *std::move(model);
}

std::vector<int32_t> PageIds(int32_t count, uint32_t seed) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
  return ids;
}

// One sequence: all of its tokens, and its pages.
struct Sequence {
  bool paints = false;
  int64_t source_tokens = 0;
  std::vector<int32_t> tokens;    // with padding
  std::vector<int32_t> expected;  // the target, in ids of its own vocabulary
  at::Tensor logits;              // golden, of tokens from BOI or BOT on
  std::vector<int32_t> pages;
  int64_t cached = 0;

  int64_t target_begin() const { return (source_tokens + 15) / 16 * 16; }
  VilgRow NextRow(int64_t count, LogitsOf logits = LogitsOf::kLastToken) const {
    return {.tokens = absl::MakeConstSpan(tokens).subspan(cached, count),
            .start = cached,
            .source_tokens = source_tokens,
            .paints = paints,
            .page_table = pages,
            .logits = logits};
  }
  int64_t waiting() const { return static_cast<int64_t>(tokens.size()) - cached; }
};

// The recorded sequences, both directions, each with the target up to its last token but one.
std::vector<Sequence> ReadGoldens(const std::string& name, const ErnieVilgConfig& config) {
  testing::Golden file(absl::StrCat(kGoldens, name, "/golden.safetensors"));
  const auto ids = [&](const std::string& tensor) {
    const at::Tensor values = file.Get(tensor, at::kInt);
    return std::vector<int32_t>(values.data_ptr<int32_t>(),
                                values.data_ptr<int32_t>() + values.numel());
  };
  const auto vocabulary = static_cast<int32_t>(config.text_vocabulary);
  std::vector<Sequence> sequences;
  for (const char* index : {"0", "1"}) {
    for (const bool paints : {true, false}) {
      const std::string prefix = absl::StrCat(paints ? "paint." : "write.", index);
      Sequence& sequence = sequences.emplace_back();
      sequence.paints = paints;
      sequence.tokens = ids(prefix + (paints ? ".source" : ".codes"));
      sequence.source_tokens = static_cast<int64_t>(sequence.tokens.size());
      sequence.expected = ids(prefix + (paints ? ".codes" : ".ids"));
      sequence.logits = file.Get(prefix + ".logits");
      for (int32_t& token : sequence.tokens) token += paints ? 0 : vocabulary;
      // Padding is nothing that is looked at.
      sequence.tokens.resize(sequence.target_begin(), -5);
      sequence.tokens.push_back(paints ? config.begin_picture : config.begin_text);
      for (size_t i = 0; i + 1 < sequence.expected.size(); ++i) {
        sequence.tokens.push_back(sequence.expected[i] + (paints ? vocabulary : 0));
      }
    }
  }
  return sequences;
}

// Pages for whole sequences, in random order.
void DealPages(const ErnieVilg& model, uint32_t seed, std::vector<Sequence>& sequences) {
  const auto pages = static_cast<int32_t>(model.context_tokens() / 16 + 1);
  const std::vector<int32_t> ids = PageIds(pages * static_cast<int32_t>(sequences.size()), seed);
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].cached = 0;
    sequences[i].pages.assign(ids.begin() + i * pages, ids.begin() + (i + 1) * pages);
  }
}

int64_t AllPages(const ErnieVilg& model, const std::vector<Sequence>& sequences) {
  return (model.context_tokens() / 16 + 1) * static_cast<int64_t>(sequences.size());
}

class ErnieVilgGoldenTest : public ::testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  void SetUp() override {
    const auto& [folder, force_aten] = GetParam();
    model_ = LoadModel(folder, at::kFloat, {.force_aten = force_aten});
    ASSERT_NE(model_, nullptr);
    sequences_ = ReadGoldens(folder, model_->config());
    DealPages(*model_, 1, sequences_);
    cache_ = model_->MakeCache(AllPages(*model_, sequences_));
  }

  std::unique_ptr<ErnieVilg> model_;
  std::vector<Sequence> sequences_;
  KvCache cache_;
};

TEST_P(ErnieVilgGoldenTest, LogitsOfWholeTargetsAreTheReferences) {
  std::vector<VilgRow> rows;
  for (const Sequence& sequence : sequences_) {
    rows.push_back(sequence.NextRow(sequence.waiting(), LogitsOf::kAllTokens));
  }
  const auto logits = model_->Run(rows, cache_);
  ASSERT_TRUE(logits.ok()) << logits.status();
  for (size_t i = 0; i < sequences_.size(); ++i) {
    ASSERT_EQ((*logits)[i].sizes(), sequences_[i].logits.sizes());
    EXPECT_LE(((*logits)[i] - sequences_[i].logits).abs().max().item<float>(), 1e-4f) << i;
  }
}

TEST_P(ErnieVilgGoldenTest, GreedyPicturesAndTextsAreTheReferences) {
  const ErnieVilgConfig& config = model_->config();
  std::vector<Sequence> running = sequences_;
  for (Sequence& sequence : running) sequence.tokens.resize(sequence.target_begin() + 1);
  size_t most = 0;
  for (const Sequence& sequence : running) most = std::max(most, sequence.expected.size());
  for (size_t step = 0; step < most; ++step) {
    std::vector<size_t> members;
    std::vector<VilgRow> rows;
    for (size_t i = 0; i < running.size(); ++i) {
      if (step >= running[i].expected.size()) continue;
      members.push_back(i);
      rows.push_back(running[i].NextRow(running[i].waiting()));
    }
    const auto logits = model_->Run(rows, cache_);
    ASSERT_TRUE(logits.ok()) << logits.status();
    for (size_t r = 0; r < rows.size(); ++r) {
      Sequence& sequence = running[members[r]];
      at::Tensor row = (*logits)[r][0].clone();
      EXPECT_LE((row - sequence.logits[step]).abs().max().item<float>(), 1e-4f);
      if (!sequence.paints) {
        for (int32_t id : {config.cls, config.pad, config.begin_picture, config.begin_text}) {
          row[id] = -1e9;
        }
      }
      const auto best = static_cast<int32_t>(row.argmax().item<int64_t>());
      ASSERT_EQ(best, sequence.expected[step]) << "sequence " << members[r] << " step " << step;
      sequence.cached = static_cast<int64_t>(sequence.tokens.size());
      const int64_t offset = sequence.paints ? config.text_vocabulary : 0;
      sequence.tokens.push_back(best + static_cast<int32_t>(offset));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, ErnieVilgGoldenTest,
                         ::testing::Combine(::testing::ValuesIn(kFolders), ::testing::Bool()),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param),
                                               std::get<1>(info.param) ? "Aten" : "Cpu");
                         });

class ErnieVilgCompanyTest
    : public ::testing::TestWithParam<std::tuple<const char*, at::ScalarType, CpuIsa>> {};

TEST_P(ErnieVilgCompanyTest, LogitsAreTheSameBitsInAnyBatchChunkAndPage) {
  const auto& [folder, dtype, isa] = GetParam();
  const auto model = LoadModel(folder, dtype, {.isa = isa});
  ASSERT_NE(model, nullptr);
  std::vector<Sequence> sequences = ReadGoldens(folder, model->config());
  DealPages(*model, 2, sequences);
  // Alone, each target in one row.
  std::vector<at::Tensor> alone;
  for (const Sequence& sequence : sequences) {
    KvCache cache = model->MakeCache(AllPages(*model, sequences));
    const VilgRow row = sequence.NextRow(sequence.waiting(), LogitsOf::kAllTokens);
    alone.push_back((*model->Run({row}, cache))[0]);
  }
  std::mt19937 random(17);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  for (uint32_t round = 0; round < 3; ++round) {
    DealPages(*model, 3 + round, sequences);
    KvCache cache = model->MakeCache(AllPages(*model, sequences));
    int64_t compared = 0;
    while (std::any_of(sequences.begin(), sequences.end(),
                       [](const Sequence& s) { return s.waiting() > 0; })) {
      std::vector<size_t> members;
      std::vector<VilgRow> rows;
      for (size_t i = 0; i < sequences.size(); ++i) {
        const Sequence& sequence = sequences[i];
        if (sequence.waiting() == 0 || below(3) == 0) continue;
        const int64_t source = sequence.cached == 0 ? sequence.target_begin() : 0;
        const int64_t count =
            std::min(sequence.waiting(), source + (below(2) == 0 ? 1 : 1 + below(40)));
        members.push_back(i);
        rows.push_back(sequence.NextRow(count, LogitsOf::kAllTokens));
      }
      const auto logits = model->Run(rows, cache);
      ASSERT_TRUE(logits.ok()) << logits.status();
      for (size_t r = 0; r < rows.size(); ++r) {
        Sequence& sequence = sequences[members[r]];
        const int64_t first =
            std::max(sequence.cached, sequence.target_begin()) - sequence.target_begin();
        sequence.cached += static_cast<int64_t>(rows[r].tokens.size());
        const at::Tensor& given = (*logits)[r];
        ASSERT_TRUE(given.equal(alone[members[r]].narrow(0, first, given.size(0))))
            << "round " << round << " sequence " << members[r] << " target token " << first;
        compared += given.size(0);
      }
    }
    EXPECT_GT(compared, 40);
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, ErnieVilgCompanyTest,
                         ::testing::Combine(::testing::Values("post", "sandwich", "whole"),
                                            ::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::ValuesIn(SupportedIsas())),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param),
                                               at::toString(std::get<1>(info.param)),
                                               IsaName(std::get<2>(info.param)));
                         });

TEST(ErnieVilgTest, WhatAPageHeldBeforeDoesNotMatter) {
  for (const bool force_aten : {false, true}) {
    const auto model = LoadModel("post", at::kFloat, {.force_aten = force_aten});
    ASSERT_NE(model, nullptr);
    std::vector<Sequence> sequences = ReadGoldens("post", model->config());
    DealPages(*model, 5, sequences);
    std::vector<at::Tensor> found;
    for (const bool dirty : {false, true}) {
      KvCache cache = model->MakeCache(AllPages(*model, sequences));
      for (size_t i = 0; dirty && i < cache.keys.size(); ++i) {
        cache.keys[i].fill_(NAN);
        cache.values[i].fill_(NAN);
      }
      std::vector<VilgRow> rows;
      for (const Sequence& s : sequences) {
        rows.push_back(s.NextRow(s.waiting(), LogitsOf::kAllTokens));
      }
      const auto logits = model->Run(rows, cache);
      ASSERT_TRUE(logits.ok()) << logits.status();
      found.push_back(at::cat({(*logits)[0].flatten(), (*logits)[1].flatten()}));
    }
    EXPECT_LE((found[0] - found[1]).abs().max().item<float>(), 1e-6f);
  }
}

TEST(ErnieVilgTest, LowerPrecisionStaysCloseToFloat32) {
  for (const char* folder : {"post", "pre"}) {
    for (const bool force_aten : {false, true}) {
      const auto model = LoadModel(folder, at::kBFloat16, {.force_aten = force_aten});
      ASSERT_NE(model, nullptr);
      std::vector<Sequence> sequences = ReadGoldens(folder, model->config());
      DealPages(*model, 5, sequences);
      KvCache cache = model->MakeCache(AllPages(*model, sequences));
      for (const Sequence& sequence : sequences) {
        const VilgRow row = sequence.NextRow(sequence.waiting(), LogitsOf::kAllTokens);
        const at::Tensor difference = ((*model->Run({row}, cache))[0] - sequence.logits).abs();
        EXPECT_LE(difference.max().item<float>(), 0.4f) << folder;
        EXPECT_GT(difference.max().item<float>(), 0) << "not computed in bfloat16";
      }
    }
  }
}

TEST(ErnieVilgTest, RejectsRowsOutOfRange) {
  const auto model = LoadModel("whole");
  ASSERT_NE(model, nullptr);
  KvCache cache = model->MakeCache(4);
  std::vector<Sequence> sequences = ReadGoldens("whole", model->config());
  Sequence paint = sequences[0], write = sequences[1];
  paint.pages = write.pages = {0, 1, 2};
  const auto error = [&](const VilgRow& row) {
    const auto logits = model->Run({row}, cache);
    EXPECT_EQ(logits.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(logits.status().message());
  };
  EXPECT_TRUE(model->Run({paint.NextRow(18)}, cache).ok());
  EXPECT_THAT(error(paint.NextRow(0)), HasSubstr("row 0: tokens must not be empty"));
  EXPECT_THAT(error(paint.NextRow(2)), HasSubstr("cut the source of 4 tokens"));
  VilgRow row = paint.NextRow(17);
  row.source_tokens = 21;
  EXPECT_THAT(error(row), HasSubstr("a source of 21 tokens, 1 to 20 expected"));
  row = write.NextRow(17);
  row.source_tokens = 14;
  EXPECT_THAT(error(row), HasSubstr("a source of 14 tokens, 15 expected"));
  row = paint.NextRow(17);
  row.start = -1;
  EXPECT_THAT(error(row), HasSubstr("not within 0 to 30"));
  row = paint.NextRow(17);
  row.start = 18;
  EXPECT_THAT(error(row), HasSubstr("positions 18 to 34 are not within 0 to 30"));
  Sequence bad = paint;
  bad.tokens[1] = 61;
  EXPECT_THAT(error(bad.NextRow(17)), HasSubstr("token id 61 at position 1 is not within 0 to 60"));
  bad = paint;
  bad.tokens[16] = 5;
  EXPECT_THAT(error(bad.NextRow(17)), HasSubstr("token id 5 at position 16 is not within 4 to 4"));
  bad = paint;
  bad.tokens[17] = 60;
  EXPECT_THAT(error(bad.NextRow(18)), HasSubstr("not within 61 to 108"));
  bad = write;
  bad.tokens[0] = 3;
  EXPECT_THAT(error(bad.NextRow(17)), HasSubstr("not within 61 to 108"));
  bad = paint;
  bad.pages = {0, 4};
  EXPECT_THAT(error(bad.NextRow(17)), HasSubstr("page 4 is not within 0 to 3"));
  bad.pages = {0};
  EXPECT_THAT(error(bad.NextRow(18)), HasSubstr("1 pages, 2 are needed"));
}

TEST(ErnieVilgTest, NamesTheMissingTensor) {
  for (const char* name : {"embeddings.column_embeddings.weight", "lm_head.decoder.bias",
                           "encoder.layer.3.output.dense.bias", "encoder.LayerNorm.weight"}) {
    Checkpoint checkpoint = OpenFolder(WeightsOf("whole"));
    ASSERT_TRUE(checkpoint
                    .Rename([&](absl::string_view given) {
                      return given == name ? std::string() : std::string(given);
                    })
                    .ok());
    const auto model = ErnieVilg::Load(checkpoint);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(name));
  }
}

TEST(ErnieVilgConfigTest, NamesTheBadField) {
  const nlohmann::json good = OpenFolder(WeightsOf("whole")).config();
  ASSERT_TRUE(ErnieVilgConfig::FromJson(good).ok());
  const std::pair<const char*, nlohmann::json> cases[] = {
      {"model_type", "bert"},
      {"text_vocab_size", 0},
      {"image_vocab_size", "many"},
      {"num_attention_heads", 5},
      {"hidden_act", "tanh"},
      {"norm_position", "middle"},
      {"max_text_length", 2},
      {"image_grid", {3}},
      {"image_grid", {3, 0}},
      {"token_type_vocab_size", 2},
      {"attention_pattern", "rows"},
      {"attention_pattern", {{"conv_kernel", 4}}},
      {"attention_pattern", {{"cycle", 2}, {"column_at", 2}}},
      {"bot_token_id", 61},
      {"tie_word_embeddings", 1},
  };
  for (const auto& [key, value] : cases) {
    nlohmann::json bad = good;
    bad[key] = value;
    const auto config = ErnieVilgConfig::FromJson(bad);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << key << " " << value;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
  for (const char* key : {"text_vocab_size", "image_vocab_size", "hidden_size", "image_grid",
                          "max_text_length", "boi_token_id"}) {
    nlohmann::json bad = good;
    bad.erase(key);
    const auto config = ErnieVilgConfig::FromJson(bad);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
}

}  // namespace
}  // namespace hanmo
