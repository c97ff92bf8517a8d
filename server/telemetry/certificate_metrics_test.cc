#include "server/telemetry/certificate_metrics.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::DoubleNear;

// Writes certificates into one file, one for each lifetime in seconds.
void WriteCertificates(const std::string& path, const std::vector<long>& lifetimes) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"),
                                                                &EVP_PKEY_free);
  const std::unique_ptr<FILE, decltype(&fclose)> file(fopen(path.c_str(), "w"), &fclose);
  ASSERT_NE(file, nullptr);
  for (const long lifetime : lifetimes) {
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), lifetime);
    X509_set_pubkey(certificate.get(), key.get());
    X509_sign(certificate.get(), key.get(), EVP_sha256());
    ASSERT_EQ(PEM_write_X509(file.get(), certificate.get()), 1);
  }
}

TEST(CertificateMetricsTest, TellsTheFirstExpiryOfEachFile) {
  const std::string path =
      (std::filesystem::temp_directory_path() / absl::StrCat("hanmo-chain-", getpid())).string();
  WriteCertificates(path, {3600, 600, 7200});
  const CertificateMetrics metrics(
      {{"tls-cert", path}, {"tls-client-ca", ""}, {"worker-tls-ca", "/nowhere.pem"}});
  const auto families = metrics.Collect();
  std::filesystem::remove(path);
  ASSERT_EQ(families.size(), 1u);
  ASSERT_EQ(families[0].metric.size(), 2u);
  EXPECT_EQ(families[0].metric[0].label[0].value, "tls-cert");
  EXPECT_THAT(families[0].metric[0].gauge.value,
              DoubleNear(static_cast<double>(std::time(nullptr)) + 600, 30));
  EXPECT_EQ(families[0].metric[1].label[0].value, "worker-tls-ca");
  EXPECT_EQ(families[0].metric[1].gauge.value, 0);
}

}  // namespace
}  // namespace hanmo
