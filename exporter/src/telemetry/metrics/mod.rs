//! flowtel's own metrics: an [`Instance`] comes in, numbers under names go out. [`METRICS`] is the one list: what is pushed
//! by OTLP (`push`), shown to Prometheus ([`prometheus`]) and written in docs/metrics.md is made from it.
//!
//! Names are those of the semantic conventions where they have one that fits (`otel.sdk.*`, `process.*`), else `flowtel.*`.
//! Numbers are read when somebody asks, and kept nowhere else: they are the ledger's, to the last one.

use std::borrow::Cow;

use super::{instance::Instance, process};
use crate::{export::LinkState, ledger::Kind, rights::calls};

mod docs;
pub mod prometheus;
mod push;
mod registry;

pub use docs::markdown;
pub use push::Push;
pub use registry::registry;

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// UCUM, as the semantic conventions write units.
    pub unit: &'static str,
    /// Counter or not.
    pub form: Form,
    /// What it says.
    pub about: &'static str,
    /// Keys of the attributes that its points have; a point may lack the last.
    pub attributes: &'static [&'static str],
    read: fn(&Instance, &mut Points),
}

/// What a number means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It only goes up.
    Counter,
    /// A sum that goes up and down.
    UpDown,
    /// A state.
    Gauge,
}

/// A number with its attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Values, in the order of [`Metric::attributes`].
    pub attributes: Vec<Cow<'static, str>>,
    /// The number.
    pub value: Value,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A count, exact.
    Count(u64),
    /// A measure.
    Measure(f64),
}

/// The points of one metric.
#[derive(Debug, Default)]
struct Points(Vec<Point>);

const KIND: &str = "flowtel.kernel.event.kind";
const FATE: &str = "flowtel.fate";
const OUTCOME: &str = "flowtel.outcome";
const TRANSPORT: &str = "flowtel.dns.transport";
const ERROR: &str = "error.type";
const COMPONENT_NAME: &str = "otel.component.name";
const COMPONENT_TYPE: &str = "otel.component.type";
/// `otel.component.type` of the queue: the conventions have a word only for the SDK's own processors.
const QUEUE: &str = "flowtel.queue";

