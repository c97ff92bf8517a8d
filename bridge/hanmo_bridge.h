// The C ABI of the Rust crates: safetensors headers, tokenizers, chat templates and guides.
//
// Errors: a function that can fail returns 0, or -1 with *error set to a message in UTF-8 (null
// only when memory ran out). Out parameters other than `error` are untouched on failure. A panic
// inside the crates is such an error, too; its message names the source line and never quotes the
// input. Ownership: what the library returns as char* (messages included) is freed with
// hanmo_bridge_free_string, as uint32_t* with hanmo_bridge_free_ids, also when the size is 0.
// Inputs are borrowed for the call only. Callbacks must not throw. Threads: all functions may be
// called from any thread at the same time.
#ifndef HANMO_BRIDGE_HANMO_BRIDGE_H_
#define HANMO_BRIDGE_HANMO_BRIDGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void hanmo_bridge_free_string(char* string);
void hanmo_bridge_free_ids(uint32_t* ids);

// ---- safetensors -------------------------------------------------------------------------------

// One tensor of the file. `name` is UTF-8 without a NUL at its end; `dtype` is the type as the file
// spells it ("F32", "BF16", "I64" ...), NUL-terminated; begin and end are byte offsets from the
// start of the file. All pointers are valid during the call only.
typedef void (*hanmo_safetensors_visit)(void* ctx, const char* name, size_t name_len,
                                        const char* dtype, const uint64_t* shape, size_t rank,
                                        uint64_t begin, uint64_t end);

// Parses the header of a whole safetensors file of `size` bytes at `data` and visits its tensors by
// rising offset. Only the header is read, so mapped tensor pages stay untouched. The whole header
// is checked before the first visit: its length (at most 100 MB and within the file), every byte
// range (in bounds, without holes or overlaps, the last one ending with the file) and its agreement
// with type and shape, in checked arithmetic.
int hanmo_safetensors_parse(const uint8_t* data, size_t size, hanmo_safetensors_visit visit,
                            void* ctx, char** error);

// ---- Tokenizers --------------------------------------------------------------------------------

// Borrowed UTF-8; data = null means absent.
typedef struct {
  const char* data;
  size_t size;
} hanmo_text;

// The contents of a checkpoint's tokenizer files, each absent where the folder has none.
// The class is `tokenizer_class` of tokenizer_config.json, else class_hint, else what the files
// suggest. BertTokenizer, CLIPTokenizer and GPT2Tokenizer (each with or without "Fast") need
// vocab.txt, or vocab.json and merges.txt, or tokenizer.json; every other class needs
// tokenizer.json.
typedef struct {
  hanmo_text tokenizer_json;
  hanmo_text vocab_txt;
  hanmo_text vocab_json;
  hanmo_text merges_txt;
  hanmo_text tokenizer_config;
  hanmo_text special_tokens_map;
  hanmo_text added_tokens;
  hanmo_text class_hint;
} hanmo_tokenizer_files;

enum {
  HANMO_BOS = 0,
  HANMO_EOS,
  HANMO_UNK,
  HANMO_SEP,
  HANMO_PAD,
  HANMO_CLS,
  HANMO_MASK,
  HANMO_SPECIAL_COUNT
};

typedef struct {
  uint32_t vocab_size;                       // with added tokens
  int64_t special_ids[HANMO_SPECIAL_COUNT];  // -1: the tokenizer has none
  int64_t model_max_length;                  // tokens; -1: no limit stated
  uint32_t tokens_before;                    // special tokens that add_special puts before a text
  uint32_t tokens_after;                     // and after it
  bool pads_left;
  bool truncates_left;
  bool is_byte_level;  // decoding = concatenated token bytes, read as UTF-8
  bool trims_decoded;  // decoding strips white space at both ends, so it can't be streamed
} hanmo_tokenizer_facts;

typedef struct hanmo_tokenizer hanmo_tokenizer;

// Ids equal those of transformers 5 for the same folder. A created tokenizer never changes, so any
// number of threads may use it at the same time; free it when none does any more.
int hanmo_tokenizer_create(const hanmo_tokenizer_files* files, hanmo_tokenizer** out, char** error);
void hanmo_tokenizer_free(hanmo_tokenizer* tokenizer);
void hanmo_tokenizer_describe(const hanmo_tokenizer* tokenizer, hanmo_tokenizer_facts* facts);

