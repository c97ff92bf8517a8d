// Feeds the C ABI with headers, tokenizer files, chat templates and guides that are nearly right.
// The crates are not instrumented, so chance alone finds little in raw bytes: each input is a list
// of edits of something valid.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "bridge/hanmo_bridge.h"

namespace {

// Deals out the fuzzer's bytes; zeros at the end.
struct Input {
  const uint8_t* data;
  size_t size;

  uint8_t Byte() {
    if (size == 0) return 0;
    --size;
    return *data++;
  }
  size_t Below(size_t bound) { return (Byte() << 8 | Byte()) % bound; }
};

// Joins pieces of `pieces` (with single bytes between them, sometimes) into a text.
template <size_t kCount>
std::string Assemble(Input& input, const char* const (&pieces)[kCount]) {
  std::string text;
  while (input.size > 0 && text.size() < 4096) {
    const uint8_t choice = input.Byte();
    if (choice < 240) {
      text += pieces[choice % kCount];
    } else {
      text += static_cast<char>(input.Byte());
    }
  }
  return text;
}

// Replaces, doubles and cuts ranges of `text`.
std::string Edit(Input& input, std::string text) {
  for (size_t edits = 1 + input.Byte() % 4; edits > 0 && !text.empty(); --edits) {
    const size_t at = input.Below(text.size());
    switch (input.Byte() % 4) {
      case 0:
        text[at] = static_cast<char>(input.Byte());
        break;
      case 1:
        text.erase(at, 1 + input.Byte() % 16);
        break;
      case 2:
        text.insert(at, text.substr(input.Below(text.size()), input.Byte() % 64));
        break;
      default:
        text.replace(at, 1, std::to_string(input.Below(65536) * 281474976710597u));
    }
  }
  return text;
}

void Ignore(void*, const char*, size_t, const char*, const uint64_t*, size_t, uint64_t, uint64_t) {}

void Safetensors(Input& input) {
  std::string header = Edit(
      input, R"({"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
             R"("y":{"dtype":"F4","shape":[4],"data_offsets":[24,26]}})");
  uint64_t length = header.size();
  if (input.Byte() % 8 == 0) length += input.Byte() - 128;
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  file += header + std::string(input.Byte() % 8 ? 26 : input.Byte(), 'x');
  char* error = nullptr;
  hanmo_safetensors_parse(reinterpret_cast<const uint8_t*>(file.data()), file.size(), Ignore,
                          nullptr, &error);
  hanmo_bridge_free_string(error);
}

void Template(Input& input) {
  static constexpr const char* kPieces[] = {"{% for m in messages %}",
                                            "{% endfor %}",
                                            "{% if m.role == 'user' %}",
                                            "{% else %}",
                                            "{% endif %}",
                                            "{{ m.content }}",
                                            "{{ m.content | trim }}",
                                            "{{ messages | tojson(indent=2) }}",
                                            "{% set x = x ~ 'ab' %}",
                                            "{% set x = [x, 1] %}",
                                            "{{ x }}",
                                            "{{ messages[1:] }}",
                                            "{% generation %}",
                                            "{% endgeneration %}",
                                            "{% macro f(a) %}",
                                            "{% endmacro %}",
                                            "{{ f(1) }}",
                                            "{{ range(100000) | list }}",
                                            "{{ 'a' * 65536 }}",
                                            "{{ ",
                                            " }}",
                                            "{% ",
                                            "%}",
                                            "((((",
                                            "))))",
                                            "[[[[",
                                            "]]]]",
                                            "not ",
                                            "-",
                                            "1e308",
                                            "{{ x.split('a')[-1] }}",
                                            "{{ '%s' | format(x) }}",
                                            "{{ strftime_now('%Y%c') }}",
                                            "{#",
                                            "#}",
                                            "\n",
                                            "{{ raise_exception('no') }}",
                                            "{% break %}",
                                            "{{ x.title() }}",
                                            "{{ namespace(a=1) }}",
                                            "山"};
  const std::string source = Assemble(input, kPieces);
  hanmo_chat_template* chat_template = nullptr;
  char* error = nullptr;
  if (hanmo_chat_template_create(source.data(), source.size(), &chat_template, &error) == 0) {
    static constexpr char kContext[] =
        R"({"messages":[{"role":"user","content":" 山 "},{"role":"assistant","content":"b"}]})";
    char* text = nullptr;
    size_t size = 0;
    if (hanmo_chat_template_render(chat_template, kContext, sizeof(kContext) - 1, 0, &text, &size,
                                   &error) == 0) {
      hanmo_bridge_free_string(text);
    }
    hanmo_chat_template_free(chat_template);
  }
  hanmo_bridge_free_string(error);
}

hanmo_text View(const std::string& text) { return {text.data(), text.size()}; }

void TokenizerFiles(Input& input) {
  const std::string json = Edit(
      input,
      R"({"version":"1.0","added_tokens":[{"id":4,"content":"<s>","single_word":false,"lstrip":false,)"
      R"("rstrip":true,"normalized":false,"special":true}],"normalizer":{"type":"Sequence",)"
      R"("normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "}]},)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
      R"("(a|b)+c"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":true,)"
      R"("trim_offsets":true,"use_regex":true}]},"post_processor":{"type":"TemplateProcessing",)"
      R"("single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],)"
      R"("pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],)"
      R"("special_tokens":{"<s>":{"id":"<s>","ids":[4],"tokens":["<s>"]}}},"decoder":{"type":)"
      R"("ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":)"
      R"("BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":)"
      R"(null,"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"c":2,"ab":3},)"
      R"("merges":[["a","b"]]}})");
  const std::string config = Edit(
      input, R"({"tokenizer_class":"GPT2TokenizerFast","model_max_length":77,"eos_token":"<s>",)"
             R"("added_tokens_decoder":{"5":{"content":"<t>","special":true}}})");
  hanmo_tokenizer_files files = {};
  files.tokenizer_json = View(json);
  if (input.Byte() % 2) files.tokenizer_config = View(config);
  hanmo_tokenizer* tokenizer = nullptr;
  char* error = nullptr;
  if (hanmo_tokenizer_create(&files, &tokenizer, &error) == 0) {
    static constexpr char kText[] = "ab <s> abababababc 山  ab";
    uint32_t* ids = nullptr;
    size_t count = 0;
    if (hanmo_tokenizer_encode(tokenizer, kText, sizeof(kText) - 1, true, &ids, &count, &error) ==
        0) {
      char* text = nullptr;
      size_t size = 0;
      if (hanmo_tokenizer_decode(tokenizer, ids, count, false, &text, &size, &error) == 0) {
        hanmo_bridge_free_string(text);
      }
      hanmo_bridge_free_ids(ids);
    }
    hanmo_tokenizer_free(tokenizer);
  }
  hanmo_bridge_free_string(error);
}

