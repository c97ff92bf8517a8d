//! safetensors headers: names, types, shapes and byte ranges. Tensor bytes are never read.

use std::ffi::{c_char, c_int, c_void};

use safetensors::SafeTensors;

use crate::boundary::{guard, slice};

pub type Visit = extern "C" fn(
    ctx: *mut c_void,
    name: *const c_char,
    name_len: usize,
    dtype: *const c_char,
    shape: *const u64,
    rank: usize,
    begin: u64,
    end: u64,
);

/// # Safety
/// `data` points at `size` readable bytes; `visit` accepts `ctx`.
#[no_mangle]
pub unsafe extern "C" fn hanmo_safetensors_parse(
    data: *const u8,
    size: usize,
    visit: Visit,
    ctx: *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    guard(error, || {
        let (header, metadata) =
            SafeTensors::read_metadata(slice(data, size)).map_err(|e| e.to_string())?;
        let first = 8 + header;
        for name in metadata.offset_keys() {
            let info = metadata.info(&name).ok_or("a tensor without a description")?;
            let shape: Vec<u64> = info.shape.iter().map(|&n| n as u64).collect();
            let dtype = format!("{}\0", info.dtype);
            let (begin, end) = info.data_offsets;
            visit(
                ctx,
                name.as_ptr().cast(),
                name.len(),
                dtype.as_ptr().cast(),
                shape.as_ptr(),
                shape.len(),
                (first + begin) as u64,
                (first + end) as u64,
            );
        }
        Ok(())
    })
}
