//! The C ABI of guided decoding: a tokenizer's vocabulary as `llguidance` wants it, and matchers that
//! say which tokens may come next.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{
    ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN,
};

use crate::boundary::{guard, slice, Outcome};
use crate::json_schema;
use crate::tokenizer::BridgeTokenizer;

/// Of a guide's source. The crates' effort for one regular expression grows with the square of its
/// length, which their limits don't see: 4 KiB are some 50 ms, 40 KiB would be 5 s.
const MAX_BYTES: usize = 64 << 10;
const MAX_LARK_BYTES: usize = 16 << 10;
const MAX_REGEX_BYTES: usize = 4 << 10;
/// What the crates recurse into is bounded by these, but not by a thread's usual 8 MiB.
const COMPILER_STACK: usize = 256 << 20;
const MAX_MESSAGE: usize = 400;

pub struct Vocabulary {
    factory: ParserFactory,
    size: u32,
}

pub struct GuideMatcher {
    matcher: Matcher,
    size: u32,
}

#[repr(C)]
pub struct Next {
    /// Ids that may come next.
    allowed: u32,
    accepting: bool,
}

/// # Safety
/// `tokenizer` is alive and `out` writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_vocabulary_create(
    tokenizer: *const BridgeTokenizer,
    fast_masks: bool,
    out: *mut *mut Vocabulary,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        *out = Box::into_raw(Box::new(Vocabulary::new(&*tokenizer, fast_masks)?));
        Ok(())
    })
}

/// # Safety
/// `vocabulary` is null or came from `hanmo_vocabulary_create`, and nobody uses it any more.
#[no_mangle]
pub unsafe extern "C" fn hanmo_vocabulary_free(vocabulary: *mut Vocabulary) {
    guard(std::ptr::null_mut(), || {
        if !vocabulary.is_null() {
            drop(Box::from_raw(vocabulary));
        }
        Ok(())
    });
}

/// # Safety
/// `vocabulary` is alive.
#[no_mangle]
pub unsafe extern "C" fn hanmo_vocabulary_size(vocabulary: *const Vocabulary) -> u32 {
    (*vocabulary).size
}

/// # Safety
/// `vocabulary` is alive, `guide` has `size` readable bytes, the out parameters are writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_matcher_create(
    vocabulary: *const Vocabulary,
    guide: *const c_char,
    size: usize,
    out: *mut *mut GuideMatcher,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let guide = std::str::from_utf8(slice(guide.cast(), size)).map_err(|_| "is not UTF-8")?;
        let vocabulary = &*vocabulary;
        let matcher = with_large_stack(|| vocabulary.matcher(guide))?;
        *out = Box::into_raw(Box::new(matcher));
        Ok(())
    })
}

/// # Safety
/// `matcher` is null or came from `hanmo_matcher_create`, and nobody uses it any more.
#[no_mangle]
pub unsafe extern "C" fn hanmo_matcher_free(matcher: *mut GuideMatcher) {
    guard(std::ptr::null_mut(), || {
        if !matcher.is_null() {
            drop(Box::from_raw(matcher));
        }
        Ok(())
    });
}

/// # Safety
/// `matcher` is alive, `words` has room for `count` words, `next` is writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_matcher_mask(
    matcher: *mut GuideMatcher,
    words: *mut u32,
    count: usize,
    next: *mut Next,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let words = std::slice::from_raw_parts_mut(words, count);
        *next = (*matcher).mask(words)?;
        Ok(())
    })
}

/// # Safety
/// `matcher` is alive, `ids` has `count` readable ids.
#[no_mangle]
pub unsafe extern "C" fn hanmo_matcher_consume(
    matcher: *mut GuideMatcher,
    ids: *const u32,
    count: usize,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || (*matcher).consume(slice(ids, count)))
}

fn with_large_stack<T: Send>(body: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(COMPILER_STACK)
            .spawn_scoped(scope, body)
            .map_err(|_| "no thread to compile it on")?
            .join()
            .unwrap_or_else(|_| Err("internal error".into()))
    })
}

