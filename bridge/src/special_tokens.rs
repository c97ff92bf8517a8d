//! Which tokens a tokenizer folder adds and names, read as transformers 5 reads them: from
//! tokenizer_config.json, else from special_tokens_map.json, added_tokens.json and tokenizer.json.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::boundary::Outcome;

pub type Object = Map<String, Value>;

/// The names transformers knows, in its order; the order decides the ids of tokens that are new.
pub const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token as a file writes it: a plain string, or an object with matching rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Spelling {
    pub content: String,
    rules: Option<Rules>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Rules {
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    /// Absent means "unless special".
    normalized: Option<bool>,
    special: bool,
}

impl Spelling {
    pub fn plain(content: &str) -> Self {
        Self { content: content.into(), rules: None }
    }

    /// `special` overrides the object's own flag, as for values of special_tokens_map.json.
    fn read(value: &Value, special: bool, place: &str) -> Outcome<Self> {
        if let Value::String(content) = value {
            return Ok(Self::plain(content));
        }
        let content = value.get("content").and_then(Value::as_str).ok_or_else(|| {
            format!("{place} must be a string or an object with a string \"content\"")
        })?;
        let flag = |name| value.get(name).and_then(Value::as_bool);
        let rules = Rules {
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized"),
            special: special || flag("special").unwrap_or(false),
        };
        Ok(Self { content: content.into(), rules: Some(rules) })
    }

    /// The token to add. A plain string is special; an object becomes so when it is a named token.
    fn to_added(&self, named: bool) -> AddedToken {
        let rules = self.rules.clone().unwrap_or(Rules { special: true, ..Default::default() });
        let special = rules.special || named;
        AddedToken {
            content: self.content.clone(),
            single_word: rules.single_word,
            lstrip: rules.lstrip,
            rstrip: rules.rstrip,
            normalized: rules.normalized.unwrap_or(!special),
            special,
        }
    }
}

/// The tokens of one folder.
#[derive(Default)]
pub struct SpecialTokens {
    /// Name and token, the seven of [`NAMES`] first, in the order in which they are added.
    named: Vec<(String, Option<Spelling>)>,
    extra: Vec<Spelling>,
    /// Tokens with the ids the files give them.
    pub by_id: BTreeMap<i64, Spelling>,
}

/// The JSON files that speak of special tokens; absent ones are empty or null.
pub struct Sources<'a> {
    pub config: &'a Object,
    pub special_tokens_map: &'a Object,
    pub added_tokens: &'a Object,
    /// The `added_tokens` list of tokenizer.json.
    pub tokenizer_json_added: &'a [Value],
}

impl SpecialTokens {
    /// `defaults` are the names that the tokenizer class sets when no file mentions them.
    pub fn read(sources: &Sources, defaults: &[(&str, &str)]) -> Outcome<Self> {
        let mut tokens = Self::default();
        let mut values: Vec<(String, Value, bool)> =
            sources.config.iter().map(|(k, v)| (k.clone(), v.clone(), false)).collect();
        let decoder = sources.config.get("added_tokens_decoder");
        if decoder.is_none() {
            // The older spelling: this file then overrides the config key by key.
            for (key, value) in sources.special_tokens_map {
                values.retain(|(k, _, _)| k != key);
                values.push((key.clone(), value.clone(), true));
            }
        }
        tokens.read_names(&values, defaults)?;
        match decoder {
            Some(Value::Object(entries)) => tokens.read_decoder(entries)?,
            Some(Value::Null) | None => tokens.read_legacy(sources)?,
            Some(_) => {
                return Err("tokenizer_config.json: added_tokens_decoder must be an object".into())
            }
        }
        // A named token takes the rules of the added token of the same text.
        for name in &mut tokens.named[..NAMES.len()] {
            if let Some(spelling) = &mut name.1 {
                if let Some(rules) =
                    tokens.by_id.values().rev().find(|t| t.content == spelling.content)
                {
                    *spelling = rules.clone();
                }
            }
        }
        Ok(tokens)
    }

