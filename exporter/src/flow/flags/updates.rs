//! What has passed so far over a connection of a capture, every so often by the times of its packets.

use std::time::Duration;

use super::{between, connection::Connection};
use crate::{
    capture::{KernelTime, WallTime},
    flow::{FlowEvent, Stamp, What},
};

impl Connection {
    /// One of its segments was captured at `now`: tells what has passed, if `every` is over since that was told.
    pub(super) fn update(&mut self, now: KernelTime, every: Duration, out: &mut impl FnMut(FlowEvent)) {
        if between(self.told_at, now).is_none_or(|since| u128::from(since) < every.as_nanos()) {
            return;
        }
        let traffic = self.traffic();
        let duration = self.began.and_then(|began| between(began, now)).map(Duration::from_nanos);
        let at = Stamp { time: now, wall: WallTime(now.0), observed: WallTime(now.0) };
        let what = What::Update { duration, traffic: traffic.since(&self.told) };
        (self.told, self.told_at) = (traffic.passed(), now);
        out(FlowEvent { at, flow: self.flow.clone(), what });
    }
}
