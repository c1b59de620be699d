//! Control as a whole, in process: real tables in anonymous memory, a real socket, a real journal in a folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::AllFacts;
use control_api::params::{ConfigApply, RsAdd, RsDel, RsList, RsName, RsSet, ServiceDel, SessionKill, SessionList};
use control_api::rpc::{Request, Response};
use control_api::views::{
    Applied, Asked, Changed, ConfigExport, Health, Neigh, Page, Rs, Service, Session, Stats, Version,
};
use control_api::{Client, Code, MAX_CLIENTS, MAX_FRAME, method};
use packet::arp::{Arp, Operation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shm_layout::board::{Board, Cell, Probed};
use shm_layout::limits::RING_FRAME_MAX;
use shm_layout::neighbours::ip4;
use shm_layout::owner::Process;
use shm_layout::published::{PublishedGeometry, admin};
use shm_layout::ring::RecordKind;
use shm_layout::session::State;
use shm_layout::slot::SlotGeometry;

use super::dispatch::{Caller, handle};
use super::journal::Journal;
use super::testing::{Folder, TOML};
use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Tables and folder outlive the control that runs on them.
pub struct Appliance {
    text: String,
    pub folder: Folder,
    pub published: Published,
    pub neighbours: Neighbours,
    pub slots: Vec<Slot>,
    pub board: Board,
}

/// Sizes of the tables, and more services than the usual two, as TOML.
pub struct Sizes {
    pub sessions: u64,
    pub services: u64,
    pub servers: u64,
    pub more: String,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { sessions: 1024, services: 16, servers: 64, more: String::new() }
    }
}

/// A control at work in a thread.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub socket: PathBuf,
}

impl Appliance {
    pub fn new() -> Self {
        Self::sized(&Sizes::default())
    }

    pub fn sized(sizes: &Sizes) -> Self {
        let Sizes { sessions, services, servers, more } = sizes;
        let (services, servers) = (*services, *servers);
        let geometry =
            SlotGeometry { slot: 0, slots: 2, sessions: *sessions, wide_sessions: 0, servers, services, extensions: 0 };
        let slots = (0..2).map(|slot| Slot::anonymous(SlotGeometry { slot, ..geometry }, false).unwrap());
        let folder = Folder::new("whole");
        let at = folder.path().display();
        let text = TOML
            .replace("[node]\n", &format!("[node]\nrun_dir = \"{at}\"\nstate_dir = \"{at}/state\"\n"))
            .replace("services = 16", &format!("services = {services}"))
            .replace("real_servers = 64", &format!("real_servers = {servers}"));
        let this = Self {
            text: text + more,
            folder,
            published: Published::anonymous(PublishedGeometry { services, servers }).unwrap(),
            neighbours: Neighbours::anonymous(64).unwrap(),
            slots: slots.collect(),
            board: Board::anonymous(servers, services).unwrap(),
        };
        this.write(&this.text());
        this
    }

    pub fn text(&self) -> String {
        self.text.clone()
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("lb.toml")
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn tables(&self) -> Tables {
        Tables {
            published: self.published.clone(),
            neighbours: self.neighbours.clone(),
            slots: self.slots.clone(),
            targets: Targets::on(self.board.clone()),
        }
    }

    pub fn core(&self) -> Core {
        let facts = PortFacts {
            device: 0,
            mac: MAC,
            driver: "net_tap".into(),
            tx_ip_checksum: false,
            tx_l4_checksum: false,
            pipeline: false,
            steering: 0,
        };
        let chosen = start::choose(&self.path(), Prefer::Newer, None, &AllFacts).unwrap_or_else(|e| panic!("{e}"));
        let facts = [facts];
        let mut core = Core::open(chosen, self.path(), &facts, self.tables(), Box::new(AllFacts)).unwrap();
        core.rings = Some(start_rings(&core, &facts).unwrap());
        core.pin_neighbours();
        core
    }

    pub fn start(self: &Arc<Self>) -> Running {
        let (this, stop) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let socket = self.folder.path().join("control.sock");
        let (stopped, path) = (Arc::clone(&stop), socket.clone());
        let (tell, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut core = this.core();
            let patience = Duration::from_millis(1500);
            let mut admin = Admin::bind(&path).unwrap().patience(patience, patience);
            tell.send(()).unwrap();
            while !stopped.load(Relaxed) {
                admin.turn(&mut core, Duration::from_millis(10));
                core.tick();
            }
        });
        ready.recv_timeout(Duration::from_secs(10)).unwrap();
        Running { stop, thread: Some(thread), socket }
    }

