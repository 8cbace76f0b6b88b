//! The kernel object, loaded and attached. Dropping [`Programs`] detaches everything: links die with their descriptors,
//! also when flowtel is killed, and the host is as before; unless they are to stay ([`Pins`]).

use std::os::fd::AsFd;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program as AyaProgram, ProgramError,
        links::{FdLink, Link, LinkError},
    },
};
use flowtel_common::{event::DNS_PORTS, kernel::Offsets, tally};

use super::{
    Error, Note, Pins, Rings,
    cgroup::Cgroup,
    execs::{self, Telling},
    kernel_types,
    pins::{self, Counts},
    position::Shared,
    rights,
    snapshot::Cookies,
};
use crate::{
    config::{self, Events},
    ledger::{Audit, KernelEvents, Kind},
};

/// The kernel object, a build product of exporter-ebpf that is checked in: every machine runs the bytes that were tested.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/flowtel.bpf.o");

/// A program of the object.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name in the object and, up to 15 bytes of it, in the kernel's lists (`bpftool prog`).
    pub name: &'static str,
    /// Where it is attached, as `bpftool cgroup` says it.
    pub attach: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// When it is the one to attach there.
    when: fn(Wants) -> bool,
}

/// What decides which programs are attached. Each place has a program for everything, and leaner ones for less: what a
/// program need not do costs nothing at all.
#[derive(Debug, Clone, Copy)]
struct Wants {
    /// Ends of flows.
    ends: bool,
    /// What open flows have counted so far. It comes with ends.
    updates: bool,
    /// What clients say first over TLS. It comes with ends.
    hellos: bool,
    /// Attempts that led to nothing.
    failures: bool,
    /// Names of addresses.
    names: bool,
    /// Who accepts, and who listens.
    acceptors: bool,
    /// Who binds a port: where the kernel's types don't tell who calls listen().
    binders: bool,
    /// The network namespace, where bpf_get_netns_cookie is there for sockops: Linux 6.1 and newer.
    netns: bool,
    /// What other programs say to a connect(), where bpf_get_retval is there: Linux 5.18 and newer.
    verdict: bool,
}

