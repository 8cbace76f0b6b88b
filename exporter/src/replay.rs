//! Captured packets in, sealed batches in the queue out: packets → flow → names → record → queue on one thread, as
//! `pipeline` does it for the kernel's events.
//!
//! Nothing here asks the clock: two replays of a capture make the same bytes. And nothing is dropped for want of room:
//! a capture can wait, so the queue is waited for.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

use crate::{
    capture::{
        KernelTime, WallTime,
        pcap::{Content, Decapsulate, Packet, decode_with_payload},
    },
    config,
    dns::{Answer, Asker, Dns, Names, Reader, queries::Queries},
    enrich::Enriched,
    flow::{
        FlowEvent,
        flags::{FlagFlows, REPLAY},
    },
    ledger::Ledger,
    queue::Queue,
    record::{Batch, Encoder},
    select::{Look, Select},
};

/// How long is waited for room in the queue before it is looked at again.
const WAIT: Duration = Duration::from_millis(2);
/// How often the names are swept, and a stop is looked for, in packets.
const EVERY: u64 = 1024;

/// The stage.
#[derive(Debug)]
pub struct Replay {
    flows: FlagFlows,
    names: Option<Dns>,
    queries: Queries,
    select: Select,
    encoder: Encoder,
    out: Out,
    /// Seal by the packets' time too: somebody may be looking on.
    seal_by_time: bool,
    which: Decapsulate,
    latest: KernelTime,
    ledger: Arc<Ledger>,
}

/// Where batches go.
#[derive(Debug)]
struct Out {
    queue: Queue,
    stop: Receiver<()>,
    stopped: bool,
}

// === impl Replay

impl Replay {
    /// A fresh stage. It ends early once `stop` has a message, or has lost its sender. `seal_by_time`: batches are sealed
    /// at their greatest age too, by the time of packets, as a live capture wants it.
    pub fn new(
        flows: FlagFlows,
        config: &config::Config,
        encoder: Encoder,
        queue: Queue,
        stop: Receiver<()>,
        seal_by_time: bool,
        ledger: Arc<Ledger>,
    ) -> Self {
        // The hosts file is of the machine that reads, not of the one that was captured on.
        let select = Select::new(config, Arc::clone(&ledger));
        let config = config::Dns { hosts_file: "".into(), ..config.dns.clone() };
        Self {
            flows,
            names: config.enabled.then(|| Dns::new(&config, Arc::clone(&ledger))),
            queries: Queries::default(),
            select,
            encoder,
            out: Out { queue, stop, stopped: false },
            seal_by_time,
            which: Decapsulate::default(),
            latest: KernelTime(0),
            ledger,
        }
    }

    /// The same, where of a tunnel this packet counts.
    #[must_use]
    pub fn decapsulating(self, which: Decapsulate) -> Self {
        Self { which, ..self }
    }

    /// Takes one packet all the way to the queue. Returns whether to go on.
    pub fn packet(&mut self, packet: &Packet<'_>) -> bool {
        let Self { flows, names, queries, select, encoder, out, ledger, which, .. } = self;
        let replay = &ledger.replay;
        replay.read.add(1);
        self.latest = self.latest.max(packet.time);
        let (content, payload) = decode_with_payload(packet, *which);
        match content {
            // The stage counts what becomes of it.
            Content::Segment(segment) => {
                flows.on_payload(&segment, payload, |event| write(&event, names.as_ref(), select, encoder, out))
            }
            Content::Datagram(datagram) => {
                replay.names.add(1);
                if let (Some(names), Some(asked)) = (names, queries.on(&datagram)) {
                    names.on(&Answer {
                        time: datagram.time,
                        asker: Asker { cgroup: asker(datagram.destination.ip()), netns: CAPTURE, uid: 0 },
                        asked: asked.bytes(),
                        payload: datagram.payload,
                        truncated: datagram.truncated,
                    });
                }
            }
            Content::Other => replay.others.add(1),
            Content::Unreadable => replay.unreadable.add(1),
        }
        if self.seal_by_time {
            out.push(encoder.seal_if_old(WallTime(self.latest.0)));
        }
        if replay.read.get().is_multiple_of(EVERY) {
            if let Some(names) = &mut self.names {
                names.tick(self.latest);
            }
            self.out.look();
        }
        !self.out.stopped
    }

    /// Nothing more comes: tells what can be told now, and seals.
    pub fn finish(&mut self) {
        let Self { flows, names, select, encoder, out, .. } = self;
        flows.finish(|event| write(&event, names.as_ref(), select, encoder, out));
        let last = encoder.seal();
        out.push(last);
    }
}

fn write(event: &FlowEvent, names: Option<&Dns>, select: &mut Select, encoder: &mut Encoder, out: &mut Out) {
    let look = select.look(event);
    if look == Look::LeaveOut {
        return;
    }
    let enriched = enrich(event, names);
    if look == Look::Record || select.decide(&enriched) {
        out.push(encoder.write(&enriched));
    }
}

/// Adds names: those that the initiator asked for before those that others did.
fn enrich<'a>(event: &'a FlowEvent, names: Option<&'a Dns>) -> Enriched<'a> {
    let own = asker(event.flow.source.ip());
    let reader = Reader { netns: CAPTURE, owner: Some((own, 0)), hosts: true };
    let look = |ip: IpAddr| -> Option<Names<'a>> { names?.names(ip, &reader, event.at.time) };
    Enriched {
        source_names: look(event.flow.source.ip()),
        destination_names: look(event.flow.destination.ip()),
        ..Enriched::bare(event)
    }
}

/// What stands for a network namespace: a capture is of one network.
const CAPTURE: u64 = 1;

/// What stands for a cgroup: the address that asked.
fn asker(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        // Its low half, and never an IPv4 address's number.
        IpAddr::V6(v6) => REPLAY.hash(&v6.octets()) as u64 | 1 << 63,
    }
}

// === impl Out

impl Out {
    /// Puts a batch into the queue, as soon as there is room.
    fn push(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        loop {
            let waiting = self.queue.waiting();
            let fits = waiting.bytes.saturating_add(batch.bytes.len() as u64) <= self.queue.max_bytes();
            // One that is larger than the whole queue is the queue's to refuse.
            if fits || waiting.batches == 0 || self.stopped {
                break;
            }
            match self.stop.recv_timeout(WAIT) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => self.stopped = true,
            }
        }
        self.queue.push(batch);
    }

    /// Looks for a stop.
    fn look(&mut self) {
        self.stopped |= !matches!(self.stop.try_recv(), Err(TryRecvError::Empty));
    }
}