    fn read_names(
        &mut self,
        values: &[(String, Value, bool)],
        defaults: &[(&str, &str)],
    ) -> Outcome<()> {
        let find = |key: &str| values.iter().find(|(k, _, _)| k == key);
        for name in NAMES {
            let token = match find(name) {
                Some((_, Value::Null, _)) => None,
                Some((_, value, special)) => Some(Spelling::read(value, *special, name)?),
                None => defaults.iter().find(|(n, _)| *n == name).map(|(_, t)| Spelling::plain(t)),
            };
            self.named.push((name.into(), token));
        }
        for (key, value, special) in values {
            let own_name = key.ends_with("_token") && !NAMES.contains(&key.as_str());
            if own_name && (value.is_string() || value.is_object()) {
                self.named.push((key.clone(), Some(Spelling::read(value, *special, key)?)));
            }
        }
        let filled = |key| {
            find(key).filter(|(_, v, _)| match v {
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => false,
            })
        };
        let extra = filled("extra_special_tokens").or_else(|| filled("additional_special_tokens"));
        match extra {
            Some((key, Value::Array(list), special)) => {
                for value in list {
                    self.extra.push(Spelling::read(value, *special, key)?);
                }
            }
            Some((key, Value::Object(map), special)) => {
                for (name, value) in map {
                    self.named.push((name.clone(), Some(Spelling::read(value, *special, key)?)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read_decoder(&mut self, entries: &Object) -> Outcome<()> {
        for (id, value) in entries {
            let place = format!("tokenizer_config.json: added_tokens_decoder[{id}]");
            let id = id.parse().map_err(|_| format!("{place}: the id is not a number"))?;
            if !value.is_object() {
                return Err(format!("{place} must be an object"));
            }
            self.by_id.insert(id, Spelling::read(value, false, &place)?);
        }
        Ok(())
    }

    fn read_legacy(&mut self, sources: &Sources) -> Outcome<()> {
        for (content, id) in sources.added_tokens {
            let id = id.as_i64().ok_or_else(|| {
                format!("added_tokens.json: the id of {content:?} is not a number")
            })?;
            let special =
                self.named.iter().filter_map(|(_, t)| t.as_ref()).any(|t| t.content == *content)
                    || self.extra.iter().any(|t| t.content == *content);
            let rules = Rules { normalized: Some(!special), special, ..Default::default() };
            self.by_id.insert(id, Spelling { content: content.clone(), rules: Some(rules) });
        }
        for value in sources.tokenizer_json_added {
            let id = value
                .get("id")
                .and_then(Value::as_i64)
                .ok_or("tokenizer.json: an added token without an id")?;
            self.by_id.insert(id, Spelling::read(value, false, "tokenizer.json: added_tokens")?);
        }
        Ok(())
    }

    pub fn named(&self, name: &str) -> Option<&str> {
        let (_, token) = self.named.iter().find(|(n, _)| n == name)?;
        token.as_ref().map(|t| t.content.as_str())
    }

    /// What to add to a backend that already has the tokens `present`, in order.
    pub fn to_add(&self, present: &[String]) -> Vec<AddedToken> {
        let mut spellings: Vec<&Spelling> = self.by_id.values().collect();
        let listed: Vec<&str> = spellings.iter().map(|t| t.content.as_str()).collect();
        let is_known =
            |t: &Spelling| present.contains(&t.content) || listed.contains(&t.content.as_str());
        let named = self.named.iter().filter_map(|(_, token)| token.as_ref());
        for token in named.chain(&self.extra) {
            if !is_known(token) && !spellings.contains(&token) {
                spellings.push(token);
            }
        }
        let is_named = |t: &Spelling| {
            self.named.iter().any(|(_, n)| n.as_ref().is_some_and(|n| n.content == t.content))
        };
        spellings.into_iter().map(|t| t.to_added(is_named(t))).collect()
    }
}
