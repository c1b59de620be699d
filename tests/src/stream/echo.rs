//! The other end: sends every datagram back where it came from.

use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

/// Echoes on `listen` until the process ends. What its queue loses stands in the namespace's
/// `RcvbufErrors`, what its answers lose in `SndbufErrors`.
///
/// # Errors
/// When the address cannot be had.
pub fn run(listen: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    setsockopt(&socket, sockopt::RcvBufForce, &super::BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &super::BUFFER)?;
    let mut bytes = [0_u8; 2048];
    loop {
        // ICMP errors of earlier answers come up here: the next one is still to be answered.
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let _ = socket.send_to(&bytes[..length], from);
    }
}
