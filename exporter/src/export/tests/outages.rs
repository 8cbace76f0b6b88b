//! Receivers that are away, slow, flapping or broken: nothing is lost that may be tried again.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use tonic::Code;

use super::{server::Answer, *};

#[tokio::test]
async fn nothing_is_lost_when_seven_of_ten_requests_are_refused() {
    for target in [0, 1] {
        let server = Server::start(move |n, _| match (n * 7) % 10 {
            0..3 => Answer::Success(vec![]),
            _ if target == 0 => Answer::Grpc(Code::Unavailable, "busy", vec![]),
            _ => Answer::Http(503, vec![], vec![]),
        })
        .await;
        let export = Export::start(&settings(targets(&server)[target].clone()));
        (0..100).for_each(|n| export.push(batch(n * 10, 10)));
        assert_eq!(export.finish().await, Fates { delivered: 1000, ..Fates::default() });
        let accepted = server.accepted();
        assert_eq!(accepted.len(), 1000, "none twice");
        assert_eq!(accepted.into_iter().collect::<BTreeSet<_>>(), (0..1000).collect());
    }
}

#[tokio::test]
async fn while_the_receiver_is_down_one_probe_goes_out_and_afterwards_all_workers() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), Duration::from_millis(5), None, move |_, _| {
        if is_down.load(SeqCst) { Answer::Http(503, vec![], vec![]) } else { Answer::Success(vec![]) }
    })
    .await;
    let export = Export::start(&settings(targets(&server)[1].clone()));
    (0..40).for_each(|n| export.push(batch(n, 1)));
    until("the first answers", || server.requests() > 6).await;
    server.most_at_once();
    let before = server.requests();
    until("some probes", || server.requests() > before + 5).await;
    assert_eq!(server.most_at_once(), 1);
    let probed: BTreeSet<u64> = server.received()[before..].iter().flat_map(|r| names(&r.bytes)).collect();
    assert_eq!(probed, BTreeSet::from([0]), "the probe is the oldest batch");
    down.store(false, SeqCst);
    assert_eq!(export.finish().await, Fates { delivered: 40, ..Fates::default() });
    assert!(server.most_at_once() > 1);
}

