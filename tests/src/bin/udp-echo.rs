//! A UDP server: answers each DNS query with its own name as TXT.
//!
//! `udp-echo --listen IP:PORT --name NAME`
#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};

use tests::dns;
use tests::load::Options;

fn main() -> std::io::Result<()> {
    let options = Options::from_args(0, "udp-echo --listen IP:PORT --name NAME");
    let listen: SocketAddr = options.get("listen", SocketAddr::from(([0, 0, 0, 0], 5353)));
    let name: String = options.get("name", "server".to_string());
    let socket = UdpSocket::bind(listen)?;
    let mut buffer = [0_u8; 2048];
    loop {
        // ICMP errors of earlier answers come up here: the next query is still to be served.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = dns::answer(&buffer[..length], &name) {
            let _ = socket.send_to(&answer, from);
        }
    }
}
