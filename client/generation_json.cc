#include "client/generation_json.h"

#include "client/output_file.h"

namespace hanmo {
namespace {

using nlohmann::ordered_json;

ordered_json LogprobsJson(
    const google::protobuf::RepeatedPtrField<hanmo::v1::TokenLogprob>& logprobs) {
  ordered_json list = ordered_json::array();
  for (const hanmo::v1::TokenLogprob& token : logprobs) {
    ordered_json top = ordered_json::array();
    for (const auto& candidate : token.top()) {
      top.push_back({{"token_id", candidate.token_id()}, {"logprob", candidate.logprob()}});
    }
    list.push_back({{"token_id", token.token_id()}, {"logprob", token.logprob()}, {"top", top}});
  }
  return list;
}

ordered_json TextJson(const hanmo::v1::Text& text) {
  ordered_json json;
  json["text"] = text.text();
  json["token_ids"] = text.token_ids();
  json["finish_reason"] = FinishReasonName(text.finish_reason());
  if (!text.stop_reason().empty()) json["stop_reason"] = text.stop_reason();
  json["seed"] = text.seed();
  if (text.logprobs_size() > 0) json["logprobs"] = LogprobsJson(text.logprobs());
  return json;
}

ordered_json PictureJson(const hanmo::v1::Picture& picture, const std::string& file) {
  ordered_json json;
  json["file"] = file;
  json["format"] = FormatName(picture.format());
  json["width"] = picture.width();
  json["height"] = picture.height();
  json["seed"] = picture.seed();
  json["steps"] = picture.steps();
  json["sampler"] = picture.sampler();
  if (picture.has_score()) json["score"] = picture.score();
  return json;
}

ordered_json UsageJson(const hanmo::v1::Usage& usage) {
  ordered_json json;
  json["prompt_tokens"] = usage.prompt_tokens();
  json["cached_prompt_tokens"] = usage.cached_prompt_tokens();
  json["completion_tokens"] = usage.completion_tokens();
  json["steps"] = usage.steps();
  json["steps_redone"] = usage.steps_redone();
  json["pictures"] = usage.pictures();
  json["device_seconds"] = Seconds(usage.device_time());
  json["peak_bytes"] = usage.peak_bytes();
  return json;
}

}  // namespace

double Seconds(const google::protobuf::Duration& duration) {
  // Microseconds: more digits are noise.
  return static_cast<double>(duration.seconds()) + (duration.nanos() / 1000) / 1e6;
}

std::string FinishReasonName(hanmo::v1::FinishReason reason) {
  switch (reason) {
    case hanmo::v1::FINISH_REASON_EOS:
      return "eos";
    case hanmo::v1::FINISH_REASON_STOP:
      return "stop";
    case hanmo::v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "unknown";
  }
}

ordered_json OutputJson(const hanmo::v1::Output& output, const std::string& file) {
  ordered_json json = {{"index", output.index()}};
  json.update(output.has_picture() ? PictureJson(output.picture(), file) : TextJson(output.text()));
  return json;
}

ordered_json ResponseJson(const hanmo::v1::GenerateResponse& response,
                          const std::vector<std::string>& files) {
  ordered_json json;
  json["request_id"] = response.request_id();
  json["model"] = response.model();
  ordered_json outputs = ordered_json::array();
  for (int i = 0; i < response.outputs_size(); ++i) {
    const size_t place = static_cast<size_t>(i);
    outputs.push_back(OutputJson(response.outputs(i), place < files.size() ? files[place] : ""));
  }
  if (outputs.size() == 1) {
    json.update(outputs[0]);
  } else {
    json["outputs"] = outputs;
  }
  json["usage"] = UsageJson(response.usage());
  json["timings"] = {{"queue_seconds", Seconds(response.timings().queue())},
                     {"first_output_seconds", Seconds(response.timings().first_output())},
                     {"total_seconds", Seconds(response.timings().total())}};
  return json;
}

ordered_json EventJson(const hanmo::v1::GenerateStreamResponse& event) {
  using Event = hanmo::v1::GenerateStreamResponse;
  ordered_json json;
  switch (event.event_case()) {
    case Event::kQueued:
      json = {{"event", "queued"},
              {"request_id", event.queued().request_id()},
              {"position", event.queued().position()}};
      if (event.queued().has_expected_wait()) {
        json["expected_wait_seconds"] = Seconds(event.queued().expected_wait());
      }
      break;
    case Event::kStep:
      json = {{"event", "step"},
              {"index", event.step().index()},
              {"step", event.step().step()},
              {"steps", event.step().steps()}};
      break;
    case Event::kText:
      json = {{"event", "text"}, {"index", event.text().index()}, {"text", event.text().text()}};
      json["token_ids"] = event.text().token_ids();
      if (event.text().logprobs_size() > 0) {
        json["logprobs"] = LogprobsJson(event.text().logprobs());
      }
      break;
    case Event::kPreview:
      json = {{"event", "preview"},
              {"index", event.preview().index()},
              {"step", event.preview().step()}};
      break;
    case Event::kPicture:
      json = {{"event", "picture"},
              {"index", event.picture().index()},
              {"offset", event.picture().offset()},
              {"total_bytes", event.picture().total_bytes()}};
      break;
    default:
      json = {{"event", "unknown"}};
  }
  return json;
}

}  // namespace hanmo
