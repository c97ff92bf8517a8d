//! Builds a tokenizer from the files of a folder, as transformers 5 does: BertTokenizer,
//! CLIPTokenizer and GPT2Tokenizer take their vocabulary from tokenizer.json or from their own files
//! and build their pipeline themselves; every other class is what tokenizer.json describes.

use serde_json::Value;
use tokenizers::decoders::{byte_level::ByteLevel, wordpiece::WordPiece as WordPieceDecoder};
use tokenizers::models::bpe::{Merges, Vocab, BPE};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NormalizerWrapper, Replace, Sequence, NFC,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{PostProcessorWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::boundary::Outcome;
use crate::special_tokens::{Object, Sources, SpecialTokens};

/// The text of each file; `None` where the folder has none.
#[derive(Default)]
pub struct Files<'a> {
    pub tokenizer_json: Option<&'a str>,
    pub vocab_txt: Option<&'a str>,
    pub vocab_json: Option<&'a str>,
    pub merges_txt: Option<&'a str>,
    pub tokenizer_config: Option<&'a str>,
    pub special_tokens_map: Option<&'a str>,
    pub added_tokens: Option<&'a str>,
    /// The class to assume where tokenizer_config.json names none.
    pub class_hint: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Class {
    Bert,
    Clip,
    Gpt2,
    /// Whatever tokenizer.json describes.
    File,
}

pub struct Built {
    pub tokenizer: Tokenizer,
    pub class: Class,
    pub config: Object,
    pub special: SpecialTokens,
}

pub fn build(files: &Files) -> Outcome<Built> {
    let config = object("tokenizer_config.json", files.tokenizer_config)?;
    let file = object("tokenizer.json", files.tokenizer_json)?;
    let class = choose_class(files, &config)?;
    let added = match file.get("added_tokens") {
        Some(Value::Array(list)) => list.as_slice(),
        _ => &[],
    };
    let sources = Sources {
        config: &config,
        special_tokens_map: &object("special_tokens_map.json", files.special_tokens_map)?,
        added_tokens: &object("added_tokens.json", files.added_tokens)?,
        tokenizer_json_added: added,
    };
    let special = SpecialTokens::read(&sources, class_defaults(class))?;
    let mut tokenizer = match class {
        Class::Bert => bert(files, &file, &config, &special)?,
        Class::Clip => clip(files, &file, &special)?,
        Class::Gpt2 => gpt2(files, &file, &config)?,
        Class::File => from_tokenizer_json(files.tokenizer_json.unwrap_or_default())?,
    };
    tokenizer.with_truncation(None).map_err(text)?;
    tokenizer.with_padding(None);
    // The crate keeps one cache per thread and model and never empties it when the model goes.
    if let ModelWrapper::BPE(mut bpe) = tokenizer.get_model().clone() {
        bpe.resize_cache(0);
        tokenizer.with_model(bpe);
    }
    let present: Vec<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|t| t.content).collect();
    tokenizer.add_tokens(special.to_add(&present)).map_err(text)?;
    tokenizer.set_encode_special_tokens(flag(&config, "split_special_tokens", false));
    frame(&mut tokenizer, class, &config, &special, files.tokenizer_json.is_some())?;
    Ok(Built { tokenizer, class, config, special })
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn object(name: &str, source: Option<&str>) -> Outcome<Object> {
    match source {
        None => Ok(Object::new()),
        Some(source) => match serde_json::from_str(source) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(format!("{name} must be a JSON object")),
            Err(error) => Err(format!("{name} is not JSON: {error}")),
        },
    }
}

fn flag(config: &Object, key: &str, default: bool) -> bool {
    config.get(key).and_then(Value::as_bool).unwrap_or(default)
}

