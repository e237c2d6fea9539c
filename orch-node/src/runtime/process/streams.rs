//! Commands in, attachments to, and connections to containers of processes.

use std::{path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use nix::sys::signal::{Signal, killpg};
use orch_core::node::Connection;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
    sync::{mpsc, oneshot},
};

use super::ProcessRuntime;
use crate::{
    runtime::{
        ContainerId, ExecOutput, ExecRequest, RuntimeError, SandboxId, StreamSession, Streaming,
        TerminalSize,
    },
    shim::{Frame, Pty, WORD, read_frame, write_frame},
};

/// Of what a command writes, so much is kept.
const OUTPUT_MAX: u64 = 16 * 1024 * 1024;
/// Between an attachment's socket and its reader.
const BUFFER: usize = 64 * 1024;

/// A command in a container. Dropping it kills the command and what it has started.
struct Running {
    child: Child,
    pid: i32,
    errors: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pid > 1 && matches!(self.child.try_wait(), Ok(None)) {
            // It leads a session of its own; before that, it is killed alone.
            let _has_ended = killpg(nix::unistd::Pid::from_raw(self.pid), Signal::SIGKILL);
            let _has_ended = self.child.start_kill();
        }
        // There is one only if the command could not be executed.
        let _there_is_none = std::fs::remove_file(&self.errors);
    }
}

impl Running {
    /// Waits for the end; gives the exit code, or why the command could not be executed.
    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        let failed = |error| RuntimeError::Io("cannot wait for the command".into(), error);
        let status = self.child.wait().await.map_err(failed)?;
        match std::fs::read_to_string(&self.errors) {
            Ok(why) => Err(RuntimeError::Start(why)),
            Err(_) => Ok(crate::shim::exit_code(status)),
        }
    }
}

impl ProcessRuntime {
    fn spawn(
        &self,
        container: &ContainerId,
        command: &[String],
        terminal: Option<&PathBuf>,
        stdio: [Stdio; 3],
    ) -> Result<Running, RuntimeError> {
        if command.is_empty() {
            return Err(RuntimeError::InvalidArgument("no command is given".into()));
        }
        let runs = self.0.known.lock().containers.get(container).is_some_and(|c| {
            c.state.as_ref().is_some_and(|s| s.finished_at.is_none() && s.process.is_some())
        });
        if !runs {
            return Err(RuntimeError::no_container(&container.0));
        }
        let folder = self.container_dir(container);
        let errors = folder.join(format!("exec-{:016x}", self.0.environment.random.next_u64()));
        let mut process = Command::new(&self.0.shim);
        process.arg(WORD).arg("exec").arg(&folder).arg(&errors);
        match terminal {
            Some(terminal) => process.arg(terminal),
            None => process.arg("-"),
        };
        let [stdin, stdout, stderr] = stdio;
        process.args(command).current_dir("/").stdin(stdin).stdout(stdout).stderr(stderr);
        let failed = |error| RuntimeError::Io("cannot run the command".into(), error);
        let child = process.spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Ok(Running { child, pid, errors })
    }

    fn exec_in_terminal(
        &self,
        container: &ContainerId,
        request: &ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let failed = |error| RuntimeError::Io("cannot open a terminal".into(), error);
        let Pty { master, terminal } = Pty::open().map_err(failed)?;
        let null = [Stdio::null(), Stdio::null(), Stdio::null()];
        let mut running = self.spawn(container, &request.command, Some(&terminal), null)?;
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let sized = master.clone();
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                sized.resize(size);
            }
        });
        Ok(StreamSession {
            stdin: request.stdin.then(|| Box::new(master.clone()) as _),
            stdout: request.stdout.then(|| Box::new(master) as _),
            stderr: None,
            resize: Some(resize),
            exit: async move { running.wait().await }.boxed(),
        })
    }

    fn socket(&self, container: &ContainerId) -> Result<(PathBuf, bool), RuntimeError> {
        let known = self.0.known.lock();
        let missing = || RuntimeError::no_container(&container.0);
        let found = known.containers.get(container).ok_or_else(missing)?;
        if found.state.as_ref().is_none_or(|s| s.finished_at.is_some()) {
            return Err(missing());
        }
        let socket = found.record.socket.clone();
        let socket = socket.ok_or(RuntimeError::NotSupported("attach"))?;
        Ok((socket, found.record.tty))
    }
}

async fn collect(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut data = Vec::new();
    if let Some(from) = from {
        let mut from = from.take(OUTPUT_MAX);
        // What was read before an error is what there is.
        let _partial = from.read_to_end(&mut data).await;
        // Further output is thrown away, so that the command is not held up.
        let _rest = tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink()).await;
    }
    data
}

