// The C ABI of the Rust crates: safetensors headers, tokenizers and chat templates.
//
// Errors: a function that can fail returns 0, or -1 with *error set to a message in UTF-8 (null only
// when memory ran out). Out parameters other than `error` are untouched on failure. A panic inside
// the crates is such an error, too; its message names the source line and never quotes the input.
// Ownership: what the library returns as char* (messages included) is freed with
// hanmo_bridge_free_string. Inputs are borrowed for the call only. Callbacks must not throw.
// Threads: all functions may be called from any thread at the same time.
#ifndef HANMO_BRIDGE_HANMO_BRIDGE_H_
#define HANMO_BRIDGE_HANMO_BRIDGE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void hanmo_bridge_free_string(char* string);

// ---- safetensors -------------------------------------------------------------------------------

// One tensor of the file. `name` is UTF-8 without a NUL at its end; `dtype` is the type as the file
// spells it ("F32", "BF16", "I64" ...), NUL-terminated; begin and end are byte offsets from the start
// of the file. All pointers are valid during the call only.
typedef void (*hanmo_safetensors_visit)(void* ctx, const char* name, size_t name_len,
                                        const char* dtype, const uint64_t* shape, size_t rank,
                                        uint64_t begin, uint64_t end);

// Parses the header of a whole safetensors file of `size` bytes at `data` and visits its tensors by
// rising offset. Only the header is read, so mapped tensor pages stay untouched. The whole header is
// checked before the first visit: its length (at most 100 MB and within the file), every byte range
// (in bounds, without holes or overlaps, the last one ending with the file) and its agreement with
// type and shape, in checked arithmetic.
int hanmo_safetensors_parse(const uint8_t* data, size_t size, hanmo_safetensors_visit visit,
                            void* ctx, char** error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // HANMO_BRIDGE_HANMO_BRIDGE_H_