    /// Makes this process the owner of both slots, with the generation in force.
    pub fn serve(&self) {
        for slot in &self.slots {
            assert!(slot.owner.claim(slot.owner.owner(), Process::this()));
            slot.pulse.heartbeat_ms.store(now_ms(), SeqCst);
            slot.pulse.seen_generation.store(self.generation(), SeqCst);
        }
    }

    pub fn generation(&self) -> u64 {
        self.published.current().unwrap().number
    }

    pub fn admin_of(&self, id: u32) -> Option<u8> {
        self.published.server(self.published.current().unwrap(), id).map(|m| m.admin.load(Relaxed))
    }
}

impl Running {
    pub fn client(&self) -> Client {
        Client::connect(&self.socket, Duration::from_secs(10)).unwrap()
    }
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &impl Serialize) -> T {
        self.client().call(method, params).unwrap_or_else(|e| panic!("{method}: {e}"))
    }
    pub fn refused(&self, method: &str, params: &impl Serialize) -> control_api::ApiError {
        self.client().call::<Value>(method, params).unwrap_err().into_api()
    }
    pub fn rs(&self) -> Vec<Rs> {
        self.client().list(method::RS_LIST, &RsList::default(), None).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn name(service: &str, rs: &str) -> RsName {
    RsName { service: service.into(), rs: rs.into() }
}

#[test]
fn servers_come_are_drained_and_go_with_their_last_session() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    appliance.serve();
    assert_eq!(appliance.generation(), 1);
    let ports: Vec<_> = appliance.published.ports.iter().filter(|p| p.used.load(Relaxed) == 1).collect();
    assert_eq!((ports.len(), ports[0].slots.load(Relaxed), ports[0].addresses[0].get().unwrap().1), (1, 2, 120));
    let rs = control.rs();
    assert_eq!(rs.iter().map(|r| r.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((rs[1].weight, rs[1].admin.as_str(), rs[1].health), (2, "enabled", Health::Unknown));
    // Add, re-weight, drain, disable: a generation each, in the tables at once.
    let add = RsAdd { service: "web".into(), rs: "10.0.0.23:8080".into(), keys: vec![("weight".into(), "3".into())] };
    let added: Changed = control.call(method::RS_ADD, &add);
    assert_eq!((added.generation, added.id), (2, Some(3)));
    assert_eq!(appliance.admin_of(3), Some(admin::ENABLED));
    let set = RsSet { service: "web".into(), rs: "10.0.0.23:8080".into(), keys: vec![("weight".into(), "5".into())] };
    assert_eq!(control.call::<Changed>(method::RS_SET, &set).generation, 3);
    assert_eq!(control.call::<Changed>(method::RS_SET, &set).generation, 3, "nothing to do");
    control.call::<Changed>(method::RS_DRAIN, &name("web", "10.0.0.23:8080"));
    assert_eq!(appliance.admin_of(3), Some(admin::DRAIN));
    control.call::<Changed>(method::RS_DISABLE, &name("web", "10.0.0.23:8080"));
    assert_eq!(appliance.admin_of(3), Some(admin::DISABLED));
    control.call::<Changed>(method::RS_ENABLE, &name("web", "10.0.0.23:8080"));
    appliance.serve();
    // Deleted with sessions: it stays as removed, and is not dropped before the last one is gone and everybody saw it.
    appliance.slots[1].servers[3].active.store(2, Relaxed);
    let del = RsDel { service: "web".into(), rs: "10.0.0.23:8080".into(), now: false };
    let removed: Changed = control.call(method::RS_DEL, &del);
    assert_eq!(appliance.admin_of(3), Some(admin::REMOVED));
    assert!(control.rs().iter().any(|r| r.id == 3 && r.removed));
    appliance.serve();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(appliance.generation(), removed.generation);
    control.call::<Changed>(method::RS_DEL, &RsDel { now: true, ..del });
    assert_eq!(appliance.admin_of(3), Some(admin::REMOVED_NOW));
    appliance.slots[1].servers[3].active.store(0, Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(appliance.admin_of(3), Some(admin::REMOVED_NOW), "the slots have not seen it yet");
    appliance.serve();
    eventually("dropped", || appliance.admin_of(3).is_none());
    // Its id is given again, with another tag.
    let tags: Vec<u32> = appliance.published.members.iter().map(|m| m.tag.load(Relaxed)).collect();
    assert_eq!(control.call::<Changed>(method::RS_ADD, &add).id, Some(3));
    let member = appliance.published.server(appliance.published.current().unwrap(), 3).unwrap();
    assert!(!tags.contains(&member.tag.load(Relaxed)));
    let gone = control.refused(method::RS_DRAIN, &name("web", "10.9.9.9:1"));
    assert_eq!((gone.exit_status(), gone.code.as_str()), (4, config::codes::NOT_FOUND));
    assert_eq!(
        control.refused(method::SERVICE_DEL, &ServiceDel { service: "wbe".into(), now: false }).exit_status(),
        4
    );
    control.call::<Changed>(method::SERVICE_DEL, &ServiceDel { service: "web".into(), now: false });
    eventually("service gone", || {
        appliance.serve();
        let services: Vec<Service> = control.client().list(method::SERVICE_LIST, &Value::Null, None).unwrap();
        services.len() == 1 && services[0].name == "dns"
    });
    let entries: Vec<control_api::views::HistoryEntry> = control.client().get(method::CONFIG_HISTORY).unwrap();
    assert!(entries.iter().any(|e| e.user == "root" && e.summary.starts_with("rs add web 10.0.0.23:8080 weight=3")));
}

#[test]
fn a_restart_at_any_time_finds_everything_again() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    appliance.serve();
    control.call::<Changed>(method::RS_DRAIN, &name("web", "10.0.0.21:8080"));
    let before = appliance.published.root.current.load(Relaxed);
    drop(control);
    let control = appliance.start();
    assert_eq!(appliance.published.root.current.load(Relaxed), before, "nothing is published anew");
    assert_eq!(control.rs()[0].admin, "drain");
    drop(control);
    // Killed between journal and publication: the journal's generation is brought in force.
    let mut entry = Journal::peek(&appliance.folder.path().join("state")).unwrap();
    entry.generation += 1;
    Arc::make_mut(&mut entry.register.services[0]).servers[0].rs.admin = config::Admin::Disabled;
    let _synced = Journal::open(&appliance.folder.path().join("state")).unwrap().write(&entry).unwrap();
    let control = appliance.start();
    assert_eq!((appliance.generation(), appliance.admin_of(0)), (3, Some(admin::DISABLED)));
    drop(control);
    // A new holder takes all generations back; the journal's comes again under its number.
    appliance.published.root.current.store(0, Relaxed);
    let control = appliance.start();
    assert_eq!((appliance.generation(), control.rs()[0].admin.as_str()), (3, "disabled"));
    drop(control);
    // The file changed meanwhile: it wins; the operator's word stays; numbers go on.
    appliance.write(&appliance.text().replace("weight = 2", "weight = 7"));
    let control = appliance.start();
    let rs = control.rs();
    assert_eq!((appliance.generation(), rs[0].admin.as_str(), rs[1].weight), (4, "disabled", 7));
}

#[test]
fn files_are_checked_compared_applied_whole_or_not_at_all() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    let apply = |text: &str, dry_run| {
        let file = appliance.path().display().to_string();
        ConfigApply { file, text: Some(text.into()), dry_run, confirm_ms: None }
    };
    let before = appliance.published.root.current.load(Relaxed);
    let wrong =
        appliance.text().replace("scheduler = \"wrr\"", "scheduler = \"nonsense\"").replace("10.0.0.21:8080", "x");
    let error = control.refused(method::CONFIG_APPLY, &apply(&wrong, false));
    assert_eq!((error.exit_status(), error.all.len()), (4, 2));
    assert!(error.report.unwrap().contains('^'));
    let restart = appliance.text().replace("neighbours = 64", "neighbours = 128");
    let error = control.refused(method::CONFIG_APPLY, &apply(&restart, false));
    assert_eq!((error.kind, error.exit_status()), (Code::NeedsRestart, 4));
    let good = appliance.text().replace("weight = 2", "weight = 9");
    let dry: Applied = control.call(method::CONFIG_APPLY, &apply(&good, true));
    assert!(dry.dry_run && dry.changes.len() == 1, "{dry:?}");
    assert_eq!(appliance.published.root.current.load(Relaxed), before, "no trace");
    // In pieces, as a large one comes.
    let mut client = control.client();
    let large = format!("{good}\n# {}\n", "ä".repeat(1 << 20));
    appliance.write(&large);
    client.upload(&large).unwrap();
    let file = appliance.path().display().to_string();
    let applied: Applied = client
        .call(method::CONFIG_APPLY, &ConfigApply { file: file.clone(), text: None, dry_run: false, confirm_ms: None })
        .unwrap();
    assert_eq!((applied.generation, applied.changes.len()), (2, 1));
    assert!(
        client
            .call::<Applied>(method::CONFIG_APPLY, &ConfigApply { file, text: None, dry_run: false, confirm_ms: None })
            .is_err()
    );
    // What is exported is what is in force.
    let export: ConfigExport = control.client().get(method::CONFIG_EXPORT).unwrap();
    let again: Applied = control.call(method::CONFIG_APPLY, &apply(&export.text, false));
    assert_eq!((again.generation, again.changes.len()), (2, 0));
    drop(client);
    drop(control);
    let control = appliance.start();
    assert_eq!((appliance.generation(), control.rs()[1].weight), (2, 9), "applied from the file itself: no difference");
}

#[test]
fn bad_clients_are_cut_off_and_disturb_nobody() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    let connect = || {
        let stream = UnixStream::connect(&control.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    };
    let line = |stream: &mut UnixStream, text: &[u8]| -> Response {
        stream.write_all(text).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    };
    let mut client = connect();
    let reply = line(&mut client, b"\n  \nnonsense\n");
    assert_eq!((reply.api_version, reply.error.unwrap().code), (Some(1), Code::Parse.number()));
    let reply = line(
        &mut client,
        br#"{"jsonrpc":"2.0","id":"x","method":"no.such"}
"#,
    );
    assert_eq!(
        (reply.api_version, reply.id, reply.error.unwrap().code),
        (None, "x".into(), Code::UnknownMethod.number())
    );
    let two = [
        &br#"{"jsonrpc":"2.0","id":1,"method":"version"}"#[..],
        &br#"{"jsonrpc":"2.0","id":2,"method":"version"}"#[..],
        b"",
    ];
    client.write_all(&two.join(&b'\n')).unwrap();
    let replies: Vec<Response> =
        BufReader::new(&client).lines().take(2).map(|l| serde_json::from_str(&l.unwrap()).unwrap()).collect();
    assert_eq!(replies.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), [Value::from(1), Value::from(2)]);
    // A line without end.
    let mut endless = connect();
    let writer = endless.try_clone().unwrap();
    let flood = std::thread::spawn(move || while (&writer).write_all(&[b'x'; 65_536]).is_ok() {});
    let mut reply = String::new();
    let _ = BufReader::new(&mut endless).read_line(&mut reply);
    assert!(reply.contains(&MAX_FRAME.to_string()), "{reply}");
    flood.join().unwrap();
    // One that asks and asks and never reads; one that says nothing.
    let deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    let ask = Request::new(1, method::STATS_SHOW, Value::Null);
    let asks = [serde_json::to_vec(&ask).unwrap(), b"\n".to_vec()].concat().repeat(2000);
    let _ = (&deaf).write(&asks);
    let silent = connect();
    let started = Instant::now();
    assert_eq!(control.client().get::<Version>(method::VERSION).unwrap().node, "test");
    assert!(started.elapsed() < Duration::from_secs(1), "others are served meanwhile");
    let mut rest = Vec::new();
    assert_eq!((&silent).read_to_end(&mut rest).unwrap_or(0), 0, "closed without a word");
    let cut = |e: std::io::Error| e.kind() != std::io::ErrorKind::WouldBlock;
    eventually("who reads nothing is cut off", || (&deaf).write(b"x").is_err_and(cut));
    drop(client);
    std::thread::sleep(Duration::from_millis(100));
    // The sixty-fifth.
    let crowd: Vec<_> = (0..MAX_CLIENTS).map(|_| connect()).collect();
    std::thread::sleep(Duration::from_millis(100));
    let mut reply = String::new();
    BufReader::new(connect()).read_line(&mut reply).unwrap();
    assert!(reply.contains("64 clients"), "{reply}");
    drop(crowd);
    eventually("room again", || {
        Client::connect(&control.socket, Duration::from_secs(1)).unwrap().get::<Version>(method::VERSION).is_ok()
    });
}

