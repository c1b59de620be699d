//! Links to workers and the health-checker: they are told of each generation, so that nobody waits for its next look.
//! Nothing depends on them: who has no link finds the generation in the tables.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use links::messages::{Notice, PeerSays};
use links::{Hello, Link, LinkError, Listener, Role};

type Peer = (Link<Notice>, Receiver<PeerSays>);

/// All peers.
#[derive(Clone, Default)]
pub struct Peers(Arc<Mutex<Vec<Peer>>>);

impl Peers {
    /// Listens for peers below `run_dir`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(run_dir: &Path) -> Result<Self, LinkError> {
        let peers = Self::default();
        let joined = peers.clone();
        Listener::serve(&links::control_socket(run_dir), move |pending| {
            let own = Hello::new(Role::Control, None);
            if let Err(why) = pending.check(&own) {
                log::warn!("refused: {why}");
                pending.refuse(&why);
                return true;
            }
            match pending.accept::<Notice, PeerSays>(&own) {
                Ok(peer) => joined.lock().push(peer),
                Err(error) => log::warn!("a peer was not linked: {error}"),
            }
            true
        })?;
        Ok(peers)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all; who does not take it is let go and finds it out by itself.
    pub fn announce(&self, generation: u64) {
        self.lock().retain(|(link, _)| link.send(Notice::Reload { generation }).is_ok());
    }

    /// Takes what they said, which is for the log; forgets who is gone.
    pub fn listen_once(&self) {
        self.lock().retain(|(link, inbox)| {
            loop {
                match inbox.try_recv() {
                    Ok(said) => log::debug!("process {}: {said:?}", link.peer()),
                    Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
                }
            }
        });
    }
}
