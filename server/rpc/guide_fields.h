// The field text.guide: what a text must match.
#ifndef HANMO_SERVER_RPC_GUIDE_FIELDS_H_
#define HANMO_SERVER_RPC_GUIDE_FIELDS_H_

#include <string>

#include "hanmo/v1/generation.pb.h"
#include "server/rpc/model_table.h"
#include "server/rpc/violations.h"

namespace hanmo {

// All that can be told without compiling the guide. `text` has one.
void CheckGuideFields(const hanmo::v1::TextParameters& text, const Model& model,
                      Violations* violations);

// Of a checked guide: as batcher and worker carry it.
std::string PackGuide(const hanmo::v1::Guide& guide);
// The path of its source, "text.guide.regex" say.
std::string GuideField(const hanmo::v1::Guide& guide);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_GUIDE_FIELDS_H_
