//! Any bytes as a capture, through the reader, the flag logic and the names, with small tables: no panic, no endless loop,
//! bounded tables, balances that hold, and no event twice, also where the capture has the same packets twice.

#![no_main]

use std::{collections::HashSet, io::Cursor, mem::discriminant, sync::Arc, time::Duration};

use flowtel::{
    capture::pcap::{Content, Decapsulate, Reader, decode_with_payload},
    dns::queries::Queries,
    flow::{
        What,
        flags::{FlagFlows, Settings},
    },
    ledger::Ledger,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::new(Cursor::new(data.to_vec())) else { return };
    let ledger = Arc::new(Ledger::default());
    let local = "10.0.0.0/8".parse().into_iter().collect();
    let settings = Settings { attempts: 8, flows: 8, local, update: Some(Duration::from_millis(1)), hellos: true };
    let mut flows = FlagFlows::new(settings, Arc::clone(&ledger));
    let mut queries = Queries::default();
    let mut told = HashSet::new();
    let mut steps = 0;
    let mut read = 0;
    while let Ok(true) = reader.next(|packet| match decode_with_payload(packet, Decapsulate::Inner) {
        (Content::Segment(segment), payload) => {
            read += 1;
            flows.on_payload(&segment, payload, |event| {
                // A capture's clock may go back, so updates may share a time.
                let update = matches!(event.what, What::Update { .. });
                assert!(update || told.insert((event.flow.id, event.at.time, discriminant(&event.what))));
            });
        }
        (Content::Datagram(datagram), _) => drop(queries.on(&datagram)),
        (Content::Other | Content::Unreadable, _) => {}
    }) {
        steps += 1;
        assert!(flows.open_flows() <= 8);
        // Packed captures may hold much; plain ones hold no more blocks than bytes.
        if steps > 200_000 {
            return;
        }
    }
    flows.finish(|event| assert!(told.insert((event.flow.id, event.at.time, discriminant(&event.what)))));
    let r = &ledger.replay;
    assert_eq!(read, r.joined.get() + r.unused.get());
    let attempts = [&r.begun, &r.failed, &r.half_open, &r.unfinished, &r.attempts_forgotten];
    assert_eq!(r.attempts.get(), attempts.iter().map(|n| n.get()).sum::<u64>());
    let fates = [&r.ended, &r.open, &r.replaced, &r.forgotten];
    assert_eq!(r.begun.get() + r.unseen.get(), fates.iter().map(|n| n.get()).sum::<u64>());
});
