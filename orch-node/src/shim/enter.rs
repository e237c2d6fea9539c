//! Becoming a container's process: single-threaded, and gone with the exec.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgid, setgroups, setsid, setuid},
};

use super::record::{self, CONFIG, ContainerRecord, MountRecord, READY, STATE, StateRecord};

/// Exit code of what could not be started.
const NOT_STARTED: i32 = 128;

type Outcome<T> = Result<T, String>;

trait Explain<T> {
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Explain<T> for Result<T, E> {
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}

/// `init FOLDER [TERMINAL]`. Returns only if the program could not be executed.
pub(super) fn init(args: &[OsString]) -> i32 {
    let Some(folder) = args.first().map(PathBuf::from) else { return 2 };
    // Closes with the exec, which is how the shim learns of it.
    let Ok(mut ready) = OpenOptions::new().write(true).open(folder.join(READY)) else { return 2 };
    let terminal = args.get(1).map(PathBuf::from);
    if let Err(why) = become_container(&folder, terminal.as_deref()) {
        // If the shim is gone there is nobody to tell.
        let _shim_is_gone = ready.write_all(why.as_bytes());
    }
    NOT_STARTED
}

fn become_container(folder: &Path, terminal: Option<&Path>) -> Outcome<()> {
    let config: ContainerRecord =
        record::read(&folder.join(CONFIG)).explain(|| "cannot read the configuration".into())?;
    setsid().explain(|| "cannot start a session".into())?;
    if let Some(terminal) = terminal {
        take_terminal(terminal)?;
    }
    // Only root may lower it; a higher one is always allowed.
    let _not_allowed = fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string());
    if !config.mounts.is_empty() {
        enter_own_mounts(&config.mounts)?;
    }
    execute(&config, &config.command)
}

/// `exec FOLDER ERRORS TERMINAL|- COMMAND...`. Returns only if it could not be executed.
pub(super) fn exec(args: &[OsString]) -> i32 {
    let [folder, errors, terminal, command @ ..] = args else { return 2 };
    let terminal = (terminal != "-").then(|| PathBuf::from(terminal));
    let command: Vec<String> = command.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Err(why) = become_command(Path::new(folder), terminal.as_deref(), &command) {
        // Whoever asked looks there first, and at the exit code if there is nothing.
        let _asker_is_gone = fs::write(errors, why);
    }
    NOT_STARTED
}

fn become_command(folder: &Path, terminal: Option<&Path>, command: &[String]) -> Outcome<()> {
    let config: ContainerRecord =
        record::read(&folder.join(CONFIG)).explain(|| "cannot read the configuration".into())?;
    let state: StateRecord =
        record::read(&folder.join(STATE)).explain(|| "the container does not run".into())?;
    let process = state.process.filter(record::ProcessRecord::is_alive);
    let process = process.ok_or("the container does not run")?;
    setsid().explain(|| "cannot start a session".into())?;
    if let Some(terminal) = terminal {
        take_terminal(terminal)?;
    }
    join_cgroups(process.pid);
    if !config.mounts.is_empty() {
        let namespace = format!("/proc/{}/ns/mnt", process.pid);
        let file = File::open(&namespace).explain(|| format!("cannot open {namespace}"))?;
        setns(file, CloneFlags::CLONE_NEWNS).explain(|| "cannot enter the container".into())?;
    }
    execute(&config, command)
}

/// Puts this process under the container's memory limit, if it has one.
fn join_cgroups(pid: i32) {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let folder = match controllers {
            "" => PathBuf::from(format!("/sys/fs/cgroup{path}")),
            "memory" => PathBuf::from(format!("/sys/fs/cgroup/memory{path}")),
            _ => continue,
        };
        if path.starts_with("/orch/") {
            // The command then runs without the limit, which is no worse than without groups.
            let _not_allowed =
                fs::write(folder.join("cgroup.procs"), std::process::id().to_string());
        }
    }
}

/// Makes a terminal the controlling one, by opening it as the leader of a session without one.
fn take_terminal(path: &Path) -> Outcome<()> {
    let what = || format!("cannot open the terminal {}", path.display());
    let file = OpenOptions::new().read(true).write(true).open(path).explain(what)?;
    dup2_stdin(&file).explain(what)?;
    dup2_stdout(&file).explain(what)?;
    dup2_stderr(&file).explain(what)
}

fn enter_own_mounts(mounts: &[MountRecord]) -> Outcome<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).explain(|| "cannot make a mount namespace".into())?;
    let private = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(NONE, "/", NONE, private, NONE).explain(|| "cannot make mounts private".into())?;
    for wanted in mounts {
        let what = || {
            let (from, to) = (wanted.host_path.display(), wanted.container_path.display());
            format!("cannot mount {from} at {to}")
        };
        make_mount_point(wanted).explain(what)?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&wanted.host_path), &wanted.container_path, NONE, bind, NONE).explain(what)?;
        if wanted.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(NONE, &wanted.container_path, NONE, flags, NONE).explain(what)?;
        }
    }
    Ok(())
}

fn make_mount_point(wanted: &MountRecord) -> io::Result<()> {
    if wanted.container_path.exists() {
        return Ok(());
    }
    if wanted.host_path.is_dir() {
        return fs::create_dir_all(&wanted.container_path);
    }
    if let Some(parent) = wanted.container_path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(&wanted.container_path).map(|_| ())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Finds a program as a shell would, on the container's own `PATH`.
fn find_program(name: &str, config: &ContainerRecord) -> Outcome<PathBuf> {
    if name.contains('/') {
        let path = Path::new(&config.working_dir).join(name);
        if is_executable(&path) {
            return Ok(path);
        }
        let what = if path.exists() { "permission denied" } else { "no such file or directory" };
        return Err(format!("exec: \"{name}\": {what}"));
    }
    let path = config.env.iter().rev().find(|(k, _)| k == "PATH").map(|(_, v)| v.as_str());
    let folders = path.unwrap_or_default().split(':').filter(|f| !f.is_empty());
    let mut candidates = folders.map(|folder| Path::new(folder).join(name));
    let missing = || format!("exec: \"{name}\": executable file not found in $PATH");
    candidates.find(|path| is_executable(path)).ok_or_else(missing)
}

fn change_user(config: &ContainerRecord) -> Outcome<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let groups: Vec<Gid> = config.groups.iter().copied().map(Gid::from_raw).collect();
    if !groups.is_empty() || config.user.is_some() {
        setgroups(&groups).explain(|| "cannot set the groups".into())?;
    }
    if let Some(group) = config.group {
        setgid(Gid::from_raw(group)).explain(|| format!("cannot become group {group}"))?;
    }
    if let Some(user) = config.user {
        setuid(Uid::from_raw(user)).explain(|| format!("cannot become user {user}"))?;
    }
    Ok(())
}

/// Executes; returns only the reason why it did not.
fn execute(config: &ContainerRecord, command: &[String]) -> Outcome<()> {
    let (name, args) = command.split_first().ok_or("no command is given")?;
    if !config.working_dir.is_empty() {
        let folder = Path::new(&config.working_dir);
        std::env::set_current_dir(folder)
            .explain(|| format!("cannot change to {}", folder.display()))?;
    }
    let program = find_program(name, config)?;
    change_user(config)?;
    let mut command = Command::new(&program);
    command.arg0(name).args(args).env_clear().envs(config.env.iter().map(|(k, v)| (k, v)));
    Err(format!("exec: \"{name}\": {}", command.exec()))
}
