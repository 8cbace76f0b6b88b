//! Any bytes as the path of a cgroup: no panic, and only bounded, plain text comes out.

#![no_main]

use flowtel::owner::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &[u8]| {
    let place = Place::from_path(path);
    let plain = |text: &Option<Box<str>>, most: usize| {
        text.as_ref().is_none_or(|t| !t.is_empty() && t.len() <= most && t.bytes().all(|b| matches!(b, b' '..=b'~')))
    };
    assert!(plain(&place.container_id, 64));
    assert!(plain(&place.pod_uid, 36));
    assert!(plain(&place.systemd_unit, 255));
    assert!(!place.path.is_empty() && place.path.len() <= 4096);
});
