//! What simulated containers do.

use std::{collections::BTreeMap, fmt, time::Duration};

use orch_core::quantity::Amount;

use crate::runtime::{ContainerConfig, ImageError, SandboxConfig, labels};

/// How a simulated container ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedExit {
    /// How long it runs before.
    pub after: Duration,
    /// Its exit code.
    pub code: i32,
    /// Why, for example `OOMKilled`; empty for none but the code.
    pub reason: String,
}

/// What a simulated container uses while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// CPUs, in thousandths. Default: 1.
    pub cpu_milli: u64,
    /// Memory in bytes. Default: 1 MiB.
    pub memory_bytes: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { cpu_milli: 1, memory_bytes: 1 << 20 }
    }
}

/// What one simulated container does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// How long the start takes.
    pub start_delay: Duration,
    /// How it ends; `None` runs until it is stopped.
    pub exit: Option<ScriptedExit>,
    /// How long after the start probes succeed; `None` never.
    pub ready_after: Option<Duration>,
    /// How long it takes to stop when asked to; longer than the grace period means that it is
    /// killed.
    pub stop_delay: Duration,
    /// Why it cannot be started at all, if so.
    pub start_error: Option<String>,
    /// What it writes to standard output when it starts.
    pub output: String,
    /// What it uses.
    pub load: Load,
}

impl Behaviour {
    /// Runs and is ready until it is stopped.
    pub fn runs() -> Self {
        Self { ready_after: Some(Duration::ZERO), ..Self::default() }
    }

    /// Ends with `code` after `after`; ready until then.
    pub fn exits(after: Duration, code: i32) -> Self {
        let exit = ScriptedExit { after, code, reason: String::new() };
        Self { exit: Some(exit), ..Self::runs() }
    }

    /// Is killed for memory after `after`.
    pub fn out_of_memory(after: Duration) -> Self {
        let exit = ScriptedExit { after, code: 137, reason: "OOMKilled".into() };
        Self { exit: Some(exit), ..Self::runs() }
    }
}

/// Decides what simulated containers do. Called once per container, when it is created, and once
/// per image pull. Must be quick; must give the same answer for the same question if runs are to
/// be repeatable. A closure from the container's configuration is a script.
pub trait Script: Send + Sync + fmt::Debug + 'static {
    /// What a container does.
    fn behaviour(&self, sandbox: &SandboxConfig, container: &ContainerConfig) -> Behaviour;

    /// How long a pull of the image takes.
    ///
    /// # Errors
    /// The error that the pull ends with.
    fn pull(&self, image: &str) -> Result<Duration, ImageError> {
        let _every_image_is_there = image;
        Ok(Duration::ZERO)
    }
}

impl<S: Script + ?Sized> Script for std::sync::Arc<S> {
    fn behaviour(&self, sandbox: &SandboxConfig, container: &ContainerConfig) -> Behaviour {
        (**self).behaviour(sandbox, container)
    }

    fn pull(&self, image: &str) -> Result<Duration, ImageError> {
        (**self).pull(image)
    }
}

/// The default script: containers do what the pod's annotations say.
///
/// The annotations start with `simulation.orch.io/`, and apply to every main container of the pod,
/// or, with the container's name and a dot before the word, to that one
/// (`simulation.orch.io/app.exit-code: "1"`):
///
/// | word | meaning |
/// |---|---|
/// | `run-for` | ends after so long (`90s`, `5m`, `250ms`, `1h`) |
/// | `exit-code` | ends with this code; at once unless `run-for` is there |
/// | `oom-after` | is killed for memory after so long |
/// | `start-delay` | takes so long to start |
/// | `ready-after` | probes fail until so long after the start; `never` for ever |
/// | `stop-delay` | takes so long to stop |
/// | `start-error` | cannot be started, with this message |
/// | `output` | writes this to standard output |
/// | `cpu` | uses so much (`250m`, `2`) |
/// | `memory` | uses so much (`64Mi`) |
///
/// Without them a main container or a sidecar runs until it is stopped, and an init container
/// succeeds at once. What cannot be parsed counts as absent. An image whose name starts with
/// `unpullable` cannot be pulled.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnnotationScript;

const PREFIX: &str = "simulation.orch.io/";

/// `90s`, `5m`, `250ms`, `1h` or a plain number of seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" | "" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

struct Words<'a> {
    annotations: &'a BTreeMap<String, String>,
    container: &'a str,
    is_main: bool,
}

