#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodeport_common_fuzz::icmp_error(data));
