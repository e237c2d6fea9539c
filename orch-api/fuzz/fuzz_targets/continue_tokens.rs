#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orch_api::fuzzing::run("continue_tokens", data));
