//! The link to control: a nudge when targets have changed. A convenience only: the board is looked at ten times a second
//! anyway, so everything works while control is dead or of another release.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use links::messages::{Notice, PeerSays};
use links::{Hello, LinkError, Role};
use tokio::sync::Notify;

/// Between two attempts to reach control.
const RETRY: Duration = Duration::from_secs(2);
/// Time control has for its verdict.
const VERDICT: Duration = Duration::from_secs(5);

/// Keeps a link to control from a thread of its own (its calls block); the result is told whenever control says that
/// targets changed.
pub fn follow(control: PathBuf) -> Arc<Notify> {
    let nudge = Arc::new(Notify::new());
    let told = Arc::clone(&nudge);
    let thread = std::thread::Builder::new().name("control-link".into()).spawn(move || {
        let mut said = String::new();
        loop {
            if let Err(error) = listen(&control, &told) {
                let text = error.to_string();
                if text != said {
                    match error {
                        LinkError::Refused(_) => log::warn!("{text}; targets are read from the board all the same"),
                        _ => log::debug!("{text}"),
                    }
                    said = text;
                }
            }
            std::thread::sleep(RETRY);
        }
    });
    if let Err(error) = thread {
        log::warn!("no thread for the link to control: {error}");
    }
    nudge
}

/// One link, until control leaves.
fn listen(control: &std::path::Path, nudge: &Notify) -> Result<(), LinkError> {
    let hello = Hello::new(Role::Healthcheck, None);
    let (link, inbox) = links::connect::<PeerSays, Notice>(control, &hello, VERDICT)?;
    link.send(PeerSays::Serving)?;
    log::debug!("linked to control, process {}", link.peer());
    // What happened before the link was there.
    nudge.notify_one();
    for notice in inbox {
        match notice {
            Notice::Reload { .. } => nudge.notify_one(),
            // The service manager stops us, not control: results outlive both.
            Notice::Stop => log::debug!("control stops"),
        }
    }
    Ok(())
}
