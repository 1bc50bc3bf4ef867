#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lenore_fuzz::proxy(data));
