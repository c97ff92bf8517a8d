//! Chat templates: minijinja set up as transformers sets up Jinja2, with bounds on work and output.

use std::ffi::{c_char, c_int};
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use crate::boundary::{guard, malloc_copy, slice, Outcome};
use crate::python_text::{self, JsonStyle};

const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Instructions of one rendering: some 200 for a message, so room for thousands of messages, and well
/// under a second of work.
const FUEL: u64 = 5_000_000;
/// The context's name for the time that `strftime_now` shows.
const NOW: &str = "__now";

pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// # Safety
/// `source` has `size` readable bytes, `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_chat_template_create(
    source: *const c_char,
    size: usize,
    out: *mut *mut ChatTemplate,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let source = std::str::from_utf8(slice(source.cast(), size)).map_err(|_| "not UTF-8")?;
        *out = Box::into_raw(Box::new(ChatTemplate::new(source)?));
        Ok(())
    })
}

/// # Safety
/// `template` is null or came from `hanmo_chat_template_create`, and nobody uses it any more.
#[no_mangle]
pub unsafe extern "C" fn hanmo_chat_template_free(template: *mut ChatTemplate) {
    guard(std::ptr::null_mut(), || {
        if !template.is_null() {
            drop(Box::from_raw(template));
        }
        Ok(())
    });
}

/// # Safety
/// `template` is alive, `context` has `context_size` readable bytes, the out parameters are writable.
#[no_mangle]
pub unsafe extern "C" fn hanmo_chat_template_render(
    template: *const ChatTemplate,
    context: *const c_char,
    context_size: usize,
    now_unix_seconds: i64,
    text: *mut *mut c_char,
    size: *mut usize,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let context = slice(context.cast(), context_size);
        let rendered = (*template).render(context, now_unix_seconds)?;
        let copy: *mut u8 = malloc_copy(&rendered);
        if copy.is_null() {
            return Err("out of memory".into());
        }
        *text = copy.cast();
        *size = rendered.len();
        Ok(())
    })
}

impl ChatTemplate {
    fn new(source: &str) -> Outcome<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!("longer than {MAX_SOURCE_BYTES} bytes"));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| e.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(|state, value, method, args| {
            match value.as_str() {
                Some(text) if method == "title" && args.is_empty() => {
                    Ok(python_text::title(text).into())
                }
                _ => {
                    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
                }
            }
        });
        environment.set_formatter(|out, _, value| {
            out.write_str(&python_text::str(value)?).map_err(Error::from)
        });
        environment.add_filter("tojson", |value: &Value, kwargs: Kwargs| {
            JsonStyle::from_kwargs(&kwargs)?.dumps(value)
        });
        environment.add_filter("string", |value: &Value| python_text::str(value));
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_now);
        let source = neutral_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
        environment.add_template_owned("chat_template", source).map_err(|e| e.to_string())?;
        Ok(Self { environment })
    }

    fn render(&self, context: &[u8], now: i64) -> Outcome<Vec<u8>> {
        let mut context: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(context).map_err(|error| format!("context: {error}"))?;
        context.insert(NOW.into(), now.into());
        let template = self.environment.get_template("chat_template").map_err(|e| e.to_string())?;
        let mut output = Bounded(Vec::new());
        template
            .render_captured_to(Value::from(Serde(&context)), &mut output)
            .map_err(|error| error.to_string())?;
        Ok(output.0)
    }
}

/// `{% generation %}` marks the assistant's words for training; for rendering it is a plain block.
fn neutral_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let tag = &rest[open + 2..open + length];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..open + 2]);
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = &rest[open + length + 2..];
    }
    out + rest
}

/// The local time of the rendering in strftime's format.
fn strftime_now(
    state: &minijinja::State,
    format: String,
    _rest: Rest<Value>,
) -> Result<String, Error> {
    let now = state.lookup(NOW).and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    let wrong = || Error::new(ErrorKind::InvalidOperation, "strftime_now: unusable format");
    if format.is_empty() {
        return Ok(String::new());
    }
    let format = std::ffi::CString::new(format).map_err(|_| wrong())?;
    let mut buffer = [0u8; 512];
    // SAFETY: the buffer's size is passed, the format ends with NUL, and `broken_down` is filled first.
    let written = unsafe {
        let mut broken_down = std::mem::zeroed();
        if libc::localtime_r(&now, &mut broken_down).is_null() {
            return Err(wrong());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &broken_down)
    };
    if written == 0 {
        return Err(wrong());
    }
    String::from_utf8(buffer[..written].to_vec()).map_err(|_| wrong())
}

/// A buffer that refuses to grow past the bound.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("the rendered text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