/// All programs, in the order in which they are attached: what explains an event comes before what reports it, so that
/// no connection is seen half.
pub const PROGRAMS: [Program; 27] = [
    Program {
        name: "flowtel_bind4",
        attach: "cgroup_inet4_post_bind",
        purpose: "who binds a port (IPv4)",
        when: |wants| wants.binders,
    },
    Program {
        name: "flowtel_bind6",
        attach: "cgroup_inet6_post_bind",
        purpose: "who binds a port (IPv6)",
        when: |wants| wants.binders,
    },
    Program {
        name: "flowtel_accept4",
        attach: "cgroup_inet4_getpeername",
        purpose: "who accepts (IPv4)",
        when: |wants| wants.acceptors,
    },
    Program {
        name: "flowtel_accept6",
        attach: "cgroup_inet6_getpeername",
        purpose: "who accepts (IPv6)",
        when: |wants| wants.acceptors,
    },
    Program {
        name: "flowtel_connect4",
        attach: "cgroup_inet4_connect",
        purpose: "who asks for a connection, and for which (IPv4)",
        when: |wants| wants.failures && wants.verdict,
    },
    Program {
        name: "flowtel_connect4_noverdict",
        attach: "cgroup_inet4_connect",
        purpose: "who asks for a connection, and for which, without others' refusals (IPv4)",
        when: |wants| wants.failures && !wants.verdict,
    },
    Program {
        name: "flowtel_connect4_lean",
        attach: "cgroup_inet4_connect",
        purpose: "who asks for a connection (IPv4)",
        when: |wants| !wants.failures,
    },
    Program {
        name: "flowtel_connect6",
        attach: "cgroup_inet6_connect",
        purpose: "who asks for a connection, and for which (IPv6)",
        when: |wants| wants.failures && wants.verdict,
    },
    Program {
        name: "flowtel_connect6_noverdict",
        attach: "cgroup_inet6_connect",
        purpose: "who asks for a connection, and for which, without others' refusals (IPv6)",
        when: |wants| wants.failures && !wants.verdict,
    },
    Program {
        name: "flowtel_connect6_lean",
        attach: "cgroup_inet6_connect",
        purpose: "who asks for a connection (IPv6)",
        when: |wants| !wants.failures,
    },
    Program {
        name: "flowtel_release",
        attach: "cgroup_inet_sock_release",
        purpose: "who drops a connection, which listener goes, and what leaves a SOCKMAP",
        when: |wants| wants.ends || wants.acceptors,
    },
    Program {
        name: "flowtel_send4",
        attach: "cgroup_udp4_sendmsg",
        purpose: "where DNS queries go (IPv4)",
        when: |wants| wants.names,
    },
    Program {
        name: "flowtel_send6",
        attach: "cgroup_udp6_sendmsg",
        purpose: "where DNS queries go (IPv6)",
        when: |wants| wants.names,
    },
    Program {
        name: "flowtel_in",
        attach: "cgroup_inet_ingress",
        purpose: "answers, ends and names that arrive",
        when: |wants| wants.ends && !wants.hellos,
    },
    Program {
        name: "flowtel_in_tls",
        attach: "cgroup_inet_ingress",
        purpose: "answers, ends and names that arrive, and what clients say of TLS",
        when: |wants| wants.hellos,
    },
    Program {
        name: "flowtel_in_names",
        attach: "cgroup_inet_ingress",
        purpose: "answers and names that arrive",
        when: |wants| !wants.ends && wants.names,
    },
    Program {
        name: "flowtel_in_lean",
        attach: "cgroup_inet_ingress",
        purpose: "answers that arrive",
        when: |wants| !wants.ends && !wants.names && !wants.acceptors,
    },
    Program {
        name: "flowtel_in_takers",
        attach: "cgroup_inet_ingress",
        purpose: "answers that arrive, and which listener takes a connection",
        when: |wants| !wants.ends && !wants.names && wants.acceptors,
    },
    Program {
        name: "flowtel_out",
        attach: "cgroup_inet_egress",
        purpose: "ends, refusals and queries that leave",
        when: |wants| wants.ends && !wants.updates && !wants.hellos,
    },
    Program {
        name: "flowtel_out_updates",
        attach: "cgroup_inet_egress",
        purpose: "ends, refusals and queries that leave, and what open flows have counted",
        when: |wants| wants.updates && !wants.hellos,
    },
    Program {
        name: "flowtel_out_tls",
        attach: "cgroup_inet_egress",
        purpose: "ends, refusals and queries that leave, and what clients say of TLS",
        when: |wants| wants.hellos && !wants.updates,
    },
    Program {
        name: "flowtel_out_all",
        attach: "cgroup_inet_egress",
        purpose: "ends, refusals and queries that leave, what open flows have counted, and what clients say of TLS",
        when: |wants| wants.hellos && wants.updates,
    },
    Program {
        name: "flowtel_out_names",
        attach: "cgroup_inet_egress",
        purpose: "queries that leave",
        when: |wants| !wants.ends && wants.names,
    },
    Program {
        name: "flowtel_ops",
        attach: "cgroup_sock_ops",
        purpose: "begins and ends of connections",
        when: |wants| wants.ends && wants.netns,
    },
    Program {
        name: "flowtel_ops_lean",
        attach: "cgroup_sock_ops",
        purpose: "begins of connections",
        when: |wants| !wants.ends && wants.netns,
    },
    Program {
        name: "flowtel_ops_nonetns",
        attach: "cgroup_sock_ops",
        purpose: "begins and ends of connections, without their network namespace",
        when: |wants| wants.ends && !wants.netns,
    },
    Program {
        name: "flowtel_ops_lean_nonetns",
        attach: "cgroup_sock_ops",
        purpose: "begins of connections, without their network namespace",
        when: |wants| !wants.ends && !wants.netns,
    },
];

/// The most older connections whose FINs the kernel side tells: its table has 16 bytes for each place.
const MOST_OLDER: u32 = 1 << 20;

/// How many hellos may go on at once: some 100 bytes each.
const HELLOS_CUT: u32 = 4096;
/// Places for sockets that are past their beginning, 8 bytes each: as many as the programs look at, for both ways.
const PAST: u32 = 2 * 8192;

/// What the ring of processes has where nobody tells of them: a page.
const SMALLEST_RING: u32 = 4096;

/// The loaded object.
pub struct Programs {
    ebpf: Ebpf,
    tallies: PerCpuArray<MapData, tally::Words>,
    offsets: Offsets,
    pins: Option<Pins>,
    /// What the kernel had counted before, and flowtels before this one have accounted for.
    before: Counts,
    /// Callbacks that were taken away before, and sockets that were asked again before.
    callbacks_before: [u64; 2],
}

// === impl Program

impl Program {
    /// Whether the records that `config` asks for need it, on this kernel.
    pub fn is_needed(&self, config: &config::Config) -> bool {
        (self.when)(Wants::of(config))
    }
}

