//! Which records are shown: rules as of `--include`, and events by name, in; a batch out, with the records that they keep.
//!
//! Rules ask what a record says. What it doesn't say, because nobody knows it or a setting left it out, matches no condition.

use bytes::Bytes;
use prost::Message as _;

use super::facts::{Event, Facts, Request};
use crate::{
    config::{Events, rules::Rules},
    record::Batch,
    select::Filter,
};

/// What is shown.
#[derive(Debug, Clone)]
pub struct Chosen {
    filter: Filter,
    events: Events,
}

// === impl Chosen

impl Chosen {
    /// What these rules and events keep.
    ///
    /// # Errors
    /// A rule asks for something that no record says.
    pub fn new(rules: &Rules, events: Events) -> Result<Self, String> {
        if rules.0.iter().any(|rule| !rule.cgroup.is_empty()) {
            return Err("cgroup: records don't say it, so nothing can be chosen by it; container= may do".into());
        }
        Ok(Self { filter: Filter::new(rules, None), events })
    }

    /// Everything.
    pub fn all() -> Self {
        Self { filter: Filter::new(&Rules::default(), None), events: Events::NETWORK_EVENTS }
    }

    /// Whether everything is shown.
    pub fn is_all(&self) -> bool {
        self.filter.is_empty() && self.events.has(Events::NETWORK_EVENTS)
    }

    /// Whether a record is shown. What is missing concerns everybody.
    pub fn keeps(&self, facts: &Facts) -> bool {
        let event = match facts.event {
            Event::Begin => Events::BEGINS,
            Event::Open => Events::OPEN,
            Event::Update => Events::UPDATES,
            Event::End => Events::ENDS,
            Event::Failed => Events::FAILED,
            Event::Gap => return self.events.has(Events::GAPS),
        };
        self.events.has(event) && self.filter.keeps(&facts.ends, &facts.who())
    }

    /// A batch of the records that are shown; `None`: none are, or it is no request.
    pub fn batch(&self, request: Bytes, records: u32) -> Option<Batch> {
        let batch = |bytes, records| Batch { bytes, records, first: 0, last: 0 };
        if self.is_all() {
            return Some(batch(request, records));
        }
        let mut request = Request::decode(request).ok()?;
        let mut kept = 0;
        for scope in request.resources.iter_mut().flat_map(|resource| &mut resource.scopes) {
            scope.records.retain(|record| Facts::of_bytes(record).is_some_and(|facts| self.keeps(&facts)));
            kept += scope.records.len();
        }
        let kept = u32::try_from(kept).ok().filter(|kept| *kept > 0)?;
        Some(batch(request.encode_to_vec().into(), kept))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

    use super::*;
    use crate::view::sample;

    fn chosen(rules: &str, events: Events) -> Result<Chosen, String> {
        let rules: Vec<_> = rules.split(';').filter(|rule| !rule.is_empty()).collect();
        let rules = serde_json::from_value(serde_json::json!(rules)).map_err(|e| e.to_string())?;
        Chosen::new(&rules, events)
    }

    /// Events and destination ports of what is shown of the sample.
    fn shown(rules: &str, events: Events) -> Vec<(String, i64)> {
        let chosen = chosen(rules, events).expect("rules");
        let Some(batch) = chosen.batch(sample::request(), 0) else { return Vec::new() };
        let request = ExportLogsServiceRequest::decode(batch.bytes).expect("a request");
        let whole = ExportLogsServiceRequest::decode(sample::request()).expect("a request");
        assert_eq!(request.resource_logs[0].resource, whole.resource_logs[0].resource);
        let records: Vec<_> =
            request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records).collect();
        assert!(chosen.is_all() || records.len() == batch.records as usize);
        let port = |facts: &Facts| facts.ends.destination.port().into();
        let word = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        records.iter().map(|record| (word(&record.event_name), Facts::of(record).as_ref().map_or(0, port))).collect()
    }

    #[test]
    fn rules_choose_by_what_records_say_and_gaps_are_always_shown() {
        let all = Events::NETWORK_EVENTS;
        let words =
            |list: &[(&str, i64)]| list.iter().map(|(word, port)| ((*word).to_owned(), *port)).collect::<Vec<_>>();
        assert_eq!(shown("", all).len(), 8);
        assert_eq!(shown("include process=postgres", all), words(&[("open", 5432), ("update", 5432), ("gap", 0)]));
        assert_eq!(shown("include port=443 user=1000", all), words(&[("begin", 443), ("end", 443), ("gap", 0)]));
        assert_eq!(shown("include container=4f2c", all), words(&[("begin", 8443), ("gap", 0)]));
        assert_eq!(shown("exclude direction=incoming,outgoing", all), words(&[("gap", 0)]));
        assert_eq!(shown("include local=true", Events::UPDATES), words(&[("update", 5432)]));
        assert_eq!(shown("", Events::FAILED), words(&[("failed", 22)]));
        assert!(shown("include port=1", Events::BEGINS).is_empty());
    }

    #[test]
    fn what_no_record_says_is_refused_and_what_is_no_request_shows_nothing() {
        assert!(chosen("include cgroup=/a", Events::BEGINS).is_err_and(|why| why.starts_with("cgroup: ")));
        let chosen = chosen("include port=1", Events::BEGINS).expect("rules");
        assert!(chosen.batch(Bytes::from_static(b"\xff\xff"), 3).is_none());
    }
}
