//! How flowtel comes to know what a record says, and why it may not know: one table for docs/schema.md ("How it is known")
//! and for `flowtel explain`.
//!
//! Must never claim more than the record proves: where several reasons fit, all are given.

/// Something that a record says, or does not.
#[derive(Debug)]
pub struct Topic {
    /// What it is called.
    pub name: &'static str,
    /// The attribute that is there when it is known.
    pub attribute: &'static str,
    /// The attribute that says how it is known, where there is one.
    pub source: Option<&'static str>,
    /// On which records it can be there.
    pub on: &'static [When],
    /// How it is known: by value of `source`; one entry with an empty value where there is none.
    pub how: &'static [(&'static str, &'static str)],
    /// Why it may be absent.
    pub absent: &'static [(When, &'static str)],
}

/// When a reason fits: a fact that the record itself shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In any record.
    Any,
    /// The record is a begin.
    Begin,
    /// The record is an end.
    End,
    /// The record is of a flow that goes on.
    Update,
    /// The record is of what a client said first over TLS.
    Hello,
    /// It is one of which not all was seen.
    PartOfHello,
    /// The record is of a connection that was open at flowtel's start.
    Open,
    /// The record is a failed attempt.
    Failed,
    /// This side initiated the connection.
    Outgoing,
    /// The peer initiated it.
    Incoming,
    /// Nobody saw who initiated it.
    NoDirection,
    /// It stands for several events.
    Folded,
    /// It names no process.
    NoProcess,
    /// It names a process.
    Process,
    /// It names the network namespace by its inode number or its cookie.
    Namespace,
    /// It names the network namespace by its cookie alone.
    Cookie,
    /// It names no network namespace.
    NoNamespace,
}

/// What a record shows of itself.
pub trait Facts {
    /// The last word of the event's name: `begin`, `end`, `open`, `update`, `client_hello`, `failed`.
    fn event(&self) -> &str;
    /// An attribute's value as text.
    fn get(&self, attribute: &str) -> Option<&str>;
}

// === impl When

impl When {
    /// Whether the record shows it.
    pub fn holds(self, record: &dyn Facts) -> bool {
        let is = |attribute, value| record.get(attribute) == Some(value);
        let has = |attribute| record.get(attribute).is_some();
        let process = has(super::PID);
        match self {
            Self::Any => true,
            Self::Begin => record.event() == "begin",
            Self::End => record.event() == "end",
            Self::Open => record.event() == "open",
            Self::Update => record.event() == "update",
            Self::Hello => record.event() == "client_hello",
            Self::PartOfHello => record.event() == "client_hello" && has(super::TLS_PARTIAL),
            Self::Failed => record.event() == "failed",
            Self::Outgoing => is(super::DIRECTION, "outgoing"),
            Self::Incoming => is(super::DIRECTION, "incoming"),
            Self::NoDirection => record.get(super::DIRECTION).is_none(),
            Self::Folded => record.get(super::FOLD_COUNT).is_some(),
            Self::NoProcess => !process,
            Self::Process => process,
            Self::Namespace => has(super::NETNS_INODE) || has(super::NETNS_COOKIE),
            Self::Cookie => has(super::NETNS_COOKIE),
            Self::NoNamespace => !has(super::NETNS_INODE) && !has(super::NETNS_COOKIE),
        }
    }

    /// In words, for the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any record",
            Self::Begin => "begin",
            Self::End => "end",
            Self::Open => "open",
            Self::Update => "update",
            Self::Hello => "client_hello",
            Self::PartOfHello => "part of a client_hello",
            Self::Failed => "failed",
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
            Self::NoDirection => "no direction",
            Self::Folded => "folded",
            Self::NoProcess => "no process",
            Self::Process => "a process is named",
            Self::Namespace => "a network namespace is named",
            Self::Cookie => "only its cookie is named",
            Self::NoNamespace => "no network namespace is named",
        }
    }
}

// === impl Topic

