#include "workers/models/expert_ranges.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

constexpr size_t kMostExperts = 1000;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("model_index.json: ", parts...));
}

bool IsFolderName(const nlohmann::json& name) {
  if (!name.is_string()) return false;
  const auto& text = name.get_ref<const std::string&>();
  return !text.empty() && text[0] != '.' && !absl::StrContains(text, '/') &&
         text.find('\0') == std::string::npos;
}

absl::StatusOr<ExpertRange> ReadEntry(const nlohmann::json& entry, const std::string& name,
                                      int64_t train_timesteps) {
  if (!entry.is_object()) return Bad(name, ": an object expected");
  for (const auto& [key, value] : entry.items()) {
    if (key == "subfolder") {
      if (!IsFolderName(value)) return Bad(name, ".subfolder: the name of a folder expected");
    } else if (key == "t_min" || key == "t_max") {
      if (!value.is_number_unsigned() || value > train_timesteps) {
        return Bad(name, ".", key, ": an integer from 0 to ", train_timesteps, " expected");
      }
    } else {
      return Bad(name, ".", key, ": not supported; subfolder, t_min and t_max are");
    }
  }
  for (const char* key : {"subfolder", "t_min", "t_max"}) {
    if (!entry.contains(key)) return Bad(name, ".", key, ": missing");
  }
  ExpertRange range = {entry["subfolder"], entry["t_min"], entry["t_max"]};
  if (range.t_min >= range.t_max) {
    return Bad(name, ": t_min ", range.t_min, ", below its t_max ", range.t_max, " expected");
  }
  return range;
}

// `experts` are in order, the highest timesteps first.
absl::Status CheckBorders(const std::vector<ExpertRange>& experts, int64_t train_timesteps) {
  int64_t border = train_timesteps;
  std::string above = "num_train_timesteps";
  for (const ExpertRange& expert : experts) {
    if (expert.t_max < border) {
      return Bad("experts: none has the timesteps ", expert.t_max, " to ", border - 1, ", between ",
                 expert.subfolder, " and ", above);
    }
    if (expert.t_max > border) {
      return Bad("experts: both ", expert.subfolder, " and ", above, " have the timesteps ", border,
                 " to ", expert.t_max - 1);
    }
    border = expert.t_min;
    above = expert.subfolder;
  }
  if (border == 0) return absl::OkStatus();
  return Bad("experts: none has the timesteps 0 to ", border - 1, ", below ", above);
}

absl::StatusOr<std::vector<ExpertRange>> ReadList(const nlohmann::json& list,
                                                  int64_t train_timesteps) {
  if (!list.is_array() || list.empty() || list.size() > kMostExperts) {
    return Bad("experts: a list of 1 to ", kMostExperts, " experts expected");
  }
  std::vector<ExpertRange> experts;
  for (size_t i = 0; i < list.size(); ++i) {
    HANMO_ASSIGN_OR_RETURN(ExpertRange expert,
                           ReadEntry(list[i], absl::StrCat("experts[", i, "]"), train_timesteps));
    experts.push_back(std::move(expert));
  }
  std::stable_sort(experts.begin(), experts.end(),
                   [](const ExpertRange& a, const ExpertRange& b) { return a.t_max > b.t_max; });
  HANMO_RETURN_IF_ERROR(CheckBorders(experts, train_timesteps));
  return experts;
}

// As Wan 2.2 says it: a second network below a share of the timesteps.
absl::StatusOr<std::vector<ExpertRange>> ReadBoundary(const nlohmann::json& ratio,
                                                      int64_t train_timesteps) {
  const double share = ratio.is_number() ? ratio.get<double>() : -1;
  const auto border = static_cast<int64_t>(std::ceil(share * static_cast<double>(train_timesteps)));
  if (!(share > 0 && share < 1) || border >= train_timesteps) {
    return Bad("boundary_ratio: a number above 0 and below 1 expected");
  }
  return std::vector<ExpertRange>{{"unet", border, train_timesteps}, {"unet_2", 0, border}};
}

}  // namespace

absl::StatusOr<std::vector<ExpertRange>> ReadExpertRanges(const nlohmann::json& model_index,
                                                          int64_t train_timesteps) {
  const auto list = model_index.find("experts");
  const auto ratio = model_index.find("boundary_ratio");
  const bool has_list = list != model_index.end() && !list->is_null();
  const bool has_ratio = ratio != model_index.end() && !ratio->is_null();
  if (has_list && has_ratio) return Bad("experts and boundary_ratio: one of them expected");
  if (has_list) return ReadList(*list, train_timesteps);
  if (has_ratio) return ReadBoundary(*ratio, train_timesteps);
  return std::vector<ExpertRange>{{"unet", 0, train_timesteps}};
}

size_t ExpertAt(const std::vector<ExpertRange>& experts, float timestep) {
  size_t expert = 0;
  while (expert + 1 < experts.size() && timestep < static_cast<float>(experts[expert].t_min)) {
    ++expert;
  }
  return expert;
}

}  // namespace hanmo
