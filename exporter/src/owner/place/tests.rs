//! With the real tree of cgroups: root only, and where one may be made.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::*;

const ID: &str = "3f4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8";

/// Cgroups of the test's own, removed with it, also when it fails.
struct Made {
    path: PathBuf,
    id: u64,
}

impl Made {
    /// Makes `name` below a cgroup of the test's own. `None`, with the reason printed, where that may not be done.
    fn new(test: &str, name: &str) -> Option<Self> {
        let top = cgroup::mount().ok().map(|mount| mount.join(format!("flowtel-test-{test}-{}", std::process::id())));
        let Some(top) = top else {
            println!("skipped: no cgroup v2 tree is mounted");
            return None;
        };
        let path = top.join(name);
        if let Err(e) = fs::create_dir_all(&path) {
            println!("skipped: {} can't be made: {e}", path.display());
            let _ = fs::remove_dir(&top);
            return None;
        }
        let id = fs::metadata(&path).expect("it is there").ino();
        Some(Self { path, id })
    }

    fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.remove();
    }
}

fn places() -> (Places, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    (Places::new(&config::Owner::default(), Arc::clone(&ledger)), ledger)
}

/// As where the right to open by handle is missing.
fn refuse(places: &mut Places) {
    places.rests_until = Some(Instant::now() + REFUSED_FOR);
}

/// Asks until the search has come by: some steps, a tick apart.
fn search(places: &mut Places, id: u64) -> Option<Arc<Place>> {
    for _ in 0..400 {
        if let Some(place) = places.of(id) {
            return Some(place);
        }
        places.walk.hurry();
        places.absent.remove(id);
    }
    None
}

fn relative(path: &Path) -> String {
    let mount = cgroup::mount().expect("mounted");
    format!("/{}", path.strip_prefix(mount).expect("within").display())
}

#[test]
fn a_cgroup_is_found_by_handle_and_remembered_after_it_was_removed() {
    let Some(made) = Made::new("handle", &format!("docker-{ID}.scope")) else { return };
    let (mut places, ledger) = places();
    if !places.by_handle() {
        println!("skipped: cgroups can't be opened by handle here");
        return;
    }
    let place = places.of(made.id).expect("found");
    assert_eq!((place.container_id.as_deref(), &*place.path), (Some(ID), &*relative(&made.path)));
    made.remove();
    assert!(Arc::ptr_eq(&place, &places.of(made.id).expect("remembered")));
    let counts = &ledger.owner.places;
    assert_eq!((counts.looked_up.get(), counts.cached.get(), counts.asked()), (1, 1, 2));
}

#[test]
fn a_cgroup_is_found_by_search_where_handles_are_refused() {
    let Some(made) = Made::new("search", &format!("cri-containerd-{ID}.scope")) else { return };
    let (mut places, _) = places();
    refuse(&mut places);
    let place = search(&mut places, made.id).expect("found");
    assert_eq!((place.container_id.as_deref(), &*place.path), (Some(ID), &*relative(&made.path)));
    // What was met on the way is known too.
    let parent = fs::metadata(made.path.parent().expect("it has one")).expect("there").ino();
    assert!(places.known.get(parent).is_some());
}

#[test]
fn both_ways_tell_the_same_of_each_cgroup() {
    let Ok(mount) = cgroup::mount() else { return println!("skipped: no cgroup v2 tree is mounted") };
    let (mut by_handle, _) = places();
    if !by_handle.by_handle() {
        return println!("skipped: cgroups can't be opened by handle here");
    }
    let (mut by_search, _) = places();
    refuse(&mut by_search);
    let root = fs::metadata(&mount).expect("there").ino();
    assert_eq!(&*search(&mut by_search, root).expect("found").path, "/");
    for entry in fs::read_dir(&mount).expect("readable").filter_map(Result::ok) {
        let Some(id) = entry.metadata().ok().filter(fs::Metadata::is_dir).map(|m| m.ino()) else { continue };
        // Another test may have removed it meanwhile.
        if let (Some(a), Some(b)) = (by_handle.of(id), search(&mut by_search, id)) {
            assert_eq!(a, b);
        }
    }
    assert_eq!(by_handle.of(root).map(|p| p.path.clone()), Some("/".into()));
}

#[test]
fn a_cgroup_that_was_removed_before_it_was_asked_for_is_gone_in_both_ways() {
    let Some(made) = Made::new("gone", "x.service") else { return };
    made.remove();
    for by_handle in [true, false] {
        let (mut places, ledger) = places();
        if !by_handle {
            refuse(&mut places);
        }
        assert_eq!(places.of(made.id), None);
        assert_eq!(places.of(made.id), None, "and not looked for again");
        let counts = &ledger.owner.places;
        assert_eq!(counts.gone.get() + counts.unreadable.get(), 2);
    }
}

