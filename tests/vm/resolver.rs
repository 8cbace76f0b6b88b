//! A name server for the guest, on 127.0.0.53: whatever is asked for an IPv4 address has 198.51.100.1, anything else has no
//! answer. One file and std alone, so that rustc makes it for a foreign machine without a C compiler.

use std::{io, net::UdpSocket};

fn main() -> io::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.53", 53))?;
    let mut query = [0; 512];
    loop {
        let (size, peer) = socket.recv_from(&mut query)?;
        if let Some(answer) = answer(&query[..size]) {
            socket.send_to(&answer, peer)?;
        }
    }
}

/// The answer to a query with one question (RFC 1035, 4.1): header and question come back, then the address.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = query.get(12..end + 5)?;
    let is_address = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query[..2].to_vec();
    // A response, recursion wanted and there; counts of questions, answers, authorities, others.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // The name of the question, A, IN, a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1]);
    }
    Some(answer)
}
