//! Every Service has addresses of its own, out of ranges.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use orch_core::{
    Key,
    informer::{Informer, Informers},
};
use parking_lot::{Mutex, MutexGuard};

use super::{BalancerError, LoadBalancer, PoolRange, changes, range::Free};

/// Gives every Service of type `LoadBalancer` the lowest free address of each of its families.
///
/// It carries no traffic itself: the service proxies of the nodes take what is sent to the
/// addresses that it writes (`ipMode: VIP`). Somebody has to lead packets for them to a node: a
/// route, or an address of the node. What is loopback works on its own machine without more.
///
/// The addresses stand in the Services' statuses, so that a restart changes none. A Service may ask
/// for one by `spec.loadBalancerIP`. One that is not in the ranges any more is replaced.
///
/// ```
/// # use std::sync::Arc;
/// use orch_controllers::{Manager, load_balancer::{AddressPool, service_load_balancer, ServiceOptions}};
/// use orch_core::{Environment, informer::Informers, testing::MemoryClient};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let environment = Environment::system();
/// # let client = Arc::new(MemoryClient::new(environment.clone()));
/// let informers = Informers::new(client, environment);
/// let pool = AddressPool::new(&informers, ["192.0.2.0/24".parse()?]);
/// let controller = service_load_balancer(&informers, ServiceOptions::default(), Arc::new(pool));
/// let manager = Manager::new().with(controller);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AddressPool {
    services: Informer<Service>,
    book: Mutex<Book>,
}

impl AddressPool {
    /// A pool of these addresses, taken in the order of the ranges. Call it inside a tokio runtime.
    pub fn new(informers: &Informers, ranges: impl IntoIterator<Item = PoolRange>) -> Self {
        let free = ranges.into_iter().map(Free::new).collect();
        let book = Book { free, ..Book::default() };
        Self { services: informers.of(), book: Mutex::new(book) }
    }

    /// The book, once it knows what was given out before this process began.
    async fn book(&self) -> MutexGuard<'_, Book> {
        self.services.synced().await;
        let mut book = self.book.lock();
        if !book.is_read {
            book.is_read = true;
            book.take_over(self.services.list());
        }
        book
    }
}

#[async_trait]
impl LoadBalancer for AddressPool {
    async fn find(&self, service: &Service) -> Result<Option<LoadBalancerStatus>, BalancerError> {
        let held = self.book().await.held_by(&Holder::of(service));
        Ok((!held.is_empty()).then(|| status(&held)))
    }

    async fn ensure(
        &self,
        service: &Service,
        _nodes: &[Arc<Node>],
    ) -> Result<LoadBalancerStatus, BalancerError> {
        let assigned = self.book().await.assign(service)?;
        Ok(status(&assigned))
    }

    async fn remove(&self, service: &Service) -> Result<(), BalancerError> {
        self.book().await.release(&Holder::of(service), &[]);
        Ok(())
    }
}

fn status(addresses: &[IpAddr]) -> LoadBalancerStatus {
    let ingress = addresses.iter().map(|ip| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    });
    LoadBalancerStatus { ingress: Some(ingress.collect()) }
}

/// A Service that has addresses. Another one of the same name has none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    key: Key,
    uid: String,
}

impl Holder {
    fn of(service: &Service) -> Self {
        let uid = service.metadata.uid.clone().unwrap_or_default();
        Self { key: Key::of(&service.metadata), uid }
    }
}

/// Who has which address.
#[derive(Debug, Default)]
struct Book {
    free: Vec<Free>,
    holders: BTreeMap<IpAddr, Holder>,
    /// The addresses of a Service, by its uid.
    held: BTreeMap<String, Vec<IpAddr>>,
    is_read: bool,
}

impl Book {
    /// Takes over what Services say that they have; of two with the same address the older keeps it.
    fn take_over(&mut self, mut services: Vec<Arc<Service>>) {
        services.retain(|service| changes::has_finalizer(service));
        services.sort_by_cached_key(|service| {
            let meta = &service.metadata;
            (meta.creation_timestamp.as_ref().map(|time| time.0), Key::of(meta))
        });
        for service in services {
            let holder = Holder::of(&service);
            for ip in told(&service) {
                if self.contains(ip) && !self.holders.contains_key(&ip) {
                    self.hold(ip, &holder);
                }
            }
        }
    }

