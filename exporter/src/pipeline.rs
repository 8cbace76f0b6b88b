//! The capture thread: ring → flow → enrich → select → record → queue, on one thread, without locks or awaits between.
//!
//! In: the kernel's rings. Out: sealed batches in the queue. It never waits for a receiver.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    capture::{
        Clock, Error, Event, KernelEvent, KernelTime, Programs, Rings, Snapshot, Stop, Wait, WallTime,
        snapshot::{Older, Pending},
    },
    enrich::{Enriched, Enricher},
    flow::{BootId, FlowEvent, Flows},
    gap::{Gaps, Look},
    ledger::Ledger,
    overload::Overload,
    queue::Queue,
    record::{Batch, Encoder, Observer, resource::Host},
    select::{self, Select},
};

mod ask;
mod audit;
mod change;
mod memory;
mod onlook;
mod pulse;

pub use ask::{Asker, Known};
pub use audit::Watch;
pub use change::{Change, budget, limits};
use memory::Memory;
pub use memory::resident;
use onlook::Onlooker;
pub use onlook::OpenFlows;
pub use pulse::{Pulse, Tables, Watcher};

/// What the thread needs, each stage built already.
pub struct Pipeline {
    /// The attached programs: detached first at a stop, unless they are to stay.
    pub programs: Programs,
    /// Their rings.
    pub rings: Rings,
    /// The flow stage.
    pub flows: Flows,
    /// What folds repeats when there is too much.
    pub overload: Overload,
    /// Who knows names and owners.
    pub enricher: Enricher,
    /// What becomes a record.
    pub select: Select,
    /// The record stage.
    pub encoder: Encoder,
    /// What the records say of this host.
    pub host: Host,
    /// What tells the stream of losses.
    pub gaps: Option<Gaps>,
    /// What goes into every id.
    pub boot: BootId,
    /// Which part of the host it is that is observed.
    pub observer: Observer,
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
    /// What is open already, being looked for.
    pub snapshot: Option<Pending<Snapshot>>,
    /// Whether what counts as open still is.
    pub watch: Option<Watch>,
}

/// What a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Whatever came. It ends early where nothing came and nothing waits.
    Usual,
    /// All there is to do: time passes for what is remembered, too.
    Thorough,
    /// And nothing waits any longer: no other follows.
    Last,
}

/// What the thread is told between two rounds.
#[derive(Debug)]
enum Message {
    /// It goes on with this.
    Change(Box<Change>),
    /// Somebody wants to know.
    Ask(ask::Ask),
    /// Somebody wants to see what is open.
    Onlook(Onlooker),
}