impl Topic {
    /// Whether this record could say it.
    pub fn fits(&self, record: &dyn Facts) -> bool {
        self.on.iter().any(|when| when.holds(record))
    }

    /// How the record knows it, in words; `None` where it does not say it.
    pub fn how(&self, record: &dyn Facts) -> Option<&'static str> {
        record.get(self.attribute)?;
        let source = self.source.and_then(|source| record.get(source)).unwrap_or_default();
        let exact = self.how.iter().find(|(value, _)| *value == source);
        let found = exact.or(self.how.iter().find(|(value, _)| value.is_empty())).map(|(_, words)| *words);
        Some(found.unwrap_or("This record does not say how it is known."))
    }

    /// Why the record may not say it: all reasons that fit what it shows.
    pub fn why_absent(&self, record: &dyn Facts) -> impl Iterator<Item = &'static str> {
        self.absent.iter().filter(|(when, _)| when.holds(record)).map(|(_, why)| *why)
    }
}

const FLOW: &[When] = &[When::Begin, When::End, When::Open, When::Update, When::Hello, When::Failed];

/// All topics, in the order in which they are explained.
pub const TOPICS: &[Topic] = &[
    Topic {
        name: "direction",
        attribute: super::DIRECTION,
        source: None,
        on: FLOW,
        how: &[(
            "",
            "The handshake was seen: it says which side sent the SYN. Of a connection older than flowtel the \
             socket's counters say it: a SYN of its own is among what was acknowledged.",
        )],
        absent: &[(
            When::NoDirection,
            "The begin was not seen, and the socket's counters do not tell who sent the SYN.",
        )],
    },
    Topic {
        name: "process",
        attribute: super::PID,
        source: Some("flowtel.process.source"),
        on: FLOW,
        how: &[
            ("connect", "The process called connect() on this socket, and the kernel reported the call itself."),
            ("accept", "The process took the connection by accept(), and the kernel reported the call itself."),
            (
                "listener",
                "Inferred: the process called listen() on the very socket that took the connection. The accept() itself was \
                 not seen, and another process may have made it.",
            ),
            (
                "snapshot",
                "The connection is older than flowtel. /proc showed at the start which process held the socket.",
            ),
        ],
        absent: &[
            (When::Folded, "The record stands for attempts of several processes, or of none."),
            (
                When::Incoming,
                "Nobody was seen to accept the connection: accept() without an address runs no hook. And the process that \
                 called listen() is gone, or is not known: docs/owners.md has the cases.",
            ),
            (
                When::Failed,
                "Nobody took an incoming attempt: the port was closed, or its handshake was never completed.",
            ),
            (
                When::Outgoing,
                "A worker of the kernel connected on nobody's behalf (NFS, a further MPTCP subflow); or the call is older \
                 than flowtel, or its event was lost: then a gap record says so.",
            ),
            (When::NoDirection, "The begin was not seen, so neither was the call that led to it."),
            (
                When::Open,
                "/proc did not show which process holds the socket: it may not be read, or no process holds it.",
            ),
        ],
    },
    Topic {
        name: "executable",
        attribute: super::EXECUTABLE_PATH,
        source: Some("flowtel.process.executable.source"),
        on: FLOW,
        how: &[
            ("proc", "/proc/PID/exe showed it, and the process was the same one as at the time of the event."),
            ("exec", "The kernel reported it when the process, or the one that it was forked from, executed the file."),
            ("", "/proc/PID/exe showed it, and the process was the same one as at the time of the event."),
        ],
        absent: &[
            (When::NoProcess, "No process is named."),
            (
                When::Process,
                "The process was gone before /proc was asked and its exec was not seen; or its number was another \
                 process's by then; or flowtel may not read it (CAP_SYS_PTRACE), or sees no /proc of the host; or \
                 owner.executable is off.",
            ),
        ],
    },
    Topic {
        name: "container",
        attribute: super::CONTAINER_ID,
        source: None,
        on: FLOW,
        how: &[("", "The path of the process's cgroup names it, in the form of a known container runtime.")],
        absent: &[
            (When::NoProcess, "No process is named, so there is no cgroup to ask."),
            (
                When::Process,
                "The process's cgroup is in no container that is known by its path; or the cgroup was removed before it \
                 was asked; or owner.container is off.",
            ),
        ],
    },
    Topic {
        name: "network namespace",
        attribute: super::NETNS_INODE,
        source: None,
        on: FLOW,
        how: &[(
            "",
            "The kernel reported the namespace of the socket itself. Its inode number was read by BTF; or the kernel reported \
             the namespace's cookie, and the number belongs to that cookie: in flowtel's own namespace, the host's, and those \
             that were read at the start.",
        )],
        absent: &[
            (
                When::Cookie,
                "flowtel.netns.cookie says which namespace it is. Its inode number isn't known: the kernel has no BTF, or \
                 this happened between two flowtels before Linux 5.14; and the namespace is neither flowtel's own, nor the \
                 host's, nor one of those that were read at the start.",
            ),
            (
                When::NoNamespace,
                "The kernel didn't report the socket's namespace: before Linux 6.1, without BTF, it is not known of an incoming \
                 connection that nobody was seen to accept.",
            ),
            (When::NoNamespace, "The record is of a capture file: packets don't show it."),
        ],
    },
    Topic {
        name: "the host's network namespace",
        attribute: super::NETNS_HOST,
        source: None,
        on: FLOW,
        how: &[(
            "",
            "The namespace was compared with the host's: the one that the kernel itself reported by BTF, or the one that \
             /proc shows its own threads in.",
        )],
        absent: &[
            (When::NoNamespace, "The network namespace itself isn't known."),
            (
                When::Namespace,
                "Which namespace is the host's isn't known: the kernel has no BTF, and flowtel can't read the namespace of \
                 the kernel's threads (/proc/2/ns/net needs CAP_SYS_PTRACE and the host's /proc).",
            ),
        ],
    },
    Topic {
        name: "source's names",
        attribute: super::SOURCE_NAMES,
        source: Some(super::SOURCE_NAMES_STATE),
        on: FLOW,
        how: NAMES,
        absent: NO_NAMES,
    },
    Topic {
        name: "destination's names",
        attribute: super::DESTINATION_NAMES,
        source: Some(super::DESTINATION_NAMES_STATE),
        on: FLOW,
        how: NAMES,
        absent: NO_NAMES,
    },
    Topic {
        name: "handshake",
        attribute: super::HANDSHAKE,
        source: None,
        on: &[When::Begin],
        how: &[(
            "",
            "Outgoing: from connect() to the SYN-ACK that the kernel received. Incoming: the kernel's first round-trip \
             sample, from SYN-ACK to ACK.",
        )],
        absent: &[
            (When::Outgoing, "The call of connect() was not seen, or SYNs crossed, or no packet was sent for it."),
            (
                When::Incoming,
                "The kernel's sample does not measure the handshake: the SYN-ACK was sent again, SYN cookies were in use, \
                 or the server waits for data before it accepts (TCP_DEFER_ACCEPT).",
            ),
        ],
    },
    Topic {
        name: "cause of the failure",
        attribute: super::ERROR_TYPE,
        source: Some("flowtel.cause.source"),
        on: &[When::Failed],
        how: super::causes::SOURCES,
        absent: &[],
    },
    Topic {
        name: "cause of the end",
        attribute: super::END_REASON,
        source: Some("flowtel.cause.source"),
        on: &[When::End],
        how: super::causes::SOURCES,
        absent: &[
            (
                When::End,
                "The event of the end was lost. The flow was found to be over when its socket was looked up; a gap record \
                 says how many came back so.",
            ),
            (When::End, "Nothing proves one, as after a close() with TCP_REPAIR, which sends nothing."),
        ],
    },
    Topic {
        name: "duration",
        attribute: super::DURATION,
        source: None,
        on: &[When::End, When::Update],
        how: &[("", "From the kernel's time of the begin to that of this record.")],
        absent: &[
            (
                When::Update,
                "The begin was not seen: the connection is older than flowtel, or was forgotten, or the event was lost.",
            ),
            (
                When::End,
                "The begin was not seen: the connection is older than flowtel, or was forgotten, or the event was lost; \
             or the event of the end was lost, and the flow was found to be over later.",
            ),
        ],
    },
    Topic {
        name: "bytes",
        attribute: super::SOURCE_BYTES,
        source: None,
        on: &[When::End, When::Update],
        how: &[(
            "",
            "The socket's own counters, less SYN and FIN. They are exact after `fin`; else they lack what was on its way \
             when the connection ended. Of an update they are what was acknowledged by then.",
        )],
        absent: &[
            (
                When::Folded,
                "Of many updates together only what passed since means something: flowtel.delta.source.bytes.",
            ),
            (When::Update, "The socket's counters are not what passed: its data was moved by a BPF program (SOCKMAP)."),
            (
                When::End,
                "The socket's counters are not what passed: its data was moved by a BPF program (SOCKMAP), or the end's event was lost.",
            ),
        ],
    },
    Topic {
        name: "bytes since the last update",
        attribute: super::DELTA_SOURCE_BYTES,
        source: None,
        on: &[When::Update],
        how: &[(
            "",
            "What the socket had counted, less what this flow's last record said; the first record after the begin counts \
             from there, that of a connection older than flowtel from when it was found.",
        )],
        absent: &[(
            When::Any,
            "It is not known what was recorded of this flow before: its begin was lost, or it was forgotten. Or the socket's \
             counters are not what passed (SOCKMAP).",
        )],
    },
    Topic {
        name: "server's name by TLS",
        attribute: super::TLS_SERVER_NAME,
        source: None,
        on: &[When::Hello],
        how: &[(
            "",
            "The client wrote it into its ClientHello (SNI), unencrypted: it is what was asked for, and nobody has to be there              by that name. With flowtel.tls.ech it may be the outer name, of whoever hosts the server that is meant.",
        )],
        absent: &[
            (When::PartOfHello, "Not all of the ClientHello was seen: it may stand in the rest."),
            (When::Hello, "The client names none, as for an address without a name."),
        ],
    },
    Topic {
        name: "TLS fingerprint",
        attribute: super::TLS_JA4,
        source: None,
        on: &[When::Hello],
        how: &[(
            "",
            "JA4 of the whole ClientHello: versions, ciphers, extensions, signature algorithms. Programs with the same TLS              library and settings share it, and a program can imitate another one's.",
        )],
        absent: &[(
            When::Hello,
            "Not all of the ClientHello was seen: it is longer than 4 KiB, or its rest did not come within 1.5 s, or came out of order.",
        )],
    },
];

