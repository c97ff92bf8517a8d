#include "server/rpc/testing/front_end.h"

#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "server/rpc/testing/test_models.h"

namespace hanmo::testing {

std::vector<Model> FiveModels() {
  std::vector<Model> models;
  models.push_back(ByteModel(0, "poet"));
  models.push_back(Painter(1, "painter"));
  models.push_back(BrokenModel(2, "broken"));
  models.push_back(ByteModel(3, "novelist"));
  models.back().spec.text.context_tokens = 1 << 16;
  models.push_back(Scribe(4, "scribe"));
  return models;
}

FrontEnd::FrontEnd(std::vector<Model> models, LogLevel log_level, Observed observed)
    : log_(log_level, LogFormat::kText),
      models_(std::move(models)),
      metrics_(observed == Observed::kNo ? nullptr : std::make_unique<Metrics>(1, "test")),
      figures_(metrics_ != nullptr ? *metrics_ : unobserved_),
      media_pool_(1, 64 << 20),
      tokenize_pool_(1, 64 << 20),
      loop_({}, &figures_),
      context_{&models_, &loop_.batcher(), &media_pool_, &tokenize_pool_, &figures_,
               &log_,    &calls_,          1 << 20,      "test"},
      worker_(std::make_shared<EchoWorker>(0, &loop_.batcher())) {
  for (const ModelRef& model : models_.Served()) {
    const bool text = model->spec.kind == ModelKind::kText;
    figures_.AddModel(model->spec.id, {model->spec.name, text ? "text" : "picture"});
  }
  Config config;
  config.listen = "127.0.0.1:0";
  auto rpc = RpcServer::Start(config, context_);
  if (!rpc.ok()) {
    std::cerr << "front end: " << rpc.status() << std::endl;
    std::abort();
  }
  rpc_ = *std::move(rpc);
  models_.Watch([this] { rpc_->NotifyHealth(); });
  loop_.batcher().AddWorker(0, worker_);
  for (const ModelRef& model : models_.Served()) {
    if (!model->spec.status.ok()) continue;
    const bool text = model->spec.kind != ModelKind::kPicture;
    loop_.batcher().ModelReady(
        0, model->spec.id,
        text ? ModelCapacity{.page_tokens = 16, .pages = 4096} : ModelCapacity{});
    models_.SetLoaded(0, model->spec.id, {});
  }
}

FrontEnd::~FrontEnd() {
  worker_->Release(true);
  rpc_->Shutdown(absl::ZeroDuration());
}

}  // namespace hanmo::testing