// A byte-level vocabulary of a few words.
const hanmo_vocabulary* Vocabulary() {
  static const hanmo_vocabulary* const vocabulary = [] {
    std::string json = R"({"<|end|>":0)";
    int id = 0;
    for (char c = '!'; c <= '~'; ++c) {
      json += std::string(R"(,")") + (c == '"' || c == '\\' ? "\\" : "") + c +
              "\":" + std::to_string(++id);
    }
    for (const char* word : {"Ġ", "ab", "{\\\"", "\\\":", "å±", "±", "å", "true", "12"}) {
      json += std::string(R"(,")") + word + "\":" + std::to_string(++id);
    }
    json += "}";
    hanmo_tokenizer_files files = {};
    files.vocab_json = View(json);
    files.merges_txt = {"", 0};
    files.class_hint = {"GPT2Tokenizer", 13};
    hanmo_tokenizer* tokenizer = nullptr;
    hanmo_vocabulary* made = nullptr;
    char* error = nullptr;
    if (hanmo_tokenizer_create(&files, &tokenizer, &error) != 0 ||
        hanmo_vocabulary_create(tokenizer, true, &made, &error) != 0) {
      std::fprintf(stderr, "no vocabulary: %s\n", error);
      __builtin_trap();
    }
    hanmo_tokenizer_free(tokenizer);
    return made;
  }();
  return vocabulary;
}

