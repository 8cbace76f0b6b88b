//! Attributes of owners: the process that owns a side in, its encoded attributes and its words in the body out.
//!
//! The same few processes make most of a host's connections, and what a record says of one is a quarter of the record and
//! never changes. So it is encoded once and copied from then on.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Form, schema,
    text::{self, shown},
    wire::{self, constant_attribute},
};
use crate::{
    enrich::Enriched,
    flow::{Owner, Role},
    owner::{Created, Place, Process},
};

/// Owners remembered: a power of two.
const SLOTS: usize = 64;

/// Encoded owners. Each has one slot that it can be in; whoever came last is in it.
#[derive(Debug)]
pub(super) struct Owners {
    form: Form,
    slots: Vec<Option<Encoded>>,
}

/// What is written of an owner.
#[derive(Debug)]
pub(super) struct Encoded {
    of: Key,
    /// Fields `attributes` of `LogRecord`.
    pub attributes: Vec<u8>,
    /// ` curl[1234]`, control characters escaped.
    pub body: Vec<u8>,
}

/// All that `Encoded` is made of. What is known of a process or a place is shared and never changed, so the same
/// pointer says the same; it is held here, so nothing else can come to lie there.
#[derive(Debug)]
struct Key {
    owner: Owner,
    process: Option<Arc<Process>>,
    place: Option<Arc<Place>>,
}

// === impl Owners

impl Owners {
    /// None yet, to be written in this form.
    pub fn new(form: Form) -> Self {
        Self { form, slots: Vec::new() }
    }

    /// What is written of this event's owner, if it has one. (What it runs, and where, is not known without it.)
    pub fn of(&mut self, enriched: &Enriched<'_>) -> Option<&Encoded> {
        let owner = enriched.event.flow.owner.as_ref()?;
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        // Process ids are mostly given one after the other; one process has few roles.
        let at = (owner.pid as usize).wrapping_mul(4).wrapping_add(owner.role as usize) % SLOTS;
        let slot = self.slots.get_mut(at)?;
        if slot.as_ref().is_none_or(|encoded| !encoded.of.is(owner, enriched)) {
            *slot = Some(Encoded::new(owner, enriched, self.form));
        }
        slot.as_ref()
    }
}

// === impl Key

