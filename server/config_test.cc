#include "server/config.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config_options.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Environment = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<CommandLine> Parse(std::vector<std::string> arguments, Environment env = {}) {
  arguments.push_back("--model-repository=models");
  return ParseCommandLine(arguments, env);
}

std::string WriteFile(const std::string& name, const std::string& content) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path) << content;
  return path;
}

TEST(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = WriteFile("precedence.yaml",
                                     "max-picture-batch: 2\nmax-running-samples: 3\n"
                                     "steps-in-flight: 4\n");
  auto line = Parse({"--config", file, "--max-picture-batch=7"},
                    {{"HANMO_MAX_PICTURE_BATCH", "5"}, {"HANMO_MAX_RUNNING_SAMPLES", "6"}});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.max_picture_batch, 7u);
  EXPECT_EQ(line->config.max_running_samples, 6u);
  EXPECT_EQ(line->config.steps_in_flight, 4u);
  EXPECT_EQ(line->config.save_interval_steps, 5u);
}

TEST(ConfigTest, TheClientsVariableIsNotOurs) {
  EXPECT_TRUE(Parse({}, {{"HANMO_SERVER", "localhost:8001"}}).ok());
}

TEST(ConfigTest, TenantWeightsHaveANameAndAWeight) {
  auto line = Parse({"--tenant-weight=gold=4", "--tenant-weight=free=0.5"});
  ASSERT_TRUE(line.ok()) << line.status();
  const auto gold = ParseTenantWeight(line->config.tenant_weight[0]);
  ASSERT_TRUE(gold.ok());
  EXPECT_EQ(*gold, std::make_pair(std::string("gold"), 4.0));
  for (const char* bad : {"gold", "gold=", "gold=0", "gold=nan", "gold=1001", "a b=1", "g=1x"}) {
    EXPECT_FALSE(Parse({absl::StrCat("--tenant-weight=", bad)}).ok()) << bad;
  }
}

TEST(ConfigTest, LabelsHaveAModelAndAVersion) {
  auto line = Parse({"--label=poet:canary=12"});
  ASSERT_TRUE(line.ok()) << line.status();
  const auto canary = ParseVersionLabel(line->config.label[0]);
  ASSERT_TRUE(canary.ok());
  EXPECT_EQ(canary->model, "poet");
  EXPECT_EQ(canary->label, "canary");
  EXPECT_EQ(canary->version, 12u);
  for (const char* bad :
       {"poet", "poet:canary", "poet:canary=", "poet:canary=0", "poet:canary=4294967296",
        "poet:2=2", "poet:=2", ":canary=2", "poet=2", "poet:can ary=2"}) {
    EXPECT_FALSE(Parse({absl::StrCat("--label=", bad)}).ok()) << bad;
  }
  EXPECT_THAT(Parse({"--label=poet:canary=1", "--label=poet:canary=2"}).status().message(),
              HasSubstr("--label: poet:canary is given twice"));
}

TEST(ConfigTest, EveryOptionReadsBackWhatItPrints) {
  for (const ConfigOption& option : ConfigOptions()) {
    Config config;
    const std::string value = ConfigValue(option, config);
    EXPECT_TRUE(SetConfigValue(option, value, false, &config).ok()) << option.name;
    EXPECT_EQ(ConfigValue(option, config), value) << option.name;
  }
}

TEST(ConfigTest, PrintedConfigIsAConfigFile) {
  auto first = Parse({"--keepalive-time=90s", "--kv-memory=3GiB", "--worker=unix:/a",
                      "--worker=unix:/b", "--deterministic=false", "--listen=[::]:0"});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string printed = ConfigYaml(first->config);
  auto second = ParseCommandLine({"--config", WriteFile("printed.yaml", printed)}, {});
  ASSERT_TRUE(second.ok()) << second.status() << "\n" << printed;
  EXPECT_EQ(ConfigYaml(second->config), printed);
  EXPECT_THAT(second->config.worker, ElementsAre("unix:/a", "unix:/b"));
  EXPECT_EQ(second->config.kv_memory, uint64_t{3} << 30);
  EXPECT_EQ(second->config.deterministic, "false");
}

TEST(ConfigTest, ListsComeFromRepeatedFlagsSequencesAndCommas) {
  EXPECT_THAT(Parse({"--worker-arg=--a,b", "--worker-arg", "c"})->config.worker_arg,
              ElementsAre("--a,b", "c"));
  EXPECT_THAT(Parse({"--devices", "cuda:0,cpu"})->config.devices, ElementsAre("cuda:0", "cpu"));
  EXPECT_THAT(Parse({}, {{"HANMO_WORKER", "unix:/a,h:1"}})->config.worker,
              ElementsAre("unix:/a", "h:1"));
  const std::string file = WriteFile("list.yaml", "worker: [x, y]\n");
  EXPECT_THAT(Parse({"--config", file})->config.worker, ElementsAre("x", "y"));
  EXPECT_THAT(Parse({"--config", file, "--worker=z"})->config.worker, ElementsAre("z"));
}

TEST(ConfigTest, BooleanFlagsNeedNoValue) {
  EXPECT_TRUE(Parse({"--reflection"})->config.reflection);
  EXPECT_FALSE(Parse({"--reflection=false"})->config.reflection);
}

