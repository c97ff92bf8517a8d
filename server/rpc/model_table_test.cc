#include "server/rpc/model_table.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/test_models.h"

namespace hanmo {
namespace {

std::vector<Model> TwoAndABrokenOne() {
  std::vector<Model> models;
  models.push_back(testing::BareModel(0, "a"));
  models.push_back(testing::BareModel(1, "b"));
  models.push_back(testing::BrokenModel(2, "broken"));
  return models;
}

class ModelTableTest : public ::testing::Test {
 protected:
  ModelTableTest() {
    table_.Watch([this] { ++changes_; });
  }

  ModelTable table_{TwoAndABrokenOne()};
  int changes_ = 0;
};

TEST_F(ModelTableTest, FindsByName) {
  EXPECT_EQ(table_.Find("b")->spec.id, 1u);
  EXPECT_EQ(table_.Find("c"), nullptr);
  EXPECT_EQ(table_.Find(""), nullptr);
}

TEST_F(ModelTableTest, ReadyOnceEveryLoadableModelIsLoaded) {
  EXPECT_EQ(table_.phase(0), ModelPhase::kLoading);
  EXPECT_EQ(table_.phase(2), ModelPhase::kFailed);
  EXPECT_FALSE(table_.ready());
  table_.SetLoaded(0, 0, {});
  EXPECT_EQ(table_.phase(0), ModelPhase::kReady);
  EXPECT_FALSE(table_.ready());
  table_.SetLoaded(0, 1, {});
  EXPECT_TRUE(table_.ready());
  EXPECT_EQ(changes_, 2);
}

TEST_F(ModelTableTest, RecoversWhenAWorkerComesBack) {
  table_.SetLoaded(0, 0, {});
  table_.SetLoaded(1, 0, {});
  table_.SetLoaded(0, 1, {});
  EXPECT_EQ(table_.Status(0).workers.size(), 2u);
  table_.RemoveWorker(0);
  EXPECT_EQ(table_.phase(0), ModelPhase::kReady);  // worker 1 still has it
  EXPECT_EQ(table_.phase(1), ModelPhase::kRecovering);
  EXPECT_TRUE(table_.ready());
  table_.RemoveWorker(1);
  EXPECT_FALSE(table_.ready());
  table_.SetLoaded(1, 1, {});
  EXPECT_EQ(table_.phase(1), ModelPhase::kReady);
  EXPECT_TRUE(table_.ready());
}

TEST_F(ModelTableTest, FailsWithTheReasonUnlessAnotherWorkerHasIt) {
  table_.SetLoaded(0, 0, {});
  table_.SetFailed(1, 0, absl::InvalidArgumentError("torn"));
  EXPECT_EQ(table_.phase(0), ModelPhase::kReady);
  table_.SetFailed(0, 1, absl::InvalidArgumentError("h.0.attn.c_attn.weight: torn"));
  EXPECT_EQ(table_.phase(1), ModelPhase::kFailed);
  EXPECT_EQ(table_.Status(1).detail, "h.0.attn.c_attn.weight: torn");
  EXPECT_TRUE(table_.ready());  // what can be served is
}

TEST(OpenModelTest, KeepsTheFaultOfABrokenFolder) {
  ModelSpec spec;
  spec.status = absl::InvalidArgumentError("why");
  EXPECT_EQ(OpenModel(spec).spec.status.message(), "why");
}

TEST(OpenModelTest, ATextFolderWithoutTokenizerServesTokenIds) {
  ModelSpec spec;
  spec.path = ::testing::TempDir() + "/no-such-folder";
  const Model model = OpenModel(spec);
  EXPECT_TRUE(model.spec.status.ok()) << model.spec.status;
  EXPECT_EQ(model.tokenizer, nullptr);
  spec.kind = ModelKind::kPicture;
  EXPECT_FALSE(OpenModel(spec).spec.status.ok());
}

TEST(OpenModelTest, ARerankerReadsItsOwnVocabularyOrThatOfTheModel) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "scored";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "tokenizer");
  std::filesystem::create_directories(folder / "reranker");
  const std::string words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  std::ofstream(folder / "tokenizer/vocab.txt") << words << "山\n";
  std::ofstream(folder / "tokenizer/tokenizer_config.json")
      << R"({"tokenizer_class": "BertTokenizer"})";
  ModelSpec spec;
  spec.kind = ModelKind::kPicture;
  spec.path = folder;
  spec.picture.reranker_tokens = 8;
  spec.picture.reranker_vocabulary = 6;
  EXPECT_TRUE(OpenModel(spec).spec.status.ok()) << OpenModel(spec).spec.status;
  EXPECT_EQ(OpenModel(spec).reranker_tokenizer, nullptr);

  std::ofstream(folder / "reranker/vocab.txt") << words << "水\n";
  const Model own = OpenModel(spec);
  ASSERT_NE(own.reranker_tokenizer, nullptr) << own.spec.status;
  EXPECT_THAT(*own.reranker_tokenizer->Encode("水", true), ::testing::ElementsAre(2, 5, 3));

  spec.picture.reranker_vocabulary = 5;
  EXPECT_THAT(std::string(OpenModel(spec).spec.status.message()),
              ::testing::HasSubstr("vocab_size 5, less than the 6 tokens"));
}

TEST(OpenModelTest, TheTokenizerAndTheIdsOfAPictureModelAgree) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "brush";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "tokenizer");
  std::ofstream(folder / "tokenizer/vocab.txt") << "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n山\n";
  std::ofstream(folder / "tokenizer/tokenizer_config.json")
      << R"({"tokenizer_class": "BertTokenizer"})";
  ModelSpec spec = testing::Scribe(0, "brush").spec;
  spec.path = folder;
  EXPECT_TRUE(OpenModel(spec).spec.status.ok()) << OpenModel(spec).spec.status;
  spec.tokens.sep = 4;
  EXPECT_EQ(OpenModel(spec).spec.status.message(),
            "transformer/config.json has sep_token_id 4, but the tokenizer has another [SEP]");
  spec.tokens.cls = 3;
  EXPECT_THAT(std::string(OpenModel(spec).spec.status.message()),
              ::testing::HasSubstr("cls_token_id 3"));
  spec.tokens.text_vocabulary = 5;
  EXPECT_THAT(std::string(OpenModel(spec).spec.status.message()),
              ::testing::HasSubstr("text_vocab_size 5, but the tokenizer has 6 tokens"));
}

}  // namespace
}  // namespace hanmo
