#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| corecast_fuzz::token::check(input));
