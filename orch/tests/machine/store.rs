//! `orch store serve`: a store by itself, used by etcd's own client.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch_core::testing::require::Requirement;

use crate::{
    cluster::{ORCH, Said, http_get, run},
    trial,
};

/// The tests of this module.
pub(crate) fn trials() -> Vec<Trial> {
    let etcdctl = [Requirement::Command("etcdctl")];
    vec![
        trial("store::etcdctl_finds_what_it_left", &etcdctl, etcdctl_finds_what_it_left),
        trial("store::a_backup_is_a_store_again", &etcdctl, a_backup_is_a_store_again),
        trial("store::memory_forgets", &etcdctl, memory_forgets),
        trial("store::signals_stop_it", &[], signals_stop_it),
        trial("store::what_is_wrong_is_told_in_one_line", &[], what_is_wrong),
    ]
}

/// A served store, ended with this value.
struct Served {
    child: Child,
    /// The line that it printed when it was ready.
    ready: String,
    address: SocketAddr,
}

impl Served {
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(ORCH);
        command.args(["store", "serve", "--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut ready = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut ready).expect("a line");
        let word = ready.split(' ').find_map(|word| word.trim_end_matches(';').parse().ok());
        let address = word.unwrap_or_else(|| panic!("no address: {ready:?}"));
        Self { child, ready, address }
    }

    /// What it says to type next, with another command at its end.
    fn next(&self, arguments: &[&str]) -> Said {
        let (_, next) = self.ready.trim().split_once("next: ").expect("what to type next");
        let next = next.strip_suffix("get / --prefix").expect("a command");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{next} \"$@\"")).arg("sh").args(arguments);
        run(&mut command, "")
    }

    fn stop(&mut self, signal: Signal) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("it runs");
        self.child.wait().expect("it ends").code().expect("it is not killed")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Backed up, restored, checked, and taken over from a snapshot of etcd's kind.
fn a_backup_is_a_store_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let store = |arguments: &[&str]| run(Command::new(ORCH).arg("store").args(arguments), "");
    let (old, copy, taken) = (path("old"), path("copy"), path("taken"));
    let (backup, snapshot) = (path("backup"), path("snapshot"));
    {
        let mut served = Served::start(&["--data-dir", &old]);
        served.next(&["put", "/k", "kept"]).ok();
        served.next(&["snapshot", "save", &snapshot]).ok();
        let busy = store(&["backup", "--data-dir", &old, &backup]);
        assert!(busy.stderr.contains("in use by another process"), "{busy:?}");
        assert_eq!(served.stop(Signal::SIGTERM), 0);
    }
    let missing = store(&["check", "--data-dir", &path("nowhere")]);
    assert!(!missing.stderr.is_empty() && missing.stderr.lines().count() == 1, "{missing:?}");
    store(&["backup", "--data-dir", &old, &backup]).ok();
    store(&["restore", "--data-dir", &copy, "--revisions-ahead", "1000", &backup]).ok();
    store(&["import", "--data-dir", &taken, &snapshot]).ok();
    for (folder, revision) in [(&old, "revision 2"), (&copy, "revision 1002"), (&taken, "")] {
        let checked = store(&["check", "--data-dir", folder]).ok();
        assert!(checked.contains("1 key") && checked.contains(revision), "{checked}");
        let served = Served::start(&["--data-dir", folder]);
        let got = served.next(&["get", "/k", "--print-value-only"]).ok();
        assert_eq!(got.trim(), "kept");
    }
    let again = store(&["restore", "--data-dir", &copy, &backup]);
    assert!(again.stderr.contains("has a store already"), "{again:?}");
}

fn etcdctl_finds_what_it_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("store");
    let data = data.to_str().expect("UTF-8");
    let mut served = Served::start(&["--data-dir", data]);
    assert_eq!(served.next(&["put", "/key", "value"]).ok(), "OK\n");
    assert_eq!(served.stop(Signal::SIGTERM), 0);
    let served = Served::start(&["--data-dir", data]);
    assert_eq!(served.next(&["get", "/key"]).ok(), "/key\nvalue\n");
    let status = served.next(&["endpoint", "status", "--write-out=json"]).ok();
    // The size is that of the folder's files.
    assert!(status.contains("\"dbSize\":") && !status.contains("\"dbSize\":0,"), "{status}");
}

fn memory_forgets() {
    let mut served = Served::start(&["--memory"]);
    assert_eq!(served.next(&["put", "/key", "value"]).ok(), "OK\n");
    assert_eq!(served.stop(Signal::SIGINT), 0);
    assert_eq!(Served::start(&["--memory"]).next(&["get", "/key"]).ok(), "");
}

fn signals_stop_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut served = Served::start(&["--memory"]);
        let (status, body) = http_get(served.address, "localhost", "/health").expect("an answer");
        assert_eq!((status, &*body), (200, r#"{"health":"true","reason":""}"#));
        assert_eq!(served.stop(signal), 0);
        assert!(http_get(served.address, "localhost", "/health").is_err());
    }
}

fn what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "no certificate").expect("a file");
    let (file, data) = (file.to_str().expect("UTF-8"), folder.path().join("store"));
    let data = data.to_str().expect("UTF-8");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).expect("one");
    let _first = Served::start(&["--data-dir", data]);
    let any = ["--listen", "127.0.0.1:0"];
    for (arguments, code, says) in [
        (&["serve"][..], 2, "--data-dir"),
        (&["serve", "--memory", "--data-dir", data], 2, "--memory"),
        (&["serve", "--memory", "--listen", "nowhere"], 2, "--listen"),
        (&["serve", "--memory", "--cert-file", file], 2, "--key-file"),
        (&["serve", "--memory", "--trusted-ca-file", file], 2, "--cert-file"),
        (&["serve", "--memory", "--log", "a=b=c"], 1, "--log"),
        (&["serve", "--memory", "--listen", &taken.0], 1, "--listen"),
        (&["serve", "--data-dir", file, any[0], any[1]], 1, "--data-dir"),
        (&["serve", "--data-dir", data, any[0], any[1]], 1, "in use by another process"),
        (
            &["serve", "--memory", "--cert-file", "/no/such", "--key-file", file, any[0], any[1]],
            1,
            "cannot read /no/such",
        ),
        (
            &["serve", "--memory", "--cert-file", file, "--key-file", file, any[0], any[1]],
            1,
            "the server's certificate",
        ),
    ] {
        let said = run(Command::new(ORCH).arg("store").args(arguments), "");
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        let lines: Vec<_> = said.stderr.lines().collect();
        assert!(
            matches!(lines[..], [line] if line.starts_with("orch: ") && line.contains(says)),
            "{arguments:?}: {said:?}"
        );
    }
}
