#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lenore_fuzz::fixed_block(data));
