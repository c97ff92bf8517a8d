// GET over plain HTTP.
#ifndef HANMO_CLIENT_HTTP_GET_H_
#define HANMO_CLIENT_HTTP_GET_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace httplib {
class Client;
}

namespace hanmo {

class HttpClient {
 public:
  // `address` is HOST:PORT.
  explicit HttpClient(const std::string& address);
  ~HttpClient();

  // The body. UNAVAILABLE when there is no answer, or another than 200.
  absl::StatusOr<std::string> Get(const std::string& path);

  // From any thread: a Get under way ends.
  void Stop();

 private:
  const std::string address_;
  const std::unique_ptr<httplib::Client> client_;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_HTTP_GET_H_