/// Small enough that a hostile grammar costs a text tens of milliseconds and tens of megabytes.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 20_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// The first lines of what the crate says; a panic's message is not for others.
fn shortened(message: &str) -> String {
    let message = message.split("\n<non-verbose/>").next().unwrap_or_default().trim();
    if message.starts_with("panic: ") {
        return "internal error".into();
    }
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

pub fn at_most(limit: usize, bytes: usize) -> Outcome<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(format!("must be at most {limit} bytes, got {bytes}"))
}

/// One of the texts of a JSON list. A string of Lark is escaped as in JSON.
fn choice(source: &str) -> Outcome<TopLevelGrammar> {
    let texts: Vec<String> = serde_json::from_str(source).map_err(|_| "is no list of texts")?;
    let strings: Vec<String> =
        texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    Ok(TopLevelGrammar::from_lark(format!("start: {}", strings.join(" | "))))
}

fn grammar(guide: &str) -> Outcome<TopLevelGrammar> {
    let (kind, source) = guide.split_once(':').ok_or("has no kind")?;
    let limit = match kind {
        "regex" => MAX_REGEX_BYTES,
        "lark" => MAX_LARK_BYTES,
        _ => MAX_BYTES,
    };
    at_most(limit, source.len())?;
    match kind {
        "json_schema" => json_schema::grammar(source),
        "regex" => Ok(TopLevelGrammar::from_regex(source)),
        "lark" => Ok(TopLevelGrammar::from_lark(source.to_owned())),
        "choice" => choice(source),
        _ => Err("is of no known kind".into()),
    }
}

impl Vocabulary {
    fn new(tokenizer: &BridgeTokenizer, fast_masks: bool) -> Outcome<Self> {
        let words = tokenizer.words()?;
        let info = TokRxInfo::new(words.len() as u32, INVALID_TOKEN);
        // Not canonical: a text may be cut into tokens in any way, as the model likes.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        // Each is a trie or two more of much of the vocabulary: most of the time that this takes.
        let slices = if fast_masks { SlicedBiasComputer::general_slices() } else { Vec::new() };
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| shortened(&error.to_string()))?;
        *factory.quiet().limits_mut() = limits();
        Ok(Self { factory, size: info.vocab_size })
    }

    /// A matcher at the begin of a text that can be begun.
    fn matcher(&self, guide: &str) -> Outcome<GuideMatcher> {
        let parser = self.factory.create_parser(grammar(guide)?);
        let matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(shortened(&error));
        }
        let mut matcher = GuideMatcher { matcher, size: self.size };
        let mut words = vec![0; self.size.div_ceil(32) as usize];
        let next = matcher.mask(&mut words)?;
        if next.allowed == 0 && !next.accepting {
            return Err("nothing matches it".into());
        }
        Ok(matcher)
    }
}

impl GuideMatcher {
    fn mask(&mut self, words: &mut [u32]) -> Outcome<Next> {
        words.fill(0);
        if !self.matcher.is_stopped() {
            match self.matcher.compute_mask() {
                Ok(mask) => {
                    let count = words.len().min(mask.as_slice().len());
                    words[..count].copy_from_slice(&mask.as_slice()[..count]);
                }
                // Nothing of the vocabulary goes on; whether the text may end here is told below.
                Err(_) if self.matcher.stop_reason() == StopReason::NoExtensionBias => {}
                Err(error) => return Err(shortened(&error.to_string())),
            }
        }
        let allowed = words.iter().map(|word| word.count_ones()).sum();
        Ok(Next { allowed, accepting: self.accepting()? })
    }

    fn accepting(&mut self) -> Outcome<bool> {
        match self.matcher.stop_reason() {
            StopReason::NotStopped => {
                self.matcher.is_accepting().map_err(|e| shortened(&e.to_string()))
            }
            StopReason::NoExtension | StopReason::EndOfSentence => Ok(true),
            StopReason::NoExtensionBias => Ok(false),
            reason => Err(format!("stopped: {reason}")),
        }
    }

    fn consume(&mut self, ids: &[u32]) -> Outcome<()> {
        if let Some(id) = ids.iter().find(|id| **id >= self.size) {
            return Err(format!("token {id} is not in the vocabulary of {}", self.size));
        }
        self.matcher.consume_tokens(ids).map_err(|error| shortened(&error.to_string()))
    }
}
