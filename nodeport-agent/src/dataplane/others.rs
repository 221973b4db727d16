//! Others at a pod's veth: what they do to the pod's packets would be passed by in fast mode.

use aya::programs::{SchedClassifier, TcAttachType};

use super::attach::Hook;
use super::filters;
use super::net::{self, Interface, Side};

/// What somebody else has put on the veth that has a say in what passes it: a queue, or a program or
/// filter of TC.
pub(super) fn at(veth: &Interface) -> Option<String> {
    queue(veth).or_else(|| program(veth)).or_else(|| filter(veth))
}

/// A queue may limit the pod's bandwidth; veths have none by themselves.
fn queue(veth: &Interface) -> Option<String> {
    let queue = veth.queue.as_ref().filter(|queue| !matches!(queue.as_str(), "noqueue" | "noop"));
    queue.map(|queue| format!("the queue {queue}"))
}

fn program(veth: &Interface) -> Option<String> {
    [TcAttachType::Ingress, TcAttachType::Egress].into_iter().find_map(|side| {
        // Kernels without such links have no such programs.
        let (_, programs) = SchedClassifier::query_tcx(&veth.name, side).ok()?;
        programs.iter().find_map(|program| {
            let name = program.name_as_str().unwrap_or_default();
            (!is_ours(name)).then(|| format!("the TC program {} {name}", program.id()))
        })
    })
}

/// Whether that is the name of a program of ours, of which the kernel keeps 15 bytes.
fn is_ours(name: &str) -> bool {
    let kept = |name: &'static str| name.get(..15).unwrap_or(name);
    Hook::ALL.iter().any(|hook| kept(hook.program()) == name)
}

fn filter(veth: &Interface) -> Option<String> {
    // An interface that went meanwhile has none.
    let at = |side| net::filters(veth.ifindex, side).unwrap_or_default();
    let other = Side::BOTH.into_iter().flat_map(at).find(|handle| !filters::is_ours(*handle));
    other.map(|handle| format!("the TC filter {handle:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_ours() {
        for ours in ["nodeport_pod", "nodeport_ingres", "nodeport_egress"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["", "n", "nodeport", "nodeport_ingress2", "cil_from_contai"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