#[test]
fn who_may_only_read_changes_nothing() {
    let appliance = Appliance::new();
    let mut core = appliance.core();
    let mut caller = Caller { uid: 1000, pid: 1, user: "x".into(), writes: false, upload: String::new() };
    for method in method::WRITING {
        let error = handle(&mut core, &mut caller, &Request::new(1, method, Value::Null)).unwrap_err();
        assert_eq!((error.kind, error.exit_status()), (Code::NotPermitted, 1), "{method}");
    }
    assert!(handle(&mut core, &mut caller, &Request::new(1, method::RS_LIST, Value::Null)).is_ok());
}

#[test]
fn sessions_health_and_counters_are_shown_as_the_tables_have_them() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    appliance.serve();
    let generation = appliance.published.current().unwrap();
    let tag = |id: u32| appliance.published.server(generation, id).unwrap().tag.load(Relaxed);
    appliance.board.cells[0].store(Cell::new(Probed::Down, tag(0), now_ms()).0, Relaxed);
    appliance.board.cells[1].store(Cell::new(Probed::Up, tag(1), now_ms()).0, Relaxed);
    appliance.board.cells[2].store(Cell::new(Probed::Down, tag(2) + 1, now_ms()).0, Relaxed);
    let health: Vec<Health> = control.rs().iter().map(|r| r.health).collect();
    assert_eq!(health, [Health::Down, Health::Up, Health::Unknown]);
    let count = &appliance.slots[1].servers[1];
    count.tag.store(tag(1), Relaxed);
    count.packets_in.store(7, Relaxed);
    assert_eq!(control.rs()[1].packets_in, 7);
    count.tag.store(tag(1) + 1, Relaxed);
    assert_eq!(control.rs()[1].packets_in, 0, "counts of another use of the id");
    // Three sessions: two of "web", one orphan.
    for (record, (client, server, id)) in
        [(9, 0x0a00_0015, 0), (10, 0x0a00_0016, 1), (11, 0x0a00_0063, 1)].into_iter().enumerate()
    {
        let row = &appliance.slots[0].sessions[record];
        row.client_ip.store(0x0a00_0000 | client, Relaxed);
        row.client_port.store(4000, Relaxed);
        row.vip.store(0x0a00_0064, Relaxed);
        row.vip_port.store(80, Relaxed);
        row.local_ip.store(0x0a00_0080, Relaxed);
        row.local_port.store(2000, Relaxed);
        row.server_ip.store(server, Relaxed);
        row.server_port.store(8080, Relaxed);
        row.server_id.store(id, Relaxed);
        row.flags.store(shm_layout::session::flag::INDEXED, Relaxed);
        row.state.store(State::Established as u8, Relaxed);
    }
    appliance.slots[0].table.fresh.store(3, Relaxed);
    let list =
        |filter: SessionList| -> Vec<Session> { control.client().list(method::SESSION_LIST, &filter, None).unwrap() };
    let all = list(SessionList::default());
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].client.as_str(), all[0].laddr.as_deref()), ("10.0.0.9:4000", Some("10.0.0.128:2000")));
    assert_eq!((all[0].worker.as_deref(), all[2].service.as_deref()), (Some("0a"), None));
    assert_eq!(list(SessionList { service: Some("web".into()), ..SessionList::default() }).len(), 2);
    assert_eq!(list(SessionList { client: Some("10.0.0.10".into()), ..SessionList::default() }).len(), 1);
    assert_eq!(list(SessionList { rs: Some("10.0.0.22:8080".into()), ..SessionList::default() }).len(), 1);
    assert_eq!(list(SessionList { state: Some("udp".into()), ..SessionList::default() }).len(), 0);
    let wrong = SessionList { state: Some("open".into()), ..SessionList::default() };
    assert_eq!(control.refused(method::SESSION_LIST, &wrong).exit_status(), 2);
    let page: Page<Session> =
        control.call(method::SESSION_LIST, &SessionList { limit: Some(2), ..SessionList::default() });
    assert_eq!((page.items.len(), page.next), (2, Some(2)));
    let laddrs: Vec<control_api::views::Laddr> = control.client().get(method::LADDR_LIST).unwrap();
    assert_eq!((laddrs.len(), laddrs[0].used, laddrs[0].tightest.as_ref().unwrap().used), (4, 3, 1));
    let stats: Stats = control.client().get(method::STATS_SHOW).unwrap();
    assert_eq!((stats.per_slot.len(), stats.per_slot[1].zone), (2, 1));
    let workers: Vec<control_api::views::Worker> = control.client().get(method::WORKER_LIST).unwrap();
    assert_eq!((workers.len(), workers[0].state.as_str(), workers[0].slots.len()), (1, "serving", 2));
    let ports: Vec<control_api::views::Port> = control.client().get(method::PORT_LIST).unwrap();
    assert_eq!(
        (ports[0].mac.as_str(), ports[0].steering.as_str(), ports[0].queues),
        ("02:00:00:00:00:01", "driver", 2)
    );
    // An order to end sessions reaches every slot's ring.
    assert_eq!(control.refused(method::SESSION_KILL, &SessionKill::default()).exit_status(), 2);
    let kill = SessionKill { client: Some("10.0.0.9".into()), ..SessionKill::default() };
    assert_eq!(control.call::<Asked>(method::SESSION_KILL, &kill).slots, 2);
    let mut buffer = [0; RING_FRAME_MAX];
    let mut take =
        |slot: &Slot| std::iter::from_fn(|| slot.from_control.pop(&mut buffer)).find(|r| r.0 == RecordKind::Kill);
    eventually("kill ordered", || take(&appliance.slots[1]).is_some_and(|r| r.1 == [0x0a00_0009, 0, 0, 0, 0]));
}