// === impl Wants

impl Wants {
    fn of(config: &config::Config) -> Self {
        let events = config.capture.events;
        Self {
            ends: events.needs_ends(),
            updates: config.updates().is_some(),
            hellos: config.hellos(),
            failures: events.has(Events::FAILED),
            names: config.dns.enabled,
            acceptors: config.owner.acceptor,
            binders: config.owner.acceptor && !kernel_types::tell_callers(),
            netns: rights::kernel_is_at_least((6, 1)),
            verdict: rights::kernel_is_at_least((5, 18)),
        }
    }
}

// === impl Programs

impl Programs {
    /// Creates the maps, with rings of the configured sizes, and room for at most `flow.max_flows` older connections; or
    /// takes those that `pins` has. Nothing is attached yet.
    ///
    /// # Errors
    /// The kernel is too old, a capability is missing, or the kernel refuses a map.
    pub fn load(config: &config::Config, mut pins: Option<Pins>) -> Result<Self, Error> {
        let config::Config { capture, owner, flow, dns, .. } = config;
        let ports: &[u16] = if dns.enabled { &dns.ports } else { &[] };
        rights::kernel()?;
        rights::capabilities()?;
        let size = |bytes: config::Bytes| u32::try_from(bytes.0).unwrap_or(u32::MAX);
        let rings = &capture.rings;
        // Room for the cookies of older connections: user space fills it once, and it costs what is in it.
        let older = if capture.takes_snapshot() { flow.max_flows.clamp(1, MOST_OLDER) } else { 1 };
        let execs = if execs::are_wanted(owner) { size(rings.execs) } else { SMALLEST_RING };
        // One that stays keeps its size, whether or not it is wanted now: or nothing of what is pinned could be read on.
        let (hellos, hellos_cut, past) = match (config.hellos(), &pins) {
            (true, _) => (size(rings.hellos), HELLOS_CUT, PAST),
            (false, Some(_)) => (size(rings.hellos), 1, 1),
            (false, None) => (SMALLEST_RING, 1, 1),
        };
        let arguments = u8::from(owner.arguments == config::Arguments::First);
        let offsets = kernel_types::offsets();
        let ports = pack(ports);
        // Where there are to be none no program that reads it is loaded.
        let update_every =
            config.updates().map_or(u64::MAX >> 1, |every| u64::try_from(every.as_nanos()).unwrap_or(u64::MAX >> 1));
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            for name in pins::MAPS {
                loader.map_pin_path(name, pins.path(name));
            }
        }
        let mut ebpf = loader
            .override_global("OFFSETS", &offsets, false)
            .override_global("ARGUMENTS", &arguments, true)
            .override_global("DNS_PORTS", &ports, true)
            .override_global("UPDATE_EVERY", &update_every, true)
            .map_max_entries("OLDER", older)
            .map_max_entries("FLOWS", size(rings.flows))
            .map_max_entries("OWNERS", size(rings.owners))
            .map_max_entries("ANSWERS", size(rings.answers))
            .map_max_entries("EXECS", execs)
            .map_max_entries("HELLOS", hellos)
            .map_max_entries("HELLOS_CUT", hellos_cut)
            .map_max_entries("PAST", past)
            .load(OBJECT)
            .map_err(refused)?;
        let tallies = take(&mut ebpf, "TALLIES")?;
        if let Some(pins) = &mut pins {
            pins.open()?;
        }
        let before = pins.as_ref().map(Pins::counted).unwrap_or_default();
        let callbacks_before = callbacks(&tallies).unwrap_or_default();
        Ok(Self { ebpf, tallies, offsets, pins, before, callbacks_before })
    }

    /// Takes a map out of the object.
    pub(super) fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, Error> {
        take(&mut self.ebpf, name)
    }

    /// Takes the list of older connections out of the object, to be filled.
    ///
    /// # Errors
    /// The object does not hold it: never in a sound build.
    pub fn older(&mut self) -> Result<Cookies, Error> {
        Ok(Cookies::new(take(&mut self.ebpf, "OLDER")?, take(&mut self.ebpf, "ANY_OLDER")?, self.pins.is_some()))
    }

    /// Loads one program and attaches it to `cgroup` by a link, beside whatever else is attached there; or makes it what the
    /// pinned link of its place runs.
    ///
    /// # Errors
    /// The kernel refuses to load or to attach it.
    pub fn attach(&mut self, program: &Program, cgroup: &Cgroup) -> Result<(), Error> {
        let found = self.ebpf.program_mut(program.name).ok_or_else(|| Error::Load {
            what: format!("the program {}", program.name),
            reason: "it is not in the object".into(),
            hint: "",
        })?;
        load(found).map_err(|e| Error::Load {
            what: format!("the program {}", program.name),
            reason: program_error(&e),
            hint: hint(&e),
        })?;
        attach(found, program.attach, cgroup, self.pins.as_mut()).map_err(|e| Error::Attach {
            program: program.name,
            cgroup: cgroup.path.clone(),
            reason: program_error(&e),
            hint: attach_hint(&e),
        })
    }

    /// Attaches those of [`PROGRAMS`] that `config` needs. What another flowtel left and nobody needs any more goes then; what
    /// of it nobody can read is counted.
    ///
    /// # Errors
    /// As [`Self::attach`]; those already attached are detached when `self` is dropped, unless they are to stay.
    pub fn attach_all(&mut self, config: &config::Config, cgroup: &Cgroup, ledger: &KernelEvents) -> Result<(), Error> {
        PROGRAMS.iter().filter(|p| p.is_needed(config)).try_for_each(|program| self.attach(program, cgroup))?;
        let unread = self.pins.as_mut().map_or(0, Pins::tidy);
        if unread > 0 {
            tracing::warn!(
                "a flowtel of another version or with other settings (capture.rings, .cgroup, .events) left \
                 {unread} events, which can't be read"
            );
            ledger.unknown.add(unread);
        }
        Ok(())
    }

    /// Maps an array of the object.
    pub(super) fn shared(&self, name: &'static str) -> Result<Shared, Error> {
        let fail = |reason: String| Error::Load { what: format!("the map {name}"), reason, hint: "" };
        match self.ebpf.map(name) {
            Some(Map::Array(map)) => Shared::of(map.fd().as_fd()).map_err(|e| fail(e.to_string())),
            _ => Err(fail("it is not in the object".into())),
        }
    }

    /// Attaches the programs that tell of processes, where `config` asks for them and this kernel has what they need.
    /// Flowtel works without.
    pub fn attach_execs(&mut self, config: &config::Owner) -> Telling {
        execs::attach(&mut self.ebpf, &self.offsets, config)
    }

    /// The kernel's ids of the programs that are attached.
    pub fn ids(&self) -> Vec<u32> {
        let loaded = self.ebpf.programs().filter_map(|(_, program)| program.info().ok());
        loaded.map(|info| info.id()).collect()
    }

    /// Whether programs and rings stay when this goes.
    pub fn stay(&self) -> bool {
        self.pins.is_some()
    }

    /// Notes for the flowtel after this one how far `rings` were read: to be called after each reading, before what was read
    /// is processed. `own` are flowtel's own process id and sockets; `told`: all losses that `ledger` has were told. Nothing
    /// happens where nothing stays.
    pub fn note(
        &mut self,
        rings: &Rings,
        ledger: &KernelEvents,
        (tgid, sockets): (Option<u32>, impl Iterator<Item = u64>),
        told: bool,
    ) {
        let Some(pins) = &mut self.pins else { return };
        let mut read = rings.pending();
        let mut lost = Counts::default();
        for (index, kind) in by_tally(ledger) {
            let index = index as usize;
            let add = |counts: &mut [u64], n: u64| {
                if let Some(count) = counts.get_mut(index) {
                    *count += n;
                }
            };
            add(&mut read, kind.read.get());
            add(&mut lost.ring_full, kind.ring_full.get());
            add(&mut lost.limited, kind.limited.get());
        }
        pins.note(tgid.unwrap_or_default(), read, told.then_some(&lost), sockets);
    }

    /// Leaves what is known of open flows to the flowtel after this one. Nothing happens where nothing stays.
    pub fn leave(&mut self, notes: impl FnOnce() -> Vec<Note>) {
        if let Some(pins) = &mut self.pins {
            pins.leave(&notes());
        }
    }

    /// Detaches and unloads all programs; maps and rings stay, so that what is in them can still be read. Nothing happens
    /// where the programs are to stay, but to those that tell of processes.
    pub fn detach(&mut self) {
        execs::detach(&mut self.ebpf);
        if self.stay() {
            return;
        }
        for (_, program) in self.ebpf.programs_mut() {
            // Fails only for a program that was never loaded.
            let _ = match program {
                AyaProgram::CgroupSkb(p) => p.unload(),
                AyaProgram::CgroupSockAddr(p) => p.unload(),
                AyaProgram::CgroupSock(p) => p.unload(),
                AyaProgram::SockOps(p) => p.unload(),
                _ => Ok(()),
            };
        }
    }

    /// The loaded program of this name, for measurements (BPF_PROG_TEST_RUN).
    pub fn skb_program(&self, name: &str) -> Option<&CgroupSkb> {
        self.ebpf.program(name).and_then(|p| p.try_into().ok())
    }

    /// Copies the kernel's counts into the ledger, for the last time. Where the programs stay, what is in the rings by now
    /// is the next flowtel's to account for.
    pub fn count_last(&self, ledger: &KernelEvents) {
        self.count(ledger);
        if self.stay() {
            for (_, kind) in by_tally(ledger) {
                kind.seen.set(kind.read.get() + kind.ring_full.get() + kind.limited.get());
            }
        }
    }

    /// Copies the kernel's counts into the ledger.
    pub fn count(&self, ledger: &KernelEvents) {
        // The map is an array of one: the look-up can't miss. Should it be refused, the old counts stay.
        let Ok(per_cpu) = self.tallies.get(&0, 0) else { return };
        let sum = |word: u32| per_cpu.iter().filter_map(|cpu| cpu.get(word as usize)).sum::<u64>();
        for (index, kind) in by_tally(ledger) {
            let before = |counts: &[u64]| counts.get(index as usize).copied().unwrap_or_default();
            let Counts { read, ring_full, limited } = &self.before;
            let [read, ring_full, limited] = [before(read), before(ring_full), before(limited)];
            // Each event that was seen before was read, or lost in one way.
            kind.seen.set(sum(tally::SEEN + index).saturating_sub(read + ring_full + limited));
            kind.ring_full.set(sum(tally::SEEN + tally::LEN + index).saturating_sub(ring_full));
            kind.limited.set(sum(tally::SEEN + 2 * tally::LEN + index).saturating_sub(limited));
        }
    }

    /// Copies what became of flowtel's callbacks into the ledger.
    pub fn count_callbacks(&self, ledger: &Audit) {
        let Some(now) = callbacks(&self.tallies) else { return };
        let [unkept, asked_again] = self.callbacks_before;
        let [unkept, asked_again] =
            [(now[0], unkept), (now[1], asked_again)].map(|(now, then)| now.saturating_sub(then));
        ledger.callbacks_taken.set(unkept);
        ledger.asked_again.set(asked_again);
    }
}

