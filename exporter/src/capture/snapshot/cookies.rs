//! Cookies of connections that are older than flowtel: to the kernel side, which tells each FIN of these.

use std::fmt;

use aya::maps::{Array, HashMap, MapData};

/// The kernel side's list of cookies whose FINs are to be told. While this lives and something was put in, it looks there.
pub struct Cookies {
    list: HashMap<MapData, u64, u32>,
    /// Whether the kernel side looks at the list at all: nearly always nothing would be there.
    any: Array<MapData, u32>,
    looks: bool,
    /// The programs stay when this goes, and go on telling.
    stays: bool,
}

// === impl Cookies

impl Cookies {
    /// The maps of the kernel object, empty yet. `stays`: the programs are there after this is gone, and are to go on.
    pub fn new(list: HashMap<MapData, u64, u32>, any: Array<MapData, u32>, stays: bool) -> Self {
        Self { list, any, looks: false, stays }
    }

    /// Each FIN of this one is told from here on. In a full list there is no room: its end is found by looking, later.
    pub(super) fn insert(&mut self, cookie: u64) {
        if !self.looks {
            self.looks = self.any.set(0, 1, 0).is_ok();
        }
        let _ = self.list.insert(cookie, 0, 0);
    }

    /// This one has ended, or is not older.
    pub(super) fn remove(&mut self, cookie: u64) {
        // What is not there need not go.
        let _ = self.list.remove(&cookie);
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("looks", &self.looks).finish_non_exhaustive()
    }
}

impl Drop for Cookies {
    /// None is left, or nobody asks any more.
    fn drop(&mut self) {
        if self.looks && !self.stays {
            // Should it fail, each FIN costs a look-up more.
            let _ = self.any.set(0, 0, 0);
        }
    }
}
