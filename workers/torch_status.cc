#include "workers/torch_status.h"

#include <c10/util/Exception.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// The first line of a libtorch message; the rest is hints for Python users.
std::string FirstLine(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

// The CPU allocator reports a failed allocation as a plain error.
bool IsCpuAllocationFailure(const std::string& message) {
  return absl::StrContains(message, "can't allocate memory") ||
         absl::StrContains(message, "not enough memory");
}

}  // namespace

absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const c10::AcceleratorError& error) {
    fprintf(stderr, "hanmo-worker: the device failed: %s\n", FirstLine(error).c_str());
    _Exit(3);
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat("out of device memory: ", FirstLine(error)));
  } catch (const c10::Error& error) {
    const std::string message = FirstLine(error);
    if (IsCpuAllocationFailure(message)) {
      return absl::ResourceExhaustedError(absl::StrCat("out of memory: ", message));
    }
    return absl::InternalError(absl::StrCat("libtorch: ", message));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace hanmo