#[test]
fn a_cgroup_whose_path_is_longer_than_a_page_has_none_and_takes_nobody_elses_away() {
    let Some(made) = Made::new("long", "x.service") else { return };
    let (mut places, ledger) = places();
    if !places.by_handle() {
        println!("skipped: cgroups can't be opened by handle here");
        return;
    }
    // Each is made within the one before: a path of this length can't be given to a system call.
    let name = "n".repeat(250);
    let mut above = vec![fs::File::open(&made.path).expect("opened")];
    let made_all = (0..17).all(|_| {
        let at = above.last().expect("one at least");
        let inner = rustix::fs::mkdirat(at, &name, 0o755.into()).and_then(|()| {
            rustix::fs::openat(at, &name, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, 0.into())
        });
        inner.map(|inner| above.push(inner.into())).is_ok()
    });
    let id = above.last().expect("one at least").metadata().expect("there").ino();
    let (asked, again, other) = (places.of(id), places.of(id), places.of(made.id));
    above.pop();
    while let Some(at) = above.pop() {
        let _ = rustix::fs::unlinkat(&at, &name, rustix::fs::AtFlags::REMOVEDIR);
    }
    if !made_all {
        println!("skipped: cgroups can't be made so deep here");
        return;
    }
    assert_eq!((asked, again), (None, None));
    assert!(other.is_some() && places.by_handle(), "the next one is found by handle all the same");
    assert_eq!((ledger.owner.places.unreadable.get(), ledger.owner.places.gone.get()), (2, 0));
}

#[test]
fn opening_by_handle_is_tried_again_after_it_was_refused() {
    let Some(made) = Made::new("again", "x.service") else { return };
    let (mut places, _) = places();
    if !places.by_handle() {
        println!("skipped: cgroups can't be opened by handle here");
        return;
    }
    refuse(&mut places);
    assert!(!places.by_handle());
    places.rests_until = Some(Instant::now());
    assert!(places.of(made.id).is_some() && places.by_handle());
}

#[test]
fn no_cgroup_and_a_table_that_is_off_give_nothing() {
    let (mut places, _) = places();
    assert_eq!(places.of(0), None);
    assert_eq!(places.of(u64::MAX), None);
    let off = config::Owner { container: false, ..config::Owner::default() };
    let mut places = Places::new(&off, Arc::new(Ledger::default()));
    assert_eq!(places.of(1), None);
    assert!(!places.by_handle());
}

#[test]
fn a_search_goes_in_steps_and_meets_all_of_a_large_tree() {
    let dir = tempfile::tempdir().expect("a directory");
    for outer in 0..40 {
        for inner in 0..20 {
            fs::create_dir_all(dir.path().join(format!("{outer}/{inner}"))).expect("made");
        }
    }
    std::os::unix::fs::symlink("/", dir.path().join("out")).expect("made");
    let root = fs::File::open(dir.path()).expect("opened").into();
    let (mut walk, mut met, mut steps) = (Walk::default(), Vec::new(), 0);
    let now = Instant::now();
    loop {
        steps += 1;
        if walk.step(&root, now, |id, path| met.push((id, path.to_vec()))) {
            break;
        }
        assert!(!walk.step(&root, now, |_, _| panic!("too early")), "a step at a time");
        walk.hurry();
    }
    assert_eq!((met.len(), steps), (1 + 40 + 800, 4));
    for (id, path) in met {
        let path = dir.path().join(String::from_utf8_lossy(&path).trim_start_matches('/'));
        assert_eq!(fs::metadata(path).expect("it is there").ino(), id);
    }
    walk.hurry();
    assert!(!walk.step(&root, now, |_, _| panic!("too early")), "a round at a time");
}

#[test]
fn paths_are_told_from_the_trees_root_and_not_from_that_of_all_files() {
    let root = fs::File::open("/").expect("opened");
    let tree = Tree { root: root.into(), start: Vec::new(), mount: b"/sys/fs/cgroup".to_vec() };
    assert_eq!(tree.relative(b"/sys/fs/cgroup/a/b"), Some(&b"/a/b"[..]));
    assert_eq!(tree.relative(b"/sys/fs/cgroup"), Some(&b""[..]));
}

/// Measured on 6.18: from within a cgroup namespace the kernel opens any cgroup of the host, and calls it `/`.
#[test]
fn a_cgroup_outside_of_the_mounted_part_is_not_taken_for_its_root() {
    let root = fs::File::open("/").expect("opened");
    let tree = Tree { root: root.into(), start: Vec::new(), mount: b"/sys/fs/cgroup".to_vec() };
    for path in [&b"/"[..], b"", b"/other.slice", b"/../other.slice", b"/sys/fs/cgroup2/a"] {
        assert_eq!(tree.relative(path), None);
    }
}

#[test]
fn a_search_below_a_cgroup_tells_paths_from_the_trees_own_root() {
    let root = std::fs::File::open("/").expect("a directory");
    let tree = Tree { root: root.into(), start: b"/shop.slice".to_vec(), mount: b"/sys/fs/cgroup".to_vec() };
    assert_eq!(
        (&*tree.path(b"/"), &*tree.path(b"/docker-1.scope")),
        (&b"/shop.slice"[..], &b"/shop.slice/docker-1.scope"[..])
    );
}
