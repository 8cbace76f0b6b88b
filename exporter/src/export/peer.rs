//! Whom a receiver's connection reaches in, whether the receiver's name still says so out. A connection that works may last
//! for weeks, and receivers are replaced by letting their name point elsewhere. So while requests are sent the name is asked
//! for now and then; where the peer's address was among its addresses and no longer is, the next request makes a new
//! connection, and what is in flight goes on over the old one. Addresses that come beside the peer's change nothing, and a
//! peer that the name never told of (somebody on the way translates addresses) is left alone.
//!
//! Must never hold up a request, nor give up a working connection for a look-up that failed.

use std::{
    fmt, io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// From one look-up to the next.
const EVERY: Duration = Duration::from_secs(30);
/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A look-up under way.
pub(super) type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// The peer of a receiver's connections. Clones are of the same one.
#[derive(Clone, Default)]
pub(super) struct Peer(Option<Arc<Watched>>);

struct Watched {
    lookup: Box<dyn Fn() -> Lookup + Send + Sync>,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whom the last connection reached.
    address: Option<IpAddr>,
    /// When the name was last asked for.
    asked: Option<Instant>,
    /// The name said so, too.
    told: bool,
    /// The name no longer says so.
    gone: bool,
}

// === impl Peer

impl Peer {
    /// Of connections to this host. An address never points elsewhere, and behind a proxy the name is the proxy's to ask for.
    pub fn of(host: &str, port: u16, proxied: bool) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if proxied || host.parse::<IpAddr>().is_ok() {
            return Self::default();
        }
        Self::asking(EVERY, move || {
            let host = host.clone();
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.map(|end| end.ip()).collect()) })
        })
    }

    /// Of connections to a name that this function asks for.
    pub fn asking(every: Duration, lookup: impl Fn() -> Lookup + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Watched { lookup: Box::new(lookup), every, state: Mutex::default() })))
    }

    /// A connection reached this address, or still does.
    pub fn reached(&self, address: IpAddr) {
        let Some(watched) = &self.0 else { return };
        let address = Some(address.to_canonical());
        let mut state = watched.lock();
        if state.address != address {
            *state = State { address, ..State::default() };
        }
    }

    /// Whether a new connection is wanted: true once for each time that the name was found to point elsewhere. Starts a
    /// look-up where one is due, and does not wait for it. To be called within a runtime.
    pub fn has_moved(&self) -> bool {
        let Some(watched) = &self.0 else { return false };
        let mut state = watched.lock();
        if std::mem::take(&mut state.gone) {
            *state = State::default();
            return true;
        }
        if state.address.is_some() && state.asked.is_none_or(|asked| asked.elapsed() >= watched.every) {
            state.asked = Some(Instant::now());
            tokio::spawn(Arc::clone(watched).ask());
        }
        false
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.0.as_ref().map(|watched| watched.lock().address)).finish()
    }
}

// === impl Watched

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self: Arc<Self>) {
        // Without an answer nothing is known to have changed.
        let Ok(Ok(addresses)) = tokio::time::timeout(PATIENCE, (self.lookup)()).await else { return };
        let mut state = self.lock();
        let Some(peer) = state.address.filter(|_| !addresses.is_empty()) else { return };
        let is_told = addresses.iter().any(|address| address.to_canonical() == peer);
        state.gone = state.told && !is_told;
        state.told |= is_told;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    type Answer = Arc<Mutex<Result<Vec<IpAddr>, io::ErrorKind>>>;

    fn peer(answer: &Answer) -> Peer {
        let answer = Arc::clone(answer);
        Peer::asking(Duration::ZERO, move || {
            let answer = answer.lock().expect("no panic").clone();
            Box::pin(async move { answer.map_err(io::Error::from) })
        })
    }

    /// Asks as requests do, some times, and lets the look-ups run.
    async fn moves(peer: &Peer) -> usize {
        let mut moves = 0;
        for _ in 0..5 {
            moves += usize::from(peer.has_moved());
            tokio::task::yield_now().await;
        }
        moves
    }

    #[tokio::test]
    async fn a_new_connection_is_wanted_once_and_only_where_the_peer_is_no_longer_told() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let answer = Answer::new(Mutex::new(Ok(vec![ip("192.0.2.2")])));
        let peer = peer(&answer);
        assert_eq!(moves(&peer).await, 0, "there is no connection yet");
        peer.reached(ip("192.0.2.1"));
        assert_eq!(moves(&peer).await, 0, "the name never told of it");
        *answer.lock().expect("no panic") = Ok(vec![ip("192.0.2.1")]);
        assert_eq!(moves(&peer).await, 0);
        *answer.lock().expect("no panic") = Ok(vec![ip("192.0.2.2")]);
        assert_eq!(moves(&peer).await, 1);
        for still in [vec!["192.0.2.1"], vec!["192.0.2.9", "::ffff:192.0.2.1"], vec![]] {
            *answer.lock().expect("no panic") = Ok(still.into_iter().map(ip).collect());
            peer.reached(ip("::ffff:192.0.2.1"));
            assert_eq!(moves(&peer).await, 0);
        }
        *answer.lock().expect("no panic") = Err(io::ErrorKind::TimedOut);
        assert_eq!(moves(&peer).await, 0, "a look-up that fails says nothing");
    }

    #[tokio::test]
    async fn the_name_is_asked_for_seldom_and_an_address_or_a_proxied_name_never() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let peer = Peer::asking(Duration::from_secs(3600), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(vec![]) })
        });
        peer.reached([192, 0, 2, 1].into());
        assert_eq!(moves(&peer).await, 0);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "for what it says at first");
        for (host, proxied) in [("192.0.2.1", false), ("[2001:db8::1]", false), ("name.example", true)] {
            assert!(Peer::of(host, 4317, proxied).0.is_none(), "{host}");
        }
        assert!(Peer::of("name.example", 4317, false).0.is_some());
    }
}
