//! A test of ids in; the flow out, while it is open. For people who ask: it looks through all of them.

use super::{Flow, FlowId, flows::Flows};

impl Flows {
    /// The open flow whose id `is` the one that is asked for, and whether it is older than flowtel.
    pub fn find(&self, is: impl Fn(FlowId) -> bool) -> Option<(Flow, bool)> {
        let mut open = self.open.iter().filter(|(_, open)| !open.own).map(|(_, open)| &open.flow);
        let young = open.find(|flow| flow.id.is_some_and(&is)).map(|flow| (flow.clone(), false));
        young.or_else(|| Some((self.older.find(&self.boot, is)?, true)))
    }
}
