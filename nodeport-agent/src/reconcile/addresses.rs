//! The addresses of the node: as its object has them, and as its interfaces have them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tracing::info;

use crate::addresses::select::select;
use crate::addresses::{Own, Served, Watch};
use crate::config::NodePortAddresses;
use crate::model::Node;

/// What is known of them, and what follows.
#[derive(Debug)]
pub(super) struct Addresses {
    /// None where the interfaces' are not looked at.
    watch: Option<Watch>,
    rule: NodePortAddresses,
    name: Arc<str>,
    /// What [`Self::selected`] comes from.
    node: Option<Arc<Node>>,
    own: Option<Arc<[Own]>>,
    selected: Option<Arc<Node>>,
    served: Vec<Served>,
}

impl Addresses {
    pub(super) const fn new(watch: Option<Watch>, rule: NodePortAddresses, name: Arc<str>) -> Self {
        Self { watch, rule, name, node: None, own: None, selected: None, served: Vec::new() }
    }

    /// See [`Watch::check`].
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }

    /// Looks at the interfaces' addresses; what they are if that has changed.
    pub(super) fn look(&mut self) -> Option<BTreeSet<IpAddr>> {
        let own = self.watch.as_ref()?.own()?;
        if self.own.as_ref().is_some_and(|known| Arc::ptr_eq(known, &own)) {
            return None;
        }
        let addresses = own.iter().map(|own| own.address).collect();
        self.own = Some(own);
        self.select();
        Some(addresses)
    }

    /// The node with the addresses on which nodePorts are served, from the one that its object describes.
    pub(super) fn of(&mut self, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        if self.node != node || self.selected.is_none() {
            self.node = node;
            self.select();
        }
        self.selected.clone()
    }

    /// On which nodePorts are served, and why.
    pub(super) fn served(&self) -> &[Served] {
        &self.served
    }

    fn select(&mut self) {
        let (node, served) =
            select(&self.rule, &self.name, self.node.as_deref(), self.own.as_deref());
        self.selected = node.map(Arc::new);
        let before = std::mem::replace(&mut self.served, served);
        for served in self.served.iter().filter(|served| !before.contains(served)) {
            info!("nodePorts are served on {served}");
        }
        for served in before.iter().filter(|served| !self.served.contains(served)) {
            info!("nodePorts are served no more on {served}");
        }
    }
}
