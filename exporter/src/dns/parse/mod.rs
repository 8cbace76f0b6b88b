//! DNS messages (RFC 1035): the bytes of a response come in, the addresses that it proves and their names go out.
//!
//! Proven is an address whose record is reached from the question: it belongs to the name asked for, or to one that
//! CNAME records lead to from there. Other records prove nothing and are passed over, and so are the address hints of
//! HTTPS and SVCB records (RFC 9460, 7.3): clients may not use them without asking for the addresses, too.
//!
//! The names of a reverse look-up are those of the PTR records that the question leads to likewise.
//!
//! Must never panic, and never work or remember more than in proportion to [`MAX_RECORDS`], whatever the bytes are.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    time::Duration,
};

use domain::{
    base::{
        Message, ParsedName, ParsedRecord,
        iana::{Class, Opcode, Rcode, Rtype},
        name::ToLabelIter,
    },
    rdata::{A, Aaaa, Cname, Ptr},
};

use super::{
    arpa,
    text::{self, TooLong},
};

/// CNAME links that are followed from the question: as many as, or more than, resolvers follow themselves.
pub const MAX_LINKS: usize = 16;
/// Records of an answer section that are looked at. 2,048 bytes hold fewer.
pub const MAX_RECORDS: usize = 256;

/// Parses messages. It keeps its memory from one to the next: in steady state nothing is allocated.
#[derive(Debug, Default)]
pub struct Parser {
    /// All names of the message, one after the other.
    text: String,
    aliases: Vec<Alias>,
    hosts: Vec<Host>,
    /// PTR records.
    pointers: Vec<Alias>,
    /// The name asked for, then CNAMEs in the order of the chain.
    chain: Vec<Link>,
    /// That as text, names with a blank between them.
    names: String,
}

/// What a response says.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// What was asked for.
    pub question: Question<'a>,
    parser: &'a Parser,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name: lower case, without the root's dot, odd bytes escaped; empty for the root.
    pub name: &'a str,
    /// The type of record.
    pub kind: Kind,
}

/// A type of record, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names of an address.
    Ptr,
    /// Another, by its number.
    Other(u16),
}

/// An address with its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof<'a> {
    /// The address, canonical: an IPv4-mapped one is IPv4.
    pub address: IpAddr,
    /// The name asked for, then the CNAMEs that led to the address, in order, a blank between them. No name holds one.
    pub names: &'a str,
    /// The least time to live along the way.
    pub ttl: Duration,
}

/// Why a message says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end, or make no sense, where a part of the message should be.
    #[error("the bytes are no DNS message")]
    Bytes,
    /// A query, or another operation than a standard query.
    #[error("the message is no response to a standard query")]
    NoResponse,
    /// Not exactly one question, or not of class IN.
    #[error("the message has not exactly one question of class IN")]
    Question,
    /// The text of a name would be longer than [`text::MAX_NAME`].
    #[error("a name is too long as text")]
    Name,
}

/// A CNAME or PTR record.
#[derive(Debug)]
struct Alias {
    owner: Range<usize>,
    target: Range<usize>,
    ttl: u32,
}

/// An A or AAAA record.
#[derive(Debug)]
struct Host {
    owner: Range<usize>,
    address: IpAddr,
    ttl: u32,
}

/// A name of the chain.
#[derive(Debug)]
struct Link {
    name: Range<usize>,
    /// Where the names up to this one end.
    names_end: usize,
    /// The least time to live up to here, seconds.
    ttl: u32,
}

// === impl Parser

