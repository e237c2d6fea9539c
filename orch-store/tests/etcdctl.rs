//! `etcdctl` on a served store, and etcd on its snapshot. What is missing is named, and the tests
//! are counted as ignored.

use std::{
    io::Write as _,
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use orch_core::testing::require::{Requirement, missing};
use orch_store::{
    DurableOptions, DurableStore,
    serve::{EtcdServer, ServeOptions},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, time::Instant};

/// No command and no line takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

fn main() {
    let arguments = Arguments::from_args();
    let client = [Requirement::Command("etcdctl")];
    let both = [Requirement::Command("etcdctl"), Requirement::Etcd];
    let trials = vec![
        trial("keys", &client, keys),
        trial("transactions", &client, transactions),
        trial("watches", &client, watches),
        trial("leases", &client, leases),
        trial("maintenance", &client, maintenance),
        trial("locks_and_elections", &client, locks_and_elections),
        trial("etcd_starts_on_a_snapshot", &both, etcd_starts_on_a_snapshot),
        trial("a_snapshot_of_etcd_is_imported", &both, a_snapshot_of_etcd_is_imported),
        trial("etcd_starts_on_a_large_snapshot", &both, etcd_starts_on_a_large_snapshot),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test that panics when it fails, and is ignored when the machine lacks what it needs.
fn trial(name: &str, requirements: &[Requirement], test: fn()) -> Trial {
    let why = missing(requirements);
    if let Some(why) = &why {
        eprintln!(
            "skipped: etcdctl {name}: {why} (Debian: apt-get install etcd-client etcd-server)"
        );
    }
    let run = move || -> Result<(), Failed> {
        test();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(why.is_some())
}

/// A durable store that is served on a free port.
struct Served {
    endpoint: String,
    runtime: Runtime,
    _stop: oneshot::Sender<()>,
    folder: TempDir,
}

impl Served {
    fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let guard = runtime.enter();
        let store = DurableStore::open(folder.path().join("store"), DurableOptions::default());
        drop(guard);
        let options = ServeOptions {
            lease_ttl_s_min: 1,
            watch_progress_interval: Duration::from_millis(100),
            ..ServeOptions::default()
        };
        let server = EtcdServer::new(Arc::new(store.unwrap()), options);
        runtime.spawn(server.serve(listener, async { drop(stopped.await) }));
        Self { endpoint, runtime, _stop: stop, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        etcdctl(&self.endpoint, arguments)
    }

    /// What a command prints, which must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        succeeded(arguments, output)
    }

    /// What a command says that must fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} succeeded: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What a command prints that reads `input`.
    fn fed(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        succeeded(arguments, child.wait_with_output().unwrap())
    }

    /// A command that goes on until it is dropped.
    fn follow(&self, arguments: &[&str]) -> Following {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        Following { child, lines }
    }
}

fn etcdctl(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(arguments);
    command
}

fn succeeded(arguments: &[&str], output: Output) -> String {
    assert!(output.status.success(), "etcdctl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command and the lines that it prints.
struct Following {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

fn read_lines(out: ChildStdout) -> std::sync::mpsc::Receiver<String> {
    use std::io::BufRead as _;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufReader::new(out).lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    receiver
}

/// Whether this etcdctl has a flag.
fn supports(command: &str, flag: &str) -> bool {
    let help = etcdctl("127.0.0.1:1", &[command, "--help"]).output().unwrap();
    String::from_utf8(help.stdout).unwrap().contains(flag)
}

impl Following {
    /// Types a line.
    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

fn keys() {
    let served = Served::start();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("dir/x", "x"), ("dir/y", "y")] {
        assert_eq!(served.run(&["put", key, value]), "OK\n");
    }
    assert_eq!(served.run(&["put", "a", "4", "--prev-kv"]), "OK\na\n3\n");
    for (arguments, expected) in [
        (&["get", "a"][..], &["a", "4"][..]),
        (&["get", "a", "--rev=2"], &["a", "3"]),
        (&["get", "--prefix", "dir/"], &["dir/x", "x", "dir/y", "y"]),
        (&["get", "--from-key", "c", "--keys-only"], &["c", "dir/x", "dir/y"]),
        (&["get", "a", "c"], &["a", "4", "b", "2"]),
        (&["get", "--prefix", "", "--limit=2", "--keys-only"], &["a", "b"]),
        (
            &["get", "a", "d", "--sort-by=VALUE", "--order=ASCEND", "--print-value-only"],
            &["1", "2", "4"],
        ),
        (&["get", "a", "d", "--order=DESCEND", "--keys-only"], &["c", "b", "a"]),
        (&["get", "none"], &[]),
    ] {
        assert_eq!(lines(&served.run(arguments)), expected, "{arguments:?}");
    }
    let count = served.run(&["get", "--prefix", "", "--limit=1", "--write-out=fields"]);
    assert!(count.contains("\"More\" : true") && count.contains("\"Count\" : 5"), "{count}");
    if supports("get", "--count-only") {
        let count = ["get", "--prefix", "", "--count-only", "--write-out=fields"];
        assert!(served.run(&count).contains("\"Count\" : 5"));
    }
    assert_eq!(served.run(&["del", "a", "--prev-kv"]), "1\na\n4\n");
    assert_eq!(served.run(&["del", "--prefix", "dir/"]), "2\n");
    assert_eq!(served.run(&["del", "none"]), "0\n");
    assert_eq!(served.run(&["compaction", "8", "--physical"]), "compacted revision 8\n");
    let said = served.refused(&["get", "a", "--rev=3"]);
    assert!(said.contains("etcdserver: mvcc: required revision has been compacted"), "{said}");
    let said = served.refused(&["get", "a", "--rev=100"]);
    assert!(said.contains("etcdserver: mvcc: required revision is a future revision"), "{said}");
    let said = served.refused(&["put", "--ignore-value", "none"]);
    assert!(said.contains("etcdserver: key not found"), "{said}");
}

fn transactions() {
    let served = Served::start();
    served.run(&["put", "user", "bad"]);
    let input = "value(\"user\") = \"bad\"\n\ndel user\n\nput user good\n\n";
    let said = served.fed(&["txn", "--interactive"], input);
    assert!(lines(&said).ends_with(&["SUCCESS", "1"]), "{said}");
    let input = "create(\"user\") > \"0\"\n\nput user good\n\nput user new\nget user\n\n";
    let said = served.fed(&["txn", "--interactive"], input);
    assert!(lines(&said).ends_with(&["FAILURE", "OK", "user", "new"]), "{said}");
    let input = "mod(\"user\") > \"0\"\n\nput a 1\nput a 2\n\n\n";
    let mut command = served.command(&["txn", "--interactive"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("etcdserver: duplicate key given in txn request"), "{said}");
}

fn watches() {
    let served = Served::start();
    served.run(&["put", "w/a", "1"]);
    served.run(&["put", "w/a", "2"]);
    let past = served.follow(&["watch", "--prefix", "w/", "--rev=2", "--prev-kv"]);
    assert_eq!(past.lines(3), ["PUT", "w/a", "1"]);
    // The previous key and value come before the new ones.
    assert_eq!(past.lines(5), ["PUT", "w/a", "1", "w/a", "2"]);
    served.run(&["del", "w/a"]);
    assert_eq!(past.lines(5), ["DELETE", "w/a", "2", "w/a", ""]);
    let mut asked = served.follow(&["watch", "--interactive"]);
    asked.say("watch w/ --prefix --rev=4");
    assert_eq!(asked.lines(3), ["DELETE", "w/a", ""]);
    asked.say("progress");
    assert_eq!(asked.line(), "progress notify: 4");
    if supports("watch", "--progress-notify") {
        let noticed = served.follow(&["watch", "other", "--progress-notify"]);
        assert_eq!(noticed.line(), "progress notify: 4");
    }
    served.run(&["compaction", "4"]);
    let said = served.refused(&["watch", "w/a", "--rev=2"]);
    assert!(said.contains("required revision has been compacted"), "{said}");
}

fn granted(said: &str) -> String {
    said.split(' ').nth(1).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn leases() {
    let served = Served::start();
    let id = granted(&served.run(&["lease", "grant", "100"]));
    served.run(&["put", "leased", "x", "--lease", &id]);
    let said = served.run(&["lease", "timetolive", &id, "--keys"]);
    assert!(said.contains("granted with TTL(100s)"), "{said}");
    assert!(said.contains("attached keys([leased])"), "{said}");
    assert!(served.run(&["lease", "list"]).contains(&id));
    let said = served.run(&["lease", "keep-alive", "--once", &id]);
    assert_eq!(said, format!("lease {id} keepalived with TTL(100)\n"));
    assert_eq!(served.run(&["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(served.run(&["get", "leased"]), "");
    assert!(served.run(&["lease", "timetolive", &id]).contains("already expired"));
    let said = served.refused(&["lease", "revoke", &id]);
    assert!(said.contains("etcdserver: requested lease not found"), "{said}");
    // One that nobody keeps alive takes its key with it.
    let short = granted(&served.run(&["lease", "grant", "1"]));
    let watch = served.follow(&["watch", "short"]);
    served.run(&["put", "short", "x", "--lease", &short]);
    // The watch may have begun after the put; the deletion comes in any case.
    let deadline = Instant::now() + DEADLINE;
    while watch.line() != "DELETE" {
        assert!(Instant::now() < deadline, "the lease did not expire");
    }
}

fn maintenance() {
    let served = Served::start();
    served.run(&["put", "a", "1"]);
    let said = served.command(&["endpoint", "health"]).output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("is healthy"), "{said}");
    let said = served.run(&["endpoint", "status", "--write-out=fields"]);
    for field in ["\"Version\" : \"3.6.5\"", "\"Revision\" : 2", "\"Leader\" : "] {
        assert!(said.contains(field), "{said}");
    }
    let said = served.run(&["endpoint", "hashkv"]);
    assert!(said.starts_with(&format!("{}, ", served.endpoint)), "{said}");
    let said = served.run(&["member", "list"]);
    assert!(said.contains(&format!("started, default, , http://{}", served.endpoint)), "{said}");
    // Through the address that the list of members gives.
    assert!(served.run(&["endpoint", "status", "--cluster"]).contains("http://"));
    assert_eq!(served.run(&["alarm", "list"]), "");
    assert!(served.run(&["defrag"]).contains("Finished defragmenting"));
    // The client goes on when it is told that there is no authentication.
    assert_eq!(served.run(&["--user=root:x", "get", "a"]), "a\n1\n");
}

fn locks_and_elections() {
    let served = Served::start();
    assert_eq!(served.run(&["lock", "mutex", "echo", "held"]), "held\n");
    let holder = served.follow(&["lock", "mutex"]);
    let key = holder.line();
    assert!(key.starts_with("mutex/"), "{key}");
    let waiter = served.follow(&["lock", "mutex"]);
    // The waiter has queued up when it has a key of its own.
    let deadline = Instant::now() + DEADLINE;
    while lines(&served.run(&["get", "--prefix", "mutex/", "--keys-only"])).len() < 2 {
        assert!(Instant::now() < deadline, "the second lock was not queued");
    }
    assert!(waiter.lines.try_recv().is_err(), "the lock is held twice");
    served.run(&["del", &key]);
    assert!(waiter.line().starts_with("mutex/"));
    let leader = served.follow(&["elect", "race", "first"]);
    assert!(leader.line().starts_with("race/"));
    assert_eq!(leader.line(), "first");
    let observer = served.follow(&["elect", "--listen", "race"]);
    assert!(observer.line().starts_with("race/"));
    assert_eq!(observer.line(), "first");
}

/// A real etcd on a folder that was restored, ended with this value.
struct Etcd {
    child: Child,
    endpoint: String,
}

impl Etcd {
    fn start(folder: &Path) -> Self {
        // Somebody else may take a port between its choice and its use; etcd ends then.
        (0..5).find_map(|_| Self::start_once(folder)).expect("etcd starts")
    }

    /// An etcd that answers; `None` if it ends instead.
    fn start_once(folder: &Path) -> Option<Self> {
        let free = || StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (client, peer) = (free().to_string(), format!("http://{}", free()));
        let url = format!("http://{client}");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder).arg("--unsafe-no-fsync");
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut etcd = Self { child: command.spawn().unwrap(), endpoint: client };
        let deadline = Instant::now() + DEADLINE;
        while !etcd.command(&["get", "x"]).output().unwrap().status.success() {
            if etcd.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "etcd does not answer");
        }
        Some(etcd)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        etcdctl(&self.endpoint, arguments)
    }

    fn run(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.command(arguments).output().unwrap())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Saves a snapshot, and restores it to a folder; gives its status as well.
fn snapshot(served: &Served) -> (String, std::path::PathBuf) {
    let file = served.folder.path().join("snapshot.db");
    let folder = served.folder.path().join("restored");
    let (name, to) = (file.to_str().unwrap(), folder.to_str().unwrap());
    served.run(&["snapshot", "save", name]);
    let status = served.run(&["snapshot", "status", name, "--write-out=fields"]);
    served.run(&["snapshot", "restore", name, "--data-dir", to]);
    (status, folder)
}

fn etcd_starts_on_a_snapshot() {
    let served = Served::start();
    let lease = granted(&served.run(&["lease", "grant", "1000"]));
    for (key, value) in [("a", "1"), ("b", "1"), ("gone", "1"), ("a", "2")] {
        served.run(&["put", key, value]);
    }
    served.run(&["put", "leased", "x", "--lease", &lease]);
    served.fed(&["txn", "--interactive"], "\nput t/1 x\nput t/2 y\n\n\n");
    served.run(&["del", "gone"]);
    let (status, folder) = snapshot(&served);
    // That of the newest change that is in it; the deletion behind it left nothing.
    assert!(status.contains("\"Revision\" : 7"), "{status}");
    let etcd = Etcd::start(&folder);
    let all = ["get", "--prefix", "", "--write-out=fields"];
    // Revisions and versions as well; only who answers differs.
    let told = |said: String| -> Vec<String> {
        let header = |line: &&str| {
            !["\"ClusterID", "\"MemberID", "\"RaftTerm"].iter().any(|name| line.starts_with(name))
        };
        said.lines().filter(header).map(str::to_owned).collect()
    };
    assert_eq!(told(etcd.run(&all)), told(served.run(&all)));
    let said = etcd.run(&["lease", "timetolive", &lease, "--keys"]);
    assert!(said.contains("granted with TTL(1000s)"), "{said}");
    assert!(said.contains("attached keys([leased])"), "{said}");
    etcd.run(&["put", "a", "3"]);
    etcd.run(&["lease", "revoke", &lease]);
    assert_eq!(
        lines(&etcd.run(&["get", "--from-key", "", "--keys-only"])),
        ["a", "b", "t/1", "t/2"]
    );
    etcd.run(&["compaction", "10"]);
}

/// The way back: what a real etcd saved, with its history, comes into a store.
fn a_snapshot_of_etcd_is_imported() {
    use orch_store::{LeaseReader as _, MemoryStore, StoreReader as _, serve::import_snapshot};
    let served = Served::start();
    let etcd = Etcd::start(&served.folder.path().join("etcd"));
    for number in 0..50 {
        etcd.run(&["put", &format!("k{}", number % 10), &number.to_string()]);
    }
    let lease = granted(&etcd.run(&["lease", "grant", "1000"]));
    etcd.run(&["put", "leased", "x", "--lease", &lease]);
    etcd.run(&["del", "k3"]);
    let file = served.folder.path().join("etcd.db");
    etcd.run(&["snapshot", "save", file.to_str().unwrap()]);
    served.runtime.block_on(async {
        let store = MemoryStore::default();
        let imported = import_snapshot(&file, &store).await.unwrap();
        assert_eq!((imported.keys, imported.leases), (10, 1));
        let everything = orch_store::RangeRequest::new(orch_store::KeyRange::prefix(""));
        let found = store.range(everything).await.unwrap();
        let ours = found.entries.iter().flat_map(|entry| [&entry.key, &entry.value]);
        let ours: Vec<_> = ours.map(|text| std::str::from_utf8(text).unwrap()).collect();
        assert_eq!(ours, lines(&etcd.run(&["get", "--prefix", ""])));
        let id = i64::from_str_radix(&lease, 16).unwrap();
        assert_eq!(store.lease(id).await.unwrap().unwrap().keys, ["leased"]);
    });
}

/// Several levels of pages, and values that need pages of their own.
fn etcd_starts_on_a_large_snapshot() {
    let served = Served::start();
    let store = orch_store::EtcdOptions::new(format!("http://{}", served.endpoint));
    const COUNT: usize = 20_000;
    served.runtime.block_on(async {
        let store = orch_store::EtcdStore::connect(store).await.unwrap();
        let put = async |number: usize| {
            let length = if number.is_multiple_of(100) { 20_000 } else { 10 + number % 300 };
            let value = vec![b'a' + (number % 26) as u8; length];
            let write = orch_store::Write::put(format!("/many/{number:06}"), value);
            orch_store::Store::write(&store, write).await.unwrap();
        };
        for batch in 0..COUNT / 200 {
            let puts = (0..200).map(|number| put(batch * 200 + number));
            futures::future::join_all(puts).await;
        }
    });
    let (status, folder) = snapshot(&served);
    assert!(status.contains(&format!("\"Revision\" : {}", COUNT + 1)), "{status}");
    let etcd = Etcd::start(&folder);
    for arguments in [
        &["get", "--prefix", "/many/", "--keys-only"][..],
        &["get", "--prefix", "/many/0001"],
        &["get", "--prefix", "/many/0199"],
    ] {
        let (theirs, ours) = (etcd.run(arguments), served.run(arguments));
        assert!(theirs == ours, "{arguments:?} differs");
    }
    assert_eq!(etcd.run(&["del", "--prefix", "/many/"]), format!("{COUNT}\n"));
}