/// How many callbacks other programs have taken away, and how many sockets were asked again.
fn callbacks(tallies: &PerCpuArray<MapData, tally::Words>) -> Option<[u64; 2]> {
    let per_cpu = tallies.get(&0, 0).ok()?;
    let sum = |word: u32| per_cpu.iter().filter_map(|cpu| cpu.get(word as usize)).sum();
    // A promise that is still open is at most one a CPU: the next handshake there settles it.
    Some([sum(tally::UNKEPT), sum(tally::ASKED_AGAIN)])
}

/// Ports of name servers as the programs want them: four to a word, the first in the lowest bits; 0 is none.
fn pack(ports: &[u16]) -> [u64; DNS_PORTS / 4] {
    let mut words = [0; DNS_PORTS / 4];
    for (at, port) in ports.iter().enumerate().take(DNS_PORTS) {
        if let Some(word) = words.get_mut(at / 4) {
            *word |= u64::from(*port) << (at % 4 * 16);
        }
    }
    words
}

/// The kinds of events that the kernel side counts, each with its index.
fn by_tally(ledger: &KernelEvents) -> [(u32, &Kind); tally::LEN as usize] {
    [
        (tally::CONNECT, &ledger.connect),
        (tally::SYN_AGAIN, &ledger.syn_again),
        (tally::USED_AGAIN, &ledger.used_again),
        (tally::NETNS, &ledger.netns),
        (tally::ESTABLISHED, &ledger.established),
        (tally::BIND, &ledger.bind),
        (tally::LISTEN, &ledger.listen),
        (tally::UNLISTEN, &ledger.unlisten),
        (tally::ACCEPT, &ledger.accept),
        (tally::FIN, &ledger.fin),
        (tally::RESET, &ledger.reset),
        (tally::RELEASE, &ledger.release),
        (tally::CLOSE, &ledger.close),
        (tally::REFUSED, &ledger.refused),
        (tally::UPDATE, &ledger.update),
        (tally::HELLO, &ledger.hello),
        (tally::DNS, &ledger.dns),
    ]
}