impl Parser {
    /// Reads a response. `truncated`: the message was longer than `bytes`, so its records are believed up to the cut.
    ///
    /// # Errors
    /// The bytes are not a whole and proper response, or one cut where `truncated` doesn't say so.
    pub fn parse(&mut self, bytes: &[u8], truncated: bool) -> Result<Response<'_>, Malformed> {
        self.clear();
        let message = Message::from_slice(bytes).map_err(|_short| Malformed::Bytes)?;
        let header = message.header();
        if !header.qr() || header.opcode() != Opcode::QUERY {
            return Err(Malformed::NoResponse);
        }
        if message.header_counts().qdcount() != 1 {
            return Err(Malformed::Question);
        }
        let mut section = message.question();
        let question = section.next().ok_or(Malformed::Bytes)?.map_err(|_cut| Malformed::Bytes)?;
        if question.qclass() != Class::IN {
            return Err(Malformed::Question);
        }
        let name = self.store(question.qname())?;
        let kind = Kind::from(question.qtype());
        if header.rcode() == Rcode::NOERROR {
            let records = section.answer().map_err(|_cut| Malformed::Bytes)?;
            for record in records.take(MAX_RECORDS) {
                match record.map_err(|_bytes| Malformed::Bytes).and_then(|record| self.take(&record)) {
                    Ok(()) => {}
                    Err(Malformed::Bytes) if truncated => break,
                    Err(e) => return Err(e),
                }
            }
        }
        self.follow(name.clone());
        Ok(Response { question: Question { name: &self.text[name], kind }, parser: self })
    }

    /// Forgets the last message, and gives back memory that only an odd one needed.
    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(4096);
        self.aliases.clear();
        self.hosts.clear();
        self.pointers.clear();
        self.chain.clear();
        self.names.clear();
    }

    fn store<T: AsRef<[u8]>>(&mut self, name: &ParsedName<T>) -> Result<Range<usize>, Malformed> {
        let start = self.text.len();
        text::append(&mut self.text, name.iter_labels().map(|label| label.as_slice()))
            .map_err(|TooLong| Malformed::Name)?;
        Ok(start..self.text.len())
    }

    /// Notes a record of the answer section, where it is one that matters.
    fn take(&mut self, record: &ParsedRecord<'_, [u8]>) -> Result<(), Malformed> {
        if record.class() != Class::IN {
            return Ok(());
        }
        let bytes = |_| Malformed::Bytes;
        // One with the first bit set stands for zero (RFC 2181, 8).
        let ttl = Some(record.ttl().as_secs()).filter(|ttl| i32::try_from(*ttl).is_ok()).unwrap_or(0);
        let address = match record.rtype() {
            Rtype::A => record.to_record::<A>().map_err(bytes)?.map(|r| IpAddr::V4(r.data().addr())),
            Rtype::AAAA => record.to_record::<Aaaa>().map_err(bytes)?.map(|r| canonical(r.data().addr())),
            Rtype::CNAME => {
                if let Some(cname) = record.to_record::<Cname<_>>().map_err(bytes)? {
                    let (owner, target) = (self.store(&record.owner())?, self.store(cname.data().cname())?);
                    self.aliases.push(Alias { owner, target, ttl });
                }
                None
            }
            Rtype::PTR => {
                if let Some(ptr) = record.to_record::<Ptr<_>>().map_err(bytes)? {
                    let (owner, target) = (self.store(&record.owner())?, self.store(ptr.data().ptrdname())?);
                    self.pointers.push(Alias { owner, target, ttl });
                }
                None
            }
            _ => None,
        };
        if let Some(address) = address {
            let owner = self.store(&record.owner())?;
            self.hosts.push(Host { owner, address, ttl });
        }
        Ok(())
    }

    /// Makes the chain of names that begins with the question's.
    fn follow(&mut self, question: Range<usize>) {
        self.names.push_str(&self.text[question.clone()]);
        self.chain.push(Link { name: question, names_end: self.names.len(), ttl: u32::MAX });
        while let Some(last) = self.chain.last().filter(|_| self.chain.len() <= MAX_LINKS) {
            let name = &self.text[last.name.clone()];
            // A name has one CNAME at most (RFC 2181, 10.1): of several the first counts.
            let Some(alias) = self.aliases.iter().find(|alias| self.text[alias.owner.clone()] == *name) else { return };
            let target = &self.text[alias.target.clone()];
            if target.is_empty() || self.chain.iter().any(|link| self.text[link.name.clone()] == *target) {
                return; // a loop, or the root: there is no way on
            }
            self.names.push(' ');
            self.names.push_str(target);
            let ttl = last.ttl.min(alias.ttl);
            self.chain.push(Link { name: alias.target.clone(), names_end: self.names.len(), ttl });
        }
    }
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

// === impl Response

impl<'a> Response<'a> {
    /// The addresses that the question leads to, in the order of their records.
    pub fn proofs(&self) -> impl Iterator<Item = Proof<'a>> + use<'a> {
        let Parser { text, hosts, chain, names, .. } = self.parser;
        // The root can't have addresses.
        let chain = if self.question.name.is_empty() { &[] } else { chain.as_slice() };
        hosts.iter().filter_map(move |host| {
            let link = chain.iter().find(|link| text[link.name.clone()] == text[host.owner.clone()])?;
            let ttl = Duration::from_secs(link.ttl.min(host.ttl).into());
            Some(Proof { address: host.address, names: &names[..link.names_end], ttl })
        })
    }

    /// What a reverse look-up found: the address that it asks about, with each of its names. A delegated part of a network
    /// has CNAME records before them (RFC 2317).
    pub fn pointers(&self) -> impl Iterator<Item = Proof<'a>> + use<'a> {
        let Parser { text, pointers, chain, .. } = self.parser;
        let asked = if self.question.kind == Kind::Ptr { arpa::address(self.question.name) } else { None };
        asked.into_iter().flat_map(move |address| {
            pointers.iter().filter(|pointer| !pointer.target.is_empty()).filter_map(move |pointer| {
                let link = chain.iter().find(|link| text[link.name.clone()] == text[pointer.owner.clone()])?;
                let ttl = Duration::from_secs(link.ttl.min(pointer.ttl).into());
                Some(Proof { address, names: &text[pointer.target.clone()], ttl })
            })
        })
    }
}

// === impl Kind

impl From<Rtype> for Kind {
    fn from(rtype: Rtype) -> Self {
        match rtype {
            Rtype::A => Self::A,
            Rtype::AAAA => Self::Aaaa,
            Rtype::PTR => Self::Ptr,
            other => Self::Other(other.to_int()),
        }
    }
}

#[cfg(test)]
mod tests;