/// All of them.
pub const METRICS: &[Metric] = &[
    // === records, by the names of the SDK's metrics
    counter("otel.sdk.log.created", "{log_record}", "Records made.", &[], |i, p| {
        p.count(i.ledger.records.made.get());
    }),
    counter(
        "otel.sdk.exporter.log.exported",
        "{log_record}",
        "Records whose export has finished. Without `error.type`: the receiver accepted them. `rejected`: it refused them \
         for good; `not_written`: standard output took them not.",
        &[COMPONENT_NAME, COMPONENT_TYPE, ERROR],
        |i, p| {
            let component = i.export.known().component;
            let records = &i.ledger.records;
            p.add(of_component(component, None), Value::Count(records.delivered.get()));
            p.add(of_component(component, Some("rejected")), Value::Count(records.rejected.get()));
            p.add(of_component(component, Some("not_written")), Value::Count(records.write_failed.get()));
        },
    ),
    up_down(
        "otel.sdk.processor.log.queue.size",
        "{log_record}",
        "Records in the queue, those in flight included.",
        &[COMPONENT_NAME, COMPONENT_TYPE],
        |i, p| p.add(of_component(QUEUE, None), Value::Count(i.queue.waiting().records)),
    ),
    // === records, as the ledger balances them
    counter(
        "flowtel.records",
        "{log_record}",
        "Fates of records. Their sum and what waits is what was made.",
        &[FATE],
        |i, p| p.named(i.ledger.records.fates()),
    ),
    up_down("flowtel.records.waiting", "{log_record}", "Records made whose fate is not settled.", &[], |i, p| {
        p.count(unsigned(i.ledger.records.waiting()));
    }),
    // === the queue
    up_down("flowtel.queue.size", "By", "Bytes of batches in the queue, those in flight included.", &[], |i, p| {
        p.count(i.queue.waiting().bytes);
    }),
    up_down("flowtel.queue.capacity", "By", "The queue's budget.", &[], |i, p| p.count(i.queue.max_bytes())),
    up_down("flowtel.queue.batches", "{batch}", "Batches in the queue, those in flight included.", &[], |i, p| {
        p.count(i.queue.waiting().batches as u64);
    }),
    up_down("flowtel.export.inflight", "{batch}", "Batches that wait for the receiver's answer.", &[], |i, p| {
        p.count(i.queue.waiting().leased as u64);
    }),
    // === the receiver
    gauge(
        "flowtel.export.up",
        "1",
        "1 when the receiver takes records, 0 when they wait for it. No point before its first answer.",
        &[],
        |i, p| match i.export.known().link {
            LinkState::Unknown => {}
            LinkState::Up => p.count(1),
            LinkState::Down => p.count(0),
        },
    ),
    counter("flowtel.export.outages", "{outage}", "How often the receiver stopped taking records.", &[], |i, p| {
        p.count(i.export.known().outages);
    }),
    // === kernel events
    counter("flowtel.kernel.events", "{event}", "Events that the programs met.", &[KIND], |i, p| {
        for (name, kind) in i.ledger.kernel.kinds() {
            p.count_of(word(name), kind.seen.get());
        }
    }),
    counter("flowtel.kernel.events.read", "{event}", "Events taken out of the rings.", &[KIND], |i, p| {
        for (name, kind) in i.ledger.kernel.kinds() {
            p.count_of(word(name), kind.read.get());
        }
    }),
    counter(
        "flowtel.kernel.events.carried_over",
        "{event}",
        "Events that the flowtel before had read and left open (`capture.pin`): they settle here.",
        &[KIND],
        |i, p| {
            for (name, kind) in i.ledger.kernel.kinds() {
                p.count_of(word(name), kind.carried_over.get());
            }
        },
    ),
    counter(
        "flowtel.kernel.events.settled",
        "{event}",
        "Fates of events: `joined` became part of a flow; `ring_full`, `rate_limited` and `evicted` are losses.",
        &[KIND, FATE],
        |i, p| {
            for (name, kind) in i.ledger.kernel.kinds() {
                for (fate, n) in kind.fates() {
                    p.add(vec![word(name), word(fate)], Value::Count(n));
                }
            }
        },
    ),
    up_down("flowtel.kernel.events.open", "{event}", "Events read whose fate is not settled.", &[KIND], |i, p| {
        for (name, kind) in i.ledger.kernel.kinds() {
            p.count_of(word(name), unsigned(kind.open()));
        }
    }),
    counter(
        "flowtel.kernel.events.lost",
        "{event}",
        "Events of all kinds that were lost before they were read.",
        &[FATE],
        |i, p| {
            let sum = |count: fn(&Kind) -> u64| i.ledger.kernel.kinds().iter().map(|(_, kind)| count(kind)).sum();
            p.count_of("ring_full", sum(|kind| kind.ring_full.get()));
            p.count_of("rate_limited", sum(|kind| kind.limited.get()));
        },
    ),
    // === tables
    up_down("flowtel.flows.open", "{flow}", "Flows that have begun and not ended.", &[], |i, p| {
        p.count(i.pulse.tables().flows);
    }),
    counter(
        "flowtel.flows.forgotten",
        "{flow}",
        "Open flows forgotten, for `flow.max_flows` was reached.",
        &[],
        |i, p| {
            p.count(i.ledger.flows_forgotten.get());
        },
    ),
    up_down("flowtel.attempts.open", "{attempt}", "Connection attempts that are not established.", &[], |i, p| {
        p.count(i.pulse.tables().attempts);
    }),
    // === the audit of open flows
    counter(
        "flowtel.audit.lookups",
        "{lookup}",
        "Open flows that were looked up in the kernel's list of sockets: `there`; `missing`, so that the whole list was read; \
         `unsure`, because nothing can be asked about their network namespace.",
        &[OUTCOME],
        |i, p| p.named(i.ledger.audit.looks()),
    ),
    counter(
        "flowtel.audit.censuses",
        "{census}",
        "Times that all open flows of a network namespace were compared with its whole list: `done`, or `broken` where it did \
         not come whole.",
        &[OUTCOME],
        |i, p| {
            p.count_of("done", i.ledger.audit.censuses.get());
            p.count_of("broken", i.ledger.audit.censuses_broken.get());
        },
    ),
    counter(
        "flowtel.audit.ends",
        "{flow}",
        "Flows whose end the audit found: `recovered`, it was lost with other events; `unseen`, the programs never reported \
         it; `late`, they reported it afterwards, and it was not recorded twice.",
        &[OUTCOME],
        |i, p| {
            p.count_of("recovered", i.ledger.audit.recovered.get());
            p.count_of("unseen", i.ledger.audit.unseen.get());
            p.count_of("late", i.ledger.audit.late.get());
        },
    ),
    counter(
        "flowtel.audit.callbacks",
        "{socket}",
        "Sockets whose callbacks another BPF program has taken away: `taken`, as an accepted connection began; \
         `asked_again`, flowtel's program noticed and asked for them anew.",
        &[OUTCOME],
        |i, p| {
            p.count_of("taken", i.ledger.audit.callbacks_taken.get());
            p.count_of("asked_again", i.ledger.audit.asked_again.get());
        },
    ),
    gauge("flowtel.audit.deaf", "1", "1 while ends of connections go unreported, else 0.", &[], |i, p| {
        p.count(u64::from(i.ledger.audit.is_deaf()));
    }),
    counter(
        "flowtel.seccomp.refused",
        "{call}",
        "System calls that flowtel made, isn't known to need, and was refused. The log names each once.",
        &[],
        |_, p| p.count(calls::refused()),
    ),
    // === names and owners
    counter("flowtel.dns.answers", "{answer}", "Answers of name servers that were read.", &[OUTCOME], |i, p| {
        p.named(i.ledger.dns.answers());
    }),
    counter(
        "flowtel.dns.connections",
        "{connection}",
        "Connections that this host asked for to port 53 (`tcp`) or 853 (`tls`): names asked for over them are not seen.",
        &[TRANSPORT],
        |i, p| {
            p.count_of("tcp", i.ledger.dns.over_tcp.get());
            p.count_of("tls", i.ledger.dns.over_tls.get());
        },
    ),
    up_down("flowtel.dns.cache.addresses", "{address}", "Addresses whose names are known.", &[], |i, p| {
        p.count(i.pulse.tables().addresses);
    }),
    up_down("flowtel.dns.cache.size", "By", "Memory for names, reckoned from above.", &[], |i, p| {
        p.count(i.pulse.tables().names_bytes);
    }),
    counter("flowtel.dns.cache.forgotten", "{name}", "Names forgotten.", &[OUTCOME], |i, p| {
        let dns = &i.ledger.dns;
        p.count_of("expired", dns.expired.get());
        p.count_of("evicted", dns.evicted.get());
        p.count_of("over_quota", dns.over_quota.get());
    }),
    counter(
        "flowtel.owner.executables",
        "{lookup}",
        "Questions which executable a process runs.",
        &[OUTCOME],
        |i, p| p.named(i.ledger.owner.executables.outcomes()),
    ),
    counter(
        "flowtel.owner.places",
        "{lookup}",
        "Questions to which container, pod and unit a cgroup belongs.",
        &[OUTCOME],
        |i, p| p.named(i.ledger.owner.places.outcomes()),
    ),
    // === flowtel itself
    counter("flowtel.capture.rounds", "{round}", "How often the rings were read.", &[], |i, p| {
        p.count(i.pulse.rounds())
    }),
    gauge("flowtel.capture.silence", "s", "Time since the rings were last read.", &[], |i, p| {
        p.measure(i.pulse.silence().map(|time| time.as_secs_f64()));
    }),
    counter("flowtel.config.reloads", "{reload}", "Configurations read at SIGHUP.", &[OUTCOME], |i, p| {
        p.count_of("applied", i.reloads.applied());
        p.count_of("refused", i.reloads.refused());
    }),
    gauge("process.uptime", "s", "Time since flowtel was ready.", &[], |i, p| {
        p.measure(Some(i.ready.elapsed().as_secs_f64()));
    }),
    counter("process.cpu.time", "s", "CPU time of all threads.", &[], |_, p| p.measure(Some(process::cpu_seconds()))),
    up_down("process.memory.usage", "By", "Memory that is resident.", &[], |_, p| p.maybe(process::resident())),
    up_down("process.thread.count", "{thread}", "Threads.", &[], |_, p| p.maybe(process::threads())),
    up_down("process.unix.file_descriptor.count", "{file_descriptor}", "Open file descriptors.", &[], |_, p| {
        p.maybe(process::descriptors());
    }),
];

