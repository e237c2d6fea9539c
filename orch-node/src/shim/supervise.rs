//! The shim itself: starts a container, writes its log, serves attachments, leaves the outcome.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use nix::sys::{signal::Signal, stat::Mode};
use orch_core::clock::{Clock as _, SystemClock};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixListener,
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
    sync::{broadcast, mpsc},
};

use super::{
    WORD,
    attach::{self, Frame},
    cgroup::Cgroup,
    output::Log,
    pty::{Pty, PtyMaster},
    record::{
        self, CONFIG, ContainerRecord, ProcessRecord, READY, STATE, StateRecord, VERSION, micros,
    },
};
use crate::logs::LogStream;

/// After the container's main process has ended, its output is read for at most so long: something
/// that escaped its process group may hold it open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// Frames kept for the slowest attachment.
const QUEUE: usize = 256;

/// A container that runs.
struct Running {
    child: Child,
    /// Taken at once: waiting for the child would close it.
    stdin: Option<ChildStdin>,
    process: ProcessRecord,
    terminal: Option<PtyMaster>,
}

/// Runs a container to its end; gives the shim's own exit code. Tells on standard output whether
/// the start succeeded: `ok`, or `error` and why.
pub(super) async fn run(folder: &Path) -> i32 {
    let config: ContainerRecord = match record::read(&folder.join(CONFIG)) {
        Ok(config) => config,
        Err(error) => return tell(&format!("error cannot read the configuration: {error}"), 1),
    };
    let log = match Log::open(&config.log_path) {
        Ok(log) => log,
        Err(error) => return tell(&format!("error cannot open the log: {error}"), 1),
    };
    let cgroup = Cgroup::create(&config.id, config.memory_limit_bytes);
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    let mut state = StateRecord {
        version: VERSION,
        shim: ProcessRecord::of(me).unwrap_or_default(),
        started_at: micros(SystemClock.now()),
        ..StateRecord::default()
    };
    let running = match start(folder, &config, cgroup.as_ref()).await {
        Ok(running) => running,
        Err(why) => {
            state.finished_at = Some(state.started_at);
            state.exit_code = 128;
            state.reason = "StartError".into();
            state.message = why.clone();
            if let Some(cgroup) = cgroup {
                cgroup.remove().await;
            }
            return match record::write(&folder.join(STATE), &state) {
                Ok(()) => tell(&format!("error {why}"), 0),
                Err(error) => tell(&format!("error {why}; cannot write the state: {error}"), 1),
            };
        }
    };
    state.process = Some(running.process);
    if let Err(error) = record::write(&folder.join(STATE), &state) {
        running.process.signal_group(Signal::SIGKILL);
        return tell(&format!("error cannot write the state: {error}"), 1);
    }
    let listener = listen(config.socket.as_deref());
    tell("ok", 0);
    let status = supervise(&config, running, log, listener).await;
    let killed_for_memory = cgroup.as_ref().is_some_and(Cgroup::was_killed_for_memory);
    state.finished_at = Some(micros(SystemClock.now()));
    state.exit_code = exit_code(status);
    if killed_for_memory && state.exit_code != 0 {
        state.reason = "OOMKilled".into();
    }
    let written = record::write(&folder.join(STATE), &state);
    if let Some(cgroup) = cgroup {
        cgroup.remove().await;
    }
    i32::from(written.is_err())
}

/// Says how the start went, and lets go of the agent's pipe.
fn tell(text: &str, code: i32) -> i32 {
    println!("{text}");
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        // The agent then waits for the shim's end instead, which comes too.
        let _agent_waits_longer = nix::unistd::dup2_stdout(&null);
    }
    code
}

/// The exit code, or 128 and the signal's number.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255)
}

async fn start(
    folder: &Path,
    config: &ContainerRecord,
    cgroup: Option<&Cgroup>,
) -> Result<Running, String> {
    let ready = folder.join(READY);
    match nix::unistd::mkfifo(&ready, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::Error::EEXIST) => {}
        Err(error) => return Err(format!("cannot make {}: {error}", ready.display())),
    }
    let exe = std::env::current_exe().map_err(|e| format!("cannot find the program: {e}"))?;
    let mut command = Command::new(exe);
    command.arg(WORD).arg("init").arg(folder);
    let terminal = if config.tty {
        let pty = Pty::open().map_err(|e| format!("cannot open a terminal: {e}"))?;
        command.arg(&pty.terminal);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(pty)
    } else {
        command.stdin(if config.stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        None
    };
    let mut child = command.spawn().map_err(|e| format!("cannot start: {e}"))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    if let Some(cgroup) = cgroup
        && let Err(error) = std::fs::write(cgroup.procs(), pid.to_string())
    {
        tracing::warn!(%error, "the memory limit is not enforced");
    }
    let stdin = child.stdin.take();
    wait_for_exec(&mut child, ready).await?;
    let process = ProcessRecord::of(pid).unwrap_or(ProcessRecord { pid, started_ticks: 0 });
    Ok(Running { child, stdin, process, terminal: terminal.map(|pty| pty.master) })
}

