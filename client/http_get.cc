#include "client/http_get.h"

#include <httplib.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

constexpr time_t kTimeoutSeconds = 5;

}  // namespace

HttpClient::HttpClient(const std::string& address)
    : address_(address), client_(std::make_unique<httplib::Client>("http://" + address)) {
  client_->set_connection_timeout(kTimeoutSeconds);
  client_->set_read_timeout(kTimeoutSeconds);
}

HttpClient::~HttpClient() = default;

absl::StatusOr<std::string> HttpClient::Get(const std::string& path) {
  const std::string url = absl::StrCat("http://", address_, path);
  if (!client_->is_valid()) {
    return absl::InvalidArgumentError(absl::StrCat(url, " is no address"));
  }
  const httplib::Result result = client_->Get(path);
  if (!result) {
    return absl::UnavailableError(
        absl::StrCat("no answer from ", url, ": ", httplib::to_string(result.error())));
  }
  if (result->status != 200) {
    return absl::UnavailableError(absl::StrCat(url, " answers with HTTP ", result->status));
  }
  return std::move(result->body);
}

void HttpClient::Stop() { client_->stop(); }

}  // namespace hanmo
