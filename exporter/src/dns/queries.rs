//! Datagrams from and to name servers in, answers that were asked for out: what the kernel side does for a live host, for
//! captures. An answer counts once, and only where a query with the same id went the same way back; whether it repeats
//! the question, [`Dns::on`](super::Dns::on) looks.
//!
//! Bounded: the oldest queries go first.

use std::{collections::VecDeque, net::SocketAddr};

use flowtel_common::event::DNS_ASKED;
use hashbrown::HashMap;

use crate::capture::pcap::Datagram;

/// Queries that may await an answer.
const MOST: usize = 8192;
/// Length of a message's header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Where it says that it is a response.
const RESPONSE: u8 = 0x80;
const PORT: u16 = 53;

/// Queries that await their answer.
#[derive(Debug, Default)]
pub struct Queries {
    waiting: HashMap<Query, Asked, foldhash::fast::RandomState>,
    /// By age; what was answered, or asked again, is stale there.
    ages: VecDeque<(u64, Query)>,
    count: u64,
}

/// Who asked whom, under which id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Query {
    client: SocketAddr,
    server: SocketAddr,
    id: [u8; 2],
}

/// What was asked: the bytes behind the query's header, as many as the kernel side keeps.
#[derive(Debug, Clone)]
pub struct Asked {
    number: u64,
    bytes: Box<[u8]>,
}

// === impl Queries

impl Queries {
    /// Takes a datagram. Returns what was asked, where it is an answer to a query that was seen.
    pub fn on(&mut self, datagram: &Datagram<'_>) -> Option<Asked> {
        let head: &[u8; HEADER] = datagram.payload.first_chunk()?;
        let id = [head[0], head[1]];
        let is_response = head[2] & RESPONSE != 0;
        if is_response && datagram.source.port() == PORT {
            let query = Query { client: datagram.destination, server: datagram.source, id };
            return self.waiting.remove(&query);
        }
        if !is_response && datagram.destination.port() == PORT {
            let query = Query { client: datagram.source, server: datagram.destination, id };
            let rest = datagram.payload.get(HEADER..).unwrap_or_default();
            let bytes = rest.get(..DNS_ASKED).unwrap_or(rest).into();
            self.waiting.insert(query, Asked { number: self.count, bytes });
            self.ages.push_back((self.count, query));
            self.count += 1;
            while self.ages.len() > MOST {
                let Some((number, query)) = self.ages.pop_front() else { break };
                if self.waiting.get(&query).is_some_and(|asked| asked.number == number) {
                    self.waiting.remove(&query);
                }
            }
        }
        None
    }
}

// === impl Asked

impl Asked {
    /// The bytes behind the query's header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::KernelTime;

    const CLIENT: &str = "10.0.0.1:40000";
    const SERVER: &str = "10.0.0.53:53";

    fn message(id: u8, flags: u8) -> Vec<u8> {
        [&[0, id, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01a\0\0\x01\0\x01"].concat()
    }

    fn datagram<'a>(from: &str, to: &str, payload: &'a [u8]) -> Datagram<'a> {
        let end = |text: &str| text.parse().expect("an endpoint");
        Datagram { time: KernelTime(1), source: end(from), destination: end(to), payload, truncated: false }
    }

    #[test]
    fn an_answer_counts_once_and_only_where_it_was_asked_for() {
        let mut queries = Queries::default();
        let (query, answer) = (message(7, 1), message(7, 0x81));
        assert!(queries.on(&datagram(SERVER, CLIENT, &answer)).is_none(), "nobody has asked");
        assert!(queries.on(&datagram(CLIENT, SERVER, &query)).is_none());
        assert!(queries.on(&datagram("10.0.0.54:53", CLIENT, &answer)).is_none(), "another server");
        assert!(queries.on(&datagram(SERVER, "10.0.0.1:40001", &answer)).is_none(), "another port");
        assert!(queries.on(&datagram(SERVER, CLIENT, &message(8, 0x81))).is_none(), "another id");
        let asked = queries.on(&datagram(SERVER, CLIENT, &answer)).expect("the answer");
        assert_eq!(asked.bytes(), &query[HEADER..]);
        assert!(queries.on(&datagram(SERVER, CLIENT, &answer)).is_none(), "a second one");
    }

    #[test]
    fn a_flood_of_queries_pushes_out_the_oldest_and_takes_bounded_memory() {
        let mut queries = Queries::default();
        queries.on(&datagram(CLIENT, SERVER, &message(7, 1)));
        for port in 0..20_000u16 {
            queries.on(&datagram(&format!("10.0.0.2:{}", 1000 + port), SERVER, &message(7, 1)));
        }
        assert!(queries.waiting.len() <= MOST && queries.ages.len() <= MOST);
        assert!(queries.on(&datagram(SERVER, CLIENT, &message(7, 0x81))).is_none());
        assert!(queries.on(&datagram(SERVER, "10.0.0.2:20999", &message(7, 0x81))).is_some());
    }
}