// `add_special` frames the ids as the model wants them ([CLS] ... [SEP] and the like). Never pads
// or truncates. Text that isn't UTF-8 is an error.
int hanmo_tokenizer_encode(const hanmo_tokenizer* tokenizer, const char* text, size_t size,
                           bool add_special, uint32_t** ids, size_t* count, char** error);

// Unknown ids are left out, special tokens where `skip_special`. Always valid UTF-8; bytes that are
// none become U+FFFD.
int hanmo_tokenizer_decode(const hanmo_tokenizer* tokenizer, const uint32_t* ids, size_t count,
                           bool skip_special, char** text, size_t* size, char** error);

// The raw bytes of one token: what it stands for where is_byte_level, else its text in the
// vocabulary. Empty for an unknown id.
int hanmo_tokenizer_token_bytes(const hanmo_tokenizer* tokenizer, uint32_t id, char** bytes,
                                size_t* size, bool* is_special, char** error);

// The id of a token by its text in the vocabulary, or -1.
int64_t hanmo_tokenizer_token_id(const hanmo_tokenizer* tokenizer, const char* token, size_t size);

// ---- Chat templates ----------------------------------------------------------------------------

typedef struct hanmo_chat_template hanmo_chat_template;

// Compiles a Jinja2 chat template with the settings, filters and functions that transformers gives
// it. Includes, imports and file access do not exist. At most 1 MiB. Immutable as a tokenizer is.
int hanmo_chat_template_create(const char* source, size_t size, hanmo_chat_template** out,
                               char** error);
void hanmo_chat_template_free(hanmo_chat_template* chat_template);

// Renders with `context`, a JSON object with the variables ("messages", "add_generation_prompt",
// "bos_token" ...). `now_unix_seconds` is what strftime_now shows, in local time. Work and output
// (16 MiB) are bounded. A template's raise_exception is an error with its message.
int hanmo_chat_template_render(const hanmo_chat_template* chat_template, const char* context,
                               size_t context_size, int64_t now_unix_seconds, char** text,
                               size_t* size, char** error);

// ---- Guides: texts that must match a grammar ---------------------------------------------------

// The tokens of a tokenizer as matchers need them. With `fast_masks`, for texts that are written,
// it takes some hundred milliseconds and some tens of MiB for 150,000 tokens; without, to check
// guides, half of both. An error for a tokenizer that is neither is_byte_level nor
// SentencePiece's, or has ids of 2^22 or more. Immutable as a tokenizer is, which it does not need
// any more; it outlives its matchers.
typedef struct hanmo_vocabulary hanmo_vocabulary;

int hanmo_vocabulary_create(const hanmo_tokenizer* tokenizer, bool fast_masks,
                            hanmo_vocabulary** out, char** error);
void hanmo_vocabulary_free(hanmo_vocabulary* vocabulary);
// Ids are below this.
uint32_t hanmo_vocabulary_size(const hanmo_vocabulary* vocabulary);

// Follows one text from its begin through its grammar. Use from one thread at a time.
typedef struct hanmo_matcher hanmo_matcher;

// `guide` is a kind and a source, UTF-8:
//   "json_schema:{...}"   the text is a JSON document of this schema (64 KiB, patterns 1 KiB each)
//   "regex:..."           the whole text matches, in the syntax of the crate `regex`, without
//                         look-around and back references (4 KiB)
//   "lark:..."            the text matches the rule `start` (16 KiB)
//   "choice:[...]"        the text is one of this JSON list (64 KiB)
// The error says what is wrong with it, and may quote it. Compiling and matching are bounded: a
// grammar that is too large or too ambiguous is an error, here or later, never a long wait.
int hanmo_matcher_create(const hanmo_vocabulary* vocabulary, const char* guide, size_t size,
                         hanmo_matcher** out, char** error);
void hanmo_matcher_free(hanmo_matcher* matcher);

typedef struct {
  uint32_t allowed;  // ids in the mask; 0: the text can't go on
  bool accepting;    // the text may end here
} hanmo_matcher_next;

// Sets bit (id % 32) of words[id / 32] for every id that may come next; special tokens only where a
// Lark grammar names them. `count` words; ids beyond them are cut off, words beyond the vocabulary
// are 0. After an error the matcher only errs.
int hanmo_matcher_mask(hanmo_matcher* matcher, uint32_t* words, size_t count,
                       hanmo_matcher_next* next, char** error);
// Goes on by tokens. An error for one that may not come next; the matcher then only errs.
int hanmo_matcher_consume(hanmo_matcher* matcher, const uint32_t* ids, size_t count, char** error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // HANMO_BRIDGE_HANMO_BRIDGE_H_