/// Waits until the program runs. What comes through the FIFO before it closes says why not.
async fn wait_for_exec(child: &mut Child, ready: PathBuf) -> Result<(), String> {
    let mut text = tokio::task::spawn_blocking(move || std::fs::read_to_string(ready));
    let ended = tokio::select! {
        biased;
        text = &mut text => return match text {
            Ok(Ok(why)) if why.is_empty() => Ok(()),
            Ok(Ok(why)) => Err(why),
            Ok(Err(error)) => Err(format!("cannot tell whether it started: {error}")),
            Err(error) => Err(format!("cannot tell whether it started: {error}")),
        },
        ended = child.wait() => ended,
    };
    // It may have said why before it ended.
    if let Ok(Ok(Ok(why))) = tokio::time::timeout(DRAIN, text).await {
        return if why.is_empty() { Ok(()) } else { Err(why) };
    }
    Err(match ended {
        Ok(status) => format!("it ended before it started: {status}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    })
}

async fn read_all(
    mut from: impl AsyncRead + Unpin,
    stream: LogStream,
    to: mpsc::Sender<(LogStream, Bytes)>,
) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        let data = Bytes::copy_from_slice(&buffer[..read]);
        if read == 0 || to.send((stream, data)).await.is_err() {
            return;
        }
    }
}

/// Writes what attachments send into the container.
async fn feed(
    mut input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    terminal: Option<PtyMaster>,
    once: bool,
    mut frames: mpsc::Receiver<Frame>,
) {
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Stdin(data) => {
                if let Some(to) = &mut input
                    && to.write_all(&data).await.is_err()
                {
                    input = None;
                }
            }
            Frame::StdinEnd if once => input = None,
            Frame::Resize(size) => {
                if let Some(terminal) = &terminal {
                    terminal.resize(size);
                }
            }
            _ => {}
        }
    }
}

fn listen(path: Option<&Path>) -> Option<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = path?;
    let bound = UnixListener::bind(path).and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, "nobody can attach");
            None
        }
    }
}

async fn accept(
    listener: Option<UnixListener>,
    output: broadcast::Sender<Frame>,
    input: mpsc::Sender<Frame>,
) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(attach::serve(stream, output.subscribe(), input.clone()));
        }
    }
}

/// Moves output and input until the container has ended.
async fn supervise(
    config: &ContainerRecord,
    running: Running,
    mut log: Log,
    listener: Option<UnixListener>,
) -> ExitStatus {
    let Running { mut child, stdin, process, terminal } = running;
    let (lines, mut taken) = mpsc::channel(QUEUE);
    let (output, _) = broadcast::channel(QUEUE);
    let (to_container, input) = mpsc::channel(QUEUE);
    let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = match (&terminal, stdin) {
        (Some(terminal), _) if config.stdin => Some(Box::new(terminal.clone())),
        (_, Some(pipe)) => Some(Box::new(pipe)),
        _ => None,
    };
    tokio::spawn(feed(stdin, terminal.clone(), config.stdin_once, input));
    if let Some(terminal) = terminal {
        tokio::spawn(read_all(terminal, LogStream::Stdout, lines.clone()));
    }
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(read_all(stdout, LogStream::Stdout, lines.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(read_all(stderr, LogStream::Stderr, lines.clone()));
    }
    drop(lines);
    tokio::spawn(accept(listener, output.clone(), to_container));
    let mut reopen = signal(SignalKind::user_defined1()).ok();
    // Whoever wants the container to stop tells the container.
    let _ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).ok());
    let mut drained = false;
    let status = loop {
        tokio::select! {
            entry = taken.recv(), if !drained => match entry {
                Some(entry) => pass_on(entry, &mut log, &output),
                None => drained = true,
            },
            ended = child.wait() => break ended,
            () = next_signal(&mut reopen) => log.reopen(),
        }
    };
    // What is left of the group ends with its first process, as in a container.
    let group = nix::unistd::Pid::from_raw(process.pid);
    let _group_is_empty = nix::sys::signal::killpg(group, Signal::SIGKILL);
    let rest = async {
        while let Some(entry) = taken.recv().await {
            pass_on(entry, &mut log, &output);
        }
    };
    let _held_open = tokio::time::timeout(DRAIN, rest).await;
    if let Err(error) = log.finish() {
        tracing::warn!(%error, "the end of the log was not written");
    }
    let status = status.unwrap_or_else(|_| ExitStatus::from_raw(255 << 8));
    tell_end(config, &output, status).await;
    status
}

async fn next_signal(of: &mut Option<tokio::signal::unix::Signal>) {
    match of {
        Some(signal) => {
            if signal.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

fn pass_on((stream, data): (LogStream, Bytes), log: &mut Log, output: &broadcast::Sender<Frame>) {
    if let Err(error) = log.take(stream, &data) {
        tracing::warn!(%error, "output was not logged");
    }
    let frame = match stream {
        LogStream::Stdout => Frame::Stdout(data),
        LogStream::Stderr => Frame::Stderr(data),
    };
    // Without an attachment there is nobody to tell.
    let _nobody_is_attached = output.send(frame);
}

/// Tells the attachments, and gives them a moment to pass it on.
async fn tell_end(config: &ContainerRecord, output: &broadcast::Sender<Frame>, status: ExitStatus) {
    if let Some(socket) = &config.socket {
        let removed: io::Result<()> = std::fs::remove_file(socket);
        if let Err(error) = removed {
            tracing::debug!(%error, "the socket stays behind");
        }
    }
    if output.send(Frame::Exit(exit_code(status))).is_err() {
        return;
    }
    // Each attachment ends once it has passed the frame on, and lets go of its receiver.
    let all_gone = async {
        while output.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let _slow_client = tokio::time::timeout(Duration::from_millis(500), all_gone).await;
}
