//! The search for devices: claim by claim, request by request, device by device, and back again
//! where that leads nowhere.
//!
//! Source: `structured/internal/incubating/allocator_incubating.go`, `allocateOne`.

use std::collections::HashMap;

use jiff::Timestamp;
use orch_core::device_claim::tolerates;
use smallvec::SmallVec;

use super::{
    allocator::{Allocator, RESULTS_MAX, Stop},
    capacity::{Amounts, is_enough, taken},
    constraint::Constraint,
    counters::Left,
    inventory::Pools,
    pools::State,
    request::{Ask, Wanted, shown},
    results::{Chosen, Solution},
    slice::Device,
};
use crate::node_info::NodeInfo;

/// How often the clock is looked at.
const LOOK_EVERY: u32 = 1024;

/// Why a part of the search ends before everything was tried.
pub(super) enum Dead {
    /// The claim would get more devices than it can have.
    TooMany,
    /// The whole search ends.
    Stop(Stop),
}

/// One device of one request, or of one of its alternatives.
#[derive(Clone, Copy, Debug, Default)]
struct At {
    claim: usize,
    request: usize,
    alternative: usize,
    device: usize,
}

/// Where the search for a device begins: those before it were tried.
#[derive(Clone, Copy, Debug, Default)]
struct From {
    pool: usize,
    slice: usize,
    device: usize,
}

/// A device of a pool.
#[derive(Clone, Copy, Debug)]
struct Place {
    pool: usize,
    /// In the inventory.
    slice: usize,
    device: usize,
}

/// A search on one node.
pub(super) struct Search<'a> {
    allocator: &'a Allocator,
    wanted: &'a [Wanted],
    node: &'a NodeInfo,
    pools: Pools,
    /// All devices of requests for all.
    all: HashMap<(usize, usize, usize), Vec<Place>>,
    constraints: Vec<Vec<Constraint>>,
    /// The claims to which a device is given as a whole.
    given: HashMap<u32, SmallVec<[usize; 2]>>,
    /// What is given of devices that are shared.
    capacity: HashMap<u32, (u32, Amounts)>,
    left: HashMap<usize, Left>,
    solution: Solution,
    steps: u32,
    deadline: Option<Timestamp>,
}