#[test]
fn neighbours_are_asked_through_a_workers_ring_and_learned_from_answers() {
    let appliance = Arc::new(Appliance::new());
    appliance.slots[1].pulse.heartbeat_ms.store(now_ms() + 60_000, Relaxed); // Slot 1 is served, slot 0 is not.
    let control = appliance.start();
    let asked = AtomicU32::new(0);
    let mut buffer = [0; RING_FRAME_MAX];
    assert!(appliance.slots[1].to_control.push(RecordKind::Resolve, [0x0a00_0032, 0, 0, 0, 0], &[]));
    let peer = |ip: u32| [2, 0, 0, 0, 1, ip.to_be_bytes()[3]];
    eventually("all answered", || {
        while let Some((kind, _, len)) = appliance.slots[1].from_control.pop(&mut buffer) {
            assert_eq!(kind, RecordKind::Send);
            let question = packet::arp::parse(&buffer[14..len]).unwrap();
            assert_eq!((question.sender_ip, question.sender_mac), (0x0a00_0002, Mac(MAC)));
            asked.fetch_add(1, Relaxed);
            let mac = Mac(peer(question.target_ip));
            let answer = Arp {
                operation: Operation::Reply,
                sender_mac: mac,
                sender_ip: question.target_ip,
                target_mac: Mac(MAC),
                target_ip: question.sender_ip,
            };
            let mut frame = [0; 64];
            let link = packet::build::Link { dst: Mac(MAC), src: mac, vlan: 0 };
            let len = packet::build::arp(&mut frame, link, &answer).unwrap();
            assert!(appliance.slots[1].to_control.push(RecordKind::Learn, [0; 5], &frame[..len]));
        }
        // Gateway and on-link servers from the configuration, and the client a worker asked for; not the far server.
        [0x0a00_0001, 0x0a00_0015, 0x0a00_0016, 0x0a00_0032].iter().all(|ip| {
            appliance.neighbours.find(ip4(*ip), 0).is_some_and(|(_, hop)| hop.mac() == peer(*ip) && hop.resolved())
        })
    });
    assert_eq!(appliance.neighbours.head.used.load(Relaxed), 4);
    assert!(appliance.slots[0].from_control.is_empty());
    let neighbours: Vec<Neigh> = control.client().list(method::NEIGH_LIST, &Value::Null, None).unwrap();
    assert_eq!((neighbours.len(), neighbours[0].state.as_str(), neighbours[0].port.as_str()), (4, "reachable", "net0"));
}
