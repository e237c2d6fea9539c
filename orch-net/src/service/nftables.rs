//! A proxy in the kernel, by nftables. Linux, root.

mod ruleset;

use std::{collections::BTreeMap, io, path::PathBuf, process::Stdio};

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::Mutex};

use self::ruleset::{Family, Ruleset};
use super::{Changes, PortFailure, PortName, PortRules, ProxyError, ServiceProxy};

/// How an [`NftablesProxy`] behaves.
#[derive(Clone, Debug)]
pub struct NftablesOptions {
    /// The name of the table, in the families `ip` and `ip6`; whatever is in it is replaced.
    /// Default: `orch-proxy`.
    pub table: String,
    /// The program. Default: `nft`, found on the path.
    pub program: PathBuf,
    /// The pods' networks: traffic from elsewhere to a cluster address is masqueraded, so that the
    /// answers come back here. Default: none, and only traffic that an endpoint sends to itself
    /// and external traffic is.
    pub pod_networks: Vec<IpNet>,
    /// The bit of the packet mark that says "masquerade this". Default: `0x4000`.
    pub masquerade_mark: u32,
    /// Whether IPv6 is programmed too. Default: yes.
    pub ipv6: bool,
}

impl Default for NftablesOptions {
    fn default() -> Self {
        Self {
            table: "orch-proxy".into(),
            program: "nft".into(),
            pod_networks: Vec::new(),
            masquerade_mark: 0x4000,
            ipv6: true,
        }
    }
}

/// Programs the kernel: a packet's first look-up is in a map by address, protocol and port,
/// whatever the number of services, and a change is one transaction of the rules that changed.
///
/// The table is this proxy's own: it is made anew with the first change, removed by
/// [`ServiceProxy::stop`], and nothing else is touched or listed. Connections in flight stay with
/// the kernel's connection tracking.
///
/// Source: `pkg/proxy/nftables`, KEP-3866. Differs: node ports are not served on loopback
/// addresses (nor upstream), and UDP flows to an endpoint that is gone are not cut.
#[derive(Debug)]
pub struct NftablesProxy {
    options: NftablesOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rulesets: Vec<Ruleset>,
    /// What is wanted, in full: what the table is made of when it is made anew.
    wanted: BTreeMap<PortName, PortRules>,
    /// Whether the kernel has what the rulesets say.
    in_step: bool,
    stopped: bool,
}

impl NftablesProxy {
    /// A proxy without rules. Nothing is touched before the first change.
    pub fn new(options: NftablesOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    fn families(&self) -> Vec<Family> {
        let ipv6 = self.options.ipv6.then_some(Family::Ipv6);
        [Family::Ipv4].into_iter().chain(ipv6).collect()
    }

    async fn execute(&self, script: &str) -> Result<(), ProxyError> {
        let system = |error: io::Error| {
            ProxyError::System(format!("running {}", self.options.program.display()), error)
        };
        let mut child = Command::new(&self.options.program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(system)?;
        if let Some(mut stdin) = child.stdin.take() {
            // If it stops reading, it says why on its standard error.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(system)?;
        if output.status.success() {
            return Ok(());
        }
        Err(ProxyError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[async_trait]
impl ServiceProxy for NftablesProxy {
    async fn apply(&self, changes: Changes) -> Result<Vec<PortFailure>, ProxyError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if state.stopped {
            return Err(ProxyError::Stopped);
        }
        for (name, rules) in &changes.ports {
            match rules {
                Some(rules) => drop(state.wanted.insert(name.clone(), rules.clone())),
                None => drop(state.wanted.remove(name)),
            }
        }
        let mut script = String::new();
        if state.in_step {
            for ruleset in &mut state.rulesets {
                ruleset.change(&changes, &mut script);
            }
        } else {
            // After a failure or at the start: from nothing, in one transaction.
            let families = self.families().into_iter();
            state.rulesets =
                families.map(|family| Ruleset::new(family, &self.options, &mut script)).collect();
            let all = state.wanted.iter().map(|(name, rules)| (name.clone(), Some(rules.clone())));
            let all = Changes { ports: all.collect() };
            for ruleset in &mut state.rulesets {
                ruleset.change(&all, &mut script);
            }
        }
        // Until it is known otherwise; a dropped call leaves it so.
        state.in_step = false;
        if !script.is_empty() {
            self.execute(&script).await?;
        }
        state.in_step = true;
        Ok(Vec::new())
    }

    async fn stop(&self) -> Result<(), ProxyError> {
        let mut state = self.state.lock().await;
        let touched = !state.rulesets.is_empty();
        *state = State { stopped: true, ..State::default() };
        if !touched {
            return Ok(());
        }
        let table = &self.options.table;
        let remove = |family: Family| {
            // Adding first makes removing succeed even if it is gone.
            let family = family.name();
            format!("add table {family} {table}\ndelete table {family} {table}\n")
        };
        self.execute(&self.families().into_iter().map(remove).collect::<String>()).await
    }
}
