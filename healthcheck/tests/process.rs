//! The real process against real sockets: the test plays control (writes targets) and reads the results.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod rig;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{Backlog, listen};
use rig::{Checked, Rig, eventually, http_server, listener};
use shm_layout::board::{Probed, check};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn states_failures_and_the_time_to_find_them() {
    let mut rig = Rig::new("states", 100);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let _queued = std::net::TcpStream::connect(full.local_addr().unwrap()).unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let http = http_server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalive", Duration::ZERO);
    let busy = http_server("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Duration::ZERO);
    let slow = http_server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", SECOND);
    rig.profile(1, "/health", "www.example.com", "alive");
    rig.profile(2, "/", "", "");
    let servers = [
        Checked::tcp(0, tcp.local_addr().unwrap()),
        Checked::tcp(1, full.local_addr().unwrap()),
        Checked::tcp(2, gone),
        Checked { kind: check::HTTP, profile: 1, ..Checked::tcp(3, http) },
        Checked { kind: check::HTTP, profile: 2, ..Checked::tcp(4, busy) },
        Checked { kind: check::HTTP, profile: 2, ..Checked::tcp(5, slow) },
        Checked { kind: check::HTTP, profile: 1, ..Checked::tcp(6, tcp.local_addr().unwrap()) },
    ];
    rig.targets(&servers);
    rig.start(&[]);
    let wanted = [Probed::Up, Probed::Down, Probed::Down, Probed::Up, Probed::Down, Probed::Down, Probed::Down];
    eventually(5 * SECOND, "all seven states", || (0..7).all(|id| rig.state(id, 1) == wanted[id as usize]));
    let errors: Vec<_> = (0..7).map(|id| rig.failure(id, 1)).collect();
    let expected = [
        None,
        Some("timeout"),
        Some("connection refused (os error 111)"),
        None,
        Some("http status 503"),
        Some("timeout"),
        Some("timeout"),
    ];
    assert_eq!(errors.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);

    // A server dies: down within interval × fall + timeout; and comes back within interval × (rise + 1).
    let place = tcp.local_addr().unwrap();
    drop(tcp);
    let died = Instant::now();
    eventually(5 * SECOND, "the dead server down", || rig.state(0, 1) == Probed::Down);
    let found = died.elapsed();
    println!("dead server found after {found:?}, promised {:?}", servers[0].promise());
    assert!(found <= servers[0].promise() + Duration::from_millis(50), "{found:?}");
    let _back = listener(place);
    eventually(5 * SECOND, "the server up again", || rig.state(0, 1) == Probed::Up);
    assert_eq!(rig.failure(0, 1), None);
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn killing_stopping_and_restarting_changes_no_state() {
    let mut rig = Rig::new("restart", 100);
    let tcp = listener("127.0.0.1:0".parse().unwrap());
    let web = http_server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Duration::from_millis(50));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers: Vec<_> = (0..60)
        .map(|id| match id % 3 {
            // One failure is enough: a single false one would show.
            0 => Checked { fall: 1, ..Checked::tcp(id, tcp) },
            1 => Checked { kind: check::HTTP, fall: 1, ..Checked::tcp(id, web) },
            _ => Checked::tcp(id, gone),
        })
        .collect();
    rig.targets(&servers);
    rig.start(&[]);
    let settled = |rig: &Rig| (0..60).all(|id| rig.state(id, 1) == if id % 3 == 2 { Probed::Down } else { Probed::Up });
    eventually(10 * SECOND, "sixty states", || settled(&rig));
    let epoch = rig.epoch();
    for round in 0..3 {
        rig.signal(Signal::SIGKILL);
        std::thread::sleep(SECOND / 2);
        assert!(settled(&rig), "dead: the last state stays");
        rig.start(&[]);
        std::thread::sleep(SECOND);
        assert_eq!(rig.epoch(), epoch, "round {round}");
    }
    // Standing still for longer than any timeout: the answers wait in the sockets.
    for _ in 0..3 {
        rig.signal(Signal::SIGSTOP);
        std::thread::sleep(3 * SECOND);
        rig.signal(Signal::SIGCONT);
        std::thread::sleep(SECOND);
        assert_eq!(rig.epoch(), epoch, "no server was taken down for our own sleep");
    }
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
    assert!(settled(&rig) && rig.epoch() == epoch);
}

#[test]
fn a_replaced_server_is_not_judged_by_its_predecessor() {
    let mut rig = Rig::new("replaced", 10);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tcp = listener("127.0.0.1:0".parse().unwrap());
    rig.targets(&[Checked::tcp(3, gone)]);
    rig.start(&[]);
    eventually(5 * SECOND, "down", || rig.state(3, 1) == Probed::Down);
    // The id is given again: never down under the new tag, not for an instant.
    rig.targets(&[Checked { tag: 2, ..Checked::tcp(3, tcp) }]);
    let end = Instant::now() + 2 * SECOND;
    while Instant::now() < end {
        assert_ne!(rig.state(3, 2), Probed::Down);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rig.state(3, 2), Probed::Up);
    // Somebody scribbles on the board: put right within a second or so.
    rig.scribble(3);
    eventually(3 * SECOND, "up again", || rig.state(3, 2) == Probed::Up);
    // Removed: no more probes, the cell stays. Checks switched off: unknown, that is eligible.
    rig.targets(&[]);
    std::thread::sleep(SECOND / 2);
    assert_eq!(rig.state(3, 2), Probed::Up);
    rig.targets(&[Checked { tag: 2, kind: check::NONE, ..Checked::tcp(3, tcp) }]);
    eventually(SECOND, "unknown", || rig.state(3, 2) == Probed::Unknown);
    assert_eq!(rig.stop(Signal::SIGINT), Some(0));
}

#[test]
fn without_privileges_before_the_board_and_on_a_new_board() {
    let mut rig = Rig::absent("early");
    rig.start(&["unprivileged"]);
    eventually(3 * SECOND, "the wait is told", || rig.log().contains("waiting for health board"));
    let tcp = listener("127.0.0.1:0".parse().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = [Checked::tcp(0, tcp), Checked::tcp(1, gone)];
    rig.create(10);
    rig.targets(&servers);
    let found = |rig: &Rig| rig.state(0, 1) == Probed::Up && rig.state(1, 1) == Probed::Down;
    eventually(5 * SECOND, "results", || found(&rig));
    // Control makes a larger board: the states come along, nothing is forgotten.
    rig.create(50);
    rig.targets(&servers);
    eventually(3 * SECOND, "results on the new board", || found(&rig));
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn control_is_found_followed_and_missed() {
    use links::messages::{Notice, PeerSays};
    use links::{Hello, Listener, Role};

    let mut rig = Rig::new("link", 10);
    rig.start(&[]);
    let tcp = listener("127.0.0.1:0".parse().unwrap());
    rig.targets(&[Checked::tcp(0, tcp)]);
    eventually(3 * SECOND, "up without control", || rig.state(0, 1) == Probed::Up);
    let socket = links::control_socket(rig.folder());
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let control = Listener::bind(&socket).unwrap();
    let own = Hello::new(Role::Control, None);
    let pending = control.incoming.recv_timeout(10 * SECOND).unwrap();
    let peer = pending.check(&own).unwrap();
    assert_eq!((peer.role, peer.pid), (Role::Healthcheck, rig.pid()));
    let (link, inbox) = pending.accept::<Notice, PeerSays>(&own).unwrap();
    assert_eq!(inbox.recv_timeout(5 * SECOND).unwrap(), PeerSays::Serving);
    rig.targets(&[Checked { tag: 2, ..Checked::tcp(0, tcp) }]);
    link.send(Notice::Reload { generation: 2 }).unwrap();
    let told = Instant::now();
    eventually(3 * SECOND, "the new server probed", || rig.state(0, 2) == Probed::Up);
    println!("a new server is probed {:?} after control's word", told.elapsed());
    // Control dies: nothing changes, targets are still followed.
    drop((link, inbox, control));
    rig.targets(&[Checked { tag: 3, ..Checked::tcp(0, tcp) }]);
    eventually(3 * SECOND, "followed without control", || rig.state(0, 3) == Probed::Up);
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn the_service_manager_is_told_and_the_options_are_those_of_every_program() {
    let mut rig = Rig::new("notify", 10);
    let manager = std::os::unix::net::UnixDatagram::bind(rig.folder().join("notify")).unwrap();
    manager.set_read_timeout(Some(3 * SECOND)).unwrap();
    rig.targets(&[Checked::tcp(0, listener("127.0.0.1:0".parse().unwrap()))]);
    rig.start_managed();
    let (mut said, mut buffer) = (String::new(), [0; 1024]);
    while !(said.contains("READY=1") && said.contains("1 servers: 1 up") && said.matches("WATCHDOG=1").count() > 3) {
        let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}; so far: {said}"));
        said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        said.push('\n');
    }
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
    let rest: Vec<_> = std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec())).collect();
    assert!(rest.iter().any(|message| message.starts_with(b"STOPPING=1")));
    assert!(rig.log().lines().all(|line| line.starts_with("<6>")), "{}", rig.log());

    let version = rig.run_with(&["--version"]);
    assert_eq!(
        version,
        (Some(0), format!("lb-healthcheck {}\nlayout {}\nDPDK none\n", env!("CARGO_PKG_VERSION"), layout()))
    );
    assert!(rig.run_with(&["--help"]).1.contains("--config <FILE>"));
    assert_eq!(rig.run_with(&[]).0, Some(2));
    assert_eq!(rig.run_with(&["--config", "/does/not/exist"]).0, Some(1));
}

/// Of this build, as programs say it.
fn layout() -> String {
    let version = shm_layout::limits::LAYOUT_VERSION;
    format!("{}.{}", version >> 16, version & 0xffff)
}

#[test]
fn a_foreign_board_a_rival_and_mistakes_are_refused_in_words() {
    let mut rig = Rig::new("refused", 10);
    rig.start(&[]);
    eventually(3 * SECOND, "a heartbeat", || rig.log().contains("probing"));
    let (code, log) = rig.run_second();
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("another lb-healthcheck (pid {})", rig.pid())), "{log}");
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));

    // Layout version 9.7 in the header.
    let path = shm_layout::board::Board::path(&rig.board_name());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8..12].copy_from_slice(&0x0009_0007_u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let (code, log) = rig.run_second();
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("layout version is 9.7, this program needs {}", layout())), "{log}");

    rig.configure("[node]\nname = 3\n");
    let (code, log) = rig.run_second();
    assert_eq!(code, Some(4));
    assert!(log.contains("node.name is 3, not a text"), "{log}");
}

