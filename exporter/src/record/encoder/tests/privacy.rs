//! Records as the settings of privacy leave them, through the encoder's own door.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{AttributeNames, HashedNames, Record},
    owner::{Place, Process},
    record::privacy::Policy,
};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const NAMES: [&str; 2] = ["www.example", "web.example"];

fn policy(settings: &Record) -> Option<Arc<Policy>> {
    Policy::new(settings, Some(KEY)).map(Arc::new)
}

/// Names for 192.0.2.1.
fn dns() -> crate::dns::Dns {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let hosts = format!("192.0.2.1 {}", NAMES.join(" "));
    std::io::Write::write_all(&mut file, hosts.as_bytes()).expect("written");
    crate::dns::Dns::new(&config::Dns { hosts_file: file.path().into(), ..Default::default() }, Default::default())
}

/// The records that an encoder with this policy makes of an event about which all is known.
fn records(event: &FlowEvent, groups: Groups, policy: Option<Arc<Policy>>) -> Vec<LogRecord> {
    let dns = dns();
    let reader = Reader { netns: 1, owner: None, hosts: true };
    let names = || dns.names(IpAddr::from([192, 0, 2, 1]), &reader, KernelTime(0));
    let place = Place {
        container_id: Some("c0ffee".into()),
        systemd_unit: Some("user@1000.service".into()),
        ..Place::default()
    };
    let enriched = Enriched {
        source_names: names(),
        destination_names: names(),
        process: Some(Process::example("/home/alice/secret-tool")),
        place: Some(Arc::new(place)),
        ..Enriched::bare(event)
    };
    let mut encoder = encoder_with(groups, WIDE).with_privacy(policy);
    // So often that what is remembered of the pair is used, too.
    for _ in 0..5 {
        encoder.write(&enriched);
        encoder.write(&Enriched::bare(event));
    }
    decode_any(&encoder.seal().expect("records were written")).0
}

proptest! {
    #[test]
    fn a_body_that_is_made_anew_says_what_the_encoders_own_says(event in events()) {
        let mut settings = Record::default();
        // A group that is not written: nothing that a record has changes.
        settings.attributes.exclude = AttributeNames::new(["flowtel.tunnel.type"]);
        let policy = policy(&settings);
        prop_assert!(policy.is_some());
        let mut before = records(&event, Groups::default(), None);
        for record in &mut before {
            record.attributes.retain(|attribute| attribute.key != "flowtel.tunnel.type");
        }
        prop_assert_eq!(before, records(&event, Groups::default(), policy));
    }

    #[test]
    fn nothing_of_what_is_hidden_is_in_the_bytes_of_a_record(event in events(), hash: bool) {
        prop_assume!(!event.flow.source.ip().is_unspecified() && !event.flow.destination.ip().is_unspecified());
        let mut settings = Record::default();
        let groups = ["addresses", "names", "users", "containers", "programs", "processes"];
        if hash {
            settings.hash.attributes = HashedNames::new(groups);
        } else {
            settings.attributes.exclude = AttributeNames::new(groups);
        }
        let all = Groups::CLIENT_SERVER.and(Groups::TRACEE);
        let (plain, hidden) = (records(&event, all, None), records(&event, all, policy(&settings)));
        prop_assert_eq!(plain.len(), hidden.len());
        let flow = &event.flow;
        let mut secrets = vec!["www.example", "web.example", "alice", "secret-tool", "c0ffee", "user@1000"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        // A very short text can stand in a hash, or in a time.
        secrets.extend([flow.source.ip().to_string(), flow.destination.ip().to_string()].into_iter().filter(|ip| ip.len() > 8));
        secrets.extend(flow.id.map(|id| format!("{:032x}", id.0)));
        secrets.extend(flow.community_id.map(|id| String::from_utf8_lossy(&id.text()).into_owned()));
        secrets.extend(plain.iter().filter_map(|record| shown(record, "log.record.uid")));
        for (plain, hidden) in plain.iter().zip(&hidden) {
            let text = format!("{hidden:?}");
            for secret in &secrets {
                prop_assert!(!text.contains(secret.as_str()), "{} in {}", secret, text);
            }
            for key in ["process.pid", "process.real_user.id"] {
                prop_assert!(shown(hidden, key) != shown(plain, key) || shown(plain, key).is_none());
            }
            prop_assert_eq!(shown(plain, "source.port"), shown(hidden, "source.port"));
            prop_assert_eq!((plain.time_unix_nano, &plain.event_name, plain.severity_number), (hidden.time_unix_nano, &hidden.event_name, hidden.severity_number));
        }
    }
}

#[test]
fn another_encoder_beside_one_hides_the_same() {
    let event = events().new_tree(&mut Default::default()).expect("an event").current();
    let mut settings = Record::default();
    settings.hash.attributes = HashedNames::new(["addresses"]);
    let mut encoder = encoder(WIDE).with_privacy(policy(&settings));
    let mut beside = encoder.beside(WIDE);
    encoder.write(&Enriched::bare(&event));
    beside.write(&Enriched::bare(&event));
    assert_eq!(encoder.seal(), beside.seal());
}
