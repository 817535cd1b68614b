//! Random bytes for the crate `getrandom`, which knows no source of its own for this target: those of the sandbox.
//!
//! `plugins/build.sh` tells that crate to ask for this function.

use getrandom::Error;

/// Fills `length` bytes from `at`.
///
/// # Safety
/// They may be written to.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(at: *mut u8, length: usize) -> Result<(), Error> {
    let bytes = wasip2::random::random::get_random_bytes(length as u64);
    // SAFETY: the caller lends `length` bytes from `at`, and there are as many in `bytes`.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, length) };
    Ok(())
}
