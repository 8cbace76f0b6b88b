//! A test of ids, or a place in the table, in; flows that are open out. For people who ask.

use super::{Flow, FlowId, flows::Flows};
use crate::capture::KernelTime;

impl Flows {
    /// The open flow whose id `is` the one that is asked for, and whether it is older than flowtel.
    pub fn find(&self, is: impl Fn(FlowId) -> bool) -> Option<(Flow, bool)> {
        let mut open = self.open.iter().filter(|(_, open)| !open.own).map(|(_, open)| &open.flow);
        let young = open.find(|flow| flow.id.is_some_and(&is)).map(|flow| (flow.clone(), false));
        young.or_else(|| Some((self.older.find(&self.boot, is)?, true)))
    }
    /// Some of the open flows whose begin was seen, from this place of their table on, each with when it began, and the place
    /// behind them. Place 0 is the first; the place behind the last is 0, too.
    pub fn open_from(&self, place: u32, most: usize) -> (Vec<(Flow, KernelTime)>, u32) {
        let (open, next) = self.open.from(place, most);
        let open = open.into_iter().filter(|(_, open)| !open.own);
        (open.map(|(_, open)| (open.flow.clone(), open.began)).collect(), next)
    }

    /// The sockets of the open flows that are older than flowtel.
    pub fn older_cookies(&self) -> Vec<u64> {
        self.older.cookies().collect()
    }

    /// Such a flow, while it is open.
    pub fn older_flow(&self, cookie: u64) -> Option<Flow> {
        self.older.get(&self.boot, cookie)
    }
}
