//! The C ABI of one tokenizer: encode, decode, and what streaming needs to know about a token.

use std::ffi::{c_char, c_int};

use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::{Encoding, Model, Token, Tokenizer};
use toktrie::TokTrie;

use crate::boundary::{guard, malloc_copy, slice, Outcome};
use crate::special_tokens::NAMES;
use crate::tokenizer_folder::{build, Built, Class, Files};

#[repr(C)]
pub struct TextView {
    data: *const c_char,
    size: usize,
}

#[repr(C)]
pub struct FilesView {
    tokenizer_json: TextView,
    vocab_txt: TextView,
    vocab_json: TextView,
    merges_txt: TextView,
    tokenizer_config: TextView,
    special_tokens_map: TextView,
    added_tokens: TextView,
    class_hint: TextView,
}

#[repr(C)]
pub struct Facts {
    vocab_size: u32,
    /// In the order of [`NAMES`]; -1 where the tokenizer has none.
    special_ids: [i64; NAMES.len()],
    model_max_length: i64,
    tokens_before: u32,
    tokens_after: u32,
    pads_left: bool,
    truncates_left: bool,
    is_byte_level: bool,
    trims_decoded: bool,
}

pub struct BridgeTokenizer {
    built: Built,
    facts: Facts,
    byte_of_char: Vec<Option<u8>>,
    cleans_up: bool,
}

/// Ids of tokens that a grammar can draw: `toktrie` has 24 bits for them.
const MAX_WORDS: u32 = 1 << 22;

unsafe fn view<'a>(text: &TextView, name: &str) -> Outcome<Option<&'a str>> {
    if text.data.is_null() {
        return Ok(None);
    }
    match std::str::from_utf8(slice(text.data.cast(), text.size)) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("{name} is not UTF-8")),
    }
}

/// # Safety
/// `files` and its views are readable, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_create(
    files: *const FilesView,
    out: *mut *mut BridgeTokenizer,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let files = &*files;
        let built = build(&Files {
            tokenizer_json: view(&files.tokenizer_json, "tokenizer.json")?,
            vocab_txt: view(&files.vocab_txt, "vocab.txt")?,
            vocab_json: view(&files.vocab_json, "vocab.json")?,
            merges_txt: view(&files.merges_txt, "merges.txt")?,
            tokenizer_config: view(&files.tokenizer_config, "tokenizer_config.json")?,
            special_tokens_map: view(&files.special_tokens_map, "special_tokens_map.json")?,
            added_tokens: view(&files.added_tokens, "added_tokens.json")?,
            class_hint: view(&files.class_hint, "class_hint")?,
        })?;
        *out = Box::into_raw(Box::new(BridgeTokenizer::new(built)));
        Ok(())
    })
}

/// # Safety
/// `tokenizer` is null or came from `hanmo_tokenizer_create`, and nobody uses it any more.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_free(tokenizer: *mut BridgeTokenizer) {
    guard(std::ptr::null_mut(), || {
        if !tokenizer.is_null() {
            drop(Box::from_raw(tokenizer));
        }
        Ok(())
    });
}

/// # Safety
/// `tokenizer` is alive and `facts` writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_describe(
    tokenizer: *const BridgeTokenizer,
    facts: *mut Facts,
) {
    std::ptr::copy_nonoverlapping(&(*tokenizer).facts, facts, 1);
}

/// # Safety
/// `tokenizer` is alive, `text` has `size` readable bytes, the out parameters are writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_encode(
    tokenizer: *const BridgeTokenizer,
    text: *const c_char,
    size: usize,
    add_special: bool,
    ids: *mut *mut u32,
    count: *mut usize,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let text =
            std::str::from_utf8(slice(text.cast(), size)).map_err(|_| "text is not UTF-8")?;
        let backend = &(*tokenizer).built.tokenizer;
        let encoding = backend.encode_fast(text, add_special).map_err(|e| e.to_string())?;
        give(encoding.get_ids(), ids, count)
    })
}

