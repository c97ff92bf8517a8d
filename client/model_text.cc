#include "client/model_text.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/generation_json.h"

namespace hanmo {
namespace {

using hanmo::v1::DescribeModelResponse;
using hanmo::v1::PictureModel;
using hanmo::v1::TextModel;
using nlohmann::ordered_json;

// "ready" of MODEL_STATE_READY, so that states and tasks that come later have a name already.
std::string StateName(hanmo::v1::ModelState state) {
  const std::string name = hanmo::v1::ModelState_Name(state);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "MODEL_STATE_"));
}

template <typename Model>
std::vector<std::string> TaskNames(const Model& model) {
  std::vector<std::string> names;
  for (int i = 0; i < model.tasks_size(); ++i) {
    const std::string name = hanmo::v1::Task_Name(model.tasks(i));
    names.push_back(
        absl::AsciiStrToLower(absl::StrReplaceAll(absl::StripPrefix(name, "TASK_"), {{"_", "-"}})));
  }
  return names;
}

void AddLine(absl::string_view name, absl::string_view value, std::string* text) {
  absl::StrAppendFormat(text, "  %-15s%s\n", name, value);
}

void AddTextModel(const TextModel& model, std::string* text) {
  AddLine("context", absl::StrCat(model.context_tokens(), " tokens, prompt and text together"),
          text);
  AddLine("vocabulary",
          absl::StrCat(model.vocabulary_size(), " tokens, ends at ",
                       absl::StrJoin(model.eos_token_ids(), ", ")),
          text);
  AddLine("conversation",
          model.has_thinking_switch() ? "yes, with or without thinking"
          : model.has_chat_template() ? "yes"
                                      : "no, it has no chat template",
          text);
  AddLine("defaults",
          absl::StrCat("--temperature ", model.default_temperature(), " --top-k ",
                       model.default_top_k(), " --top-p ", model.default_top_p(),
                       " --repetition-penalty ", model.default_repetition_penalty(),
                       " --max-tokens ", model.default_max_tokens()),
          text);
}

void AddReranker(const PictureModel& model, std::string* text) {
  std::string reranker = model.has_reranker() ? "yes, for --best-of" : "none";
  if (model.has_reranker() && model.suggested_best_of() > 0) {
    absl::StrAppend(&reranker, " ", model.suggested_best_of());
  }
  AddLine("reranker", reranker, text);
}

void AddTokenPainter(const PictureModel& model, std::string* text) {
  AddLine("size",
          absl::StrCat(model.default_width(), " x ", model.default_height(), " pixels, by ",
                       model.default_steps(), " tokens"),
          text);
  AddLine("prompt", absl::StrCat("at most ", model.prompt_tokens(), " tokens"), text);
  AddLine("painting",
          absl::StrCat("--temperature ", model.default_temperature(), " --top-k ",
                       model.default_top_k(), " --top-p ", model.default_top_p()),
          text);
  AddReranker(model, text);
}

void AddPictureModel(const PictureModel& model, std::string* text) {
  if (model.paints_by_tokens()) return AddTokenPainter(model, text);
  AddLine("size",
          absl::StrCat("multiples of ", model.size_multiple(), ", ", model.min_size(), " to ",
                       model.max_size(), " pixels"),
          text);
  AddLine("prompt", absl::StrCat("at most ", model.prompt_tokens(), " tokens"), text);
  AddLine("steps", absl::StrCat("at most ", model.max_steps()), text);
  AddLine("samplers", absl::StrJoin(model.samplers(), " "), text);
  AddReranker(model, text);
  if (model.experts_size() > 0) {
    const auto range = [](std::string* out, const hanmo::v1::Expert& expert) {
      absl::StrAppend(out, expert.name(), " ", expert.t_max() - 1, "-", expert.t_min());
    };
    AddLine("experts",
            absl::StrCat(absl::StrJoin(model.experts(), ", ", range), "; ",
                         model.resident_experts(), " in memory"),
            text);
  }
  AddLine("defaults",
          absl::StrCat("--width ", model.default_width(), " --height ", model.default_height(),
                       " --steps ", model.default_steps(), " --guidance ", model.default_guidance(),
                       " --sampler ", model.default_sampler()),
          text);
}

