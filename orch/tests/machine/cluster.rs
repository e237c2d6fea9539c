//! `orch up` as a child process, and the programs that look at it.

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long anything may take on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to leave a machine alone between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The command under test.
pub(crate) const ORCH: &str = env!("CARGO_BIN_EXE_orch");

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// The exit code; 128 and the signal's number if it was killed.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// What it wrote to its output; panics if it failed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it wrote to standard error; panics if it did not fail.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_ne!(self.code, 0, "it succeeded: {}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Runs a program to its end, with something to read.
#[track_caller]
pub(crate) fn run(command: &mut Command, stdin: &str) -> Said {
    let shown = format!("{command:?}");
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut input = child.stdin.take().expect("it is piped");
    let text = stdin.to_owned();
    // A program that reads nothing closes its input, which is no failure.
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("its output can be read");
    let _closed = writer.join();
    let code = output.status.code();
    Said {
        code: code.unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Looks until there is something to see.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(seen) = look() {
            return seen;
        }
        // Other programs give no signal when they are done.
        thread::park_timeout(LOOK_EVERY);
    }
    panic!("never happened: {what}");
}

/// A port of the loopback address that nothing listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// An HTTP/1.1 request without a body; the status and the body of the answer.
pub(crate) fn http_get(to: SocketAddr, host: &str, path: &str) -> std::io::Result<(u16, String)> {
    http(to, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// An HTTP/1.1 request as it is sent; the status and the body of the answer.
pub(crate) fn http(to: SocketAddr, request: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    Ok((status, body.to_owned()))
}

/// A program whose output is read line by line; it ends with this value.
pub(crate) struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// The next line of its output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("another line").expect("text")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The folder of the programs that are images: the demo application is built if need be.
pub(crate) fn images() -> PathBuf {
    let folder = Path::new(ORCH).parent().expect("it lies in a folder").to_owned();
    if !folder.join("demo-app").exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "demo-app", "--locked"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let target = folder.parent().expect("the target folder");
        run(cargo.arg("--target-dir").arg(target), "").ok();
    }
    folder
}

/// The manifests of the demo application.
pub(crate) fn demo_manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo-app/manifests/demo.yaml")
}

/// A cluster in a process of its own. Dropping it ends it and all that it runs, and tells what it
/// wrote to standard error if the test has failed.
pub(crate) struct Cluster {
    child: Child,
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    stderr: Arc<Mutex<String>>,
    /// The line that it printed when it was ready.
    pub(crate) ready: String,
    /// Where the ingress listens.
    pub(crate) ingress: SocketAddr,
}

impl Cluster {
    /// Starts `orch up` with these arguments, on free ports and a data folder of its own, and waits
    /// until it says that it is ready.
    #[track_caller]
    pub(crate) fn up(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let ingress = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        Self::start(Arc::new(tempfile::tempdir().expect("a folder")), arguments, ingress)
    }

    #[track_caller]
    fn start(folder: Arc<TempDir>, arguments: Vec<String>, ingress: SocketAddr) -> Self {
        let mut command = Command::new(ORCH);
        command.args(["up", "--listen", "127.0.0.1:0", "--ingress", &ingress.to_string()]);
        command.arg("--data-dir").arg(folder.path()).arg("--kubeconfig");
        command.arg(folder.path().join("kubeconfig")).args(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("orch starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (errors, text) = (child.stderr.take().expect("it is piped"), stderr.clone());
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        let ready = String::new();
        let mut cluster = Self { child, folder, arguments, stderr, ready, ingress };
        cluster.ready = match lines.recv_timeout(2 * PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("orch up says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("orch up ended: {:?}", cluster.ended()),
        };
        cluster
    }

    /// Starts it again on the same data folder.
    #[track_caller]
    pub(crate) fn again(mut self) -> Self {
        self.end_now();
        // The old value is dropped without ending what still runs in the folder.
        let (folder, arguments) = (self.folder.clone(), std::mem::take(&mut self.arguments));
        Self::start(folder, arguments, self.ingress)
    }

    /// Where it keeps what it keeps.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The process of `orch up`.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// kubectl with the administrator's kubeconfig, to be started by the caller.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig());
        // What it learns of the API stays with this cluster. `--` ends kubectl's own arguments, so
        // this has to come first.
        command.arg("--cache-dir").arg(self.folder.path().join("kubectl-cache")).args(arguments);
        command
    }

    /// Runs kubectl with something to read.
    #[track_caller]
    pub(crate) fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Said {
        run(&mut self.kubectl_command(arguments), stdin)
    }

    /// Runs kubectl, which must succeed; what it wrote.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let said = self.kubectl_with(arguments, "");
        assert_eq!(said.code, 0, "kubectl {arguments:?}: {}{}", said.stdout, said.stderr);
        said.stdout
    }

    /// Runs kubectl, which must fail; what it complained about.
    #[track_caller]
    pub(crate) fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let said = self.kubectl_with(arguments, "");
        assert_ne!(said.code, 0, "kubectl {arguments:?}: {}{}", said.stdout, said.stderr);
        said.stderr
    }

    /// Applies a manifest.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.kubectl_with(&["apply", "-f", "-"], manifest).ok()
    }

    /// Stops it with a signal, and waits until it has ended; its exit code.
    #[track_caller]
    pub(crate) fn stop(&mut self, signal: Signal) -> i32 {
        kill(Pid::from_raw(self.pid()), signal).expect("it is ours");
        let status = eventually("orch up ends", || self.child.try_wait().expect("it is ours"));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    fn ended(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().ok().and_then(|status| status.code());
        (code, self.stderr())
    }

    /// Ends `orch up` itself if it still runs.
    fn end_now(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end_now();
        // Containers outlive `orch up`; they end with the last value that has their folder.
        if Arc::strong_count(&self.folder) == 1 {
            end_containers(self.folder.path());
        }
        if thread::panicking() {
            eprintln!("--- orch up wrote:\n{}---", self.stderr());
        }
    }
}

/// Ends the containers of the process runtime that belong to a data folder.
fn end_containers(folder: &Path) {
    let needle = folder.to_string_lossy().into_owned();
    let processes = || fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<i32>().ok();
    let mut ours: Vec<i32> = Vec::new();
    for pid in processes().filter_map(|entry| number(&entry)) {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&needle) {
            ours.push(pid);
        }
    }
    // Their children do not know the folder; every round finds one more generation.
    loop {
        let parents = ours.clone();
        let children = processes().filter_map(|entry| number(&entry)).filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            let parent = parent.and_then(|parent| parent.parse().ok());
            !parents.contains(pid) && parent.is_some_and(|parent| parents.contains(&parent))
        });
        ours.extend(children.collect::<Vec<_>>());
        if ours.len() == parents.len() {
            break;
        }
    }
    for pid in ours {
        // It may have ended by itself.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
