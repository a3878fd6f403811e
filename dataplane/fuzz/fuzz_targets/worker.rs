//! Whatever the bytes say of frames, commands and time: worker and reference director agree.
#![no_main]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;
#[path = "../../tests/reference/mod.rs"]
mod reference;

use std::cell::RefCell;

use dpdk::eal::Eal;
use fuzzing::choices::Choices;
use fuzzing::rig::Rig;
use fuzzing::{Tally, case};

thread_local! {
    /// The EAL starts once a process; the fuzzer calls from one thread.
    static RIG: RefCell<Rig> = RefCell::new(Rig::new(Eal::init(&dpdk::test_support::config()).expect("the EAL")));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    RIG.with_borrow_mut(|rig| {
        case(rig, Choices::Bytes(bytes), usize::MAX, &mut Tally::new());
    });
});
