//! A worker that is bad on purpose, in builds with the feature `failpoints` alone: what the watchers must notice.
//!
//! `LB_FAULT=spin@MS`: its threads run in circles MS milliseconds after they began. `LB_FAULT=drop`: it spoils what it
//! receives. `LB_FAULT=deaf`: it receives nothing.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Spin(Duration),
    Drop,
    Deaf,
}

static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
    let text = std::env::var("LB_FAULT").ok()?;
    let fault = match text.split_once('@') {
        Some(("spin", ms)) => Fault::Spin(Duration::from_millis(ms.parse().ok()?)),
        None if text == "drop" => Fault::Drop,
        None if text == "deaf" => Fault::Deaf,
        _ => return None,
    };
    log::warn!("this worker is bad on purpose: {fault:?}");
    Some(fault)
});

/// Once per turn of a thread that began at `since`.
pub fn turn(since: Instant) {
    if let Some(Fault::Spin(after)) = *FAULT
        && since.elapsed() >= after
    {
        loop {
            std::hint::spin_loop();
        }
    }
}

/// Does it receive at all?
pub fn deaf() -> bool {
    *FAULT == Some(Fault::Deaf)
}

/// Once per frame received.
pub fn frame(frame: &mut [u8]) {
    if *FAULT == Some(Fault::Drop)
        && let Some(ethertype) = frame.get_mut(12..14)
    {
        ethertype.copy_from_slice(&[0x88, 0xb5]); // IEEE's for local experiments.
    }
}
