//! The end: what is left is counted once.

use super::{server::Answer, *};

#[tokio::test]
async fn what_is_left_after_the_grace_time_is_counted_undelivered_in_flight_included() {
    for target in [0, 1] {
        let server = Server::start(|n, _| if n < 2 { Answer::Success(vec![]) } else { Answer::Silence }).await;
        let export = Export::start(&settings(targets(&server)[target].clone()));
        (0..10).for_each(|n| export.push(batch(n * 3, 3)));
        until("all workers being busy", || server.requests() == 6).await;
        let fates = export.stop(Duration::from_millis(30), std::future::pending()).await;
        assert_eq!(fates, Fates { delivered: 6, undelivered: 24, ..Fates::default() });
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_grace_time() {
    let server = Server::start(|_, _| Answer::Silence).await;
    let export = Export::start(&settings(targets(&server)[0].clone()));
    export.push(batch(0, 3));
    let start = std::time::Instant::now();
    let fates = export.stop(LONG, tokio::time::sleep(Duration::from_millis(20))).await;
    assert_eq!(fates, Fates { undelivered: 3, ..Fates::default() });
    assert!(start.elapsed() < LONG / 2);
}

#[tokio::test]
async fn a_stop_tries_at_once_instead_of_waiting_for_the_next_probe() {
    let server =
        Server::start(|n, _| if n == 0 { Answer::Http(503, vec![], vec![]) } else { Answer::Success(vec![]) }).await;
    let mut settings = settings(targets(&server)[1].clone());
    settings.retry =
        Backoff { initial: Duration::from_secs(3600), max: Duration::from_secs(3600), longest_silence: LONG };
    let export = Export::start(&settings);
    export.push(batch(0, 3));
    until("the refusal", || server.requests() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(export.finish().await, Fates { delivered: 3, ..Fates::default() });
}

#[tokio::test]
async fn an_idle_export_ends_at_once() {
    let export = Export::start(&settings(Target::Grpc { url: "http://127.0.0.1:1".into() }));
    assert_eq!(export.finish().await, Fates::default());
}