/// # Safety
/// As for `hanmo_tokenizer_encode`.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_decode(
    tokenizer: *const BridgeTokenizer,
    ids: *const u32,
    count: usize,
    skip_special: bool,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let decoded = (*tokenizer).decode(slice(ids, count), skip_special)?;
        give(decoded.as_bytes(), text.cast(), size)
    })
}

/// # Safety
/// As for `hanmo_tokenizer_encode`.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_token_bytes(
    tokenizer: *const BridgeTokenizer,
    id: u32,
    bytes: *mut *mut c_char,
    size: *mut usize,
    is_special: *mut bool,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let (token, special) = (*tokenizer).token_bytes(id);
        give(&token, bytes.cast(), size)?;
        *is_special = special;
        Ok(())
    })
}

/// # Safety
/// As for `hanmo_tokenizer_encode`; `token` has `size` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn hanmo_tokenizer_token_id(
    tokenizer: *const BridgeTokenizer,
    token: *const c_char,
    size: usize,
) -> i64 {
    let mut id = -1;
    guard(std::ptr::null_mut(), || {
        let token = std::str::from_utf8(slice(token.cast(), size)).map_err(|e| e.to_string())?;
        id = (*tokenizer).built.tokenizer.token_to_id(token).map_or(-1, i64::from);
        Ok(())
    });
    id
}

unsafe fn give<T: Copy>(items: &[T], out: *mut *mut T, count: *mut usize) -> Outcome<()> {
    let copy = malloc_copy(items);
    if copy.is_null() {
        return Err("out of memory".into());
    }
    *out = copy;
    *count = items.len();
    Ok(())
}

