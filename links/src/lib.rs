//! Typed, versioned links between the processes of an appliance, made of `ipc-channel`.
//!
//! | link | server's socket | server says | peer says |
//! |---|---|---|---|
//! | holder ↔ worker | [`holder_socket`] | [`ToWorker`](messages::ToWorker) | [`WorkerSays`](messages::WorkerSays) |
//! | holder ↔ control | [`holder_socket`] | [`HolderTells`](messages::HolderTells) | [`ControlSays`](messages::ControlSays) |
//! | control ↔ worker, healthcheck | [`control_socket`] | [`Notice`](messages::Notice) | [`PeerSays`](messages::PeerSays) |
//!
//! A peer [`connect`]s, its first message is a [`Hello`]; the server looks at it ([`Pending`]) and accepts or refuses,
//! naming both sides. The messages themselves are not self-describing: peers of another protocol never get to them.
//! Death is seen by [`pidfd`], not by messages; heartbeats live in shared memory.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use std::path::{Path, PathBuf};

mod error;
mod hello;
mod link;
pub mod messages;
pub mod pidfd;
pub mod privileges;
mod rendezvous;
pub mod service;

pub use error::LinkError;
pub use hello::{Hello, PROTOCOL, Role};
pub use link::{Link, QUEUE};
pub use rendezvous::{Listener, Pending, connect};

/// Where the holder listens.
#[must_use]
pub fn holder_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("ipc/holder.sock")
}

/// Where control listens for workers and the health-checker.
#[must_use]
pub fn control_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("ipc/control-peers.sock")
}
