//! As much of a cluster's control plane as an agent sees: etcd and a real API server, inside a node's
//! namespace, for as long as the value lives; and, where a test wants them, controllers and kube-proxies.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::member::Node;
use super::process::Process;
use crate::command::capture;

/// The variable that names the folder of a control plane's programs.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// What must be in it.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// What makes EndpointSlices of Services and Pods.
pub const CONTROLLERS: &str = "kube-controller-manager";
/// What serves Services where we do not, or did not yet.
pub const KUBE_PROXY: &str = "kube-proxy";
/// How long the API server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Who asks. Tests and the node's namespace alone know them by their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do anything.
    Admin,
    /// The agent's ServiceAccount: may do what roles in the cluster let it.
    Agent,
}

impl User {
    const ALL: [Self; 2] = [Self::Admin, Self::Agent];

    const fn token(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Agent => "agent",
        }
    }

    /// Its line in the server's list: token, name, UID, groups.
    const fn listed(self) -> &'static str {
        match self {
            Self::Admin => "admin,admin,admin,system:masters\n",
            Self::Agent => {
                "agent,system:serviceaccount:kube-system:nodeport,agent,\
                 \"system:serviceaccounts,system:serviceaccounts:kube-system\"\n"
            }
        }
    }
}

/// Feature gates that tests of slices need of old servers, which new ones know no more.
const GATES: &str = "EndpointSliceNodeName=true,EndpointSliceTerminatingCondition=true";

/// The folder with all that is needed, and `more`.
///
/// # Errors
/// If the variable is not set or a program is not there; with what is missing.
pub fn assets(more: &[&str]) -> Result<PathBuf> {
    let folder = std::env::var_os(ASSETS).with_context(|| format!("{ASSETS} is not set"))?;
    let folder = PathBuf::from(folder);
    let missing = PROGRAMS.iter().chain(more).find(|program| !folder.join(program).is_file());
    if let Some(program) = missing {
        bail!("there is no {program} in {ASSETS}={}", folder.display());
    }
    Ok(folder)
}

/// A control plane that runs.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the reverse order of their start, so that they end in it.
    processes: Vec<Process>,
    bin: PathBuf,
    node: Node,
    folder: PathBuf,
}

impl ControlPlane {
    /// Starts it on a node and waits until it serves.
    ///
    /// # Errors
    /// If its programs are not there, or one of them does not come up; with what it said.
    pub fn start(node: &Node) -> Result<Self> {
        let (bin, folder) = (assets(&[])?, node.folder().join("kube"));
        let mut plane = Self { processes: Vec::new(), bin, node: node.clone(), folder };
        fs::create_dir_all(&plane.folder).context("create the control plane's folder")?;
        plane.write_credentials()?;
        let etcd = plane.launch("etcd", &plane.etcd())?;
        let mut server = plane.launch("kube-apiserver", &plane.api_server())?;
        plane.wait(&mut server)?;
        plane.processes = vec![server, etcd];
        Ok(plane)
    }

    /// The file with somebody's credentials.
    #[must_use]
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.folder.join(format!("{}.kubeconfig", user.token()))
    }

    /// A file's path in the control plane's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Calls `kubectl` as the administrator.
    ///
    /// # Errors
    /// If it does not exit with 0; with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(User::Admin));
        command.args(["--cache-dir", &self.file("cache"), "--request-timeout=10s"]);
        command.args(arguments);
        self.node.namespace().run(|| capture(&mut command))?
    }

    /// Applies manifests, which are kept in a file of that name.
    ///
    /// # Errors
    /// If the API server does not take them; with what it said.
    pub fn apply(&self, name: &str, text: &str) -> Result<()> {
        let file = self.file(&format!("{name}.yaml"));
        fs::write(&file, text).with_context(|| format!("write {file}"))?;
        self.kubectl(&["apply", "--validate=false", "-f", &file]).map(|_| ())
    }

    /// Starts one of the programs in the node's namespace.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(&self, program: &str, arguments: &[String]) -> Result<Process> {
        self.launch_on(&self.node, program, arguments)
    }

    fn launch_on(&self, node: &Node, program: &str, arguments: &[String]) -> Result<Process> {
        let log = node.folder().join(format!("{program}.log"));
        let mut command = Command::new(self.bin.join(program));
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(arguments).env("PATH", format!("/usr/sbin:/sbin:{path}"));
        Process::start(node.namespace(), &mut command, &log)
    }

    /// Starts the controllers that keep EndpointSlices true to Services and Pods.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn controllers(&self) -> Result<Process> {
        let arguments = [
            format!("--kubeconfig={}", self.kubeconfig(User::Admin).display()),
            "--controllers=endpoint,endpointslice".to_owned(),
            "--leader-elect=false".to_owned(),
            "--port=0".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--feature-gates={GATES}"),
        ];
        self.launch(CONTROLLERS, &arguments)
    }

    /// Starts a kube-proxy in its iptables mode on any node that reaches the control plane's; `pods` is
    /// the network of all pods.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn kube_proxy(&self, node: &Node, pods: &str) -> Result<Process> {
        let arguments = [
            format!("--kubeconfig={}", self.kubeconfig(User::Admin).display()),
            "--proxy-mode=iptables".to_owned(),
            format!("--hostname-override={}", node.name()),
            format!("--cluster-cidr={pods}"),
            // The machine's limits stay as they are.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
            format!("--feature-gates={GATES}"),
        ];
        self.launch_on(node, KUBE_PROXY, &arguments)
    }

    fn write_credentials(&self) -> Result<()> {
        let write = |name: &str, text: &str| {
            fs::write(self.file(name), text).with_context(|| format!("write {}", self.file(name)))
        };
        write("tokens.csv", &User::ALL.map(User::listed).concat())?;
        for user in User::ALL {
            write(&format!("{}.kubeconfig", user.token()), &self.kubeconfig_of(user))?;
        }
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
            // Of this namespace alone.
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,\
             DefaultStorageClass,StorageObjectInUseProtection",
        ]
        .map(str::to_owned)
        .into();
        // Nobody goes there, but without a default route it finds none by itself.
        arguments.push(format!("--advertise-address={}", self.node.address().v4));
        arguments.push(format!("--cert-dir={}", self.file("pki")));
        arguments.push(format!("--token-auth-file={}", self.file("tokens.csv")));
        arguments.push(format!("--service-account-key-file={}", self.file("sa.key")));
        arguments.push(format!("--service-account-signing-key-file={}", self.file("sa.key")));
        arguments.push(format!("--feature-gates={GATES}"));
        arguments
    }

    /// The server's certificate is its own, and nobody else is in the lab.
    fn kubeconfig_of(&self, user: User) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: lab\n  cluster: {{server: \
             'https://{}:6443', insecure-skip-tls-verify: true}}\nusers:\n- name: lab\n  \
             user: {{token: {}}}\ncontexts:\n- name: lab\n  context: {{cluster: lab, user: \
             lab}}\ncurrent-context: lab\n",
            self.node.address().v4,
            user.token()
        )
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
}
