#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| corecast_fuzz::forwarded::check(input));