/// What the conventions want on the metrics of a component: its name, which is its type and a number, and its type; and the
/// error where there is one.
fn of_component(component: &'static str, error: Option<&'static str>) -> Vec<Cow<'static, str>> {
    let name = Cow::Owned(format!("{component}/0"));
    [name, component.into()].into_iter().chain(error.map(Cow::Borrowed)).collect()
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    attributes: &'static [&'static str],
    read: fn(&Instance, &mut Points),
) -> Metric {
    Metric { name, unit, form: Form::Counter, about, attributes, read }
}

const fn up_down(
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    attributes: &'static [&'static str],
    read: fn(&Instance, &mut Points),
) -> Metric {
    Metric { name, unit, form: Form::UpDown, about, attributes, read }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    attributes: &'static [&'static str],
    read: fn(&Instance, &mut Points),
) -> Metric {
    Metric { name, unit, form: Form::Gauge, about, attributes, read }
}

// === impl Metric

impl Metric {
    /// Its numbers now.
    pub fn points(&self, instance: &Instance) -> Vec<Point> {
        let mut points = Points::default();
        (self.read)(instance, &mut points);
        points.0
    }

    /// Whether its numbers are [`Value::Measure`]s.
    pub fn is_measure(&self) -> bool {
        self.unit == "s"
    }
}

