//! Signals for programs that own rigs: nothing may be left behind after Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::janitor;

/// Lets the body of [`run`] wait for the signal itself, to end in its own order.
#[derive(Clone, Default)]
pub struct Interrupt {
    waiting: Arc<AtomicBool>,
    came: Arc<AtomicBool>,
}

impl Interrupt {
    /// Waits until SIGINT, SIGTERM or SIGHUP comes.
    pub fn wait(&self) {
        self.waiting.store(true, Relaxed);
        while !self.came.load(Relaxed) {
            sleep(Duration::from_millis(50));
        }
    }
}

enum Event {
    Signal(i32),
    Done(i32),
}

/// Runs `body` on a thread of its own and gives its exit status. A signal ends it: all rigs are
/// removed, `on_signal` is called and the status is 128 + signal; unless the body is waiting for
/// the signal ([`Interrupt::wait`]), then it goes on to its end.
pub fn run(body: impl FnOnce(&Interrupt) -> i32 + Send + 'static, on_signal: impl Fn()) -> i32 {
    let (sender, events) = channel();
    match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            let sender = sender.clone();
            spawn(move || signals.forever().try_for_each(|signal| sender.send(Event::Signal(signal))));
        }
        // Without it a signal ends the process at once and the janitor cleans up afterwards.
        Err(error) => eprintln!("no signal handling: {error}"),
    }
    let interrupt = Interrupt::default();
    let of_body = interrupt.clone();
    spawn(move || sender.send(Event::Done(body(&of_body))));
    loop {
        match events.recv() {
            Ok(Event::Done(status)) => return status,
            Ok(Event::Signal(_)) if interrupt.waiting.load(Relaxed) && !interrupt.came.load(Relaxed) => {
                interrupt.came.store(true, Relaxed);
            }
            Ok(Event::Signal(signal)) => {
                on_signal();
                janitor::close_all();
                return 128 + signal;
            }
            // The body's thread ended without a word: it panicked and said why.
            Err(_) => {
                janitor::close_all();
                return 101;
            }
        }
    }
}