impl<'a> Words<'a> {
    fn get(&self, word: &str) -> Option<&'a str> {
        let own = self.annotations.get(&format!("{PREFIX}{}.{word}", self.container));
        let of_all = || self.annotations.get(&format!("{PREFIX}{word}")).filter(|_| self.is_main);
        own.or_else(of_all).map(String::as_str)
    }

    fn duration(&self, word: &str) -> Option<Duration> {
        self.get(word).and_then(parse_duration)
    }

    fn amount(&self, word: &str) -> Option<Amount> {
        self.get(word)?.parse().ok().filter(|amount: &Amount| !amount.is_negative())
    }

    fn load(&self) -> Load {
        let default = Load::default();
        let cpu = self.amount("cpu").and_then(|cpu| u64::try_from(cpu.milli_value()).ok());
        let memory = self.amount("memory").and_then(|memory| u64::try_from(memory.value()).ok());
        Load {
            cpu_milli: cpu.unwrap_or(default.cpu_milli),
            memory_bytes: memory.unwrap_or(default.memory_bytes),
        }
    }

    fn exit(&self) -> Option<ScriptedExit> {
        if let Some(after) = self.duration("oom-after") {
            return Some(ScriptedExit { after, code: 137, reason: "OOMKilled".into() });
        }
        let code = self.get("exit-code").and_then(|code| code.parse().ok());
        let after = self.duration("run-for");
        (code.is_some() || after.is_some()).then(|| ScriptedExit {
            after: after.unwrap_or_default(),
            code: code.unwrap_or_default(),
            reason: String::new(),
        })
    }
}

impl Script for AnnotationScript {
    fn behaviour(&self, sandbox: &SandboxConfig, container: &ContainerConfig) -> Behaviour {
        let kind = container.annotations.get(labels::CONTAINER_KIND).map(String::as_str);
        let words = Words {
            annotations: &sandbox.annotations,
            container: &container.name,
            is_main: kind != Some(labels::KIND_INIT) && kind != Some(labels::KIND_SIDECAR),
        };
        let at_once = || ScriptedExit { after: Duration::ZERO, code: 0, reason: String::new() };
        let default_exit = (kind == Some(labels::KIND_INIT)).then(at_once);
        let ready_after = match words.get("ready-after") {
            Some("never") => None,
            Some(text) => Some(parse_duration(text).unwrap_or_default()),
            None => Some(Duration::ZERO),
        };
        Behaviour {
            start_delay: words.duration("start-delay").unwrap_or_default(),
            exit: words.exit().or(default_exit),
            ready_after,
            stop_delay: words.duration("stop-delay").unwrap_or_default(),
            start_error: words.get("start-error").map(Into::into),
            output: words.get("output").unwrap_or_default().into(),
            load: words.load(),
        }
    }

    fn pull(&self, image: &str) -> Result<Duration, ImageError> {
        if image.starts_with("unpullable") {
            let why = "the script says that it cannot be pulled".into();
            return Err(ImageError::Pull { image: image.into(), why });
        }
        Ok(Duration::ZERO)
    }
}

/// A script that is a closure: see [`behaves`].
pub struct BehaviourFn<F>(F);

impl<F> fmt::Debug for BehaviourFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BehaviourFn")
    }
}

impl<F> Script for BehaviourFn<F>
where
    F: Fn(&ContainerConfig) -> Behaviour + Send + Sync + 'static,
{
    fn behaviour(&self, _: &SandboxConfig, container: &ContainerConfig) -> Behaviour {
        (self.0)(container)
    }
}

/// A script from a closure over the container's configuration.
pub fn behaves<F>(script: F) -> BehaviourFn<F>
where
    F: Fn(&ContainerConfig) -> Behaviour + Send + Sync + 'static,
{
    BehaviourFn(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(annotations: &[(&str, &str)], kind: &str) -> Behaviour {
        let prefixed = |(k, v): &(&str, &str)| (format!("{PREFIX}{k}"), (*v).to_owned());
        let sandbox = SandboxConfig {
            annotations: annotations.iter().map(prefixed).collect(),
            ..SandboxConfig::default()
        };
        let container = ContainerConfig {
            name: "app".into(),
            annotations: [(labels::CONTAINER_KIND.to_owned(), kind.to_owned())].into(),
            ..ContainerConfig::default()
        };
        AnnotationScript.behaviour(&sandbox, &container)
    }

    #[test]
    fn annotations_tell_what_containers_do() {
        assert_eq!(check(&[], "main"), Behaviour::runs());
        assert_eq!(check(&[], "init"), Behaviour::exits(Duration::ZERO, 0));
        assert_eq!(check(&[("exit-code", "3")], "init"), Behaviour::exits(Duration::ZERO, 0));
        assert_eq!(check(&[("app.exit-code", "3")], "init").exit.unwrap().code, 3);
        let run = check(&[("run-for", "250ms"), ("exit-code", "1")], "main");
        assert_eq!(run, Behaviour::exits(Duration::from_millis(250), 1));
        let oom = check(&[("oom-after", "1m")], "main");
        assert_eq!(oom, Behaviour::out_of_memory(Duration::from_secs(60)));
        assert_eq!(check(&[("ready-after", "never")], "main").ready_after, None);
        assert_eq!(check(&[("run-for", "soon")], "main"), Behaviour::runs());
        let load = check(&[("cpu", "250m"), ("memory", "64Mi")], "main").load;
        assert_eq!(load, Load { cpu_milli: 250, memory_bytes: 64 << 20 });
        assert_eq!(check(&[("cpu", "much"), ("memory", "-1")], "main").load, Load::default());
    }
}
