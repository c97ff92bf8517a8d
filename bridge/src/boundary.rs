//! What every entry point shares: errors as malloc'ed strings, panics turned into errors, and
//! borrowed C buffers turned into slices.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::sync::Once;

pub type Outcome<T> = Result<T, String>;

thread_local! {
    static PANIC_PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static SILENT_PANICS: Once = Once::new();

/// Runs `body`, reports its error through `error`, returns 0 or -1.
pub fn guard(error: *mut *mut c_char, body: impl FnOnce() -> Outcome<()>) -> c_int {
    // A panic message may quote the input (a slice out of range prints the whole string), and prompts
    // never reach a log: only the place is kept.
    SILENT_PANICS.call_once(|| {
        set_hook(Box::new(|panic| {
            let place = panic.location().map(|l| format!("{}:{}", l.file(), l.line()));
            PANIC_PLACE.with(|p| *p.borrow_mut() = place.unwrap_or_default());
        }));
    });
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        // Dropping a payload may panic in turn.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Err(PANIC_PLACE.with(|p| format!("internal error at {}", p.borrow())))
    });
    match outcome {
        Ok(()) => 0,
        Err(message) => {
            if !error.is_null() {
                // SAFETY: the caller passes a writable pointer or null.
                unsafe { *error = malloc_string(&message) };
            }
            -1
        }
    }
}

/// A NUL-terminated copy on the C heap; NULs inside become spaces. Null when out of memory.
fn malloc_string(text: &str) -> *mut c_char {
    let bytes: Vec<u8> = text.bytes().map(|b| if b == 0 { b' ' } else { b }).chain([0]).collect();
    malloc_copy(&bytes).cast()
}

/// A copy of `items` on the C heap, so that `free` on the other side is all it takes. An empty slice
/// gives a valid pointer as well. Null when out of memory.
pub fn malloc_copy<T: Copy>(items: &[T]) -> *mut T {
    let size = std::mem::size_of_val(items);
    // SAFETY: malloc's alignment suits every T used here (bytes, integers), and the copy stays in range.
    unsafe {
        let copy = libc::malloc(size.max(1)).cast::<T>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(items.as_ptr(), copy, items.len());
        }
        copy
    }
}

/// # Safety
/// `data` points at `size` readable items that outlive the result, or `size` is 0.
pub unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if size == 0 || data.is_null() {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// Frees what this library returned as `char*`.
///
/// # Safety
/// `string` is null or came from this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn hanmo_bridge_free_string(string: *mut c_char) {
    libc::free(string.cast());
}

/// Frees ids this library returned.
///
/// # Safety
/// As for [`hanmo_bridge_free_string`].
#[no_mangle]
pub unsafe extern "C" fn hanmo_bridge_free_ids(ids: *mut u32) {
    libc::free(ids.cast());
}
