//! The settings in; what becomes of each attribute out, found by the attribute's name.

use std::{fmt, net::IpAddr, sync::Arc};

use super::{KeyError, hash::Hasher, key};
use crate::{
    config,
    record::schema::{self, privacy},
};

/// What becomes of each attribute.
#[derive(Debug)]
pub struct Policy {
    /// Attributes that don't stay as they are, or that the body repeats: by the length of their names.
    rules: Vec<Vec<Rule>>,
    prefix: Prefix,
    hasher: Option<Hasher>,
    /// The ids of flows and records are hashed with the key: they are made of addresses.
    keyed_ids: bool,
}

/// What becomes of one attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub name: &'static str,
    pub fate: Fate,
    /// Which part of the body repeats it.
    pub part: Option<Part>,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    LeaveOut,
    /// An address, cut to its network.
    Shorten,
    /// An address, cut and then hashed.
    ShortenAndHash,
    Hash,
    /// The id of the flow.
    FlowId,
    /// The id of the record.
    RecordId,
}

/// Parts of the body, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Direction,
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    DestinationName,
    Executable,
    Thread,
    Process,
}

/// How many parts there are.
pub(super) const PARTS: usize = 9;

/// How much of addresses stays.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    v4: Option<u8>,
    v6: Option<u8>,
}

/// What the body repeats.
const BODY: [(&str, Part); PARTS] = [
    (schema::DIRECTION, Part::Direction),
    (schema::SOURCE_ADDRESS, Part::SourceAddress),
    (schema::SOURCE_PORT, Part::SourcePort),
    (schema::DESTINATION_ADDRESS, Part::DestinationAddress),
    (schema::DESTINATION_PORT, Part::DestinationPort),
    (schema::DESTINATION_NAMES, Part::DestinationName),
    (schema::EXECUTABLE_NAME, Part::Executable),
    (schema::THREAD_NAME, Part::Thread),
    (schema::PID, Part::Process),
];

// === impl Policy

impl Policy {
    /// What the settings say; `None` where they change nothing. Reads the file of the key.
    ///
    /// # Errors
    /// There is no key where one is needed, or it can't be read.
    pub fn read(record: &config::Record) -> Result<Option<Arc<Self>>, KeyError> {
        let key = key::read(&record.hash)?;
        Ok(Self::new(record, key.as_deref()).map(Arc::new))
    }

    /// With this key, where there is one.
    pub fn new(record: &config::Record, key: Option<&[u8]>) -> Option<Self> {
        let prefix = Prefix { v4: record.shorten.ipv4, v6: record.shorten.ipv6 };
        let choice = Choice { record, key: key.is_some(), shortens: prefix.v4.is_some() || prefix.v6.is_some() };
        let keyed_ids = key.is_some() && !choice.shows_addresses();
        let mut rules: Vec<Vec<Rule>> = Vec::new();
        let mut changes = false;
        for name in privacy::of_flows() {
            let fate = choice.fate(name);
            let part = BODY.iter().find(|(attribute, _)| *attribute == name).map(|(_, part)| *part);
            changes |= fate != Fate::Keep;
            if fate != Fate::Keep || part.is_some() {
                rules.resize_with(rules.len().max(name.len() + 1), Vec::new);
                rules[name.len()].push(Rule { name, fate, part });
            }
        }
        changes.then(|| Self { rules, prefix, hasher: key.map(Hasher::new), keyed_ids })
    }

    /// Whether these settings leave an attribute out.
    pub fn leaves_out(record: &config::Record, attribute: &str) -> bool {
        Choice { record, key: false, shortens: false }.leaves_out(attribute)
    }

    /// The id of a flow as records have it.
    pub fn id(&self, id: u128) -> u128 {
        self.hasher.as_ref().filter(|_| self.keyed_ids).map_or(id, |hasher| hasher.id(id))
    }

    pub(super) fn hasher(&self) -> Option<&Hasher> {
        self.hasher.as_ref()
    }

    /// What becomes of an attribute; `None`: it stays, and the body does not repeat it.
    #[inline]
    pub(super) fn rule(&self, name: &[u8]) -> Option<Rule> {
        self.rules.get(name.len())?.iter().find(|rule| rule.name.as_bytes() == name).copied()
    }

    /// The network of an address.
    pub(super) fn network(&self, ip: IpAddr) -> IpAddr {
        match (ip.to_canonical(), ip) {
            (IpAddr::V4(v4), _) => {
                self.prefix.v4.map_or(ip, |bits| IpAddr::V4((v4.to_bits() & mask(bits, 32) as u32).into()))
            }
            (_, IpAddr::V6(v6)) => {
                self.prefix.v6.map_or(ip, |bits| IpAddr::V6((v6.to_bits() & mask(bits, 128)).into()))
            }
            (_, other) => other,
        }
    }
}

impl fmt::Display for Policy {
    /// How many attributes are left out, shortened and hashed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |fates: &[Fate]| self.rules.iter().flatten().filter(|rule| fates.contains(&rule.fate)).count();
        let left_out = count(&[Fate::LeaveOut]);
        let shortened = count(&[Fate::Shorten, Fate::ShortenAndHash]);
        let hashed = count(&[Fate::Hash, Fate::ShortenAndHash, Fate::FlowId, Fate::RecordId]);
        write!(f, "of the attributes {left_out} are left out, {shortened} shortened, {hashed} hashed")
    }
}

/// The upper `bits` of `of` bits.
fn mask(bits: u8, of: u8) -> u128 {
    let low = of.saturating_sub(bits);
    u128::MAX.checked_shl(low.into()).unwrap_or(0)
}

/// The settings, as they are asked.
struct Choice<'a> {
    record: &'a config::Record,
    key: bool,
    shortens: bool,
}

// === impl Choice

impl Choice<'_> {
    fn leaves_out(&self, name: &str) -> bool {
        let config::Attributes { include, exclude } = &self.record.attributes;
        let original = privacy::original(name);
        let always = [schema::UID, schema::EVENT_NAME].contains(&name);
        let included = include.is_empty() || always || include.has(name) || include.has(original);
        let beside = privacy::beside(name).is_some_and(|main| self.leaves_out(main));
        !included || exclude.has(name) || exclude.has(original) || beside
    }

    fn fate(&self, name: &str) -> Fate {
        if self.leaves_out(name) {
            return Fate::LeaveOut;
        }
        if [schema::UID, schema::FLOW_ID, schema::COMMUNITY_ID].contains(&name) {
            return self.fate_of_id(name);
        }
        let original = privacy::original(name);
        let hash = self.record.hash.attributes.has(original);
        let shorten = self.shortens && privacy::group("addresses").contains(&original);
        match (shorten, hash) {
            (true, true) => Fate::ShortenAndHash,
            (true, false) => Fate::Shorten,
            (false, true) => Fate::Hash,
            (false, false) => Fate::Keep,
        }
    }

    /// Ids are made of addresses, so they would let one test guesses. The Community ID can be made by anybody: where the
    /// addresses are not shown it is hashed, or left out without a key.
    fn fate_of_id(&self, name: &str) -> Fate {
        match name {
            _ if self.shows_addresses() => Fate::Keep,
            schema::COMMUNITY_ID if self.key => Fate::Hash,
            schema::COMMUNITY_ID => Fate::LeaveOut,
            _ if !self.key => Fate::Keep,
            schema::UID => Fate::RecordId,
            _ => Fate::FlowId,
        }
    }

    /// Whether both addresses are written as they are.
    fn shows_addresses(&self) -> bool {
        privacy::group("addresses").iter().all(|name| self.fate(name) == Fate::Keep)
    }
}
