#include "server/rpc/token_calls.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "hanmo/v1/generation.pb.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

constexpr int kMaxIds = 1 << 20;

void AppendCharacter(uint32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else {
    out->push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  }
}

// The bytes of a token as byte-level vocabularies write them: printable ones of Latin-1 as they
// are, the others as the characters from U+0100 on, in order.
std::string SpellBytes(const std::string& bytes) {
  const auto printable = [](uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
  };
  std::string spelled;
  for (const char c : bytes) {
    const uint32_t byte = static_cast<unsigned char>(c);
    uint32_t code_point = byte;
    if (!printable(byte)) {
      code_point = 0x100;
      for (uint32_t other = 0; other < byte; ++other) code_point += printable(other) ? 0 : 1;
    }
    AppendCharacter(code_point, &spelled);
  }
  return spelled;
}

// The model, for its tokenizer.
absl::StatusOr<ModelRef> ModelWithTokenizer(const ModelTable& models, const std::string& name,
                                            const std::string& version) {
  auto model = FindModel(models, name, version, "model");
  if (!model.ok()) return model.status();
  if ((*model)->tokenizer == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("model: ", (*model)->spec.name, " has no tokenizer"));
  }
  return model;
}

}  // namespace

absl::Status TokenizeText(const ModelTable& models, const grpc::ByteBuffer& request,
                          grpc::ByteBuffer* response) {
  hanmo::v1::TokenizeRequest proto;
  if (auto status = ParseMessage(request, &proto); !status.ok()) return status;
  const auto model = ModelWithTokenizer(models, proto.model(), proto.version());
  if (!model.ok()) return model.status();
  const Tokenizer& tokenizer = *(*model)->tokenizer;
  if (proto.text().size() > kMaxTextBytes) {
    return FieldError("text", absl::StrCat("must be at most ", kMaxTextBytes, " bytes, got ",
                                           proto.text().size()));
  }
  auto ids = tokenizer.Encode(proto.text(), proto.add_special_tokens());
  if (!ids.ok()) return ids.status();
  hanmo::v1::TokenizeResponse reply;
  reply.mutable_ids()->Add(ids->begin(), ids->end());
  for (const uint32_t id : *ids) {
    auto piece = tokenizer.Piece(id);
    if (!piece.ok()) return piece.status();
    reply.add_tokens(tokenizer.is_byte_level() && !piece->special ? SpellBytes(piece->bytes)
                                                                  : std::move(piece->bytes));
  }
  *response = SerializeMessage(reply);
  return absl::OkStatus();
}

absl::Status DetokenizeIds(const ModelTable& models, const grpc::ByteBuffer& request,
                           grpc::ByteBuffer* response) {
  hanmo::v1::DetokenizeRequest proto;
  if (auto status = ParseMessage(request, &proto); !status.ok()) return status;
  const auto model = ModelWithTokenizer(models, proto.model(), proto.version());
  if (!model.ok()) return model.status();
  const Tokenizer& tokenizer = *(*model)->tokenizer;
  if (proto.ids_size() > kMaxIds) {
    return FieldError("ids", absl::StrCat("must be at most ", kMaxIds, ", got ", proto.ids_size()));
  }
  const size_t vocabulary = tokenizer.vocab_size();
  for (int i = 0; i < proto.ids_size(); ++i) {
    if (proto.ids(i) < vocabulary) continue;
    return FieldError(
        absl::StrCat("ids[", i, "]"),
        absl::StrCat("must be below the vocabulary size ", vocabulary, ", got ", proto.ids(i)));
  }
  auto text = tokenizer.Decode({proto.ids().data(), static_cast<size_t>(proto.ids_size())},
                               proto.skip_special_tokens());
  if (!text.ok()) return text.status();
  hanmo::v1::DetokenizeResponse reply;
  for (const uint32_t id : proto.ids()) {
    auto piece = tokenizer.Piece(id);
    if (!piece.ok()) return piece.status();
    const bool left_out = piece->special && proto.skip_special_tokens();
    reply.add_pieces(left_out ? std::string() : std::move(piece->bytes));
  }
  reply.set_text(*std::move(text));
  *response = SerializeMessage(reply);
  return absl::OkStatus();
}

}  // namespace hanmo