const NAMES: &[(&str, &str)] = &[
    ("fresh", "A process asked a name server for it, and the answer held this address; its time to live is not over."),
    ("expired", "A process asked a name server for it, and the answer held this address; its time to live is over."),
    ("static", "The hosts file has it."),
    ("reverse", "A process asked for the name of this address (PTR). Whoever owns the address chose the answer."),
];

const NO_NAMES: &[(When, &str)] = &[(
    When::Any,
    "No answer with this address counts: nobody asked, or flowtel was not running then, or the question went by TCP, TLS or \
     HTTPS, or to a port that is not among dns.ports; or the answer is older than its time to live and the grace time, or was \
     forgotten for want of room; or it was asked for in another network namespace, or by others while dns.fallback is off; or \
     the flow's namespace is not known; or dns.enabled is off.",
)];

/// The table as Markdown.
pub(super) fn markdown() -> String {
    let mut text = String::from(
        "\n## How it is known, and why it may be absent\n\n`flowtel explain` says for one record which of these hold.\n",
    );
    for Topic { name, attribute, source, how, absent, .. } in TOPICS {
        text += &format!("\n### {name} (`{attribute}`)\n\n");
        for (value, words) in *how {
            text += &match (source, value.is_empty()) {
                (Some(source), false) => format!("- `{source}` = `{value}`: {words}\n"),
                _ => format!("- {words}\n"),
            };
        }
        for (when, why) in *absent {
            text += &format!("- absent, {}: {why}\n", when.as_str());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Record(&'static str, BTreeMap<&'static str, &'static str>);

    impl Facts for Record {
        fn event(&self) -> &str {
            self.0
        }

        fn get(&self, attribute: &str) -> Option<&str> {
            self.1.get(attribute).copied()
        }
    }

    fn record(event: &'static str, attributes: &[(&'static str, &'static str)]) -> Record {
        Record(event, attributes.iter().copied().collect())
    }

    fn topic(name: &str) -> &'static Topic {
        TOPICS.iter().find(|topic| topic.name == name).expect("there is one")
    }

    #[test]
    fn every_topic_is_about_attributes_of_the_schema() {
        for topic in TOPICS {
            for attribute in [Some(topic.attribute), topic.source].into_iter().flatten() {
                assert!(super::super::ATTRIBUTES.iter().any(|a| a.name == attribute), "{attribute}");
            }
            assert!(!topic.how.is_empty() && !topic.on.is_empty(), "{}", topic.name);
        }
    }

    #[test]
    fn whatever_a_record_lacks_has_a_reason() {
        for event in ["begin", "end", "open", "failed", "client_hello"] {
            for direction in
                [&[][..], &[("flowtel.flow.direction", "incoming")], &[("flowtel.flow.direction", "outgoing")]]
            {
                let bare = record(event, direction);
                for topic in TOPICS.iter().filter(|topic| topic.fits(&bare)) {
                    let known = bare.get(topic.attribute).is_some() || topic.attribute == super::super::ERROR_TYPE;
                    let why = topic.why_absent(&bare).count();
                    let rare = topic.attribute == super::super::HANDSHAKE && direction.is_empty();
                    assert!(known || why > 0 || rare, "{event} {direction:?}: {}", topic.name);
                }
            }
        }
    }

    #[test]
    fn a_listener_is_said_to_be_inferred_and_an_acceptor_to_be_seen() {
        let of = |source| record("begin", &[("process.pid", "7"), ("flowtel.process.source", source)]);
        assert!(topic("process").how(&of("listener")).expect("known").starts_with("Inferred"));
        assert!(topic("process").how(&of("accept")).expect("known").contains("accept()"));
    }

    #[test]
    fn an_executable_that_is_missing_is_explained_by_whether_a_process_is_named() {
        let named = record("begin", &[("process.pid", "7")]);
        let why: Vec<_> = topic("executable").why_absent(&named).collect();
        assert!(why.len() == 1 && why[0].contains("/proc"), "{why:?}");
        let none: Vec<_> = topic("executable").why_absent(&record("begin", &[])).collect();
        assert_eq!(none, ["No process is named."]);
    }

    #[test]
    fn a_namespace_that_is_known_by_its_cookie_alone_is_not_said_to_be_unknown() {
        let why = |name, attributes| topic(name).why_absent(&record("begin", attributes)).collect::<Vec<_>>();
        let cookie = why("network namespace", &[("flowtel.netns.cookie", "7")]);
        assert!(cookie.len() == 1 && cookie[0].starts_with("flowtel.netns.cookie says which"), "{cookie:?}");
        let none = why("network namespace", &[]);
        assert!(none.len() == 2 && none[0].contains("before Linux 6.1"), "{none:?}");
        let host = why("the host's network namespace", &[("flowtel.netns.cookie", "7")]);
        assert!(host.len() == 1 && host[0].contains("/proc/2/ns/net"), "{host:?}");
        let known = record("begin", &[("flowtel.netns.inode", "4026531840"), ("flowtel.netns.host", "true")]);
        assert!(topic("network namespace").how(&known).is_some_and(|how| how.contains("BTF")));
        assert!(topic("the host's network namespace").how(&known).is_some_and(|how| how.contains("compared")));
    }
}
