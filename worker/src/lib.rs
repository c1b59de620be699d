//! The parts of `lb-worker`, for the program itself and for benchmarks that run its loop ([`threads`]) on other ports.
#![forbid(unsafe_code)]

pub mod attach;
pub mod error;
#[cfg(feature = "failpoints")]
mod faults;
mod futex;
pub mod io;
pub mod keeper;
pub mod privileges;
#[cfg(feature = "reflect")]
mod reflect;
pub mod serve;
pub mod slots;
pub mod threads;
pub mod trial;
