//! The C ABI that `hanmo_bridge.h` documents. Every entry point runs inside [`boundary::guard`], so a
//! panic in any crate below ends as an error string and never unwinds into C++.

mod boundary;
mod chat_template;
mod checkpoint;
mod guide;
mod json_schema;
mod python_text;
mod special_tokens;
mod tokenizer;
mod tokenizer_folder;