fn is_kept_off(device: &Device, ask: &Ask) -> bool {
    let tolerations = ask.tolerations.as_deref().unwrap_or_default();
    let mut taints = device.taints.iter();
    taints.any(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
}

impl<'a> Search<'a> {
    /// Looks at what is wanted before any device is given.
    pub(super) fn new(
        allocator: &'a Allocator,
        wanted: &'a [Wanted],
        node: &'a NodeInfo,
        pools: Pools,
    ) -> Result<Self, Stop> {
        let patience = &allocator.patience;
        let deadline =
            patience.timeout.and_then(|timeout| patience.clock.now().checked_add(timeout).ok());
        let mut search = Self {
            allocator,
            wanted,
            node,
            pools,
            all: HashMap::new(),
            constraints: wanted.iter().map(|one| one.constraints.clone()).collect(),
            given: HashMap::new(),
            capacity: HashMap::new(),
            left: HashMap::new(),
            solution: Solution::of(wanted),
            steps: 0,
            deadline,
        };
        for (claim, one) in wanted.iter().enumerate() {
            let mut least = 0;
            for (request, asked) in one.requests.iter().enumerate() {
                let mut least_of_it = None;
                for alternative in 0..asked.asks.len() {
                    let at = At { claim, request, alternative, device: 0 };
                    let count = search.count_or_find(at)?;
                    least_of_it = Some(least_of_it.map_or(count, |least: usize| least.min(count)));
                }
                least += least_of_it.unwrap_or_default();
            }
            if least > RESULTS_MAX {
                return Err(Stop::Fault(format!(
                    "claim {}: number of requested devices {least} exceeds the claim limit of \
                     {RESULTS_MAX}",
                    shown(&one.claim.metadata)
                )));
            }
        }
        Ok(search)
    }

    /// Devices for everything.
    pub(super) fn run(mut self) -> Result<Option<Solution>, Stop> {
        match self.next(At::default(), false, From::default()) {
            Ok(true) => Ok(Some(self.solution)),
            Ok(false) | Err(Dead::TooMany) => Ok(None),
            Err(Dead::Stop(stop)) => Err(stop),
        }
    }

    fn ask(&self, at: At) -> &'a Ask {
        &self.wanted[at.claim].requests[at.request].asks[at.alternative]
    }

    fn device(&self, place: Place) -> &'a Device {
        &self.allocator.inventory.slice(place.slice).devices[place.device]
    }

    fn number(&self, place: Place) -> u32 {
        self.allocator.inventory.place(place.slice, place.device)
    }

    fn complaint(&self, at: At, words: &str) -> Stop {
        let claim = shown(&self.wanted[at.claim].claim.metadata);
        Stop::Fault(format!("claim {claim}, request {}: {words}", self.ask(at).name))
    }

    /// How many devices a request is for. Where that is all, they are looked up.
    fn count_or_find(&mut self, at: At) -> Result<usize, Stop> {
        if let Some(count) = self.ask(at).count {
            return Ok(count);
        }
        let mut found = Vec::new();
        let pools = self.pools.clone();
        for (pool, of) in pools.iter().enumerate() {
            let asks = "asks for all devices, but resource pool";
            let (driver, name) = &of.id;
            match of.state {
                State::Usable => {}
                State::Incomplete => {
                    let words = format!("{asks} {driver}/{name} is currently being updated");
                    return Err(self.complaint(at, &words));
                }
                State::Invalid => {
                    let words = format!("{asks} {driver}/{name} is currently invalid");
                    return Err(self.complaint(at, &words));
                }
            }
            for slice in of.slices.iter().copied() {
                for device in 0..self.allocator.inventory.slice(slice).devices.len() {
                    let place = Place { pool, slice, device };
                    if self.is_selectable(at, place)? && self.has_capacity(at, place) {
                        found.push(place);
                    }
                }
            }
        }
        let count = found.len();
        self.all.insert((at.claim, at.request, at.alternative), found);
        Ok(count)
    }

    /// Whether class and request select a device that the node can reach.
    fn is_selectable(&self, at: At, place: Place) -> Result<bool, Stop> {
        let slice = self.allocator.inventory.slice(place.slice);
        for (words, expression) in &self.ask(at).selectors {
            let selected = slice.is_selected(place.device, expression, self.allocator.selectors());
            match selected {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(Stop::Fault(format!("{words}: {error}"))),
            }
        }
        Ok(slice.is_usable(place.device, self.node))
    }

    fn has_capacity(&self, at: At, place: Place) -> bool {
        let number = self.number(place);
        let used = self.allocator.usage.capacity(number);
        let given = self.capacity.get(&number).map(|(_, amounts)| amounts);
        let wanted = self.ask(at).capacity.as_ref();
        is_enough(&self.device(place).capacities, wanted, [used, given])
    }

    fn is_given_to(&self, claim: usize, number: u32) -> bool {
        self.given.get(&number).is_some_and(|claims| claims.contains(&claim))
    }

    fn is_taken(&self, number: u32) -> bool {
        let given = || self.given.get(&number).is_some_and(|claims| !claims.is_empty());
        self.allocator.usage.is_taken(number) || given()
    }

    /// Whether somebody has the device whom the request does not want to meet.
    fn is_occupied(&self, at: At, number: u32) -> bool {
        if self.ask(at).admin == Some(true) {
            return self.is_given_to(at.claim, number);
        }
        self.is_taken(number)
    }

    fn tick(&mut self) -> Result<(), Dead> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(LOOK_EVERY)
            && self.deadline.is_some_and(|deadline| self.allocator.patience.clock.now() > deadline)
        {
            return Err(Dead::Stop(Stop::TimedOut));
        }
        Ok(())
    }

    /// Everything from one device on. `chosen` says that the alternative is settled.
    fn next(&mut self, at: At, chosen: bool, from: From) -> Result<bool, Dead> {
        self.tick()?;
        let Some(wanted) = self.wanted.get(at.claim) else { return Ok(true) };
        let Some(request) = wanted.requests.get(at.request) else {
            let next = At { claim: at.claim + 1, ..At::default() };
            return match self.next(next, false, From::default()) {
                // Other devices for this claim's alternatives may leave room.
                Err(Dead::TooMany) => Ok(false),
                found => found,
            };
        };
        if request.prioritized && !chosen {
            return self.alternatives(at, request.asks.len());
        }
        let all = self.all.get(&(at.claim, at.request, at.alternative));
        if all.is_some_and(Vec::is_empty) {
            // All of nothing is not enough.
            return Ok(false);
        }
        let count = self.ask(at).count.or(all.map(Vec::len)).unwrap_or_default();
        if at.device >= count {
            let next = At { claim: at.claim, request: at.request + 1, ..At::default() };
            return self.next(next, false, From::default());
        }
        if self.solution.count(at.claim) + count - at.device > RESULTS_MAX {
            return Err(Dead::TooMany);
        }
        match all.map(|all| all[at.device]) {
            Some(place) => self.fixed(at, place, chosen),
            None => self.any(at, from, chosen),
        }
    }

    /// The first alternative with which everything else works out.
    fn alternatives(&mut self, at: At, count: usize) -> Result<bool, Dead> {
        let mut all_too_many = true;
        for alternative in 0..count {
            match self.next(At { alternative, ..at }, true, From::default()) {
                Err(Dead::TooMany) => {}
                Ok(true) => {
                    self.solution.select(at.claim, at.request, alternative);
                    return Ok(true);
                }
                Ok(false) => all_too_many = false,
                stop => return stop,
            }
        }
        if all_too_many { Err(Dead::TooMany) } else { Ok(false) }
    }

    /// This very device, as it is one of all.
    fn fixed(&mut self, at: At, place: Place, chosen: bool) -> Result<bool, Dead> {
        if !self.take(at, place, true)? {
            return Ok(false);
        }
        let next = At { device: at.device + 1, ..at };
        let outcome = self.next(next, chosen, From::default());
        if !matches!(outcome, Ok(true)) {
            self.give_back(at);
        }
        outcome
    }

    /// The first device with which everything else works out. The order of devices within a request
    /// does not matter: only those after the one before are tried.
    fn any(&mut self, at: At, from: From, chosen: bool) -> Result<bool, Dead> {
        for pool in from.pool..self.pools.len() {
            let slices = self.pools[pool].slices.len();
            let first_slice = if pool == from.pool { from.slice } else { 0 };
            for nth in first_slice..slices {
                let slice = self.pools[pool].slices[nth];
                let is_first = pool == from.pool && nth == from.slice;
                let first = if is_first { from.device } else { 0 };
                for device in first..self.allocator.inventory.slice(slice).devices.len() {
                    let place = Place { pool, slice, device };
                    if !self.fits(at, place)? || !self.take(at, place, false)? {
                        continue;
                    }
                    let next = At { device: at.device + 1, ..at };
                    let after = From { pool, slice: nth, device: device + 1 };
                    match self.next(next, chosen, after) {
                        Ok(true) => return Ok(true),
                        Ok(false) => self.give_back(at),
                        dead => {
                            self.give_back(at);
                            return dead;
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    fn fits(&self, at: At, place: Place) -> Result<bool, Dead> {
        Ok(!self.is_occupied(at, self.number(place))
            && self.is_selectable(at, place).map_err(Dead::Stop)?
            && self.has_capacity(at, place))
    }

    /// Whether a claim's constraints hold for a device too; they know of it then.
    fn holds(&mut self, at: At, place: Place) -> bool {
        let (names, allocator) = (self.names(at), self.allocator);
        let slice = allocator.inventory.slice(place.slice);
        let constraints = &mut self.constraints[at.claim];
        for nth in 0..constraints.len() {
            if !constraints[nth].add(names, slice.raw(place.device), &slice.driver) {
                constraints[..nth].iter_mut().for_each(|before| before.remove(names));
                return false;
            }
        }
        true
    }

    fn names(&self, at: At) -> (&'a str, &'a str) {
        (&self.wanted[at.claim].requests[at.request].name, &self.ask(at).whole_name)
    }

    /// Gives a device to a request, if it can be had. `must` says that there is no other choice.
    fn take(&mut self, at: At, place: Place, must: bool) -> Result<bool, Dead> {
        let (number, ask, device) = (self.number(place), self.ask(at), self.device(place));
        let looks_on = device.multiple && ask.admin == Some(true);
        let occupied = !looks_on && self.is_occupied(at, number);
        if occupied || is_kept_off(device, ask) || !self.has_capacity(at, place) {
            return Ok(false);
        }
        // Who shares a device takes no more of the pool's counters than the first did.
        let shared = device.multiple
            && (self.allocator.usage.has_capacity(number) || self.capacity.contains_key(&number));
        let counted = !shared && !device.counters.is_empty();
        let (holds, names) = (self.holds(at, place), self.names(at));
        // Constraints are quicker to look at; who must have the device is told of counters first.
        if !holds && !must {
            return Ok(false);
        }
        if counted && !self.left_of(place.pool).take(&device.counters) {
            if holds {
                let constraints = &mut self.constraints[at.claim];
                constraints.iter_mut().for_each(|constraint| constraint.remove(names));
            }
            return Ok(false);
        }
        if holds {
            self.give(at, place, counted);
            return Ok(true);
        }
        if counted {
            self.left_of(place.pool).give_back(&device.counters);
        }
        let (driver, pool) = &self.pools[place.pool].id;
        let words = "because a claim constraint would not be satisfied";
        let words = format!("cannot add device {driver}/{pool}/{} {words}", device.name);
        Err(Dead::Stop(self.complaint(at, &words)))
    }

    fn give(&mut self, at: At, place: Place, counted: bool) {
        let (number, capacities) = (self.number(place), &self.device(place).capacities);
        let multiple = self.device(place).multiple;
        let consumed = multiple.then(|| taken(capacities, self.ask(at).capacity.as_ref()));
        match &consumed {
            None => self.given.entry(number).or_default().push(at.claim),
            Some(consumed) => {
                let (shares, amounts) = self.capacity.entry(number).or_default();
                *shares += 1;
                for (name, amount) in consumed {
                    *amounts.entry(name.clone()).or_default() += *amount;
                }
            }
        }
        let (request, alternative) = (at.request, at.alternative);
        let Place { pool, slice, device } = place;
        let chosen =
            Chosen { request, alternative, slice, device, pool, number, consumed, counted };
        self.solution.push(at.claim, chosen);
    }

    fn left_of(&mut self, pool: usize) -> &mut Left {
        let (allocator, id) = (self.allocator, &self.pools[pool].id);
        self.left.entry(pool).or_insert_with(|| allocator.left(id))
    }

    /// Takes back what was given last to a claim.
    fn give_back(&mut self, at: At) {
        let Some(chosen) = self.solution.pop(at.claim) else { return };
        let names = self.names(at);
        self.constraints[at.claim].iter_mut().for_each(|constraint| constraint.remove(names));
        if chosen.counted {
            let (pool, slice, device) = (chosen.pool, chosen.slice, chosen.device);
            let device = self.device(Place { pool, slice, device });
            self.left_of(pool).give_back(&device.counters);
        }
        match &chosen.consumed {
            None => {
                if let Some(claims) = self.given.get_mut(&chosen.number) {
                    claims.pop();
                }
            }
            Some(consumed) => {
                let Some((shares, amounts)) = self.capacity.get_mut(&chosen.number) else { return };
                *shares -= 1;
                for (name, amount) in consumed {
                    if let Some(all) = amounts.get_mut(name) {
                        *all -= *amount;
                    }
                }
                if *shares == 0 {
                    self.capacity.remove(&chosen.number);
                }
            }
        }
    }
}