#[test]
fn thousands_of_servers_on_one_thread() {
    const SERVERS: u32 = 2000;
    let mut rig = Rig::new("many", SERVERS);
    let port = listener("0.0.0.0:0".parse().unwrap()).port();
    let gone = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let web = {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        listen(&listener, Backlog::new(4096).unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        port
    };
    let down = |id: u32| id.is_multiple_of(20);
    let servers: Vec<_> = (0..SERVERS)
        .map(|id| {
            let [_, _, high, low] = id.to_be_bytes();
            let kind = if id % 4 == 1 { check::HTTP } else { check::TCP };
            let to = if down(id) {
                gone
            } else if kind == check::HTTP {
                web
            } else {
                port
            };
            let address = SocketAddr::from(([127, 1, high, low], to));
            Checked { kind, interval_ms: 1000, fast_ms: 1000, timeout_ms: 500, ..Checked::tcp(id, address) }
        })
        .collect();
    rig.targets(&servers);
    rig.start(&[]);
    let begun = Instant::now();
    let wanted = |id| if down(id) { Probed::Down } else { Probed::Up };
    eventually(10 * SECOND, "2000 states", || (0..SERVERS).all(|id| rig.state(id, 1) == wanted(id)));
    println!("{SERVERS} servers, interval 1 s: all known after {:?}", begun.elapsed());
    let (cpu, epoch) = (rig.cpu(), rig.epoch());
    std::thread::sleep(5 * SECOND);
    let share = (rig.cpu() - cpu).as_secs_f64() / 5.0;
    println!(
        "CPU {:.1} % of one core, RSS {} KiB, {} threads",
        share * 100.0,
        rig.status("VmRSS"),
        rig.status("Threads")
    );
    assert_eq!(rig.epoch(), epoch, "no state changes by itself");
    assert!(share < 0.8, "CPU {share}");
    assert!(rig.status("VmRSS") < 64 * 1024);
    assert_eq!(rig.stop(Signal::SIGTERM), Some(0));
}
