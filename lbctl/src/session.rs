//! `session`: connections and datagram flows.

use clap::{Args, Subcommand};
use control_api::method;
use control_api::params::{SessionKill, SessionList};
use control_api::views::{Asked, Page, Session, SessionCount};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, pairs};
use crate::text;

/// Rows of a table when no `--limit` is given: a table is read by people.
const TABLE_LIMIT: u64 = 100;

const LIST_EXAMPLES: &str = "\
Examples:
  lbctl session list --service web --state established
  lbctl session list --client 192.0.2.7               all of a client; 192.0.2.7:4711 is one
  lbctl -o json session list | jq -r .[].client       everything, a session a line";

const KILL_EXAMPLES: &str = "\
Examples:
  lbctl session kill --client 192.0.2.7:4711 --vip 10.0.0.100:80 --protocol tcp
  lbctl session kill --client 192.0.2.7               all of a client";

/// Verbs of `session`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Sessions. A table has 100 rows unless --limit says otherwise; json has all
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// How many there are, how many fit, how many there were
    Count,
    /// End the sessions that match every option given (reset to both ends)
    #[command(after_help = KILL_EXAMPLES)]
    Kill(Kill),
}

/// Filters of `session list`.
#[derive(Debug, Args)]
pub struct List {
    /// Of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Of this client: an address, with or without port
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<String>,
    /// To this real server: an address, with or without port
    #[arg(long, value_name = "ADDR[:PORT]")]
    rs: Option<String>,
    /// In this state, as the list shows it
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Most sessions shown; 0: all [default: 100 for a table, all for json]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Filters of `session kill`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Kill {
    /// Client: an address, with or without port
    #[arg(long, value_name = "ADDR[:PORT]")]
    client: Option<String>,
    /// Virtual address, with or without port
    #[arg(long, value_name = "ADDR[:PORT]")]
    vip: Option<String>,
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::List(list) => list.run(context)?,
            Self::Count => {
                let count: SessionCount = context.get(method::SESSION_COUNT)?;
                context.show(&count, |count| {
                    pairs(&[
                        ("active", count.active.to_string()),
                        ("capacity", count.capacity.to_string()),
                        ("created", count.created_total.to_string()),
                        ("expired", count.expired_total.to_string()),
                    ])
                })?;
            }
            Self::Kill(Kill { client, vip, protocol }) => {
                let asked: Asked = context.call(method::SESSION_KILL, &SessionKill { protocol, client, vip })?;
                context.show(&asked, |asked| {
                    let slots = text::count(asked.slots.into(), "slot");
                    vec![format!("{slots} told to end the sessions that match")]
                })?;
            }
        }
        Ok(Status::DONE)
    }
}

impl List {
    /// Page by page as they come: there may be tens of millions.
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let default = (!context.json()).then_some(TABLE_LIMIT);
        let limit = self.limit.or(default).filter(|limit| *limit > 0);
        let unfiltered = self.service.is_none() && self.client.is_none() && self.rs.is_none() && self.state.is_none();
        let mut params = SessionList {
            service: self.service,
            client: self.client,
            rs: self.rs,
            state: self.state,
            ..SessionList::default()
        };
        let mut printer = Printer::begin(context)?;
        let mut shown = 0;
        let more = loop {
            params.limit = limit.map(|limit| limit.saturating_sub(shown));
            let page: Page<Session> = context.call_again(method::SESSION_LIST, &params)?;
            printer.page(context, &page.items)?;
            shown += page.items.len() as u64;
            let full = limit.is_some_and(|limit| shown >= limit);
            let next = page.next.filter(|next| params.after.is_none_or(|after| *next > after));
            if next.is_none() || full || context.out.gone() {
                break next.is_some();
            }
            params.after = next;
        };
        printer.end(context)?;
        if more && !context.json() && !context.out.gone() {
            context.out.finish()?;
            let of = if unfiltered { self::total(context) } else { None };
            let of = of.map_or_else(|| "there may be more".into(), |total| format!("of {total}"));
            context.warn([format!("{shown} sessions shown, {of}; --limit 0 shows all")]);
        }
        Ok(())
    }
}

fn total(context: &mut Context) -> Option<u64> {
    context.get(method::SESSION_COUNT).ok().map(|count: SessionCount| count.active)
}

/// Sessions as they come: an array of one line each, or a table whose columns only grow.
enum Printer {
    Json { first: bool },
    Table(Box<Table>),
}

impl Printer {
    fn begin(context: &mut Context) -> Result<Self, Failure> {
        if context.json() {
            context.out.bytes(b"[")?;
            return Ok(Self::Json { first: true });
        }
        let heads = ["PROTO", "CLIENT", "VIP", "LADDR", "RS", "STATE", ">IDLE", "WORKER", "SERVICE"];
        Ok(Self::Table(Box::new(Table::new(heads))))
    }

    fn page(&mut self, context: &mut Context, sessions: &[Session]) -> Result<(), Failure> {
        match self {
            Self::Json { first } => {
                for session in sessions {
                    context.out.bytes(if *first { b"\n" } else { b",\n" })?;
                    context.out.bytes(&serde_json::to_vec(session).map_err(std::io::Error::from)?)?;
                    *first = false;
                }
            }
            Self::Table(table) => {
                for s in sessions {
                    table.row([
                        Cell::from(&s.protocol),
                        Cell::from(&s.client),
                        Cell::from(&s.vip),
                        Cell::maybe(s.laddr.as_ref()),
                        Cell::from(&s.rs),
                        Cell::from(&s.state),
                        Cell::from(text::span(s.idle_ms)),
                        Cell::maybe(s.worker.as_ref()),
                        s.service.as_ref().map_or_else(|| Cell::from("(orphan)"), Cell::from),
                    ]);
                }
                for line in table.take_lines(context.out.colour) {
                    context.out.line(&line)?;
                }
            }
        }
        Ok(())
    }

    fn end(mut self, context: &mut Context) -> Result<(), Failure> {
        match &self {
            Self::Json { first: true } => context.out.line("]")?,
            Self::Json { first: false } => context.out.line("\n]")?,
            Self::Table(_) => self.page(context, &[])?, // the heads of an empty table
        }
        Ok(())
    }
}
