// Tells ThreadSanitizer what abseil's locks order. Debian's abseil is not instrumented, so that
// without this every access under an absl::Mutex looks like a race. Linked into each program of a
// ThreadSanitizer build with --wrap for the names below: __wrap_X stands in for X, __real_X is X.
//
// Conditions are evaluated inside abseil, where no wrapper can say that the lock is held: their
// reads are not watched. Everything else is.
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

#define MUTEX _ZN4absl7debian35Mutex
#define CONDVAR _ZN4absl7debian37CondVar
#define NOTIFICATION _ZN4absl7debian312Notification
#define NOTIFICATION_CONST _ZNK4absl7debian312Notification
#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define REAL(scope, name) JOIN(__real_, scope, name)
#define WRAP(scope, name) JOIN(__wrap_, scope, name)

extern "C" {

void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);

// Whoever gives a lock up evaluates the conditions of those who wait for it.
struct WhileUnlocking {
  explicit WhileUnlocking(void* lock) {
    __tsan_release(lock);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  }
  ~WhileUnlocking() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

#define DECLARE(result, scope, name, ...) \
  result REAL(scope, name)(__VA_ARGS__);  \
  result WRAP(scope, name)(__VA_ARGS__)

DECLARE(void, MUTEX, 4LockEv, absl::Mutex* mu) {
  REAL(MUTEX, 4LockEv)(mu);
  __tsan_acquire(mu);
}
DECLARE(void, MUTEX, 6UnlockEv, absl::Mutex* mu) {
  const WhileUnlocking unlocking(mu);
  REAL(MUTEX, 6UnlockEv)(mu);
}
DECLARE(void, MUTEX, 10ReaderLockEv, absl::Mutex* mu) {
  REAL(MUTEX, 10ReaderLockEv)(mu);
  __tsan_acquire(mu);
}
DECLARE(void, MUTEX, 12ReaderUnlockEv, absl::Mutex* mu) {
  const WhileUnlocking unlocking(mu);
  REAL(MUTEX, 12ReaderUnlockEv)(mu);
}
DECLARE(void, MUTEX, 5AwaitERKNS0_9ConditionE, absl::Mutex* mu, const absl::Condition& condition) {
  {
    const WhileUnlocking unlocking(mu);
    REAL(MUTEX, 5AwaitERKNS0_9ConditionE)(mu, condition);
  }
  __tsan_acquire(mu);
}
DECLARE(bool, MUTEX, 16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE, absl::Mutex* mu,
        const absl::Condition& condition, absl::Duration timeout) {
  bool held;
  {
    const WhileUnlocking unlocking(mu);
    held = REAL(MUTEX, 16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)(mu, condition, timeout);
  }
  __tsan_acquire(mu);
  return held;
}
DECLARE(bool, MUTEX, 17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, absl::Mutex* mu,
        const absl::Condition& condition, absl::Time deadline) {
  bool held;
  {
    const WhileUnlocking unlocking(mu);
    held = REAL(MUTEX, 17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE)(mu, condition, deadline);
  }
  __tsan_acquire(mu);
  return held;
}
DECLARE(void, CONDVAR, 4WaitEPNS0_5MutexE, absl::CondVar* changed, absl::Mutex* mu) {
  {
    const WhileUnlocking unlocking(mu);
    REAL(CONDVAR, 4WaitEPNS0_5MutexE)(changed, mu);
  }
  __tsan_acquire(mu);
}
DECLARE(bool, CONDVAR, 15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE, absl::CondVar* changed,
        absl::Mutex* mu, absl::Duration timeout) {
  bool expired;
  {
    const WhileUnlocking unlocking(mu);
    expired = REAL(CONDVAR, 15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE)(changed, mu, timeout);
  }
  __tsan_acquire(mu);
  return expired;
}
DECLARE(bool, CONDVAR, 16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, absl::CondVar* changed,
        absl::Mutex* mu, absl::Time deadline) {
  bool expired;
  {
    const WhileUnlocking unlocking(mu);
    expired = REAL(CONDVAR, 16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE)(changed, mu, deadline);
  }
  __tsan_acquire(mu);
  return expired;
}
DECLARE(void, NOTIFICATION, 6NotifyEv, absl::Notification* done) {
  __tsan_release(done);
  REAL(NOTIFICATION, 6NotifyEv)(done);
}
DECLARE(void, NOTIFICATION_CONST, 19WaitForNotificationEv, absl::Notification* done) {
  REAL(NOTIFICATION_CONST, 19WaitForNotificationEv)(done);
  __tsan_acquire(done);
}

}  // extern "C"
