//! The manifests of a lab: what its API server would know, if it had one.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Lab, Pod};

/// The service of the demo, word for word as a user would write it.
pub const DEMO_SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: my-service-nodeport
spec:
  type: NodePort
  selector:
    tier: frontend
  ports:
    - port: 80
      targetPort: 80
      nodePort: 30007
";

/// Its name.
pub const DEMO_NAME: &str = "my-service-nodeport";
/// Its nodePort.
pub const DEMO_PORT: u16 = 30_007;

/// How the pods behind a service are offered.
#[derive(Clone, Copy, Debug)]
pub struct Slices<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Names and protocols of its ports; all are the pods' port 80.
    pub ports: &'a [(&'a str, &'a str)],
    /// The pods, each with whether it takes new connections; those that do not are ending.
    pub pods: &'a [(&'a Pod, bool)],
}

impl<'a> Slices<'a> {
    /// Slices of the demo's service.
    #[must_use]
    pub fn demo(pods: &'a [(&'a Pod, bool)]) -> Self {
        Self { service: DEMO_NAME, ports: &[("", "TCP")], pods }
    }
}

impl Lab {
    /// Writes the Node objects.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn apply_nodes(&self) -> Result<()> {
        let mut text = String::new();
        for node in self.nodes() {
            let address = node.address();
            write!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:\n",
                node.name()
            )?;
            for ip in address.both() {
                write!(text, "    - type: InternalIP\n      address: \"{ip}\"\n")?;
            }
        }
        self.apply("nodes", &text)
    }

    /// Writes a manifest under a name of one's choice, in place of what had that name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn apply(&self, name: &str, text: &str) -> Result<()> {
        let folder = self.manifests()?;
        write_atomically(&folder.join(format!("{name}.yaml")), text)
    }

    /// Removes the manifest of that name.
    ///
    /// # Errors
    /// If it is not there.
    pub fn unapply(&self, name: &str) -> Result<()> {
        let path = self.manifests()?.join(format!("{name}.yaml"));
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Writes the slices of a service, one in each family, as the cluster's controller would.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn apply_slices(&self, slices: &Slices<'_>) -> Result<()> {
        let text = slice(slices, "IPv4")? + &slice(slices, "IPv6")?;
        self.apply(&format!("{}-slices", slices.service), &text)
    }
}

fn slice(slices: &Slices<'_>, family: &str) -> Result<String> {
    let Slices { service, ports, pods } = slices;
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
         name: {service}-{}\n  labels:\n    kubernetes.io/service-name: {service}\n\
         addressType: {family}\nports:\n",
        family.to_lowercase()
    );
    for (name, protocol) in *ports {
        write!(text, "  - name: \"{name}\"\n    port: 80\n    protocol: {protocol}\n")?;
    }
    text.push_str("endpoints:\n");
    for (pod, ready) in *pods {
        let [v4, v6] = pod.address().both();
        let address: IpAddr = if family == "IPv4" { v4 } else { v6 };
        write!(
            text,
            "  - addresses: [\"{address}\"]\n    nodeName: {}\n    conditions: \
             {{ready: {ready}, serving: true, terminating: {}}}\n",
            pod.node(),
            !ready
        )?;
    }
    Ok(text)
}

/// Readers see the old text or the new, never a half.
fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, path)
        .with_context(|| format!("rename {} to {}", new.display(), path.display()))
}