struct BadCase {
  std::string name;
  std::vector<std::string> arguments;
  Environment environment;
  std::string message;
};

class ConfigErrorTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(ConfigErrorTest, NamesTheKey) {
  auto line = Parse(GetParam().arguments, GetParam().environment);
  ASSERT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(line.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigErrorTest,
    ::testing::Values(
        BadCase{"UnknownFlag", {"--listn=x"}, {}, "--listn: unknown option"},
        BadCase{"NotAFlag", {"serve"}, {}, "\"serve\": expected --option"},
        BadCase{"UnknownEnvironment", {}, {{"HANMO_LISTENN", "x"}}, "HANMO_LISTENN: unknown"},
        BadCase{"NumberTooSmall", {"--workers=0"}, {}, "--workers: must be a number from 1 to 64"},
        BadCase{"NumberNegative", {"--workers=-1"}, {}, "--workers: must be"},
        BadCase{"NumberIsText", {"--workers=two"}, {}, "got \"two\""},
        BadCase{"BytesTooFew", {"--grpc-memory=1KiB"}, {}, "from 16MiB to 64GiB"},
        BadCase{"DurationNoUnit", {"--shutdown-delay=5"}, {}, "--shutdown-delay: must be a time"},
        BadCase{"Choice", {"--log-format=xml"}, {}, "one of auto, text, json"},
        BadCase{"Boolean", {"--reflection=maybe"}, {}, "true or false"},
        BadCase{"Device", {"--devices=gpu"}, {}, "--devices: must be auto, cpu or cuda:N"},
        BadCase{"PortTooLarge", {"--listen=127.0.0.1:99999"}, {}, "--listen: must be HOST:PORT"},
        BadCase{"PortIsText", {"--listen=[::]"}, {}, "a port from 0 to 65535, got \"[::]\""},
        BadCase{"NoMetricsPort", {"--metrics-listen=localhost"}, {}, "--metrics-listen: must be"},
        BadCase{"KeyWithoutCert", {"--tls-key=k"}, {}, "--tls-cert and --tls-key"},
        BadCase{"WorkerCertWithoutKey",
                {"--worker-tls-cert=c"},
                {},
                "--worker-tls-cert and --worker-tls-key"},
        BadCase{"ActionWithValue", {"--help=yes"}, {}, "--help: takes no value"},
        BadCase{"EnvironmentRange", {}, {{"HANMO_WORKERS", "99"}}, "HANMO_WORKERS: must be"},
        BadCase{"NoSuchFile", {"--config=/nonexistent.yaml"}, {}, "--config /nonexistent.yaml"}),
    [](const auto& info) { return info.param.name; });

TEST(ConfigTest, AFlagAtTheEndNeedsItsValue) {
  EXPECT_THAT(std::string(ParseCommandLine({"--listen"}, {}).status().message()),
              HasSubstr("--listen: needs a value"));
}

TEST(ConfigTest, BadFilesNameTheLine) {
  auto message = [](const std::string& content) {
    return std::string(Parse({"--config", WriteFile("bad.yaml", content)}).status().message());
  };
  EXPECT_THAT(message("workers: 2\nworkrs: 3\n"), HasSubstr("bad.yaml:2: \"workrs\": unknown"));
  EXPECT_THAT(message("workers: 2\nworkers: 3\n"), HasSubstr("\"workers\": given twice"));
  EXPECT_THAT(message("workers: [1, 2]\n"), HasSubstr("must be one value"));
  EXPECT_THAT(message("- a\n"), HasSubstr("must be a map"));
  EXPECT_THAT(message("workers: {"), HasSubstr("bad.yaml"));
}

TEST(ConfigTest, KubernetesServiceLinksAreNotOptions) {
  EXPECT_TRUE(Parse({}, {{"HANMO_SERVICE_HOST", "10.0.0.1"},
                         {"HANMO_PORT", "tcp://10.0.0.1:8001"},
                         {"HANMO_SERVER_PORT_8001_TCP_ADDR", "10.0.0.1"},
                         {"HANMO_SERVER_SERVICE_PORT_GRPC", "8001"}})
                  .ok());
}

TEST(ConfigTest, HelpNamesEveryOptionAndItsEnvironmentTwin) {
  const std::string help = ConfigHelp();
  for (const ConfigOption& option : ConfigOptions()) {
    EXPECT_THAT(help, HasSubstr(absl::StrCat("--", option.name, " ")));
    EXPECT_THAT(help, HasSubstr(absl::StrCat(EnvironmentName(option), "]")));
  }
}

TEST(ConfigTest, ModelRepositoryIsRequiredToServeButNotForHelp) {
  EXPECT_THAT(std::string(ParseCommandLine({}, {}).status().message()),
              HasSubstr("--model-repository: is required"));
  EXPECT_EQ(ParseCommandLine({"--help"}, {})->action, ConfigAction::kHelp);
  EXPECT_EQ(ParseCommandLine({"--version"}, {})->action, ConfigAction::kVersion);
  EXPECT_EQ(ParseCommandLine({"--print-config"}, {})->action, ConfigAction::kPrintConfig);
}

}  // namespace
}  // namespace hanmo
