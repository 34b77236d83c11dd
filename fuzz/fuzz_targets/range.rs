//! See `fuzz/properties/range.rs`.
#![no_main]

#[path = "../properties/range.rs"]
mod range;

libfuzzer_sys::fuzz_target!(|data: &[u8]| range::check(data));