std::string Guide(Input& input) {
  static constexpr const char* kRegex[] = {
      "a",     "[a-z]",          "(",      ")",      "|",   "*", "+",  "?",
      "{2,9}", "{1000}",         ".",      "\\p{L}", "\\b", "^", "$",  "(?i:",
      "(?x)",  "[^\\x00-\\x7f]", "\\d\\w", "&",      "~",   "/", "\\", "山"};
  static constexpr const char* kLark[] = {"start: ",
                                          "a: ",
                                          "B: ",
                                          "\n",
                                          "start ",
                                          "a ",
                                          "B ",
                                          "\"ab\"",
                                          "/[a-z]+/",
                                          "| ",
                                          "(",
                                          ")",
                                          "[",
                                          "]",
                                          "*",
                                          "+",
                                          "?",
                                          "{2,5}",
                                          "{9999}",
                                          "%ignore /\\s+/",
                                          "%import common.INT",
                                          "%json {}",
                                          "<|end|>",
                                          "<[5]>",
                                          "->x",
                                          "\"a\"..\"z\"",
                                          "~3",
                                          "%regex {\"substring_words\": \"a b\"}",
                                          "[stop=\"x\"]",
                                          "a[capture]: ",
                                          "& ",
                                          "%llguidance {}",
                                          "//c\n",
                                          "\"",
                                          "@"};
  switch (input.Byte() % 4) {
    case 0:
      return "regex:" + Assemble(input, kRegex);
    case 1:
      return "lark:" + Assemble(input, kLark);
    case 2:
      return "lark:start: " + Assemble(input, kLark);
    default:
      return "json_schema:" +
             Edit(
                 input,
                 R"({"type":"object","properties":{"a":{"type":"string","pattern":"^a{1,3}$"},"b":)"
                 R"({"type":["integer","null"],"minimum":-5,"multipleOf":3},"c":{"$ref":"#/$defs/d"}},)"
                 R"("required":["a"],"additionalProperties":false,"patternProperties":{"^x":{}},)"
                 R"("$defs":{"d":{"type":"array","items":{"anyOf":[{"const":1.5},{"enum":["山",[]]},)"
                 R"({"type":"number","exclusiveMaximum":1e3},{"format":"date","type":"string"}]},)"
                 R"("minItems":1,"maxItems":4,"prefixItems":[{"allOf":[{},{"type":"boolean"}]}]}}})");
  }
}

// Compiles a guide and follows it by tokens that it allows, and now and then by one it may not.
void Guides(Input& input) {
  const size_t steps = input.Byte() % 24;
  const uint64_t choices = input.Below(65536) * 2654435761u + 1;
  const std::string guide = Guide(input);
  hanmo_matcher* matcher = nullptr;
  char* error = nullptr;
  if (hanmo_matcher_create(Vocabulary(), guide.data(), guide.size(), &matcher, &error) == 0) {
    uint32_t words[4] = {};
    hanmo_matcher_next next = {};
    for (size_t step = 0; step < steps && error == nullptr; ++step) {
      if (hanmo_matcher_mask(matcher, words, 4, &next, &error) != 0 || next.allowed == 0) break;
      uint32_t id = choices * (step + 1) >> 8 & 127;
      for (int tries = 0; tries < 128 && (words[id / 32] >> id % 32 & 1) == 0; ++tries) {
        id = (id + 1) % 128;
      }
      hanmo_matcher_consume(matcher, &id, 1, &error);
    }
    hanmo_matcher_free(matcher);
  }
  hanmo_bridge_free_string(error);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input{data, size};
  switch (input.Byte() % 4) {
    case 0:
      Safetensors(input);
      break;
    case 1:
      Template(input);
      break;
    case 2:
      Guides(input);
      break;
    default:
      TokenizerFiles(input);
  }
  return 0;
}
