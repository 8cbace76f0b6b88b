//! Why an attempt failed, why a flow ended, and how that is known: each value of `error.type`, `flowtel.flow.end.reason` and
//! `flowtel.cause.source` with what it stands for. The tables of docs/schema.md.

/// A value of an attribute, and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub value: &'static str,
    /// What happened.
    pub happened: &'static str,
    /// What the application was told (errno).
    pub told: &'static str,
    /// How it is known, and from which kernel on.
    pub known: &'static str,
}

/// Values of `error.type`.
pub const FAILURES: &[Value] = &[
    Value {
        value: "refused",
        happened: "The destination answered the SYN with a reset, or with ICMP \"port unreachable\" (iptables' default REJECT).",
        told: "ECONNREFUSED",
        known: "The socket's error where the kernel has BTF; without BTF resets alone (segment). Seen from the asked side: the \
                reset that leaves (IPv4); without BTF a process's raw socket may have sent that, so nothing is said.",
    },
    Value {
        value: "timed_out",
        happened: "Nothing answered the SYNs, or nothing completed the handshake.",
        told: "ETIMEDOUT",
        known: "The socket's error where the kernel has BTF; without BTF the retransmission timer that gave up (timer), which a \
                SYN older than flowtel does not tell.",
    },
    Value {
        value: "unreachable",
        happened: "ICMP said that the host, network or protocol can't be reached, or may not be (administratively prohibited), \
                   or that the time to live was over; nobody answered for a neighbour's address; the interface went down; or \
                   there was no route, and no SYN left.",
        told: "EHOSTUNREACH, ENETUNREACH, EACCES, ENOPROTOOPT, EHOSTDOWN, ENETDOWN, ENONET; without a route also EINVAL \
               (blackhole) and ENODEV",
        known: "The socket's error, and of a missing route what the socket keeps of the look-up (state): only where the kernel \
                has BTF, and of a missing route only when the socket is closed and connect() was not called again.",
    },
    Value {
        value: "aborted",
        happened: "The asking side gave up while the SYN was out: close(), shutdown(), connect(AF_UNSPEC), the end of the process, \
                   or an administrator (`ss -K`). A Fast Open connect() that was never written, at its close. An incoming Fast \
                   Open that its client reset before it was complete.",
        told: "nothing, or ECONNABORTED",
        known: "close() and the end of the process: the call. The others only where the kernel has BTF.",
    },
    Value {
        value: "denied",
        happened: "A cgroup program refused connect(); no SYN left.",
        told: "EPERM, or what the program set",
        known: "Linux 5.18 and newer, of programs that run before flowtel's: those of lower cgroups, and those of flowtel's own \
                cgroup that were attached before it. What refuses a call before cgroup programs are asked (SELinux, Landlock) is \
                not recorded.",
    },
    Value {
        value: "_OTHER",
        happened: "The kernel gives no cause, or one that is none of these: no free port (EADDRNOTAVAIL), a program that refused \
                   the call after flowtel's had run, ICMP \"parameter problem\" (EPROTO).",
        told: "any",
        known: "Without BTF (Debian 11's Linux 5.10) also every ICMP answer, missing route, shutdown(), connect(AF_UNSPEC) and \
                `ss -K`. `flowtel.cause.source` is absent where nothing tells.",
    },
];

/// Values of `flowtel.flow.end.reason`.
pub const ENDS: &[Value] = &[
    Value {
        value: "fin",
        happened: "This side's FIN was acknowledged.",
        told: "nothing",
        known: "The states that the socket went through; where both FINs were out the acknowledgement (segment). Without BTF a FIN \
                that waits behind a closed window until a timer closes the socket can't be told from an acknowledged one (state).",
    },
    Value {
        value: "reset.local",
        happened: "This side reset it: close() with unread data or SO_LINGER 0, connect(AF_UNSPEC), an administrator.",
        told: "nothing, or ECONNABORTED",
        known: "The reset that left; the socket's error where the kernel has BTF.",
    },
    Value {
        value: "reset.remote",
        happened: "The peer reset it.",
        told: "ECONNRESET or EPIPE",
        known: "The socket's error where the kernel has BTF; without BTF a reset within 50 ms before the close.",
    },
    Value {
        value: "timeout",
        happened: "The peer fell silent until a timer gave up: retransmissions, keep-alive, TCP_USER_TIMEOUT, probes of a closed \
                   window.",
        told: "ETIMEDOUT, or what ICMP said last",
        known: "The socket's error where the kernel has BTF; without BTF, and for connections older than flowtel, because \
                neither FIN nor reset was seen (state).",
    },
];

/// Values of `flowtel.cause.source`, and what each is worth.
pub const SOURCES: &[(&str, &str)] = &[
    ("socket_error", "The error number that the kernel's socket had when it was closed: what the application is told."),
    ("segment", "A segment: a reset or FIN that came, left or was acknowledged."),
    ("timer", "A retransmission timer that gave up; in a capture, that no answer was in it."),
    ("call", "A process's call, or what a cgroup program said to it."),
    ("state", "What the socket's states leave: weaker than the others."),
];

/// The tables as Markdown.
pub(super) fn markdown() -> String {
    let rows = |values: &[Value]| -> String {
        let row = |v: &Value| format!("| `{}` | {} | {} | {} |\n", v.value, v.happened, v.told, v.known);
        values.iter().map(row).collect()
    };
    let sources: String = SOURCES.iter().map(|(source, worth)| format!("| `{source}` | {worth} |\n")).collect();
    format!(
        "\n## Causes\n\n\
         \"BTF\" is the kernel's description of its own types (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF): most \
         distributions have it from Linux 5.10 on, Debian from 6.1 on. Blocking and non-blocking clients get the same answer.\n\n\
         `error.type` of a failed attempt:\n\n\
         | value | what happened | errno | how it is known |\n|---|---|---|---|\n{}\n\
         `flowtel.flow.end.reason` of an end; absent where nothing proves one, as after a close() with TCP_REPAIR, which sends \
         nothing:\n\n\
         | value | what happened | errno | how it is known |\n|---|---|---|---|\n{}\n\
         `flowtel.cause.source` of either:\n\n\
         | value | what it is worth |\n|---|---|\n{sources}",
        rows(FAILURES),
        rows(ENDS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{EndReason, Evidence, FailReason};

    #[test]
    fn every_value_that_a_record_can_have_is_in_its_table() {
        use FailReason::{Aborted, Denied, Other, Refused, TimedOut, Unreachable};
        let failures = [Refused, TimedOut, Unreachable, Aborted, Denied, Other].map(FailReason::as_str);
        assert_eq!(failures, std::array::from_fn(|i| FAILURES[i].value));
        use EndReason::{Fin, ResetLocal, ResetRemote, Timeout};
        assert_eq!(
            [Fin, ResetLocal, ResetRemote, Timeout].map(EndReason::as_str),
            std::array::from_fn(|i| ENDS[i].value)
        );
        let sources = [Evidence::SocketError, Evidence::Segment, Evidence::Timer, Evidence::Call, Evidence::State];
        assert_eq!(sources.map(Evidence::as_str), std::array::from_fn(|i| SOURCES[i].0));
    }
}
