//! Every order in which loads and stores may take effect, tried by loom on the files that are shipped.
//!
//! A model is small: two or three threads, few steps. What it asserts must hold in all of its executions. What loom
//! cannot show: that time passes, that a process dies (tests of `datapath::session` and the end-to-end tests do); and that a
//! load takes effect after a later store of its thread (it runs threads in program order). Of the orderings that forbid
//! just this (`head` of a ring, `PulseRow::see`) the Release is argued where it stands, not tried here.

mod board;
mod counters;
mod neighbours;
mod owner;
mod persistence;
mod quorum;
mod ring;
mod seqlock;
mod session;

/// Tries all executions with at most `preemptions` switches of a running thread.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        shm_models::sync::begin();
        model();
    });
}