impl Key {
    fn is(&self, owner: &Owner, enriched: &Enriched<'_>) -> bool {
        let Owner { pid, uid, comm, cgroup, role, source, begin, since: _ } = &self.owner;
        (*pid, *uid, *role, *cgroup) == (owner.pid, owner.uid, owner.role, owner.cgroup)
            && (*source, *begin) == (owner.source, owner.begin)
            && *comm == owner.comm
            && same(self.process.as_ref(), enriched.process.as_ref())
            && same(self.place.as_ref(), enriched.place.as_ref())
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

// === impl Encoded

impl Encoded {
    fn new(owner: &Owner, enriched: &Enriched<'_>, form: Form) -> Self {
        let Enriched { process, place, .. } = enriched;
        let comm = String::from_utf8_lossy(owner.name());
        let mut out = Vec::new();
        wire::int_attribute(&mut out, schema::PID, owner.pid.into());
        wire::int_attribute(&mut out, form.user_id(), owner.uid.into());
        wire::string_attribute(&mut out, schema::THREAD_NAME, comm.as_bytes());
        match owner.role {
            Role::Connector => constant_attribute!(out, schema::PROCESS_ROLE, Role::Connector.as_str()),
            Role::Acceptor => constant_attribute!(out, schema::PROCESS_ROLE, Role::Acceptor.as_str()),
            Role::Listener => constant_attribute!(out, schema::PROCESS_ROLE, Role::Listener.as_str()),
        }
        wire::string_attribute(&mut out, schema::PROCESS_SOURCE, owner.source.as_str().as_bytes());
        if let Some(begin) = owner.begin {
            wire::int_attribute(&mut out, schema::PROCESS_BEGIN_PID, begin.get().into());
        }
        if let Some(process) = process {
            write_process(&mut out, process);
        }
        if let Some(place) = place {
            let parts = [
                (schema::CONTAINER_ID, &place.container_id),
                (schema::POD_UID, &place.pod_uid),
                (schema::UNIT, &place.systemd_unit),
            ];
            for (key, value) in parts {
                if let Some(value) = value {
                    wire::string_attribute(&mut out, key, value.as_bytes());
                }
            }
        }
        let mut body = vec![b' '];
        shown(&mut body, enriched.executable().map_or(&*comm, |executable| &executable.name));
        body.push(b'[');
        text::decimal(&mut body, owner.pid);
        body.push(b']');
        let of = Key { owner: *owner, process: process.clone(), place: place.clone() };
        Self { of, attributes: out, body }
    }
}

fn write_process(out: &mut Vec<u8>, process: &Process) {
    let Process { executable, created, parent, command } = process;
    if let Some(executable) = executable {
        wire::string_attribute(out, schema::EXECUTABLE_NAME, executable.name.as_bytes());
        wire::string_attribute(out, schema::EXECUTABLE_PATH, executable.path.as_bytes());
        wire::string_attribute(out, schema::EXECUTABLE_SOURCE, executable.source.as_str().as_bytes());
        if let Some(state) = executable.state {
            wire::string_attribute(out, schema::EXECUTABLE_STATE, state.as_str().as_bytes());
            if let Some(file) = executable.file {
                let (major, minor) = file.device;
                wire::string_attribute(out, schema::EXECUTABLE_DEVICE, format!("{major}:{minor}").as_bytes());
                wire::int_attribute(out, schema::EXECUTABLE_INODE, file.inode);
            }
        }
    }
    if let Some(created) = created {
        wire::string_attribute(out, schema::CREATION_TIME, iso(*created).as_bytes());
    }
    if let Some(command) = command {
        wire::string_attribute(out, schema::COMMAND, command.as_bytes());
    }
    if let Some(parent) = parent {
        wire::int_attribute(out, schema::PARENT_PID, parent.pid.into());
        if let Some(executable) = &parent.executable {
            wire::string_attribute(out, schema::PARENT_NAME, executable.name.as_bytes());
            wire::string_attribute(out, schema::PARENT_PATH, executable.path.as_bytes());
        }
    }
}

fn iso(created: Created) -> String {
    // Nanoseconds since 1970 in 64 bits end in 2554, within its range.
    let time = Timestamp::from_nanosecond(created.at.0.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    let format = if created.digits == 2 { "%Y-%m-%dT%H:%M:%S%.2fZ" } else { "%Y-%m-%dT%H:%M:%S%.3fZ" };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        capture::{KernelTime, WallTime},
        flow::{Direction, Flow, FlowEvent, Source, Stamp, What},
    };

    fn event(owner: Option<Owner>) -> FlowEvent {
        let end: SocketAddr = ([192, 0, 2, 1], 80).into();
        FlowEvent {
            at: Stamp { time: KernelTime(1), wall: WallTime(1), observed: WallTime(1) },
            flow: Flow {
                netns: crate::capture::NetnsId::UNKNOWN,
                interface: 0,
                id: None,
                community_id: None,
                source: end,
                destination: end,
                direction: Some(Direction::Outgoing),
                local: false,
                owner,
                tunnel: None,
            },
            what: What::Open,
        }
    }

    fn owner(pid: u32, comm: &[u8]) -> Owner {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        Owner {
            pid,
            uid: 0,
            comm: name,
            cgroup: 1,
            since: KernelTime(1),
            role: Role::Connector,
            source: Source::Connect,
            begin: None,
        }
    }

    #[test]
    fn whatever_changes_is_encoded_anew_and_what_does_not_is_not() {
        let executable = |path: &str| Process::example(path);
        let place = |unit: &str| Arc::new(Place { systemd_unit: Some(unit.into()), ..Place::default() });
        let (one, two) = (executable("/one/x"), executable("/two/x"));
        let (here, there) = (place("here.service"), place("there.service"));
        let mut owners = Owners::new(Form::default());
        let base = owner(7, b"curl");
        // All of one slot, and some of them twice, in both orders.
        let variants = [
            (base, &one, &here),
            (base, &two, &here),
            (base, &one, &there),
            (Owner { uid: 5, ..base }, &one, &here),
            (Owner { source: Source::Snapshot, ..base }, &one, &here),
            (Owner { begin: std::num::NonZeroU32::new(6), ..base }, &one, &here),
            (Owner { pid: 7 + 16 * 3, ..base }, &one, &here),
            (owner(7, b"wget"), &one, &here),
            (owner(7, b"a\x1bb"), &one, &here),
            (base, &one, &here),
        ];
        for (owner, executable, place) in variants.iter().chain(variants.iter().rev()) {
            let event = event(Some(*owner));
            let enriched = Enriched {
                process: Some(Arc::clone(executable)),
                place: Some(Arc::clone(place)),
                ..Enriched::bare(&event)
            };
            let fresh = Encoded::new(owner, &enriched, Form::default());
            for _ in 0..2 {
                let encoded = owners.of(&enriched).expect("there is an owner");
                assert_eq!((&encoded.attributes, &encoded.body), (&fresh.attributes, &fresh.body));
            }
            let at = owners.of(&enriched).map(|encoded| encoded.attributes.as_ptr());
            assert_eq!(owners.of(&enriched).map(|encoded| encoded.attributes.as_ptr()), at, "it was there");
        }
        assert!(owners.of(&Enriched::bare(&event(None))).is_none());
        let escaped = event(Some(owner(7, b"a\x1bb")));
        let body = &owners.of(&Enriched::bare(&escaped)).expect("there is an owner").body;
        assert_eq!(String::from_utf8_lossy(body), " a\\u{1b}b[7]");
        let turned = event(Some(owner(7, "a\u{202e}b".as_bytes())));
        let body = &owners.of(&Enriched::bare(&turned)).expect("there is an owner").body;
        assert_eq!(String::from_utf8_lossy(body), " a\\u{202e}b[7]");
    }
}
