//! The receiver: takes what comes with the kernel's own stamp, so that its being scheduled late is
//! not taken for a silence of the network.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::Plan;
use super::lane::Lane;
use super::numbered::Numbered;
use super::send::stream_id;
use crate::clock::{now_us, realtime_us};

/// Datagrams of this size and less are read whole.
const LARGEST: usize = 2048;
/// Look at the end once in this time, ms.
const LOOK: u16 = 20;

/// Receives until, after the last sending, nothing comes for `tail`. Datagrams sent before
/// `begin_us` are of an earlier burst.
///
/// # Errors
/// When the sockets cannot be waited for.
pub fn run(
    flows: &[UdpSocket],
    plan: Plan,
    begin_us: u64,
    sent_all: &AtomicBool,
    tail: Duration,
) -> std::io::Result<Vec<Lane>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut lanes = Vec::new();
    for (number, flow) in (0_u32..).zip(flows) {
        setsockopt(flow, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(flow, sockopt::RxqOvfl, &1)?;
        epoll.add(flow, EpollEvent::new(EpollFlags::EPOLLIN, number.into()))?;
        lanes.push(Lane::new(number, plan.gap_us));
    }
    let mut inbox = Inbox::new(stream_id(flows), begin_us);
    let mut events = vec![EpollEvent::empty(); flows.len()];
    let mut last = Instant::now();
    loop {
        let count = match epoll.wait(&mut events, LOOK) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        // Read anew for each batch: the clocks drift apart when the real one is set.
        inbox.offset_us = i128::from(now_us()) - i128::from(realtime_us());
        for event in &events[..count] {
            let at = usize::try_from(event.data()).unwrap_or(usize::MAX);
            if let (Some(flow), Some(lane)) = (flows.get(at), lanes.get_mut(at))
                && inbox.empty(flow, lane)
            {
                last = Instant::now();
            }
        }
        if !sent_all.load(Relaxed) {
            last = Instant::now();
        } else if last.elapsed() > tail {
            return Ok(lanes);
        }
    }
}

struct Inbox {
    stream: u32,
    begin_us: u64,
    /// CLOCK_MONOTONIC − CLOCK_REALTIME.
    offset_us: i128,
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Inbox {
    fn new(stream: u32, begin_us: u64) -> Self {
        let control = nix::cmsg_space!(TimeSpec, u32);
        Self { stream, begin_us, offset_us: 0, bytes: vec![0; LARGEST], control }
    }

    /// Reads until nothing is there; whether something was.
    fn empty(&mut self, flow: &UdpSocket, lane: &mut Lane) -> bool {
        let mut some = false;
        loop {
            let mut pieces = [IoSliceMut::new(&mut self.bytes)];
            let control = Some(&mut self.control[..]);
            let (length, at_us) = match recvmsg::<()>(flow.as_raw_fd(), &mut pieces, control, MsgFlags::empty()) {
                Ok(message) => {
                    let mut at_us = None;
                    for one in message.cmsgs().into_iter().flatten() {
                        match one {
                            ControlMessageOwned::ScmTimestampns(stamp) => at_us = Some(stamp_us(stamp)),
                            // The count since the socket was made.
                            ControlMessageOwned::RxqOvfl(count) => lane.overflowed = count,
                            _ => {}
                        }
                    }
                    (message.bytes, at_us)
                }
                Err(Errno::EAGAIN) => return some,
                // An ICMP answer to one of ours: the datagram counts as lost.
                Err(_) => continue,
            };
            some = true;
            let at_us = at_us.map_or_else(now_us, |real| u64::try_from(real + self.offset_us).unwrap_or(0));
            match Numbered::read(&self.bytes[..length]) {
                Some(said) if said.stream != self.stream || said.sent_us < self.begin_us => {} // Of an earlier burst.
                Some(said) => lane.came(said, at_us),
                None => lane.foreign += 1,
            }
        }
    }
}

fn stamp_us(stamp: TimeSpec) -> i128 {
    i128::from(stamp.tv_sec()) * 1_000_000 + i128::from(stamp.tv_nsec()) / 1000
}
