//! The memory that names really take, by the allocator's own count: never more than the cache reckons.
//!
//! Alone in its file: the allocator counts for the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use flowtel::{
    capture::KernelTime,
    config,
    dns::{
        Asker,
        cache::{Cache, Seen},
    },
    ledger,
};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call is passed on as it is to the system's allocator; counting touches no memory that is given out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of this trait, which are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of this trait, which are those of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Fills a cache with `count` names and says what it reckons and what it takes.
fn fill(count: u32, seen: impl Fn(u32) -> (u32, u64, String)) -> (usize, usize) {
    let ledger = ledger::Dns::default();
    let before = IN_USE.load(Relaxed);
    let mut cache = Cache::new(&config::Dns { source_share: 100, ..config::Dns::default() });
    for n in 0..count {
        let (address, source, names) = seen(n);
        let address = Ipv4Addr::from(address).into();
        let time = KernelTime(1_000_000_000 + u64::from(n));
        cache.insert(
            &Seen {
                address,
                asker: Asker { cgroup: source, netns: 1, uid: 0 },
                names: &names,
                ttl: Duration::from_secs(60),
                time,
            },
            &ledger,
        );
    }
    (cache.bytes(), IN_USE.load(Relaxed) - before)
}

#[test]
fn names_take_no_more_memory_than_is_reckoned_whatever_is_asked_for() {
    let most = usize::try_from(config::Dns::default().max_bytes.0).expect("a size");
    let long = "x".repeat(240);
    let cases = [
        ("one name each", fill(60_000, |n| (n, 7, format!("host{n}.example.com")))),
        ("one name for all", fill(60_000, |n| (n, 7, "example.com".into()))),
        ("many containers", fill(100_000, |n| (n, n.into(), format!("host{n}.example.com")))),
        ("many containers at few addresses", fill(100_000, |n| (n % 500, u64::from(n / 500) % 64, format!("host{n}")))),
        ("many names an address", fill(200_000, |n| (n % 5_000, 7, format!("host{n}.example.com edge.example")))),
        ("long names", fill(100_000, |n| (n, 7, format!("{n}{long} {n}{long}")))),
    ];
    for (what, (reckoned, taken)) in cases {
        println!("{what}: reckoned {reckoned}, taken {taken}");
        assert!(reckoned <= most, "{what}: reckoned {reckoned} of {most}");
        assert!(taken <= reckoned + 4096, "{what}: reckoned {reckoned}, taken {taken}");
    }
}