fn take<T: TryFrom<Map, Error = aya::maps::MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let fail = |reason: String| Error::Load { what: format!("the map {name}"), reason, hint: "" };
    let map = ebpf.take_map(name).ok_or_else(|| fail("it is not in the object".into()))?;
    T::try_from(map).map_err(|e| fail(chain(&e)))
}

fn load(program: &mut AyaProgram) -> Result<(), ProgramError> {
    match program {
        AyaProgram::CgroupSkb(p) => p.load(),
        AyaProgram::CgroupSockAddr(p) => p.load(),
        AyaProgram::CgroupSock(p) => p.load(),
        AyaProgram::SockOps(p) => p.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Links always allow other programs beside them: BPF_F_ALLOW_MULTI is implied, and an error if given.
fn attach(
    program: &mut AyaProgram,
    place: &'static str,
    cgroup: &Cgroup,
    mut pins: Option<&mut Pins>,
) -> Result<(), ProgramError> {
    if let Some(pins) = &mut pins
        && pins.replace(place, program.fd()?.as_fd())?
    {
        return Ok(());
    }
    let directory = cgroup.directory.as_fd();
    let mode = CgroupAttachMode::Single;
    match program {
        AyaProgram::CgroupSkb(p) => {
            // The object says which way each program looks; without a word it would be all the same to the kernel.
            let way = p.expected_attach_type().unwrap_or(CgroupSkbAttachType::Ingress);
            let link = p.attach(directory, way, mode)?;
            pins.map_or(Ok(()), |pins| keep(pins, place, p.take_link(link)?))
        }
        AyaProgram::CgroupSock(p) => {
            let link = p.attach(directory, mode)?;
            pins.map_or(Ok(()), |pins| keep(pins, place, p.take_link(link)?))
        }
        AyaProgram::CgroupSockAddr(p) => {
            let link = p.attach(directory, mode)?;
            pins.map_or(Ok(()), |pins| keep(pins, place, p.take_link(link)?))
        }
        AyaProgram::SockOps(p) => {
            let link = p.attach(directory, mode)?;
            pins.map_or(Ok(()), |pins| keep(pins, place, p.take_link(link)?))
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn keep<L: Link>(pins: &mut Pins, place: &'static str, link: L) -> Result<(), ProgramError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    Ok(pins.keep(place, link)?)
}

/// Creating maps and reading the object failed.
fn refused(error: EbpfError) -> Error {
    let hint = match &error {
        EbpfError::MapError(aya::maps::MapError::CreateError { io_error, .. }) => match io_error.kind() {
            std::io::ErrorKind::PermissionDenied => memlock_hint(),
            _ => "",
        },
        _ => "",
    };
    Error::Load { what: "the kernel object".into(), reason: chain(&error), hint }
}

fn memlock_hint() -> &'static str {
    if rights::lockdown().is_some() {
        LOCKDOWN
    } else {
        "; on kernels before 5.11 raise the locked-memory limit too (LimitMEMLOCK=infinity, ulimit -l unlimited)"
    }
}

const LOCKDOWN: &str = "; the kernel is locked down (/sys/kernel/security/lockdown), which forbids BPF to read kernel \
                        memory: boot without lockdown=confidentiality";

fn hint(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.kind() == std::io::ErrorKind::PermissionDenied => {
            if rights::lockdown().is_some() {
                LOCKDOWN
            } else {
                "; a security module or a seccomp filter (container runtimes have one) may forbid bpf()"
            }
        }
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EINVAL) => {
            "; the kernel may be built without CONFIG_CGROUP_BPF"
        }
        _ => "",
    }
}

fn attach_hint(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::SyscallError(call) => match call.io_error.raw_os_error() {
            Some(libc::EPERM) => {
                "; a program that tolerates no other may be attached to this cgroup or to one above it: bpftool cgroup \
                 tree shows which"
            }
            Some(libc::E2BIG) => "; 64 programs of this kind are attached already, the most that a cgroup holds",
            Some(libc::EINVAL) => "; the kernel may be built without CONFIG_CGROUP_BPF",
            _ => "",
        },
        _ => "",
    }
}

/// What the kernel said, with the end of the verifier's words, which hold the reason.
pub(super) fn program_error(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> = log.lines().filter(|l| !l.trim().is_empty()).rev().take(6).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            if tail.is_empty() {
                io_error.to_string()
            } else {
                format!("{io_error}; the verifier says:\n  {}", tail.join("\n  "))
            }
        }
        other => chain(other),
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
