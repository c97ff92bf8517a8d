#include "client/error_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/terminal_text.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace hanmo {
namespace {

using nlohmann::ordered_json;

// The flag that sets a field of the request, so that people read what they wrote; the path itself
// where no flag does.
std::string FlagOf(const std::string& field) {
  const size_t bracket = std::min(field.find('['), field.size());
  absl::string_view name = absl::string_view(field).substr(0, bracket);
  const std::string entry = field.substr(bracket);
  if (name == "text.n") return "--count";
  if (name == "text.stop_token_ids") return absl::StrCat("--stop-token-id", entry);
  if (name == "picture.preview_every_steps") return "--preview-every";
  const bool top =
      name == "model" || name == "prompt" || name == "token_ids" || name == "request_id";
  if (!top && !absl::ConsumePrefix(&name, "text.") && !absl::ConsumePrefix(&name, "picture.")) {
    return field;
  }
  return absl::StrCat("--", absl::StrReplaceAll(name, {{"_", "-"}}), entry);
}

// Lines below the message: details that it does not tell already.
std::vector<std::string> DetailLines(const ordered_json& error) {
  std::vector<std::string> lines;
  if (const auto fields = error.find("field_violations"); fields != error.end()) {
    for (const ordered_json& violation : *fields) {
      lines.push_back(absl::StrCat(FlagOf(violation["field"].get<std::string>()), ": ",
                                   violation["description"].get<std::string>()));
    }
  }
  if (const auto delay = error.find("retry_after_seconds"); delay != error.end()) {
    lines.push_back(absl::StrCat("try again in ", delay->get<double>(), " s"));
  }
  return lines;
}

// A server that answers UNAVAILABLE says when to retry; without that nobody answered.
std::string Hint(const grpc::Status& status, const ordered_json& error) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE &&
      !error.contains("retry_after_seconds")) {
    return "is hanmo-server listening there, with TLS or without as asked for here?\n"
           "  --server HOST:PORT or HANMO_SERVER says where to call";
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return "the time limit passed; --timeout, or --wait where it is used, sets it";
  }
  return "";
}

void PrintJson(const ordered_json& error, JsonMode json, const Console& console) {
  if (json == JsonMode::kOff) return;
  ordered_json object;
  if (json == JsonMode::kLines) object["event"] = "error";
  object["error"] = error;
  console.out << JsonLine(object) << std::flush;
}

}  // namespace

ordered_json ErrorJson(const grpc::Status& status) {
  ordered_json error;
  error["code"] = CodeName(status.error_code());
  error["message"] = status.error_message();
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return error;
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) {
        error["field_violations"].push_back(
            {{"field", violation.field()}, {"description", violation.description()}});
      }
    } else if (any.UnpackTo(&retry)) {
      error["retry_after_seconds"] =
          static_cast<double>(retry.retry_delay().seconds()) + 1e-9 * retry.retry_delay().nanos();
    }
  }
  return error;
}

ExitCode ReportError(const grpc::Status& status, JsonMode json, const Console& console) {
  if (console.interrupts->received()) {
    PrintJson({{"code", "CANCELLED"}, {"message", "interrupted"}}, json, console);
    console.err << "hanmo: interrupted\n" << std::flush;
    return ExitCode::kInterrupted;
  }
  const ordered_json error = ErrorJson(status);
  PrintJson(error, json, console);
  std::string text = absl::StrCat("hanmo: ", CodeName(status.error_code()));
  // The server's message is its violations in one line.
  const bool has_fields = error.contains("field_violations");
  if (!has_fields && !status.error_message().empty()) {
    absl::StrAppend(&text, ": ", status.error_message());
  }
  for (const std::string& line : DetailLines(error)) absl::StrAppend(&text, "\n  ", line);
  if (const std::string hint = Hint(status, error); !hint.empty())
    absl::StrAppend(&text, "\n  ", hint);
  console.err << SafeForTerminal(text) << "\n" << std::flush;
  return ExitCodeOf(status.error_code());
}

ExitCode ReportError(const absl::Status& status, JsonMode json, const Console& console) {
  PrintJson({{"code", absl::StatusCodeToString(status.code())},
             {"message", std::string(status.message())}},
            json, console);
  console.err << SafeForTerminal(absl::StrCat("hanmo: ", status.message())) << "\n" << std::flush;
  if (absl::IsInvalidArgument(status)) return ExitCode::kUsage;
  if (absl::IsUnavailable(status)) return ExitCode::kUnavailable;
  return absl::IsDataLoss(status) ? ExitCode::kServerFault : ExitCode::kFile;
}

}  // namespace hanmo