ordered_json TextModelJson(const TextModel& model) {
  ordered_json json;
  json["context_tokens"] = model.context_tokens();
  json["vocabulary_size"] = model.vocabulary_size();
  json["eos_token_ids"] = model.eos_token_ids();
  json["has_chat_template"] = model.has_chat_template();
  json["has_thinking_switch"] = model.has_thinking_switch();
  json["default_temperature"] = model.default_temperature();
  json["default_top_k"] = model.default_top_k();
  json["default_top_p"] = model.default_top_p();
  json["default_repetition_penalty"] = model.default_repetition_penalty();
  json["default_max_tokens"] = model.default_max_tokens();
  return json;
}

ordered_json PictureModelJson(const PictureModel& model) {
  ordered_json json;
  json["default_width"] = model.default_width();
  json["default_height"] = model.default_height();
  json["size_multiple"] = model.size_multiple();
  json["min_size"] = model.min_size();
  json["max_size"] = model.max_size();
  json["default_steps"] = model.default_steps();
  json["max_steps"] = model.max_steps();
  json["default_guidance"] = model.default_guidance();
  json["default_sampler"] = model.default_sampler();
  json["samplers"] = model.samplers();
  json["experts"] = ordered_json::array();
  for (const hanmo::v1::Expert& expert : model.experts()) {
    json["experts"].push_back(
        {{"name", expert.name()}, {"t_min", expert.t_min()}, {"t_max", expert.t_max()}});
  }
  json["resident_experts"] = model.resident_experts();
  json["prompt_tokens"] = model.prompt_tokens();
  json["has_reranker"] = model.has_reranker();
  json["paints_by_tokens"] = model.paints_by_tokens();
  if (model.paints_by_tokens()) {
    json["default_temperature"] = model.default_temperature();
    json["default_top_k"] = model.default_top_k();
    json["default_top_p"] = model.default_top_p();
    json["suggested_best_of"] = model.suggested_best_of();
  }
  return json;
}

}  // namespace

std::string BytesText(uint64_t bytes) {
  constexpr double kMiB = 1 << 20;
  constexpr double kGiB = 1 << 30;
  const double size = static_cast<double>(bytes);
  if (size >= kGiB) return absl::StrFormat("%.2f GiB", size / kGiB);
  return absl::StrFormat("%.1f MiB", size / kMiB);
}

std::string StepName(hanmo::v1::StepKind kind) {
  const std::string name = hanmo::v1::StepKind_Name(kind);
  return absl::AsciiStrToLower(
      absl::StrReplaceAll(absl::StripPrefix(name, "STEP_KIND_"), {{"_", "-"}}));
}

void AddStepCost(const hanmo::v1::StepCost& cost, std::string* text) {
  std::string step = StepName(cost.kind());
  if (cost.width() > 0) absl::StrAppend(&step, " ", cost.width(), "x", cost.height());
  AddLine("step cost",
          absl::StrFormat("%s: %.1f ms and %.1f MB a row, %.1f ms and %.1f MB for the %d at the "
                          "knee (%d measured)",
                          step, 1e3 * Seconds(cost.one_row()), 1e-6 * cost.one_row_bytes(),
                          1e3 * Seconds(cost.knee_time()), 1e-6 * cost.knee_bytes(),
                          cost.knee_rows(), cost.steps()),
          text);
}

std::string ListText(const hanmo::v1::ListModelsResponse& response) {
  std::vector<std::array<std::string, 4>> rows = {{"NAME", "VERSION", "STATE", "TASKS"}};
  for (const auto& model : response.models()) {
    const std::string tasks = absl::StrJoin(TaskNames(model), ", ");
    if (model.versions().empty()) {
      rows.push_back({model.name(), "", StateName(model.state()), tasks});
    }
    for (const auto& version : model.versions()) {
      std::string number = absl::StrCat(version.version());
      if (model.versions_size() > 1 && version.is_default()) number += "*";
      if (version.labels_size() > 0) {
        absl::StrAppend(&number, " ", absl::StrJoin(version.labels(), " "));
      }
      rows.push_back({model.name(), number, StateName(version.state()), tasks});
    }
  }
  std::array<int, 3> widths = {};
  for (const auto& row : rows) {
    for (size_t i = 0; i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], static_cast<int>(row[i].size()) + 2);
    }
  }
  std::string text;
  for (const auto& row : rows) {
    absl::StrAppendFormat(&text, "%-*s%-*s%-*s%s\n", widths[0], row[0], widths[1], row[1],
                          widths[2], row[2], row[3]);
  }
  return text;
}