    fn hold(&mut self, ip: IpAddr, holder: &Holder) {
        if self.holders.insert(ip, holder.clone()).is_none() {
            self.held.entry(holder.uid.clone()).or_default().push(ip);
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.free.iter().any(|free| free.range.contains(ip))
    }

    fn held_by(&self, holder: &Holder) -> Vec<IpAddr> {
        self.held.get(&holder.uid).cloned().unwrap_or_default()
    }

    /// Takes from a Service what it has, except for some.
    fn release(&mut self, holder: &Holder, except: &[IpAddr]) {
        let held = self.held.remove(&holder.uid).unwrap_or_default();
        let (kept, released): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|ip| except.contains(ip));
        for ip in released {
            self.holders.remove(&ip);
            for free in self.free.iter_mut().filter(|free| free.range.contains(ip)) {
                free.give_back(ip);
            }
        }
        if !kept.is_empty() {
            self.held.insert(holder.uid.clone(), kept);
        }
    }

    /// What a Service has from now on: one address of each of its families, in their order.
    fn assign(&mut self, service: &Service) -> Result<Vec<IpAddr>, BalancerError> {
        let holder = Holder::of(service);
        let held = self.held_by(&holder);
        let (families, all) = self.families(service);
        let requested = requested(service)?;
        let mut assigned = Vec::with_capacity(families.len());
        for is_v4 in families {
            let requested = requested.filter(|ip| ip.is_ipv4() == is_v4);
            let before = told(service).into_iter().chain(held.iter().copied());
            let before: Vec<IpAddr> = before.filter(|ip| ip.is_ipv4() == is_v4).collect();
            match self.choose(&holder, is_v4, requested, &before) {
                Ok(ip) => {
                    self.hold(ip, &holder);
                    assigned.push(ip);
                }
                Err(error) if all || assigned.is_empty() => {
                    self.release(&holder, &held);
                    return Err(error);
                }
                // One family is enough for who prefers two.
                Err(_) => {}
            }
        }
        self.release(&holder, &assigned);
        Ok(assigned)
    }

    fn choose(
        &mut self,
        holder: &Holder,
        is_v4: bool,
        requested: Option<IpAddr>,
        before: &[IpAddr],
    ) -> Result<IpAddr, BalancerError> {
        let (holders, free) = (&self.holders, &mut self.free);
        let is_held = |ip: IpAddr| holders.get(&ip).is_some_and(|one| one != holder);
        let contains = |ip: IpAddr| free.iter().any(|free| free.range.contains(ip));
        if let Some(ip) = requested {
            return match holders.get(&ip) {
                _ if !contains(ip) => {
                    Err(BalancerError::Failed(format!("{ip} is not an address of the pool")))
                }
                Some(other) if other != holder => Err(BalancerError::Failed(format!(
                    "{ip} is the address of service {}",
                    other.key
                ))),
                _ => Ok(ip),
            };
        }
        if let Some(ip) = before.iter().find(|ip| contains(**ip) && !is_held(**ip)) {
            return Ok(*ip);
        }
        let mut of_family = free.iter_mut().filter(|free| free.range.is_v4() == is_v4);
        let is_taken = |ip: IpAddr| holders.contains_key(&ip);
        of_family.find_map(|free| free.take(is_taken)).ok_or_else(|| {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            BalancerError::Failed(format!("the pool has no {family} address left"))
        })
    }

    /// Which families a Service is to have addresses of (whether IPv4), and whether it must have
    /// all of them.
    fn families(&self, service: &Service) -> (Vec<bool>, bool) {
        let spec = service.spec.as_ref();
        let named = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
        let mut families: Vec<bool> = named.iter().map(|family| family == "IPv4").collect();
        if families.is_empty() {
            families.extend(self.free.first().map(|free| free.range.is_v4()));
        }
        let policy = spec.and_then(|spec| spec.ip_family_policy.as_deref());
        (families, policy == Some("RequireDualStack"))
    }
}

/// The addresses that a Service says it has.
fn told(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn requested(service: &Service) -> Result<Option<IpAddr>, BalancerError> {
    let ip = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let Some(text) = ip.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| BalancerError::Failed(format!("loadBalancerIP {text:?} is no address")))
}
