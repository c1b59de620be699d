//! One link: a bounded queue and a writer thread towards the peer, a reader thread from it.
//!
//! `ipc-channel`'s `send` blocks when the peer does not read, so it is called by the writer thread alone.

use std::fmt;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use ipc_channel::ipc::{IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::LinkError;

/// Messages that may wait for a peer; one more, and it is considered hung.
pub const QUEUE: usize = 64;

/// The sending half of a link. Dropping it closes the link once its messages are written.
pub struct Link<Out> {
    queue: SyncSender<Out>,
    peer: u32,
}

impl<Out> fmt::Debug for Link<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link(to process {})", self.peer)
    }
}

impl<Out: Serialize + DeserializeOwned + Send + 'static> Link<Out> {
    pub(crate) fn start(sender: IpcSender<Out>, peer: u32) -> Result<Self, LinkError> {
        let (queue, messages) = sync_channel::<Out>(QUEUE);
        let write = move || {
            for message in messages {
                if let Err(error) = sender.send(message) {
                    log::debug!("link to process {peer}: {error}");
                    return;
                }
            }
        };
        spawn(format!("to-{peer}"), write)?;
        Ok(Self { queue, peer })
    }

    /// Queues a message. Never blocks, whatever the peer does.
    ///
    /// # Errors
    /// [`LinkError::Hung`] when [`QUEUE`] messages wait already, [`LinkError::Closed`] when the peer has gone.
    pub fn send(&self, message: Out) -> Result<(), LinkError> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => LinkError::Hung { peer: self.peer, queued: QUEUE },
            TrySendError::Disconnected(_) => LinkError::Closed { peer: self.peer },
        })
    }

    /// Process id of the peer.
    #[must_use]
    pub fn peer(&self) -> u32 {
        self.peer
    }
}

/// Gives every message of the peer to `deliver`, then `None` once: the link is closed.
pub(crate) fn read<In: Serialize + DeserializeOwned + Send + 'static>(
    receiver: IpcReceiver<In>,
    peer: u32,
    mut deliver: impl FnMut(Option<In>) + Send + 'static,
) -> Result<(), LinkError> {
    spawn(format!("from-{peer}"), move || {
        loop {
            match receiver.recv() {
                Ok(message) => deliver(Some(message)),
                Err(error) => {
                    log::debug!("link from process {peer}: {error}");
                    return deliver(None);
                }
            }
        }
    })
}

pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<(), LinkError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map(drop)
        .map_err(|e| LinkError::Channel { what: "a thread for a link cannot be started", why: e.to_string() })
}
