//! The capture thread: ring → flow → enrich → record → queue, on one thread, without locks or awaits between.
//!
//! In: the kernel's rings. Out: sealed batches in the queue. It never waits for a receiver.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

use crate::{
    capture::{Clock, Error, KernelEvent, KernelTime, Programs, Rings, Stop, Wait},
    enrich::Enricher,
    flow::{BootId, FlowEvent, Flows},
    ledger::Ledger,
    queue::Queue,
    record::{Batch, Encoder},
};

mod change;
mod pulse;

pub use change::{Change, limits};
pub use pulse::{Pulse, Tables, Watcher};

/// What the thread needs, each stage built already.
pub struct Pipeline {
    /// The attached programs: detached first at a stop.
    pub programs: Programs,
    /// Their rings.
    pub rings: Rings,
    /// The flow stage.
    pub flows: Flows,
    /// Who knows names and owners.
    pub enricher: Enricher,
    /// The record stage.
    pub encoder: Encoder,
    /// What goes into every id.
    pub boot: BootId,
    /// Where batches go.
    pub queue: Queue,
    /// What is counted.
    pub ledger: Arc<Ledger>,
    /// How often the rings are read.
    pub tick: std::time::Duration,
    /// Seal a batch at each reading, whatever its age: for a person or a pipe that looks on.
    pub seal_each_tick: bool,
    /// Events read before the thread started (by the self-test).
    pub first: Vec<KernelEvent>,
}

/// The running thread.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    thread: thread::JoinHandle<()>,
    changes: mpsc::Sender<Box<Change>>,
    pulse: Arc<Pulse>,
}

impl Pipeline {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refuses an epoll instance or a thread.
    pub fn start(self) -> Result<Running, Error> {
        let system = |what| move |source: io::Error| Error::System { what, source };
        let stop = Stop::new().map_err(system("making an event descriptor"))?;
        let wait = self.rings.wait(&stop)?;
        let (changes, inbox) = mpsc::channel();
        let pulse = Arc::new(Pulse::default());
        let beating = Arc::clone(&pulse);
        let thread = thread::Builder::new()
            .name("flowtel-capture".into())
            .spawn(move || self.run(&wait, &inbox, &beating))
            .map_err(system("starting the capture thread"))?;
        Ok(Running { stop, thread, changes, pulse })
    }

    fn run(mut self, wait: &Wait, changes: &mpsc::Receiver<Box<Change>>, pulse: &Pulse) {
        let mut events = std::mem::take(&mut self.first);
        let mut ticks = 0u32;
        loop {
            let stop = wait.wait(self.tick);
            if stop {
                // Nothing new comes from here on; what is in the rings still counts, however many readings it takes.
                self.programs.detach();
                for _ in 0..LAST_ROUNDS {
                    if !self.round(&mut events, false) {
                        break;
                    }
                }
            }
            self.round(&mut events, stop);
            while let Ok(change) = changes.try_recv() {
                self.apply(&change);
            }
            ticks = ticks.wrapping_add(1);
            // The kernel's counts cost system calls: now and then is enough while running.
            if pulse.is_watched() || stop || ticks.is_multiple_of(COUNT_EVERY) {
                self.programs.count(&self.ledger.kernel);
            }
            pulse.beat(self.tables());
            if stop {
                return;
            }
        }
    }

    fn tables(&self) -> Tables {
        let (addresses, names_bytes) = self.enricher.names_held();
        Tables {
            flows: self.flows.open_flows() as u64,
            attempts: self.flows.open_attempts() as u64,
            addresses: addresses as u64,
            names_bytes: names_bytes as u64,
        }
    }

    /// Reads the rings once and takes what they hold all the way to the queue. Returns whether there was anything.
    fn round(&mut self, events: &mut Vec<KernelEvent>, last: bool) -> bool {
        let clock = Clock::measure();
        // What happened before this is read now. To settle by a later time would tell stories whose rest lies in the rings.
        let now = KernelTime::now();
        self.rings.drain(&clock, events, &self.ledger.kernel);
        let any = !events.is_empty();
        let Self { rings, flows, enricher, encoder, queue, ledger, .. } = self;
        rings.answers(&ledger.kernel, |head, message| enricher.answer(head, message));
        for event in events.drain(..) {
            enricher.notice(&event);
            flows.on(&event);
        }
        // One very busy tick should not be paid for in memory for ever.
        events.shrink_to(KEEP_EVENTS);
        enricher.tick(now);
        let mut write = |event: FlowEvent| {
            ledger.records.made.add(1);
            push(queue, encoder.write(&enricher.enrich(&event)));
        };
        if last {
            flows.flush(&mut write);
        } else {
            flows.settle(now, &mut write);
        }
        let sealed = if last || self.seal_each_tick { encoder.seal() } else { encoder.seal_if_old(clock.wall(now)) };
        push(queue, sealed);
        any
    }
}

/// How often the kernel's counts are copied, in ticks.
const COUNT_EVERY: u32 = 20;
/// More readings than the largest ring needs to be emptied: should the kernel not detach a program, a stop still ends.
const LAST_ROUNDS: u32 = 1024;
/// Events whose memory is kept from tick to tick.
const KEEP_EVENTS: usize = 1 << 14;

fn push(queue: &Queue, batch: Option<Batch>) {
    if let Some(batch) = batch {
        queue.push(batch);
    }
}

impl Running {
    /// Detaches the programs, takes what is left in the rings to the queue, and ends the thread.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn stop(self) -> Result<(), String> {
        self.stop.stop();
        self.thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
        })
    }

    /// The thread goes on with a changed configuration from the end of the round that it is in.
    pub fn apply(&self, change: Change) {
        // A thread that has panicked takes none; whoever waits for its end learns that.
        let _ = self.changes.send(Box::new(change));
    }

    /// Its signs of life.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Whether the thread has ended by itself: only after a panic.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}
