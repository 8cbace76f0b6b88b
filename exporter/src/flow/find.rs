//! A flow's id in; the flow out, while it is open. For people who ask: it looks through all of them.

use super::{Flow, FlowId, flows::Flows};

impl Flows {
    /// The open flow with this id, and whether it is older than flowtel.
    pub fn find(&self, id: FlowId) -> Option<(Flow, bool)> {
        let mut open = self.open.iter().filter(|(_, open)| !open.own).map(|(_, open)| &open.flow);
        let young = open.find(|flow| flow.id == Some(id)).map(|flow| (flow.clone(), false));
        young.or_else(|| Some((self.older.find(&self.boot, id)?, true)))
    }
}
