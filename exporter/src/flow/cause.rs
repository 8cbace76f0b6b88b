//! What a record says of why a flow ended, or an attempt failed, and of how that is known: words, no logic.

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// By FIN.
    Fin,
    /// This side reset it.
    ResetLocal,
    /// The peer reset it.
    ResetRemote,
    /// Nothing came any more.
    Timeout,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The destination said that nobody takes it: a reset, or ICMP's "port unreachable".
    Refused,
    /// Nothing answered the SYNs.
    TimedOut,
    /// There is no way there: no route, or an ICMP message said so.
    Unreachable,
    /// Given up by the side that asked.
    Aborted,
    /// A cgroup program refused the call.
    Denied,
    /// Nothing says why, or it is none of these.
    Other,
}

/// How a cause is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The error number that the socket had when it was closed.
    SocketError,
    /// A segment that came or left, or was acknowledged.
    Segment,
    /// A timer gave up.
    Timer,
    /// A process's call, or what a cgroup program said to it.
    Call,
    /// The state that the socket was in.
    State,
}

/// A cause, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause<R> {
    /// Why.
    pub reason: R,
    /// How it is known; `None` where it is not.
    pub source: Option<Evidence>,
}

// === impl EndReason

impl EndReason {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::ResetLocal => "reset.local",
            Self::ResetRemote => "reset.remote",
            Self::Timeout => "timeout",
        }
    }

    /// This, as `source` says.
    pub const fn by(self, source: Evidence) -> Cause<Self> {
        Cause { reason: self, source: Some(source) }
    }
}

// === impl FailReason

impl FailReason {
    /// As it stands in a record (`error.type`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Denied => "denied",
            Self::Other => "_OTHER",
        }
    }

    /// This, as `source` says.
    pub const fn by(self, source: Evidence) -> Cause<Self> {
        Cause { reason: self, source: Some(source) }
    }

    /// This, which nothing says.
    pub const fn unknown(self) -> Cause<Self> {
        Cause { reason: self, source: None }
    }
}

// === impl Evidence

impl Evidence {
    /// As it stands in a record (`flowtel.cause.source`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SocketError => "socket_error",
            Self::Segment => "segment",
            Self::Timer => "timer",
            Self::Call => "call",
            Self::State => "state",
        }
    }
}
