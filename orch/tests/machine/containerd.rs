//! A containerd of the test's own, in a network of its own.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch_node::runtime::{Inventory, Sandboxes, cri::CriRuntime};
use tempfile::TempDir;

use crate::cluster::{eventually, run};

/// The image of the demo application.
pub(crate) const DEMO: &str = "orch.dev/demo-app:v1";
/// Where pods get their addresses from, as the text that these begin with.
pub(crate) const PODS: &str = "10.88.7.";
/// The address of the machine, inside of the test's network.
pub(crate) const NODE: &str = "10.201.0.1";

/// Runs a test with a network of its own, so that neither its addresses nor its packet filter rules
/// meet anybody else's. The network is gone with the last process in it.
pub(crate) fn in_own_network(test: fn()) {
    let thread = thread::spawn(move || {
        // Everything that is started from this thread is in the new network.
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network");
        for arguments in [
            "link set lo up",
            "link add orch0 type veth peer name orch1",
            "link set orch1 up",
            &format!("addr add {NODE}/24 dev orch0"),
            "link set orch0 up",
            "route add default via 10.201.0.254 dev orch0",
        ] {
            run(Command::new("ip").args(arguments.split(' ')), "").ok();
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A containerd with the images of the demo application. Dropping it removes all that it runs.
pub(crate) struct Containerd {
    child: Child,
    folder: TempDir,
}

impl Containerd {
    /// Starts it, on folders of its own.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("cni")).expect("a folder");
        fs::write(at("cni/10-test.conflist"), network(&at("addresses"))).expect("a file");
        fs::write(at("config.toml"), config(folder.path())).expect("a file");
        let log = File::create(at("log")).expect("a file");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let containerd = Self { child, folder };
        eventually("containerd answers", || {
            (run(&mut containerd.ctr(&["version"]), "").code == 0).then_some(())
        });
        containerd.import();
        containerd
    }

    /// The path of its socket.
    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("containerd.sock").display().to_string()
    }

    /// A command of its own client, among what Kubernetes uses.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.socket(), "--namespace", "k8s.io"]).args(arguments);
        command
    }

    /// The process on this machine of a container, by the id that a pod's status shows.
    pub(crate) fn process(&self, container: &str) -> Pid {
        let id = container.trim_start_matches("containerd://");
        let tasks = run(&mut self.ctr(&["tasks", "list"]), "").ok();
        let line = tasks.lines().find(|line| line.starts_with(id)).expect("it runs");
        let pid = line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        Pid::from_raw(pid.expect("a process id"))
    }

    /// The ids of all containers, pods' own ones included.
    pub(crate) fn containers(&self) -> Vec<String> {
        let list = run(&mut self.ctr(&["containers", "list", "--quiet"]), "").ok();
        list.lines().map(str::to_owned).collect()
    }

    fn import(&self) {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-app-images");
        fs::create_dir_all(&out).expect("a folder");
        // Other tests may be building the same files.
        let lock = File::create(out.join("lock")).expect("a file");
        lock.lock().expect("a lock");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo-app/build-image");
        run(Command::new("bash").arg(script).arg(&out), "").ok();
        for archive in ["demo-app.tar", "pause.tar"] {
            let archive = out.join(archive);
            let archive = archive.to_str().expect("UTF-8");
            run(&mut self.ctr(&["images", "import", archive]), "").ok();
        }
    }

    /// Ends the pods, in the order that gives back their addresses and mounts.
    fn remove_pods(&self) {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(tokio) = tokio else { return };
        tokio.block_on(async {
            let Ok(runtime) = CriRuntime::new(&self.socket()) else { return };
            for sandbox in runtime.sandboxes(None).await.unwrap_or_default() {
                for ended in [
                    runtime.stop_sandbox(&sandbox.id).await,
                    runtime.remove_sandbox(&sandbox.id).await,
                ] {
                    if let Err(error) = ended {
                        eprintln!("a pod stays behind: {error}");
                    }
                }
            }
        });
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.remove_pods();
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default());
        // It may have ended by itself.
        let _gone = kill(pid, Signal::SIGTERM);
        let _status = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- containerd wrote at last, latest first:\n{}\n---", last.join("\n"));
        }
        // What is still mounted would keep the folder from being removed.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        for target in targets.filter(|target| target.starts_with(self.folder.path())) {
            let _gone = umount2(target, MntFlags::MNT_DETACH);
        }
    }
}

/// Copies instead of overlays, because these work on every file system.
fn config(folder: &Path) -> String {
    let folder = folder.display();
    let plugins = plugins();
    let plugins = plugins.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "orch.dev/pause:local"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"#
    )
}

/// Routed, not bridged: what passes a bridge only meets the service proxy if the kernel's module for
/// that is loaded.
fn network(addresses: &Path) -> String {
    let addresses = addresses.display();
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {{"type": "ptp", "ipMasq": true,
    "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{PODS}0/24"}}]],
              "routes": [{{"dst": "0.0.0.0/0"}}], "dataDir": "{addresses}"}}}},
  {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"#
    )
}

/// The folder of the CNI plugins.
fn plugins() -> PathBuf {
    let path = env::var_os("CNI_PATH").unwrap_or_else(|| "/usr/lib/cni:/opt/cni/bin".into());
    let found = env::split_paths(&path).find(|folder| folder.join("ptp").is_file());
    found.expect("the plugins are required")
}
