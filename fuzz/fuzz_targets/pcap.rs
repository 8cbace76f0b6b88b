//! Any bytes as a capture, through the reader, the flag logic and the names, with small tables: no panic, no endless loop,
//! bounded tables, balances that hold, and no event twice; but where the capture has the same SYN at the same time twice, for
//! that is the same attempt again by all that can be told.

#![no_main]

use std::{collections::HashSet, io::Cursor, mem::discriminant, sync::Arc};

use flowtel::{
    capture::pcap::{Content, Reader, decode},
    dns::queries::Queries,
    flow::flags::{FlagFlows, Settings},
    ledger::Ledger,
};
use flowtel_common::packet::Flags;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::new(Cursor::new(data.to_vec())) else { return };
    let ledger = Arc::new(Ledger::default());
    let local = "10.0.0.0/8".parse().into_iter().collect();
    let settings = Settings { attempts: 8, flows: 8, local };
    let mut flows = FlagFlows::new(settings, Arc::clone(&ledger));
    let mut queries = Queries::default();
    let (mut told, mut syns, mut twins) = (HashSet::new(), HashSet::new(), false);
    let mut steps = 0;
    let mut read = 0;
    while let Ok(true) = reader.next(|packet| match decode(packet) {
        Content::Segment(segment) => {
            read += 1;
            if segment.flags.0 & Flags::SYN != 0 {
                twins |= !syns.insert((segment.source, segment.destination, segment.sequence, segment.time));
            }
            flows.on(&segment, |event| {
                assert!(told.insert((event.flow.id, event.at.time, discriminant(&event.what))) || twins);
            });
        }
        Content::Datagram(datagram) => drop(queries.on(&datagram)),
        Content::Other | Content::Unreadable => {}
    }) {
        steps += 1;
        assert!(flows.open_flows() <= 8);
        // Packed captures may hold much; plain ones hold no more blocks than bytes.
        if steps > 200_000 {
            return;
        }
    }
    flows.finish(|event| assert!(told.insert((event.flow.id, event.at.time, discriminant(&event.what))) || twins));
    let r = &ledger.replay;
    assert_eq!(read, r.joined.get() + r.unused.get());
    let attempts = [&r.begun, &r.failed, &r.half_open, &r.unfinished, &r.attempts_forgotten];
    assert_eq!(r.attempts.get(), attempts.iter().map(|n| n.get()).sum::<u64>());
    let fates = [&r.ended, &r.open, &r.replaced, &r.forgotten];
    assert_eq!(r.begun.get() + r.unseen.get(), fates.iter().map(|n| n.get()).sum::<u64>());
});