// === impl Points

impl Points {
    fn add(&mut self, attributes: Vec<Cow<'static, str>>, value: Value) {
        self.0.push(Point { attributes, value });
    }

    fn count(&mut self, n: u64) {
        self.add(Vec::new(), Value::Count(n));
    }

    fn count_of(&mut self, attribute: impl Into<Cow<'static, str>>, n: u64) {
        self.add(vec![attribute.into()], Value::Count(n));
    }

    fn named(&mut self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        for (name, n) in counts {
            self.count_of(word(name), n);
        }
    }

    fn maybe(&mut self, n: Option<u64>) {
        if let Some(n) = n {
            self.count(n);
        }
    }

    fn measure(&mut self, n: Option<f64>) {
        if let Some(n) = n {
            self.add(Vec::new(), Value::Measure(n));
        }
    }
}

/// A name of the ledger as an attribute's value: `dropped (queue full)` becomes `dropped_queue_full`.
pub(super) fn word(name: &'static str) -> Cow<'static, str> {
    if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
        return name.into();
    }
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").into()
}

/// A balance of counters that were read one after the other: in between it may be off by what is in flight.
pub(super) fn unsigned(n: i128) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::HashSet, sync::Arc};

    use super::*;
    use crate::{config, ledger::Ledger, queue::Queue};

    /// An instance with some numbers in its ledger.
    pub fn instance() -> Instance {
        let ledger = Arc::new(Ledger::default());
        ledger.kernel.syn_again.seen.add(7);
        ledger.kernel.syn_again.ring_full.add(2);
        ledger.records.made.add(u64::MAX);
        ledger.records.delivered.add(5);
        let queue = Queue::new(&config::Queue::default(), Arc::clone(&ledger));
        let instance = Instance::new(ledger, queue, Arc::default(), Arc::default(), 1 << 20);
        instance.export.begin("http://collector:4318", "otlp_http_log_exporter");
        instance
    }

    #[test]
    fn every_name_is_there_once_and_in_the_form_of_the_conventions() {
        let mut names = HashSet::new();
        for metric in METRICS {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let fit = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
            assert!(metric.name.chars().all(fit) && metric.name.len() < 256, "{}", metric.name);
            assert!(metric.about.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn every_point_has_the_attributes_and_the_kind_of_number_that_its_metric_says() {
        let instance = instance();
        for metric in METRICS {
            let mut seen = HashSet::new();
            for point in metric.points(&instance) {
                assert!(point.attributes.len() <= metric.attributes.len(), "{}", metric.name);
                assert_eq!(matches!(point.value, Value::Measure(_)), metric.is_measure(), "{}", metric.name);
                assert!(seen.insert(point.attributes.clone()), "{} {:?} twice", metric.name, point.attributes);
            }
        }
    }

    #[test]
    fn the_ledgers_names_become_words() {
        assert_eq!(word("dropped (queue full)"), "dropped_queue_full");
        assert_eq!(word("syn-ack"), "syn_ack");
        assert_eq!(word("joined"), "joined");
    }
}
