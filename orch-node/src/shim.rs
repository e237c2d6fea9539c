//! The small process between the agent and a container of the process runtime.
//!
//! A container must outlive its agent, and so must whoever writes its log and learns its exit
//! code. So the agent's own executable is started again as a *shim*: it starts the container's
//! process, writes its log, serves attachments, and leaves the outcome in the container's state
//! folder, where the agent, or the next one, finds it.
//!
//! There are three errands, told apart by the word after [`WORD`]:
//! - `run FOLDER`: the shim itself.
//! - `init FOLDER [TERMINAL]`: becomes the container. Single-threaded: it enters a mount namespace
//!   of its own, mounts the volumes, changes user, and executes the program.
//! - `exec FOLDER ERRORS TERMINAL|- COMMAND...`: becomes a command in a running container.

use std::{ffi::OsString, path::PathBuf};

mod attach;
mod cgroup;
mod enter;
mod output;
mod pty;
pub(crate) mod record;
mod supervise;

pub(crate) use attach::{Frame, read_frame, write_frame};
pub(crate) use pty::Pty;
pub(crate) use supervise::exit_code;

/// The first argument of an executable that is started as a shim.
pub const WORD: &str = "__orch-shim";

/// Runs the shim and never returns, if this process was started as one; otherwise does nothing.
///
/// A binary that embeds the process runtime calls it first thing in `main`, before it starts
/// threads or reads its arguments.
///
/// ```
/// orch_node::shim::main_if_requested();
/// // ... what the program is for
/// ```
pub fn main_if_requested() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|word| word != WORD) {
        return;
    }
    let rest: Vec<OsString> = args.collect();
    let code = match rest.split_first() {
        Some((errand, rest)) if errand == "run" => run(rest),
        Some((errand, rest)) if errand == "init" => enter::init(rest),
        Some((errand, rest)) if errand == "exec" => enter::exec(rest),
        _ => {
            eprintln!("{WORD} is for the program's own use");
            2
        }
    };
    std::process::exit(code);
}

fn run(args: &[OsString]) -> i32 {
    let Some(folder) = args.first().map(PathBuf::from) else { return 2 };
    // The shim must not die with the session that the agent was started in.
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "the shim leads a session already");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(supervise::run(&folder));
            // A thread may wait for ever on a FIFO that nobody opens any more.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            println!("error cannot start: {error}");
            1
        }
    }
}
