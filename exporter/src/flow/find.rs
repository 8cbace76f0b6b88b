//! A test of ids in; the flow out, while it is open. For people who ask: it looks through all of them.

use super::{Flow, FlowId, flows::Flows};

impl Flows {
    /// The open flow whose id `is` the one that is asked for, and whether it is older than flowtel.
    pub fn find(&self, is: impl Fn(FlowId) -> bool) -> Option<(&Flow, bool)> {
        let is = |flow: &&Flow| flow.id.is_some_and(&is);
        let open = self.open.iter().filter(|(_, open)| !open.own).map(|(_, open)| &open.flow).find(is);
        open.map(|flow| (flow, false)).or_else(|| Some((self.older.flows().find(is)?, true)))
    }
}