fn choose_class(files: &Files, config: &Object) -> Outcome<Class> {
    let named = config.get("tokenizer_class").and_then(Value::as_str).or(files.class_hint);
    let class = match named.map(|n| n.strip_suffix("Fast").unwrap_or(n)) {
        Some("BertTokenizer") => Class::Bert,
        Some("CLIPTokenizer") => Class::Clip,
        Some("GPT2Tokenizer") => Class::Gpt2,
        _ if files.tokenizer_json.is_some() => Class::File,
        Some(name) => {
            return Err(format!(
                "tokenizer_class {name} needs a tokenizer.json; without one, BertTokenizer, \
                 CLIPTokenizer and GPT2Tokenizer are supported"
            ))
        }
        None if files.vocab_txt.is_some() => Class::Bert,
        None => match files.vocab_json {
            Some(vocab) if vocab.contains("\"<|startoftext|>\"") => Class::Clip,
            Some(_) => Class::Gpt2,
            None => return Err("no tokenizer.json, vocab.txt or vocab.json".into()),
        },
    };
    Ok(class)
}

fn class_defaults(class: Class) -> &'static [(&'static str, &'static str)] {
    match class {
        Class::Bert => &[
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
        Class::Clip => &[
            ("bos_token", "<|startoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
            ("pad_token", "<|endoftext|>"),
        ],
        Class::Gpt2 => &[
            ("bos_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
        ],
        Class::File => &[],
    }
}

fn from_tokenizer_json(source: &str) -> Outcome<Tokenizer> {
    Tokenizer::from_bytes(source).map_err(|error| format!("tokenizer.json: {error}"))
}

fn bert(
    files: &Files,
    file: &Object,
    config: &Object,
    special: &SpecialTokens,
) -> Outcome<Tokenizer> {
    let vocab = if file.is_empty() {
        let lines = files.vocab_txt.ok_or("vocab.txt is missing")?.lines();
        lines.enumerate().map(|(id, token)| (token.trim_end().to_owned(), id as u32)).collect()
    } else {
        vocab_of(file)?
    };
    let unk = special.named("unk_token").ok_or("unk_token must be set")?;
    let model = WordPiece::builder().vocab(vocab).unk_token(unk.into()).build().map_err(text)?;
    if tokenizers::Model::token_to_id(&model, unk).is_none() {
        return Err(format!("the vocabulary has no unk_token {unk:?}"));
    }
    let mut tokenizer = Tokenizer::new(model);
    let normalizer = BertNormalizer::new(
        true,
        flag(config, "tokenize_chinese_chars", true),
        config.get("strip_accents").and_then(Value::as_bool),
        flag(config, "do_lower_case", true),
    );
    tokenizer.with_normalizer(Some(normalizer)).map_err(text)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    Ok(tokenizer)
}

const CLIP_PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

fn clip(files: &Files, file: &Object, special: &SpecialTokens) -> Outcome<Tokenizer> {
    let (vocab, merges) = bpe_tables(files, file)?;
    let unk = special.named("unk_token").ok_or("unk_token must be set")?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".into())
        .unk_token(unk.into())
        .build()
        .map_err(bpe_error)?;
    let mut tokenizer = Tokenizer::new(model);
    let whitespace = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(text)?;
    let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), whitespace.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Sequence::new(normalizers))).map_err(text)?;
    let pattern = SplitPattern::Regex(CLIP_PATTERN.into());
    let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(text)?;
    let steps: Vec<PreTokenizerWrapper> =
        vec![split.into(), ByteLevel::new(false, true, true).into()];
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

fn gpt2(files: &Files, file: &Object, config: &Object) -> Outcome<Tokenizer> {
    let (vocab, merges) = bpe_tables(files, file)?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(String::new())
        .build()
        .map_err(bpe_error)?;
    let mut tokenizer = Tokenizer::new(model);
    let prefix_space = flag(config, "add_prefix_space", false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    if let Some(step) = file.get("post_processor").filter(|p| !p.is_null()) {
        let step: PostProcessorWrapper = serde_json::from_value(step.clone())
            .map_err(|error| format!("tokenizer.json: post_processor: {error}"))?;
        tokenizer.with_post_processor(Some(step));
    }
    Ok(tokenizer)
}

fn bpe_tables(files: &Files, file: &Object) -> Outcome<(Vocab, Merges)> {
    if !file.is_empty() {
        return Ok((vocab_of(file)?, merges_of(file)?));
    }
    let source = object("vocab.json", Some(files.vocab_json.ok_or("vocab.json is missing")?))?;
    let vocab = ids("vocab.json", &source)?;
    let lines = files.merges_txt.ok_or("merges.txt is missing")?.lines();
    let merges = lines
        .filter(|line| !line.starts_with("#version"))
        .enumerate()
        .map(|(rank, line)| {
            pair(line).ok_or_else(|| format!("merges.txt: merge {} is not a pair", rank + 1))
        })
        .collect::<Outcome<Merges>>()?;
    Ok((vocab, merges))
}

fn bpe_error(error: impl ToString) -> String {
    format!("vocabulary and merges disagree: {}", error.to_string())
}

fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    (!right.contains(' ')).then(|| (left.into(), right.into()))
}

