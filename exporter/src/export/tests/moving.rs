//! A receiver whose name points elsewhere while the connection to it works.

use std::{net::IpAddr, sync::Mutex};

use super::{super::peer::Peer, server::Answer, *};
use crate::export::build::Otlp;

/// A peer whose name is asked for before each request, and the answer.
fn peer() -> (Peer, Arc<Mutex<IpAddr>>) {
    let told = Arc::new(Mutex::new(IpAddr::from([127, 0, 0, 1])));
    let answer = Arc::clone(&told);
    let peer = Peer::asking(Duration::ZERO, move || {
        let told = *answer.lock().expect("no panic");
        Box::pin(async move { Ok(vec![told]) })
    });
    (peer, told)
}

async fn sends(otlp: &Otlp, requests: u64) {
    for n in 0..requests {
        assert_eq!(otlp.send(batch(n, 1).bytes).await, verdict::Verdict::Delivered);
    }
}

#[tokio::test]
async fn a_connection_is_kept_while_the_name_says_so_and_made_anew_when_it_does_not() {
    let kinds: [fn(String) -> Target; 2] = [|url| Target::Grpc { url }, |url| Target::Http { url }];
    for kind in kinds {
        let server = Server::start(|_, _| Answer::Success(vec![])).await;
        let (peer, told) = peer();
        let Transport::Otlp(otlp) = Transport::build(&settings(kind(server.url()))).expect("the settings are right")
        else {
            panic!("this is no standard output");
        };
        let otlp = match Arc::into_inner(otlp).expect("nobody else has it") {
            Otlp::Grpc(grpc) => Otlp::Grpc(Box::new(grpc.with_peer(peer))),
            Otlp::Http(http) => Otlp::Http(Box::new(http.with_peer(peer))),
        };
        sends(&otlp, 20).await;
        assert_eq!(server.connections(), 1);
        *told.lock().expect("no panic") = [127, 0, 0, 2].into();
        sends(&otlp, 20).await;
        let connections = server.connections();
        assert!(connections > 1, "the old connection was kept");
        *told.lock().expect("no panic") = [127, 0, 0, 1].into();
        // What was found out before that still holds for one request.
        sends(&otlp, 5).await;
        let settled = server.connections();
        sends(&otlp, 20).await;
        assert_eq!(server.connections(), settled, "the new one is kept");
        assert_eq!(server.requests(), 65, "none was sent twice");
    }
}
