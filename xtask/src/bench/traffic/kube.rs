//! The real kube-proxy, in its iptables mode, with as much of a control plane as it needs, all inside
//! the node's namespace.

use std::path::PathBuf;

use anyhow::Result;

use super::cluster::Service;
use super::manifests::manifests;
use super::measure::Family;
use crate::lab::control_plane::{self, ControlPlane, KUBE_PROXY};
use crate::lab::{Line, Process};

/// What it serves: one family needs nothing of a control plane that is not there by default.
pub(super) const FAMILIES: [Family; 1] = [Family::V4];

/// The folder with all that is needed, or what is missing.
///
/// # Errors
/// If the variable is not set or a program is not there.
pub(super) fn assets() -> Result<PathBuf> {
    control_plane::assets(&[KUBE_PROXY])
}

/// A kube-proxy and its control plane; both end when this is dropped.
pub(super) struct KubeProxy {
    _proxy: Process,
    _plane: ControlPlane,
}

/// Starts them and applies the services.
///
/// # Errors
/// If one of them does not come up; with what it said.
pub(super) fn start(line: &Line, services: &[Service]) -> Result<KubeProxy> {
    let plane = ControlPlane::start(line.node())?;
    for (name, text) in manifests(services, &FAMILIES, line.backend_node(), services.len()) {
        plane.apply(&name, &text)?;
    }
    let proxy = plane.kube_proxy(line.node(), super::cluster::pod_net(Family::V4))?;
    Ok(KubeProxy { _proxy: proxy, _plane: plane })
}
