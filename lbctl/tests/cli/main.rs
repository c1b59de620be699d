//! `lbctl` as a user runs it, against a daemon made for the test: what it asks, what it prints, how it ends.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod changes;
mod checks;
mod fake;
mod reads;
mod sessions;
mod statuses;
mod without;
