//! The real kube-proxy, in its iptables mode, with as much of a control plane as it needs: etcd and
//! an API server, all inside the node's namespace.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cluster::Service;
use super::manifests::manifests;
use super::measure::Family;
use crate::command::capture;
use crate::lab::{Line, Process};

/// The variable that names the folder of a control plane's programs.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// What must be in it.
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kubectl", "kube-proxy"];
/// How long the API server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What tests and this namespace alone know the administrator by.
const TOKEN: &str = "bench";
const GATES: &str = "EndpointSliceNodeName=true,EndpointSliceTerminatingCondition=true";

/// What it serves: one family needs nothing of a control plane that is not there by default.
pub(super) const FAMILIES: [Family; 1] = [Family::V4];

/// The folder with all that is needed, or what is missing.
///
/// # Errors
/// If the variable is not set or a program is not there.
pub(super) fn assets() -> Result<PathBuf> {
    let folder = std::env::var_os(ASSETS).with_context(|| format!("{ASSETS} is not set"))?;
    let folder = PathBuf::from(folder);
    let missing = PROGRAMS.iter().find(|program| !folder.join(program).is_file());
    if let Some(program) = missing {
        bail!("there is no {program} in {ASSETS}={}", folder.display());
    }
    Ok(folder)
}

/// Starts them and applies the services. All end when the processes are dropped.
///
/// # Errors
/// If one of them does not come up; with what it said.
pub(super) fn start(line: &Line, services: &[Service]) -> Result<Vec<Process>> {
    let plane = Plane { bin: assets()?, line, folder: line.node().folder().join("kube") };
    fs::create_dir_all(&plane.folder).context("create the control plane's folder")?;
    plane.write_credentials()?;
    // In the reverse order of their start, so that they end in it.
    let etcd = plane.start("etcd", &plane.etcd())?;
    let mut server = plane.start("kube-apiserver", &plane.api_server())?;
    plane.wait(&mut server)?;
    plane.apply(services)?;
    let proxy = plane.start("kube-proxy", &plane.kube_proxy())?;
    Ok(vec![proxy, server, etcd])
}

struct Plane<'a> {
    bin: PathBuf,
    line: &'a Line,
    folder: PathBuf,
}

impl Plane<'_> {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write_credentials(&self) -> Result<()> {
        let write = |name: &str, text: &str| {
            fs::write(self.file(name), text).with_context(|| format!("write {}", self.file(name)))
        };
        write("tokens.csv", &format!("{TOKEN},admin,admin,system:masters\n"))?;
        write("kubeconfig", &kubeconfig())?;
        let key = ["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"];
        let mut openssl = Command::new("openssl");
        capture(openssl.args(key).arg(self.file("sa.key"))).map(|_| ())
    }

    fn etcd(&self) -> Vec<String> {
        let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        vec![
            format!("--data-dir={}", self.file("etcd")),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            "--log-level=warn".to_owned(),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--secure-port=6443",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=AlwaysAllow",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,\
             DefaultStorageClass,StorageObjectInUseProtection",
        ]
        .map(str::to_owned)
        .into();
        // Nobody goes there, but without a default route it finds none by itself.
        arguments.push(format!("--advertise-address={}", self.line.node().address().v4));
        arguments.push(format!("--cert-dir={}", self.file("pki")));
        arguments.push(format!("--token-auth-file={}", self.file("tokens.csv")));
        arguments.push(format!("--service-account-key-file={}", self.file("sa.key")));
        arguments.push(format!("--service-account-signing-key-file={}", self.file("sa.key")));
        arguments.push(format!("--feature-gates={GATES}"));
        arguments
    }

    fn kube_proxy(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.file("kubeconfig")),
            "--proxy-mode=iptables".to_owned(),
            format!("--hostname-override={}", self.line.node().name()),
            format!("--cluster-cidr={}", super::cluster::pod_net(Family::V4)),
            // The machine's limits stay as they are.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
            format!("--feature-gates={GATES}"),
        ]
    }

    fn start(&self, program: &str, arguments: &[String]) -> Result<Process> {
        let log = self.folder.join(format!("{program}.log"));
        let mut command = Command::new(self.bin.join(program));
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(arguments).env("PATH", format!("/usr/sbin:/sbin:{path}"));
        Process::start(self.line.node().namespace(), &mut command, &log)
    }

    fn wait(&self, server: &mut Process) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.kubectl(&["get", "--raw", "/readyz"]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline || !server.is_running() => {
                    let log = server.log_text();
                    let tail = log.len().saturating_sub(2_000);
                    let tail = log.get(tail..).unwrap_or_default();
                    return Err(error).with_context(|| format!("the API server: {tail}"));
                }
                Err(_) => sleep(Duration::from_millis(200)),
            }
        }
    }

    fn apply(&self, services: &[Service]) -> Result<()> {
        for (name, text) in manifests(services, &FAMILIES, self.line.backend_node(), services.len())
        {
            let file = self.file(&format!("{name}.yaml"));
            fs::write(&file, text).with_context(|| format!("write {file}"))?;
            self.kubectl(&["apply", "--validate=false", "-f", &file])?;
        }
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.args(["--kubeconfig", &self.file("kubeconfig")]);
        command.args(["--cache-dir", &self.file("cache"), "--request-timeout=10s"]);
        command.args(arguments);
        self.line.node().namespace().run(|| capture(&mut command))?
    }
}

/// The server's certificate is its own, and nobody else is in the namespace.
fn kubeconfig() -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: bench\n  cluster: {{server: \
         'https://127.0.0.1:6443', insecure-skip-tls-verify: true}}\nusers:\n- name: bench\n  \
         user: {{token: {TOKEN}}}\ncontexts:\n- name: bench\n  context: {{cluster: bench, user: \
         bench}}\ncurrent-context: bench\n"
    )
}
