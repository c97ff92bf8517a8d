//! A JSON schema on its way to `llguidance`: bounded, and a little narrower where the crate would
//! let documents pass that validators refuse.

use llguidance::api::TopLevelGrammar;
use llguidance::JsonCompileOptions;
use serde_json::{json, Map, Value};

use crate::boundary::Outcome;
use crate::guide::at_most;

/// Between the tokens of a document: nothing, a space, or a line break with its indentation. A model
/// that likes white space must not be able to write it for ever.
const SPACE: &str = r" |\n {0,16}";
const MAX_PATTERN_BYTES: usize = 1 << 10;
/// An open bound is a closed one this far inside, if not the next number: the crate takes 3 to be
/// above 3 when the other bound is below 4.
const MIN_GAP: f64 = 1e-15;
/// The crate's formats know neither leap years nor when leap seconds are.
const REAL_DATE: &str = r"^(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-(02-([01][0-9]|2[0-8])|[01][013-9]-|12-)";
const REAL_TIME: &str = r":[0-9][0-9]:[0-5][0-9]";

pub fn grammar(source: &str) -> Outcome<TopLevelGrammar> {
    let mut schema: Value =
        serde_json::from_str(source).map_err(|error| format!("is not JSON: {error}"))?;
    if !schema.is_object() {
        return Err("must be a JSON object".into());
    }
    prepare(&mut schema)?;
    let options = JsonCompileOptions {
        whitespace_pattern: Some(SPACE.into()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// Of a schema, or of a list of them.
fn prepare(schema: &mut Value) -> Outcome<()> {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().try_for_each(prepare),
        Value::Object(schema) => {
            check_patterns(schema)?;
            close_bounds(schema);
            narrow_format(schema);
            schema.iter_mut().try_for_each(|(key, value)| prepare_keyword(key, value))
        }
        _ => Ok(()),
    }
}

fn prepare_keyword(key: &str, value: &mut Value) -> Outcome<()> {
    match (key, value) {
        // Documents, not schemas.
        ("const" | "enum" | "default" | "examples", _) => Ok(()),
        (
            "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
            Value::Object(schemas),
        ) => schemas.values_mut().try_for_each(prepare),
        (_, value) => prepare(value),
    }
}

fn check_patterns(schema: &Map<String, Value>) -> Outcome<()> {
    let pattern = schema.get("pattern").and_then(Value::as_str).map_or(0, str::len);
    at_most(MAX_PATTERN_BYTES, pattern).map_err(|error| format!("pattern: {error}"))?;
    let names = schema.get("patternProperties").and_then(Value::as_object);
    let longest = names.and_then(|names| names.keys().map(String::len).max()).unwrap_or(0);
    at_most(MAX_PATTERN_BYTES, longest).map_err(|error| format!("patternProperties: {error}"))
}

fn close_bounds(schema: &mut Map<String, Value>) {
    // The crate rounds those of whole numbers itself.
    if schema.get("type").and_then(Value::as_str) == Some("integer") {
        return;
    }
    if let Some(open) = schema.get("exclusiveMinimum").and_then(Value::as_f64) {
        let closed = open.next_up().max(open + MIN_GAP);
        let closed =
            schema.get("minimum").and_then(Value::as_f64).map_or(closed, |m| m.max(closed));
        schema.remove("exclusiveMinimum");
        schema.insert("minimum".into(), json!(closed));
    }
    if let Some(open) = schema.get("exclusiveMaximum").and_then(Value::as_f64) {
        let closed = open.next_down().min(open - MIN_GAP);
        let closed =
            schema.get("maximum").and_then(Value::as_f64).map_or(closed, |m| m.min(closed));
        schema.remove("exclusiveMaximum");
        schema.insert("maximum".into(), json!(closed));
    }
}

fn narrow_format(schema: &mut Map<String, Value>) {
    let patterns: &[&str] = match schema.get("format").and_then(Value::as_str) {
        Some("date") => &[REAL_DATE],
        Some("time") => &[REAL_TIME],
        Some("date-time") => &[REAL_DATE, REAL_TIME],
        _ => return,
    };
    let all = schema.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(all) = all {
        all.extend(patterns.iter().map(|pattern| json!({ "pattern": pattern })));
    }
}
