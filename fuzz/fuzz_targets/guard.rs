#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tower_realtime_auth_fuzz::guard(input));