fn ids(place: &str, source: &Object) -> Outcome<Vocab> {
    let read = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(|id| (token.clone(), id))
            .ok_or_else(|| format!("{place}: the id of {token:?} is not a number"))
    };
    source.iter().map(read).collect()
}

fn vocab_of(file: &Object) -> Outcome<Vocab> {
    match file.get("model").and_then(|model| model.get("vocab")) {
        Some(Value::Object(vocab)) => ids("tokenizer.json: model.vocab", vocab),
        _ => Err("tokenizer.json: model.vocab must be an object".into()),
    }
}

fn merges_of(file: &Object) -> Outcome<Merges> {
    let wrong = || "tokenizer.json: model.merges must be a list of pairs".to_owned();
    let list = file.get("model").and_then(|model| model.get("merges")).and_then(Value::as_array);
    let read = |merge: &Value| match merge {
        Value::String(line) => pair(line),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    list.ok_or_else(wrong)?.iter().map(|merge| read(merge).ok_or_else(wrong)).collect()
}

/// Sets what goes around a sequence when special tokens are asked for.
fn frame(
    tokenizer: &mut Tokenizer,
    class: Class,
    config: &Object,
    special: &SpecialTokens,
    has_tokenizer_json: bool,
) -> Outcome<()> {
    let resolve = |name: &str| -> Outcome<(String, u32)> {
        let token = special.named(name).ok_or_else(|| format!("{name} must be set"))?;
        let id =
            tokenizer.token_to_id(token).ok_or_else(|| format!("{name} {token:?} has no id"))?;
        Ok((token.to_owned(), id))
    };
    match class {
        Class::Bert => {
            let (cls, sep) = (resolve("cls_token")?, resolve("sep_token")?);
            tokenizer.with_post_processor(Some(template(Some(cls), Some(sep))?));
        }
        Class::Clip => {
            let (bos, eos) = (resolve("bos_token")?, resolve("eos_token")?);
            let step = RobertaProcessing::new(eos, bos).trim_offsets(false).add_prefix_space(false);
            tokenizer.with_post_processor(Some(step));
        }
        Class::Gpt2 if !has_tokenizer_json => {
            let wanted = |key, name| flag(config, key, false).then(|| resolve(name)).transpose();
            let (bos, eos) =
                (wanted("add_bos_token", "bos_token")?, wanted("add_eos_token", "eos_token")?);
            if bos.is_some() || eos.is_some() {
                tokenizer.with_post_processor(Some(template(bos, eos)?));
            }
        }
        Class::Gpt2 | Class::File => {}
    }
    Ok(())
}

fn template(
    before: Option<(String, u32)>,
    after: Option<(String, u32)>,
) -> Outcome<TemplateProcessing> {
    let piece = |token: &(String, u32)| format!("{}:0", token.0);
    let mut pieces: Vec<String> = before.iter().map(piece).collect();
    pieces.push("$A:0".into());
    pieces.extend(after.iter().map(piece));
    let mut tokens: Vec<(String, u32)> = before.into_iter().chain(after).collect();
    tokens.dedup();
    let mut builder = TemplateProcessing::builder();
    builder.try_single(pieces).map_err(text)?;
    builder.special_tokens(tokens).build().map_err(text)
}