#[tokio::test]
async fn a_receiver_that_comes_up_late_gets_everything_oldest_first() {
    for target in [0, 1] {
        let address = Server::start(|_, _| Answer::Silence).await.address;
        let url = format!("http://{address}");
        let target = [Target::Grpc { url: url.clone() }, Target::Http { url }][target].clone();
        let export = Export::start(&Settings { concurrency: 1, ..settings(target) });
        (0..10).for_each(|n| export.push(batch(n, 1)));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(export.queue.waiting().records, 10);
        let server = Server::bind(address, Duration::ZERO, None, |_, _| Answer::Success(vec![])).await;
        assert_eq!(export.finish().await, Fates { delivered: 10, ..Fates::default() });
        assert_eq!(server.accepted(), (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_receiver_that_restarts_on_the_same_port_is_found_again() {
    for target in [0, 1] {
        let first = Server::start(|_, _| Answer::Success(vec![])).await;
        let address = first.address;
        let export = Export::start(&settings(targets(&first)[target].clone()));
        export.push(batch(0, 1));
        until("the first delivery", || export.ledger.records.delivered.get() == 1).await;
        drop(first);
        tokio::time::sleep(Duration::from_millis(10)).await;
        export.push(batch(1, 1));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = Server::bind(address, Duration::ZERO, None, |_, _| Answer::Success(vec![])).await;
        assert_eq!(export.finish().await, Fates { delivered: 2, ..Fates::default() });
        assert_eq!(second.accepted(), [1]);
    }
}

#[tokio::test]
async fn a_request_without_an_answer_is_tried_again_after_the_timeout() {
    for target in [0, 1] {
        let server = Server::start(|n, _| if n == 0 { Answer::Silence } else { Answer::Success(vec![]) }).await;
        let settings = Settings { timeout: Duration::from_millis(100), ..settings(targets(&server)[target].clone()) };
        let export = Export::start(&settings);
        export.push(batch(0, 3));
        assert_eq!(export.finish().await, Fates { delivered: 3, ..Fates::default() });
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn garbage_and_half_closed_connections_lose_nothing_and_are_counted_at_the_end() {
    let cases: [&[u8]; 4] = [
        b"",
        b"\x00\x01\x02 garbage \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for bytes in cases {
        let (address, _task) = server::garbage(bytes).await;
        let url = format!("http://{address}");
        for target in [Target::Grpc { url: url.clone() }, Target::Http { url: url.clone() }] {
            let export = Export::start(&settings(target));
            export.push(batch(0, 3));
            tokio::time::sleep(Duration::from_millis(20)).await;
            let fates = export.stop(Duration::from_millis(20), std::future::pending()).await;
            assert_eq!(fates, Fates { undelivered: 3, ..Fates::default() });
        }
    }
}

#[tokio::test]
async fn an_exporter_that_makes_way_lands_its_requests_and_its_successor_delivers_the_rest() {
    for target in [0, 1] {
        let first = Server::bind("127.0.0.1:0".parse().unwrap(), Duration::from_millis(50), None, |_, _| {
            Answer::Success(vec![])
        })
        .await;
        let second = Server::start(|_, _| Answer::Success(vec![])).await;
        let export = Export::start(&settings(targets(&first)[target].clone()));
        (0..100).for_each(|n| export.push(batch(n, 1)));
        until("requests in flight", || first.requests() > 0).await;
        let Export { handle, queue, ledger } = export;
        handle.retire(LONG).await;
        assert_eq!(queue.waiting().leased, 0, "nothing is in flight any more");
        let taken = first.accepted().len();
        assert!(taken > 0 && taken < 100, "{taken} before the change");
        assert_eq!(ledger.records.delivered.get(), taken as u64);
        let exporter = Exporter::build(&settings(targets(&second)[target].clone())).unwrap();
        let handle = exporter.spawn(queue.clone(), ledger.clone(), &runtime::Handle::current());
        let fates = Export { handle, queue, ledger }.finish().await;
        assert_eq!(fates, Fates { delivered: 100, ..Fates::default() });
        let all: Vec<_> = first.accepted().into_iter().chain(second.accepted()).collect();
        assert_eq!(all.len(), 100, "none twice");
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (0..100).collect());
    }
}

#[tokio::test]
async fn an_exporter_whose_receiver_is_silent_makes_way_all_the_same() {
    for target in [0, 1] {
        let silent = Server::start(|_, _| Answer::Silence).await;
        let second = Server::start(|_, _| Answer::Success(vec![])).await;
        let export = Export::start(&Settings { timeout: LONG, ..settings(targets(&silent)[target].clone()) });
        (0..10).for_each(|n| export.push(batch(n, 1)));
        until("requests in flight", || silent.requests() > 0).await;
        let Export { handle, queue, ledger } = export;
        handle.retire(Duration::from_millis(50)).await;
        let exporter = Exporter::build(&settings(targets(&second)[target].clone())).unwrap();
        let handle = exporter.spawn(queue.clone(), ledger.clone(), &runtime::Handle::current());
        let fates = Export { handle, queue, ledger }.finish().await;
        assert_eq!(fates, Fates { delivered: 10, ..Fates::default() });
        assert_eq!(second.accepted().into_iter().collect::<BTreeSet<_>>(), (0..10).collect());
    }
}

#[tokio::test]
async fn what_is_known_of_the_receiver_follows_it() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let server =
        Server::start(
            move |_, _| {
                if is_down.load(SeqCst) { Answer::Http(503, vec![], vec![]) } else { Answer::Success(vec![]) }
            },
        )
        .await;
    let exporter = Exporter::build(&settings(targets(&server)[1].clone())).unwrap();
    let (ledger, state) = (Arc::new(Ledger::default()), Arc::<State>::default());
    let queue = queue(&ledger);
    let handle = exporter.spawn_telling(queue.clone(), ledger.clone(), &runtime::Handle::current(), state.clone());
    assert_eq!(state.known().link, LinkState::Unknown);
    let export = Export { handle, queue, ledger };
    export.push(batch(0, 1));
    until("the outage", || state.known().link == LinkState::Down).await;
    assert!(state.known().last_error.is_some_and(|(why, _)| why.contains("503")));
    down.store(false, SeqCst);
    until("its end", || state.known().link == LinkState::Up).await;
    let known = state.known();
    assert_eq!((known.outages, known.endpoint), (1, format!("{}/v1/logs", server.url())));
    export.finish().await;
}

/// How soon a receiver is asked again that asked for `silence`, where the longest one that is granted is 50 ms.
async fn again(target: usize, silence: Answer) -> Duration {
    let server = Server::start(move |n, _| if n == 0 { silence.clone() } else { Answer::Success(vec![]) }).await;
    let mut settings = settings(targets(&server)[target].clone());
    settings.retry.longest_silence = Duration::from_millis(50);
    let export = Export::start(&settings);
    let before = tokio::time::Instant::now();
    export.push(batch(0, 1));
    assert_eq!(export.finish().await, Fates { delivered: 1, ..Fates::default() });
    before.elapsed()
}

#[tokio::test]
async fn a_receiver_can_not_silence_flowtel_for_longer_than_the_setting_allows() {
    for wish in ["100000", "99999999999999999999", "Sat, 06 Nov 2094 08:49:37 GMT"] {
        let answer = Answer::Http(429, vec![("retry-after", wish)], vec![]);
        let after = again(1, answer).await;
        assert!(after >= Duration::from_millis(50) && after < LONG, "{wish}: {after:?}");
    }
    // google.rpc.Status with a RetryInfo of 100,000 s.
    let mut details = vec![0x1a, 0x32, 0x0a, 0x28];
    details.extend(b"type.googleapis.com/google.rpc.RetryInfo");
    details.extend([0x12, 0x06, 0x0a, 0x04, 0x08, 0xa0, 0x8d, 0x06]);
    let after = again(0, Answer::Grpc(Code::Unavailable, "busy", details)).await;
    assert!(after >= Duration::from_millis(50) && after < LONG, "{after:?}");
}