impl BridgeTokenizer {
    fn new(built: Built) -> Self {
        let backend = &built.tokenizer;
        let config = &built.config;
        let id = |name: &str| {
            let token = built.special.named(name)?;
            backend
                .token_to_id(token)
                .or_else(|| backend.token_to_id(built.special.named("unk_token")?))
        };
        let (tokens_before, tokens_after) = frame(backend);
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let facts = Facts {
            vocab_size: backend.get_vocab_size(true) as u32,
            special_ids: NAMES.map(|name| id(name).map_or(-1, i64::from)),
            model_max_length: max_length(config.get("model_max_length").or(config.get("max_len"))),
            tokens_before,
            tokens_after,
            pads_left: text("padding_side") == Some("left"),
            truncates_left: text("truncation_side") == Some("left"),
            is_byte_level: matches!(backend.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
                && built.class != Class::Clip,
            trims_decoded: built.class == Class::Clip,
        };
        // transformers applies this clean-up to models other than BPE only.
        let is_bpe = matches!(backend.get_model(), ModelWrapper::BPE(_));
        let wanted = |key| config.get(key).and_then(Value::as_bool).unwrap_or(false);
        let cleans_up = wanted("clean_up_tokenization_spaces")
            && (!is_bpe
                || wanted(
                    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
                ));
        Self { facts, built, byte_of_char: byte_of_char(), cleans_up }
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Outcome<String> {
        let mut text =
            self.built.tokenizer.decode(ids, skip_special).map_err(|error| error.to_string())?;
        if self.built.class == Class::Clip {
            // The separators U+001C to U+001F are white space to Python and not to Unicode.
            let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
            text = text.replace("</w>", " ").trim_matches(is_space).to_owned();
        }
        Ok(if self.cleans_up { clean_up(text) } else { text })
    }

    /// The bytes a token stands for under a byte-level decoder, else its text; an unknown id is empty.
    fn token_bytes(&self, id: u32) -> (Vec<u8>, bool) {
        let backend = &self.built.tokenizer;
        let added = backend.get_added_vocabulary();
        let token = added.simple_id_to_token(id).or_else(|| backend.get_model().id_to_token(id));
        let Some(token) = token else {
            return (Vec::new(), false);
        };
        self.bytes_of(token)
    }

    fn bytes_of(&self, token: String) -> (Vec<u8>, bool) {
        let special = self.built.tokenizer.get_added_vocabulary().is_special_token(&token);
        if !self.facts.is_byte_level {
            return (token.into_bytes(), special);
        }
        let byte = |c: char| *self.byte_of_char.get(c as usize)?;
        // A token with any character outside the byte alphabet stands for itself.
        (
            token.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or(token.into_bytes()),
            special,
        )
    }

    /// The bytes of each id from 0 on, as `toktrie` has them: special tokens behind a marker that no
    /// text has, so that a grammar over bytes never takes them; ids that are none are empty.
    pub fn words(&self) -> Outcome<Vec<Vec<u8>>> {
        let decoder = serde_json::to_string(&self.built.tokenizer.get_decoder());
        let decoder = decoder.map_err(|error| error.to_string())?;
        let has_bytes = decoder.contains(r#""type":"ByteFallback""#);
        let spelled: &dyn Fn(Vec<u8>) -> Vec<u8> = if self.facts.is_byte_level {
            &|bytes| bytes
        } else if has_bytes || decoder.contains(r#""type":"Metaspace""#) {
            &|token| sentence_piece(token, has_bytes)
        } else {
            return Err("the tokenizer is neither byte-level nor SentencePiece's".into());
        };
        let backend = &self.built.tokenizer;
        let added = backend.get_added_vocabulary().get_added_tokens_decoder();
        let added = added.iter().map(|(id, token)| (token.content.clone(), *id));
        let mut words = Vec::new();
        // Where an id has two tokens, it stands for the added one.
        for (token, id) in backend.get_vocab(false).into_iter().chain(added) {
            if id >= MAX_WORDS {
                return Err(format!("token id {id} must be below {MAX_WORDS}"));
            }
            let place = id as usize;
            if place >= words.len() {
                words.resize(place + 1, Vec::new());
            }
            words[place] = match self.bytes_of(token) {
                (bytes, true) => [vec![TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
                (token, false) => spelled(token),
            };
        }
        Ok(words)
    }
}

/// The bytes of a SentencePiece token: a low line of its own kind is a space, <0x0A> one byte.
fn sentence_piece(token: Vec<u8>, has_bytes: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(&token);
    let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match hex.filter(|hex| has_bytes && hex.len() == 2).map(|hex| u8::from_str_radix(hex, 16)) {
        Some(Ok(byte)) => vec![byte],
        _ => text.replace('\u{2581}', " ").into_bytes(),
    }
}

/// How many special tokens the post-processor puts before and after a sequence.
fn frame(backend: &Tokenizer) -> (u32, u32) {
    const MARK: u32 = u32::MAX;
    let marked = Encoding::from_tokens(vec![Token::new(MARK, String::new(), (0, 0))], 0);
    let framed = backend.post_process(marked, None, true);
    let ids = framed.map(|e| e.get_ids().to_vec()).unwrap_or_default();
    match ids.iter().position(|&id| id == MARK) {
        Some(before) => (before as u32, (ids.len() - before - 1) as u32),
        None => (0, 0),
    }
}

/// -1 for "no limit", which transformers writes as 1e30.
fn max_length(value: Option<&Value>) -> i64 {
    let value = value.and_then(Value::as_f64).unwrap_or(-1.0);
    if (1.0..1e9).contains(&value) {
        value as i64
    } else {
        -1
    }
}

/// The byte-level alphabet of GPT-2, indexed by character: printable Latin-1 bytes are themselves, the
/// others follow from U+0100 on.
fn byte_of_char() -> Vec<Option<u8>> {
    let is_printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (own, moved): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(is_printable);
    let mut table = vec![None; 256 + moved.len()];
    own.iter().for_each(|&b| table[b as usize] = Some(b));
    moved.iter().enumerate().for_each(|(i, &b)| table[256 + i] = Some(b));
    table
}

fn clean_up(text: String) -> String {
    [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ]
    .iter()
    .fold(text, |text, (from, to)| text.replace(from, to))
}