ordered_json ListJson(const hanmo::v1::ListModelsResponse& response) {
  ordered_json models = ordered_json::array();
  for (const auto& model : response.models()) {
    ordered_json versions = ordered_json::array();
    for (const auto& version : model.versions()) {
      versions.push_back({{"version", version.version()},
                          {"state", StateName(version.state())},
                          {"labels", version.labels()},
                          {"default", version.is_default()}});
    }
    models.push_back({{"name", model.name()},
                      {"tasks", TaskNames(model)},
                      {"state", StateName(model.state())},
                      {"versions", versions}});
  }
  return {{"models", models}};
}

std::string DescriptionText(const DescribeModelResponse& model) {
  std::string text = absl::StrCat(model.name(), "\n");
  std::string state = StateName(model.state());
  if (model.workers() > 0) {
    absl::StrAppend(&state, " on ", model.workers(), model.workers() == 1 ? " worker" : " workers");
  }
  if (!model.state_detail().empty()) absl::StrAppend(&state, ": ", model.state_detail());
  AddLine("state", state, &text);
  if (model.version() > 0) {
    std::string version = absl::StrCat(model.version());
    if (model.labels_size() > 0) {
      absl::StrAppend(&version, ", labelled ", absl::StrJoin(model.labels(), " "));
    }
    AddLine("version", version, &text);
  }
  AddLine("tasks", absl::StrJoin(TaskNames(model), ", "), &text);
  if (!model.architecture().empty()) AddLine("architecture", model.architecture(), &text);
  if (model.weight_bytes() > 0) {
    AddLine("weights", absl::StrCat(BytesText(model.weight_bytes()), " as ", model.dtype()), &text);
  }
  if (model.adapters_size() > 0) {
    AddLine("adapters", absl::StrJoin(model.adapters(), " "), &text);
  }
  if (model.has_text()) AddTextModel(model.text(), &text);
  if (model.has_picture()) AddPictureModel(model.picture(), &text);
  for (const hanmo::v1::StepCost& cost : model.step_costs()) AddStepCost(cost, &text);
  return text;
}

ordered_json DescriptionJson(const DescribeModelResponse& model) {
  ordered_json json;
  json["name"] = model.name();
  json["version"] = model.version();
  json["labels"] = model.labels();
  json["tasks"] = TaskNames(model);
  json["state"] = StateName(model.state());
  if (!model.state_detail().empty()) json["state_detail"] = model.state_detail();
  json["architecture"] = model.architecture();
  json["dtype"] = model.dtype();
  json["weight_bytes"] = model.weight_bytes();
  json["workers"] = model.workers();
  json["adapters"] = model.adapters();
  if (model.has_text()) json["text"] = TextModelJson(model.text());
  if (model.has_picture()) json["picture"] = PictureModelJson(model.picture());
  json["step_costs"] = ordered_json::array();
  for (const hanmo::v1::StepCost& cost : model.step_costs()) {
    json["step_costs"].push_back({{"step", StepName(cost.kind())},
                                  {"width", cost.width()},
                                  {"height", cost.height()},
                                  {"one_row_seconds", Seconds(cost.one_row())},
                                  {"knee_rows", cost.knee_rows()},
                                  {"one_row_bytes", cost.one_row_bytes()},
                                  {"knee_seconds", Seconds(cost.knee_time())},
                                  {"knee_bytes", cost.knee_bytes()},
                                  {"steps", cost.steps()}});
  }
  return json;
}

}  // namespace hanmo
