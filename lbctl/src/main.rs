//! `lbctl`: the operator's command. `lbctl [OPTIONS] OBJECT VERB [ARGS]`.
//!
//! One object, one file; each verb is one request on the admin socket (control-api) and one way of showing the answer.
//! `-o json` prints the answer as it came, so its fields are those of INTERFACE §5. [`table`] prints columns, [`failure`]
//! prints refusals and gives the exit status, [`tables`] reads counters and workers when nobody answers;
//! [`recount`] checks the tables themselves.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod context;
mod failure;
mod input;
mod laddr;
mod neigh;
mod output;
mod pages;
mod port;
mod recount;
mod rs;
mod service;
mod session;
mod stats;
mod table;
mod tables;
mod text;
mod upgrade;
mod usage;
mod version;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Object};
use context::Context;
use failure::{Failure, Status};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::tell(&error),
    };
    let format = cli.output;
    let mut context = Context::new(&cli);
    let outcome = run(cli, &mut context).and_then(|status| context.out.finish().map(|()| status));
    match outcome {
        Ok(status) => status.into(),
        Err(failure) => {
            // What was said so far goes out before the reason why there is no more.
            let _ = context.out.finish();
            failure.tell(format);
            failure.status().into()
        }
    }
}

fn run(cli: Cli, context: &mut Context) -> Result<Status, Failure> {
    if cli.version {
        return version::show(context);
    }
    match cli.object {
        Some(Object::Service { verb }) => (*verb).run(context),
        Some(Object::Rs { verb }) => verb.run(context),
        Some(Object::Session { verb }) => verb.run(context),
        Some(Object::Stats { verb }) => verb.run(context),
        Some(Object::Worker { verb }) => verb.run(context),
        Some(Object::Port { verb }) => verb.run(context),
        Some(Object::Laddr { verb }) => verb.run(context),
        Some(Object::Neigh { verb }) => verb.run(context),
        Some(Object::Config { verb }) => verb.run(context),
        Some(Object::Tables { verb }) => verb.run(context),
        None => Err(usage::missing_object()),
    }
}