/// The running thread.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    thread: thread::JoinHandle<()>,
    messages: mpsc::Sender<Message>,
    pulse: Arc<Pulse>,
    /// The thread holds the other end as long as it lives.
    alive: watch::Receiver<()>,
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
        let (messages, inbox) = mpsc::channel();
        let pulse = Arc::new(Pulse::default());
        let beating = Arc::clone(&pulse);
        let (lives, alive) = watch::channel(());
        let thread = thread::Builder::new()
            .name("flowtel-capture".into())
            .spawn(move || {
                let _lives = lives;
                self.run(&wait, &inbox, &beating);
            })
            .map_err(system("starting the capture thread"))?;
        Ok(Running { stop, thread, messages, pulse, alive })
    }

    /// Waits for the threads that look around at the start, reading the rings meanwhile. Returns whether they have ended:
    /// afterwards nobody has their rights. Ends early where `stop` says so.
    pub fn gather(&mut self, stop: impl Fn() -> bool) -> bool {
        let start = KernelTime::now();
        let mut told = false;
        let most = self.first.len() + SNAPSHOT_EVENTS;
        loop {
            let read = self.first.len();
            // What there is no more room for stays in the rings, which count what they lose.
            if read <= most {
                self.rings.read();
                self.take_execs();
                let Self { first, rings, ledger, .. } = self;
                rings.hand_out(&Clock::measure(), &ledger.kernel, |event| first.push(*event));
                // Processes may be gone when it is their events' turn.
                first.get(read..).unwrap_or_default().iter().for_each(|event| self.enricher.notice(event));
            }
            let looks = self.snapshot.as_mut().is_some_and(|pending| !pending.is_over());
            let watches = self.watch.as_mut().is_some_and(|watch| !watch.is_over());
            let waited = u128::from(KernelTime::now().since(start));
            let late = waited > SNAPSHOT_PATIENCE.as_nanos() || self.first.len() > most;
            if !looks && !watches || stop() || waited > LONGEST_LOOK.as_nanos() {
                return !looks && !watches;
            }
            if late && !told {
                told = true;
                tracing::warn!("listing the open connections takes long: what happens meanwhile may be lost");
            }
            thread::park_timeout(SNAPSHOT_TICK);
        }
    }

    fn run(mut self, wait: &Wait, messages: &mpsc::Receiver<Message>, pulse: &Pulse) {
        let mut events = std::mem::take(&mut self.first);
        let mut stop = false;
        let mut older = match self.snapshot.take() {
            Some(pending) => self.open_at_start(&pending, &mut events, wait, &mut stop),
            None => None,
        };
        let mut memory = Memory::after_start(Instant::now());
        let mut looked = KernelTime::default();
        let mut onlookers = Vec::new();
        loop {
            stop = stop || wait.wait(self.tick);
            // What is no matter of a tick costs system calls and caches: once a second is enough.
            let now = KernelTime::now();
            let due = stop || now.since(looked) >= LOOK_EVERY;
            if due {
                looked = now;
            }
            if stop {
                // Nothing new comes from here on; what is in the rings still counts, however many readings it takes.
                self.programs.detach();
                // Where programs stay, what comes from here on is for the next flowtel.
                let rounds = if self.programs.stay() { 0 } else { LAST_ROUNDS };
                for _ in 0..rounds {
                    if !self.round(&mut events, &mut older, Round::Thorough) {
                        break;
                    }
                }
            }
            let round = match (stop, due) {
                (true, _) => Round::Last,
                (false, true) => Round::Thorough,
                (false, false) => Round::Usual,
            };
            // Who was told that a change is applied sees it in whatever happens from then on.
            let mut asked = Vec::new();
            while let Ok(message) = messages.try_recv() {
                match message {
                    Message::Change(change) => self.apply(&change),
                    Message::Ask(ask) => asked.push(ask),
                    Message::Onlook(onlooker) => onlookers.push(onlooker),
                }
            }
            self.round(&mut events, &mut older, round);
            asked.into_iter().for_each(|ask| self.answer(ask));
            if !onlookers.is_empty() {
                self.show_open(&mut onlookers);
            }
            if due || pulse.is_watched() {
                let from = Clock::measure().wall(KernelTime::now());
                if stop {
                    self.programs.count_last(&self.ledger.kernel);
                } else {
                    self.programs.count(&self.ledger.kernel);
                }
                self.rings.count_execs(&self.ledger.kernel);
                self.programs.count_callbacks(&self.ledger.audit);
                self.tell_gaps(from, stop);
                self.note();
            }
            if due {
                self.encoder.rest();
                memory.look(Instant::now());
            }
            pulse.beat(self.tables());
            if stop {
                self.programs.leave(|| self.flows.leave());
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

    /// Waits for the snapshot, reading the rings meanwhile: what happened since the programs were attached is processed
    /// after what was there before, so each connection is told once, by its begin or as open. `stop` becomes true where a
    /// stop is asked for.
    fn open_at_start(
        &mut self,
        pending: &Pending<Snapshot>,
        events: &mut Vec<KernelEvent>,
        wait: &Wait,
        stop: &mut bool,
    ) -> Option<Older> {
        let start = KernelTime::now();
        // What a flowtel before left unread does not count.
        let most = events.len() + SNAPSHOT_EVENTS;
        let mut taken: Option<Snapshot> = None;
        loop {
            let read = events.len();
            self.rings.read();
            self.take_execs();
            self.rings.hand_out(&Clock::measure(), &self.ledger.kernel, |event| events.push(*event));
            // Processes may be gone when it is their events' turn.
            events.get(read..).unwrap_or_default().iter().for_each(|event| self.enricher.notice(event));
            let waited = u128::from(KernelTime::now().since(start));
            if let Some(snapshot) = taken.take_if(|taken| settled(taken, self.rings.cut())) {
                tracing::info!("found {}", snapshot.reach);
                let began: HashSet<u64> = events.iter().filter_map(began).collect();
                self.enricher.learn_namespaces(&snapshot.listing.namespaces);
                let (mut listing, mut older) = snapshot.watch();
                older.reserve(listing.connections.len());
                let Self { flows, overload, enricher, select, encoder, queue, .. } = self;
                flows.found(
                    &mut listing,
                    &Clock::measure(),
                    |cookie| began.contains(&cookie),
                    |event| take(event, select, enricher, overload, encoder, queue),
                    |found, is_older| older.add(found, is_older),
                );
                older.all_added();
                return (!older.is_empty()).then_some(older);
            }
            if taken.is_none() {
                match pending.poll() {
                    Some(Ok(snapshot)) => taken = Some(snapshot),
                    Some(Err(e)) => {
                        tracing::warn!("{e}; connections that are open already are not told");
                        return None;
                    }
                    None if waited > SNAPSHOT_PATIENCE.as_nanos() || events.len() > most => {
                        tracing::warn!("listing the open connections takes too long; they are not told");
                        return None;
                    }
                    None => {}
                }
            }
            if wait.wait(SNAPSHOT_TICK) {
                *stop = true;
                return None;
            }
        }
    }

    /// Reads the rings once and takes what they hold all the way to the queue. Returns whether there was anything.
    fn round(&mut self, events: &mut Vec<KernelEvent>, older: &mut Option<Older>, round: Round) -> bool {
        let last = round == Round::Last;
        let read = match (last, self.programs.stay()) {
            (false, _) => self.rings.read(),
            (true, false) => self.rings.read_rest(),
            (true, true) => self.rings.read_last(),
        };
        // What happened before this is handed out now. To settle by a later time would tell stories whose rest lies in the rings.
        let now = self.rings.cut();
        self.take_execs();
        self.rings.answers(&self.ledger.kernel, |head, message| self.enricher.answer(head, message));
        // Where another flowtel will read on they are told by it, with the flows that they begin.
        let hellos = !(last && self.programs.stay()) && self.take_hellos();
        let any = hellos | read | !events.is_empty();
        self.note();
        let Self { programs, rings, flows, watch, overload, enricher, select, encoder, queue, ledger, .. } = self;
        let audits = watch.as_ref().is_some_and(|watch| !watch.is_quiet());
        let waits = audits || older.is_some() || !flows.is_quiet() || !overload.is_quiet() || !encoder.is_empty();
        if round == Round::Usual && !any && !waits {
            // Most rounds of a quiet host: they are to cost nothing.
            return false;
        }
        let clock = Clock::measure();
        if enricher.is_helped() {
            // One question a round, whatever came.
            enricher.ahead(rings.callers());
        }
        let mut on = |event: &KernelEvent| {
            enricher.notice(event);
            if let Some(older) = older {
                older.notice(event);
            }
            flows.on(event);
        };
        // What waited for the snapshot, once, is not paid for in memory for ever.
        std::mem::take(events).iter().for_each(&mut on);
        rings.hand_out(&clock, &ledger.kernel, on);
        // What a process ran was looked up meanwhile; what it started in between is known before it is told.
        rings.read_execs();
        let reach = rings.execs(&ledger.kernel, |told| enricher.told(told));
        enricher.reaches(reach);
        if let Some(watched) = older {
            if watched.has_gone() {
                // Whether what would say how they ended was lost is to be known first.
                programs.count(&ledger.kernel);
            }
            watched.gone(|gone| flows.gone(gone, &clock));
            watched.look(now);
        }
        if older.as_ref().is_some_and(Older::is_empty) {
            *older = None;
        }
        if let Some(watch) = watch
            && !last
        {
            watch.round(now, flows, ledger);
        }
        enricher.tick(now);
        overload.look(now, queue);
        overload.tell(now, false, |event, fold| {
            push(queue, encoder.write(&Enriched { fold, ..enricher.enrich(&event) }));
        });
        let mut told = |event: &FlowEvent| take(event, select, enricher, overload, encoder, queue);
        if last {
            flows.flush(&mut told);
            overload.tell(now, true, |event, fold| {
                push(queue, encoder.write(&Enriched { fold, ..enricher.enrich(&event) }));
            });
        } else {
            flows.settle(now, &mut told);
        }
        let sealed = if last || self.seal_each_tick { encoder.seal() } else { encoder.seal_if_old(clock.wall(now)) };
        push(queue, sealed);
        any
    }

    /// Takes what processes run by now.
    fn take_execs(&mut self) {
        let Self { rings, enricher, ledger, .. } = self;
        let reach = rings.execs(&ledger.kernel, |told| enricher.told(told));
        enricher.reaches(reach);
    }

    /// Takes what clients said first over TLS. Returns whether there was anything.
    fn take_hellos(&mut self) -> bool {
        let Self { rings, flows, ledger, .. } = self;
        let mut clock = None;
        rings.hellos(&ledger.kernel, |head, bytes| {
            flows.hello(head, bytes, clock.get_or_insert_with(Clock::measure));
        })
    }

    /// Leaves word for the flowtel after this one, where one is to read on. Before anything is processed, so that what a
    /// killed one has told was read by it.
    fn note(&mut self) {
        let Self { programs, rings, flows, ledger, gaps, .. } = self;
        if programs.stay() {
            let told = gaps.is_none() || ledger.lost().1 == 0;
            programs.note(rings, &ledger.kernel, flows.own(), told);
        }
    }

    /// Tells the stream what was lost, here and wherever records have gone since. The counts began to be read at `from`.
    fn tell_gaps(&mut self, from: WallTime, last: bool) {
        let time = KernelTime::now();
        let wall = Clock::measure().wall(time);
        let Self { gaps, encoder, queue, ledger, .. } = self;
        let Some(gaps) = gaps else { return };
        let room = queue.waiting().bytes <= queue.max_bytes() / 4 * 3;
        gaps.look(Look { from, time, wall, room, last }, |gap| {
            ledger.records.made.add(1);
            push(queue, encoder.write_gap(&gap));
        });
        if last || self.seal_each_tick {
            push(queue, encoder.seal());
        }
    }
}

/// Takes what the flow stage tells to the queue, if it is to be a record.
fn take(
    event: &FlowEvent,
    select: &mut Select,
    enricher: &mut Enricher,
    overload: &mut Overload,
    encoder: &mut Encoder,
    queue: &Queue,
) {
    let look = select.look(event);
    if look == select::Look::LeaveOut {
        return;
    }
    enricher.count(event);
    // What is folded need not be looked up: there is too much of it as it is.
    if look == select::Look::Record && overload.folds(event) {
        return;
    }
    let enriched = enricher.enrich(event);
    if look == select::Look::Record || select.decide(&enriched) && !overload.folds(event) {
        push(queue, encoder.write(&enriched));
    }
}

/// Whether all that the programs tell of a snapshot's connections is there, where the rings were handed out up to `cut`.
fn settled(snapshot: &Snapshot, cut: KernelTime) -> bool {
    u128::from(cut.since(snapshot.listing.time)) > SNAPSHOT_SETTLES.as_nanos()
}

/// The socket whose begin an event tells.
fn began(event: &KernelEvent) -> Option<u64> {
    match &event.event {
        Event::Established(established) => Some(established.cookie),
        _ => None,
    }
}

/// How often the rings are read while a snapshot is taken.
const SNAPSHOT_TICK: Duration = Duration::from_millis(5);
/// How long a connection that the list shows as established may need to be told as begun: the kernel does both at once.
const SNAPSHOT_SETTLES: Duration = Duration::from_millis(20);
/// How long a start waits for those who look around: each has limits of its own.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// How long a snapshot may take, and how many events may wait for it.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);
const SNAPSHOT_EVENTS: usize = 1 << 18;
/// How often a round goes through everything although nothing came, and the kernel's counts are copied: nanoseconds.
const LOOK_EVERY: u64 = 1_000_000_000;
/// More readings than the largest ring needs to be emptied: should the kernel not detach a program, a stop still ends.
const LAST_ROUNDS: u32 = 1024;

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
        let _ = self.messages.send(Message::Change(Box::new(change)));
    }

    /// A way to ask it.
    pub fn asker(&self) -> Asker {
        Asker(self.messages.clone())
    }

    /// Its signs of life.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Returns when the thread has ended by itself: only after a panic.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
}
