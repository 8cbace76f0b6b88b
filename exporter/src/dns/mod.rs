//! DNS answers in, names for addresses out.
//!
//! - [`parse`]: the bytes of a response, to the addresses that it proves and their names;
//! - [`cache`]: what was proved, by address, until it is too old;
//! - [`hosts`]: names of the hosts file;
//! - [`arpa`]: the address that a reverse look-up asks about;
//! - [`names`]: what a look-up gives;
//! - [`reader`]: who asked, and who may be told;
//! - [`queries`]: which datagrams of a capture are answers that were asked for.
//!
//! What comes in are answers that this host asked for: the kernel's side has matched each with a query that left the
//! same socket, one answer a query. Others than those over UDP are not seen: DNS over TCP, TLS, HTTPS or QUIC.
//!
//! Must never trust a time to live, grow without bound, or let one container push out what others asked for.

pub mod arpa;
pub mod cache;
pub mod hosts;
pub mod names;
pub mod parse;
pub mod queries;
mod question;
pub mod reader;
pub mod text;

use std::{net::IpAddr, sync::Arc};

use self::{
    cache::{Cache, Seen},
    hosts::Hosts,
    parse::{Malformed, Parser, Proof},
};
pub use self::{
    names::{MAX_NAMES, Names, Origin, State},
    reader::{Asker, Reader},
};
use crate::{capture::KernelTime, config, ledger::Ledger};

/// Names of reverse look-ups may take one part in so many of the limits.
const REVERSE_PART: u32 = 8;

/// An answer as the kernel reports it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// When it arrived.
    pub time: KernelTime,
    /// Who asked.
    pub asker: Asker,
    /// What was asked: the bytes of the query behind its header, perhaps cut short.
    pub asked: &'a [u8],
    /// The DNS message.
    pub payload: &'a [u8],
    /// The message was longer than what was captured of it.
    pub truncated: bool,
}

/// The stage that knows names.
#[derive(Debug)]
pub struct Dns {
    parser: Parser,
    cache: Cache,
    /// Names of reverse look-ups, where they are wanted.
    reverse: Option<Cache>,
    hosts: Hosts,
    /// Ports of name servers.
    ports: Vec<u16>,
    ledger: Arc<Ledger>,
}

/// The limits of names, and those of names of reverse look-ups, if they are wanted: a part of the whole.
fn parts(config: &config::Dns) -> (config::Dns, Option<config::Dns>) {
    match config.reverse {
        config::Reverse::Off => (config.clone(), None),
        config::Reverse::Observed => {
            let addresses = config.max_addresses / REVERSE_PART;
            let bytes = config.max_bytes.0 / u64::from(REVERSE_PART);
            let part = |max_addresses, max_bytes| config::Dns {
                max_addresses,
                max_bytes: config::Bytes(max_bytes),
                ..config.clone()
            };
            let most = part(config.max_addresses - addresses, config.max_bytes.0 - bytes);
            (most, Some(part(addresses, bytes)))
        }
    }
}

// === impl Dns

impl Dns {
    /// A fresh stage; it reads the hosts file. Whether there is to be one at all (`dns.enabled`) is its owner's to ask.
    pub fn new(config: &config::Dns, ledger: Arc<Ledger>) -> Self {
        let (most, least) = parts(config);
        Self {
            parser: Parser::default(),
            cache: Cache::new(&most),
            reverse: least.as_ref().map(Cache::new),
            hosts: Hosts::read(&config.hosts_file, KernelTime::now(), &ledger.dns.hosts_ignored),
            ports: config.ports.clone(),
            ledger,
        }
    }

    /// Takes one answer. Answers come about in the order of kernel time.
    pub fn on(&mut self, answer: &Answer<'_>) {
        let Self { parser, cache, reverse, ledger, .. } = self;
        let ledger = &ledger.dns;
        ledger.read.add(1);
        let response = match parser.parse(answer.payload, answer.truncated) {
            Ok(response) => response,
            Err(Malformed::Bytes) if answer.truncated => return ledger.truncated.add(1),
            Err(_) => return ledger.malformed.add(1),
        };
        if !question::is_repeated(answer.asked, answer.payload) {
            return ledger.unasked.add(1);
        }
        let mut any = false;
        let mut keep = |cache: &mut Cache, proof: Proof<'_>| {
            any = true;
            let Proof { address, names, ttl } = proof;
            cache.insert(&Seen { address, asker: answer.asker, names, ttl, time: answer.time }, ledger);
        };
        response.proofs().for_each(|proof| keep(cache, proof));
        if let Some(reverse) = reverse {
            response.pointers().for_each(|proof| keep(reverse, proof));
        }
        let fate = match any {
            true => &ledger.parsed,
            false if answer.truncated => &ledger.truncated,
            false => &ledger.without_address,
        };
        fate.add(1);
    }

    /// What an address was called at a time, by whoever connected to it or else by anybody whose answers hold for `reader`.
    /// Names of fresh answers win; then come those of the hosts file, which a program asks before it asks
    /// for an answer; then those whose time to live is over; then those of reverse look-ups, if any. `None`: no name is known.
    ///
    /// `at` may lie up to 2 s behind the newest answer taken in: an answer after `at` doesn't count.
    pub fn names(&self, address: IpAddr, reader: &Reader, at: KernelTime) -> Option<Names<'_>> {
        let seen = self.cache.names(address, reader, at);
        match seen {
            Some(names) if names.state == State::Fresh => Some(names),
            _ => {
                let hosts = reader.hosts.then(|| self.hosts.names(address)).flatten();
                hosts.or(seen).or_else(|| self.reverse_names(address, reader, at))
            }
        }
    }

    fn reverse_names(&self, address: IpAddr, reader: &Reader, at: KernelTime) -> Option<Names<'_>> {
        let mut names = self.reverse.as_ref()?.names(address, reader, at)?;
        names.state = State::Reverse;
        Some(names)
    }

    /// Goes on with changed limits, and with the hosts file that is named now.
    pub fn reconfigure(&mut self, config: &config::Dns) {
        let (most, least) = parts(config);
        self.cache.set_limits(&most, &self.ledger.dns);
        self.reverse = least.map(|least| {
            let mut cache = self.reverse.take().unwrap_or_else(|| Cache::new(&least));
            cache.set_limits(&least, &self.ledger.dns);
            cache
        });
        self.hosts = Hosts::read(&config.hosts_file, KernelTime::now(), &self.ledger.dns.hosts_ignored);
    }

    /// Counts a connection of this host to a port of name servers: whoever looks for a name that is not there learns that names
    /// were asked for unseen (RFC 7766; RFC 7858, 3.1).
    pub fn connects(&self, port: u16) {
        match port {
            853 => self.ledger.dns.over_tls.add(1),
            port if self.ports.contains(&port) => self.ledger.dns.over_tcp.add(1),
            _ => {}
        }
    }

    /// Addresses with names, and bytes of names.
    pub fn held(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }

    /// Forgets some of what is too old, and follows changes of the hosts file. To be called at each reading of the
    /// rings; it does little each time.
    pub fn tick(&mut self, now: KernelTime) {
        for cache in [&mut self.cache].into_iter().chain(&mut self.reverse) {
            cache.sweep(now, &self.ledger.dns);
        }
        self.hosts.tick(now, &self.ledger.dns.hosts_ignored);
    }
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
