//! See `fuzz/properties/reference.rs`.
#![no_main]

#[path = "../properties/reference.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reference::check(data));