#[async_trait]
impl Streaming for ProcessRuntime {
    async fn exec_sync(
        &self,
        container: &ContainerId,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, RuntimeError> {
        let stdio = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        let mut running = self.spawn(container, command, None, stdio)?;
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let work = async {
            let ended = running.wait();
            let (exit_code, stdout, stderr) = tokio::join!(ended, collect(stdout), collect(stderr));
            Ok(ExecOutput { exit_code: exit_code?, stdout, stderr })
        };
        match timeout {
            Some(limit) => {
                tokio::time::timeout(limit, work).await.unwrap_or(Err(RuntimeError::Timeout(limit)))
            }
            None => work.await,
        }
    }

    async fn exec(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        if request.tty {
            return self.exec_in_terminal(container, &request);
        }
        let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
        let stdio = [pipe(request.stdin), pipe(request.stdout), pipe(request.stderr)];
        let mut running = self.spawn(container, &request.command, None, stdio)?;
        let child = &mut running.child;
        let stdin = child.stdin.take().map(|s| Box::new(s) as _);
        let stdout = child.stdout.take().map(|s| Box::new(s) as _);
        let stderr = child.stderr.take().map(|s| Box::new(s) as _);
        let exit = async move { running.wait().await }.boxed();
        Ok(StreamSession { stdin, stdout, stderr, resize: None, exit })
    }

    async fn attach(
        &self,
        container: &ContainerId,
        request: ExecRequest,
    ) -> Result<StreamSession, RuntimeError> {
        let (socket, tty) = self.socket(container)?;
        let failed = |error| RuntimeError::Io("cannot attach".into(), error);
        let stream = UnixStream::connect(socket).await.map_err(failed)?;
        let (to_stdout, stdout) = duplex(BUFFER);
        let (to_stderr, stderr) = duplex(BUFFER);
        let (stdin, from_stdin) = duplex(BUFFER);
        let (resize, sizes) = mpsc::channel(4);
        let (tell, told) = oneshot::channel();
        let (reader, writer) = stream.into_split();
        let inward = tokio::spawn(send(writer, request.stdin.then_some(from_stdin), sizes));
        tokio::spawn(async move {
            let code = receive(reader, to_stdout, to_stderr).await;
            inward.abort();
            // The session may be gone.
            let _nobody_asks = tell.send(code);
        });
        let exit = async move {
            let lost = || RuntimeError::Refused("the attachment was lost".into());
            told.await.ok().flatten().ok_or_else(lost)
        };
        Ok(StreamSession {
            stdin: request.stdin.then(|| Box::new(stdin) as _),
            stdout: request.stdout.then(|| Box::new(stdout) as _),
            stderr: (request.stderr && !tty).then(|| Box::new(stderr) as _),
            resize: tty.then_some(resize),
            exit: exit.boxed(),
        })
    }

    async fn port_forward(
        &self,
        sandbox: &SandboxId,
        port: u16,
    ) -> Result<Box<dyn Connection>, RuntimeError> {
        let found = self.0.known.lock().sandboxes.get(sandbox).cloned();
        let found = found.ok_or_else(|| RuntimeError::no_sandbox(&sandbox.0))?;
        let own = found.ips.first().copied();
        let local = std::net::IpAddr::from([127, 0, 0, 1]);
        let mut error = None;
        for address in own.into_iter().chain([local]) {
            match TcpStream::connect((address, port)).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(failed) => error = error.or(Some(failed)),
            }
        }
        let error = error.unwrap_or_else(|| std::io::Error::other("there is no address"));
        Err(RuntimeError::Io(format!("cannot connect to port {port}"), error))
    }
}

async fn send(
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut stdin: Option<DuplexStream>,
    mut sizes: mpsc::Receiver<TerminalSize>,
) {
    let mut buffer = vec![0; 32 * 1024];
    let mut resizes = true;
    loop {
        let read = async {
            match &mut stdin {
                Some(stdin) => stdin.read(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            read = read => match read {
                Ok(0) | Err(_) => {
                    stdin = None;
                    Frame::StdinEnd
                }
                Ok(read) => Frame::Stdin(Bytes::copy_from_slice(&buffer[..read])),
            },
            size = sizes.recv(), if resizes => match size {
                Some(size) => Frame::Resize(size),
                None => {
                    resizes = false;
                    continue;
                }
            },
            else => return,
        };
        if write_frame(&mut to, &frame).await.is_err() {
            return;
        }
    }
}

/// Passes output on until the container ends; gives its exit code if it was told.
async fn receive(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
) -> Option<i32> {
    let (mut out_open, mut err_open) = (true, true);
    loop {
        match read_frame(&mut from).await {
            // A stream that nobody asked for, or that was closed, is not written to again.
            Ok(Some(Frame::Stdout(data))) if out_open => {
                out_open = stdout.write_all(&data).await.is_ok();
            }
            Ok(Some(Frame::Stderr(data))) if err_open => {
                err_open = stderr.write_all(&data).await.is_ok();
            }
            Ok(Some(Frame::Exit(code))) => return Some(code),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}
