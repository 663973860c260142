//! A saved session. In a fuzzed build its checksum is not compared, so that what lies behind it is reached.
#![no_main]

use dram_fuzz::{scratch, session, toy_model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = scratch("saved");
    std::fs::write(&path, data).expect("the scratch folder takes a file");
    let Some(mut session) = session(toy_model(), 32) else {
        return;
    };
    if session.restore(&path).is_ok() {
        let _ = session.prefill(&[1]);
        session.save(&path).expect("what was restored can be saved");
        session
            .restore(&path)
            .expect("what was saved can be restored");
    }
});
