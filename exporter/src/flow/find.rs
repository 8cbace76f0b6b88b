//! A flow's id in; the flow out, while it is open. For people who ask: it looks through all of them.

use super::{Flow, FlowId, flows::Flows};

impl Flows {
    /// The open flow with this id, and whether it is older than flowtel.
    pub fn find(&self, id: FlowId) -> Option<(&Flow, bool)> {
        let is = |flow: &&Flow| flow.id == Some(id);
        let open = self.open.iter().filter(|(_, open)| !open.own).map(|(_, open)| &open.flow).find(is);
        open.map(|flow| (flow, false)).or_else(|| Some((self.older.flows().find(is)?, true)))
    }
}
