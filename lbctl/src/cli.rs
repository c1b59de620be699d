//! The command line: options that hold for every command, and the objects.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::{config, laddr, neigh, port, recount, rs, service, session, stats, worker};

const LONG: &str = "\
Shows and changes a running ContainerLB appliance.

A command is an OBJECT and a VERB; both may be shortened as long as they stay unique (`lbctl ser l`, `lbctl w l`). \
Changes are carried out all or nothing: a packet sees the configuration before or after, never half of it, and \
established sessions stay where they are unless the verb says otherwise (disable, kill, --now).";

const AFTER: &str = "\
Examples:
  lbctl service list                                  what is served, and how much
  lbctl rs drain web 10.0.0.21:8080                   no new sessions; the old ones go on
  lbctl rs set web 10.0.0.22:8080 --weight 3
  lbctl session list --client 192.0.2.7               who is connected, and to which server
  lbctl stats show                                    what became of every packet
  lbctl config check new.toml && lbctl config diff new.toml && lbctl config apply new.toml
  lbctl config apply new.toml --confirm 60s           goes back by itself unless `lbctl config confirm` comes
  lbctl -o json rs list | jq '.[] | select(.health == \"down\").address'

Exit status:
  0 done    1 failed, or `config diff` found differences    2 wrong usage
  3 daemon unreachable    4 refused by validation

The admin socket is RUN_DIR/control.sock, where RUN_DIR comes from [node] of the configuration file
(default /run/containerlb/NAME). Reading needs access to that socket; changing needs root or the daemon's own user.";

/// Heading of the options that every command has.
const GENERAL: &str = "General options";

/// Shows and changes a running ContainerLB appliance
#[derive(Debug, Parser)]
#[command(
    name = "lbctl",
    bin_name = "lbctl",
    override_usage = "lbctl [OPTIONS] OBJECT VERB [ARGS]",
    long_about = LONG,
    after_help = AFTER,
    infer_subcommands = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "OBJECT",
    subcommand_help_heading = "Objects",
    max_term_width = 110
)]
pub struct Cli {
    /// Configuration file of the appliance: its `[node]` tells where the admin socket is
    #[arg(long, global = true, help_heading = GENERAL, display_order = 100, value_name = "FILE", default_value = "/etc/containerlb/containerlb.toml")]
    pub config: PathBuf,
    /// Admin socket; --config is not read then
    #[arg(long, global = true, help_heading = GENERAL, display_order = 100, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How answers are printed; json is for scripts, its fields stay
    #[arg(short, long, global = true, help_heading = GENERAL, display_order = 100, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
    /// Versions of this program, its table layout, and of the daemon if it answers
    #[arg(short = 'V', long, action = ArgAction::SetTrue)]
    pub version: bool,
    /// What the command is about.
    #[command(subcommand)]
    pub object: Option<Object>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// The answer itself; errors are JSON on stderr
    Json,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Object {
    /// Virtual services: address, protocol, scheduler
    Service {
        /// What to do.
        #[command(subcommand)]
        verb: Box<service::Verb>,
    },
    /// Real servers, addressed as SERVICE RS
    Rs {
        /// What to do.
        #[command(subcommand)]
        verb: rs::Verb,
    },
    /// Sessions: connections and datagram flows
    Session {
        /// What to do.
        #[command(subcommand)]
        verb: session::Verb,
    },
    /// Packet counters: what came in and what became of it
    Stats {
        /// What to do.
        #[command(subcommand)]
        verb: stats::Verb,
    },
    /// Worker processes and the slots they serve
    Worker {
        /// What to do.
        #[command(subcommand)]
        verb: worker::Verb,
    },
    /// Ports: NICs and virtual devices
    Port {
        /// What to do.
        #[command(subcommand)]
        verb: port::Verb,
    },
    /// Local addresses: FullNAT sources and their free ports
    Laddr {
        /// What to do.
        #[command(subcommand)]
        verb: laddr::Verb,
    },
    /// Neighbours: next hops and their MACs
    Neigh {
        /// What to do.
        #[command(subcommand)]
        verb: neigh::Verb,
    },
    /// The configuration: check, compare, apply, go back, export
    Config {
        /// What to do.
        #[command(subcommand)]
        verb: config::Verb,
    },
    /// The shared tables themselves: for support and tests
    #[command(hide = true)]
    Tables {
        /// What to do.
        #[command(subcommand)]
        verb: recount::Verb,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_may_be_shortened_and_options_stand_anywhere() {
        let cli = Cli::try_parse_from(["lbctl", "w", "l", "-o", "json", "--socket", "/s"]).unwrap();
        assert!(matches!(cli.object, Some(Object::Worker { .. })));
        assert_eq!((cli.output, cli.socket), (Format::Json, Some("/s".into())));
    }
}
