//! The reference for devices: try everything, first in order, and look at all rules again after
//! each device, over the objects' JSON.
//!
//! Relied on: what `resource.k8s.io/v1` documents of its fields, and the order in which upstream
//! tries devices: pools by driver and name, slices by name, devices as listed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::reference::{list, name, term_holds};

pub(crate) const DRIVER: &str = "dra.example.com";

/// All that matters for devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    pub(crate) classes: Vec<Value>,
    /// All claims with their status.
    pub(crate) claims: Vec<Value>,
}

/// A device of a pool.
#[derive(Clone, Debug, PartialEq)]
struct Device {
    pool: String,
    json: Value,
}

/// A device that a claim gets.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    claim: usize,
    request: usize,
    alternative: usize,
    device: Device,
}

/// What a claim gets, `request=pool/device`, in order.
pub(crate) type Results = Vec<Vec<String>>;

/// Something is wrong with the whole cluster.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault;

fn amount(quantity: &Value) -> i64 {
    quantity.as_str().map_or(0, |text| text.parse().expect("tests use whole numbers"))
}

/// The alternatives of a request, or the one thing that it asks for, each with its whole name.
fn asks(request: &Value) -> Vec<(String, &Value)> {
    if !request["exactly"].is_null() {
        return vec![(name_of(request), &request["exactly"])];
    }
    let alternatives = list(&request["firstAvailable"]).iter();
    alternatives.map(|one| (format!("{}/{}", name_of(request), name_of(one)), one)).collect()
}

fn name_of(object: &Value) -> String {
    object["name"].as_str().expect("a name").to_owned()
}

fn requests(claim: &Value) -> &[Value] {
    list(&claim["spec"]["devices"]["requests"])
}

/// Whether a device of the tests satisfies one of the selectors of the tests.
fn is_selected(device: &Value, expression: &str) -> bool {
    let attribute = |name: &str| &device["attributes"][name];
    match expression {
        "device.attributes['dra.example.com'].kind == 'a'" => attribute("kind")["string"] == "a",
        "device.attributes['dra.example.com'].board > 1" => {
            attribute("board")["int"].as_i64().expect("a board") > 1
        }
        "device.allowMultipleAllocations" => device["allowMultipleAllocations"] == true,
        "!device.allowMultipleAllocations" => device["allowMultipleAllocations"] != true,
        other => panic!("{other} is no selector of the tests"),
    }
}

impl Cluster {
    /// The slices of each pool's newest generation that a node needs, and whether that is all of
    /// them; `None` for pools of which the node has only what is old.
    fn pools(&self, node: &Value) -> BTreeMap<String, (bool, Vec<&Value>)> {
        let mut pools = BTreeMap::new();
        let pool = |slice: &Value| slice["spec"]["pool"]["name"].as_str().unwrap().to_owned();
        let names: BTreeSet<String> = self.slices.iter().map(pool).collect();
        for id in names {
            let own = self.slices.iter().filter(|slice| pool(slice) == id);
            let own: Vec<&Value> = own.filter(|slice| self.is_newest(slice)).collect();
            let count = own[0]["spec"]["pool"]["resourceSliceCount"].as_i64().unwrap();
            let is_near = |slice: &&&Value| {
                !slice["spec"]["sharedCounters"].is_null() || reaches(&slice["spec"], node)
            };
            let mut near: Vec<&Value> = own.iter().filter(is_near).copied().collect();
            if near.is_empty() {
                continue;
            }
            near.sort_by_key(|slice| name(slice).to_owned());
            pools.insert(id, (own.len() as i64 == count, near));
        }
        pools
    }

    /// The devices that a node reaches, in the order in which they are tried.
    fn devices(&self, node: &Value) -> Vec<Device> {
        let pools = self.pools(node).into_iter().filter(|(_, (whole, _))| *whole);
        let of = |(pool, (_, slices)): (String, (bool, Vec<&Value>))| {
            let devices = slices.into_iter().flat_map(|slice| list(&slice["spec"]["devices"]));
            let device = |json: &Value| Device { pool: pool.clone(), json: json.clone() };
            devices.map(device).collect::<Vec<_>>()
        };
        pools.flat_map(of).collect()
    }

    fn is_newest(&self, slice: &Value) -> bool {
        let (pool, generation) = (&slice["spec"]["pool"], |of: &Value| of["generation"].as_i64());
        let mut pools = self.slices.iter().map(|other| &other["spec"]["pool"]);
        !pools.any(|other| other["name"] == pool["name"] && generation(other) > generation(pool))
    }

    /// Which devices claims have: pool, device, and what is taken of it if it is shared.
    fn taken(&self) -> Vec<(String, String, Option<Value>)> {
        let results = self
            .claims
            .iter()
            .flat_map(|claim| list(&claim["status"]["allocation"]["devices"]["results"]));
        let results = results.filter(|result| result["adminAccess"] != true);
        let taken = results.map(|result| {
            let text = |field: &str| result[field].as_str().unwrap().to_owned();
            let shared = (!result["shareID"].is_null()).then(|| result["consumedCapacity"].clone());
            (text("pool"), text("device"), shared)
        });
        taken.collect()
    }

    fn selects(&self, ask: &Value, device: &Value) -> bool {
        let class = self.classes.iter().find(|class| name(class) == ask["deviceClassName"]);
        let class = list(&class.expect("every class exists")["spec"]["selectors"]);
        let all = class.iter().chain(list(&ask["selectors"]));
        all.into_iter().all(|one| is_selected(device, one["cel"]["expression"].as_str().unwrap()))
    }

    /// What these claims get on a node.
    pub(crate) fn allocate(
        &self,
        claims: &[&Value],
        node: &Value,
    ) -> Result<Option<Vec<Given>>, Fault> {
        let all = claims.iter().flat_map(|claim| requests(claim)).flat_map(|one| asks(one));
        let wants_all = all.into_iter().any(|(_, ask)| ask["allocationMode"] == "All");
        if wants_all && self.pools(node).values().any(|(whole, _)| !whole) {
            return Err(Fault);
        }
        let try_ = Try { cluster: self, claims, devices: self.devices(node), taken: self.taken() };
        Ok(try_.rest(Vec::new(), 0, 0))
    }

    /// How good it is: earlier alternatives are better.
    pub(crate) fn score(claims: &[&Value], given: &[Given]) -> i64 {
        let mut score = 0;
        for (at, claim) in claims.iter().enumerate() {
            for (nth, request) in requests(claim).iter().enumerate() {
                let its = given.iter().find(|one| one.claim == at && one.request == nth);
                if let Some(its) = its.filter(|_| request["exactly"].is_null()) {
                    score += 8 - its.alternative as i64;
                }
            }
        }
        score
    }

    /// The whole cluster as text, for failures.
    pub(crate) fn shown_whole(&self) -> String {
        let all = [&self.nodes, &self.slices, &self.classes, &self.claims];
        all.into_iter().flatten().map(|one| format!("{one}\n")).collect()
    }

    pub(crate) fn shown(claims: &[&Value], given: &[Given]) -> Results {
        let of = |at: usize| {
            let its = given.iter().filter(move |one| one.claim == at);
            let shown = its.map(move |one| {
                let request = &requests(claims[at])[one.request];
                let (whole, _) = &asks(request)[one.alternative];
                format!("{whole}={}/{}", one.device.pool, name_of(&one.device.json))
            });
            shown.collect()
        };
        (0..claims.len()).map(of).collect()
    }
}

fn reaches(spec: &Value, node: &Value) -> bool {
    spec["nodeName"] == name(node)
        || spec["allNodes"] == true
        || list(&spec["nodeSelector"]["nodeSelectorTerms"])
            .iter()
            .any(|term| term_holds(term, node))
}

struct Try<'a> {
    cluster: &'a Cluster,
    claims: &'a [&'a Value],
    devices: Vec<Device>,
    taken: Vec<(String, String, Option<Value>)>,
}

impl Try<'_> {
    /// Everything from a request on, beside what is given.
    fn rest(&self, given: Vec<Given>, claim: usize, request: usize) -> Option<Vec<Given>> {
        let Some(of) = self.claims.get(claim) else { return Some(given) };
        let Some(json) = requests(of).get(request) else { return self.rest(given, claim + 1, 0) };
        asks(json).iter().enumerate().find_map(|(alternative, (_, ask))| {
            let usable = self.devices.iter().filter(|d| self.cluster.selects(ask, &d.json));
            let one = |device: &Device| {
                let device = device.clone();
                Given { claim, request, alternative, device }
            };
            let usable: Vec<Given> = usable.map(one).collect();
            if ask["allocationMode"] == "All" {
                let usable: Vec<Given> =
                    usable.into_iter().filter(|one| self.has_capacity(&[], one)).collect();
                let mut all = given.clone();
                for one in &usable {
                    all.push(one.clone());
                    if !self.is_right(&all) {
                        return None;
                    }
                }
                return (!usable.is_empty()).then(|| self.rest(all, claim, request + 1)).flatten();
            }
            let count = ask["count"].as_u64().unwrap() as usize;
            self.some(given.clone(), &usable, count, (claim, request))
        })
    }

    /// So many of these devices, and then everything else.
    fn some(
        &self,
        given: Vec<Given>,
        usable: &[Given],
        count: usize,
        (claim, request): (usize, usize),
    ) -> Option<Vec<Given>> {
        if count == 0 {
            return self.rest(given, claim, request + 1);
        }
        (0..usable.len()).find_map(|at| {
            let mut more = given.clone();
            more.push(usable[at].clone());
            let right = self.is_right(&more);
            right.then(|| self.some(more, &usable[at + 1..], count - 1, (claim, request))).flatten()
        })
    }

    fn ask(&self, one: &Given) -> &Value {
        asks(&requests(self.claims[one.claim])[one.request])[one.alternative].1
    }

    /// Whether the device that was given last may be, beside all others.
    fn is_right(&self, given: &[Given]) -> bool {
        let (last, before) = given.split_last().expect("something was given");
        self.is_free(before, last)
            && self.is_tolerated(last)
            && self.has_capacity(before, last)
            && self.counters_suffice(given)
            && self.is_consistent(given, last)
    }

    /// Shares take nothing away from who looks on, and nothing from each other but capacity.
    fn is_free(&self, before: &[Given], last: &Given) -> bool {
        let multiple = last.device.json["allowMultipleAllocations"] == true;
        let mut same = before.iter().filter(|one| one.device == last.device);
        if self.ask(last)["adminAccess"] == true {
            return multiple || same.all(|one| one.claim != last.claim);
        }
        let device = name_of(&last.device.json);
        let mut whole = self.taken.iter().filter(|(.., shared)| shared.is_none());
        (multiple || same.next().is_none())
            && !whole.any(|(pool, name, _)| *pool == last.device.pool && *name == device)
    }

    fn is_tolerated(&self, last: &Given) -> bool {
        let tolerations = list(&self.ask(last)["tolerations"]);
        let taints = list(&last.device.json["taints"]).iter();
        let mut hard = taints.filter(|taint| taint["effect"] != "None");
        hard.all(|taint| tolerations.iter().any(|one| one["key"] == taint["key"]))
    }

    /// What a request takes of the capacity `memory`.
    fn memory(&self, one: &Given) -> i64 {
        let wanted = &self.ask(one)["capacity"]["requests"]["memory"];
        let capacity = &one.device.json["capacity"]["memory"];
        match (wanted.is_null(), &capacity["requestPolicy"]["default"]) {
            (false, _) => amount(wanted),
            (true, Value::Null) => amount(&capacity["value"]),
            (true, default) => amount(default),
        }
    }

    fn has_capacity(&self, before: &[Given], last: &Given) -> bool {
        let json = &last.device.json;
        let capacity = &json["capacity"]["memory"];
        if capacity.is_null() {
            return self.ask(last)["capacity"].is_null();
        }
        let mut used = self.memory(last);
        if json["allowMultipleAllocations"] == true {
            let same = before.iter().filter(|one| one.device == last.device);
            used += same.map(|one| self.memory(one)).sum::<i64>();
        }
        let device = name_of(json);
        let taken = self.taken.iter();
        let taken = taken.filter(|(pool, name, _)| *pool == last.device.pool && *name == device);
        used += taken.flat_map(|(.., of)| of).map(|of| amount(&of["memory"])).sum::<i64>();
        used <= amount(&capacity["value"])
    }

    /// The counters of the tests: one set of one counter in a pool.
    fn counters_suffice(&self, given: &[Given]) -> bool {
        let newest = |slice: &&Value| self.cluster.is_newest(slice);
        let slices = self.cluster.slices.iter().filter(newest);
        let mut sets = slices.clone().filter(|slice| !slice["spec"]["sharedCounters"].is_null());
        sets.all(|slice| {
            let pool = slice["spec"]["pool"]["name"].as_str().unwrap();
            let last = &given.last().expect("something was given").device;
            if last.pool != pool || last.json["consumesCounters"].is_null() {
                return true;
            }
            let whole = amount(&slice["spec"]["sharedCounters"][0]["counters"]["c"]["value"]);
            let part =
                |device: &Value| amount(&device["consumesCounters"][0]["counters"]["c"]["value"]);
            let all = slices.clone().filter(|s| s["spec"]["pool"]["name"] == pool);
            let devices = all.flat_map(|slice| list(&slice["spec"]["devices"]));
            let is_taken = |device: &&Value| {
                let device = name_of(device);
                self.taken.iter().any(|(own, name, _)| own == pool && *name == device)
            };
            let taken = devices.filter(is_taken).map(part).sum::<i64>();
            // Who only looks on counts too.
            let its = given.iter().filter(|one| one.device.pool == pool);
            let used = its.map(|one| part(&one.device.json));
            used.sum::<i64>() + taken <= whole
        })
    }

    fn is_consistent(&self, given: &[Given], last: &Given) -> bool {
        let claim = self.claims[last.claim];
        list(&claim["spec"]["devices"]["constraints"]).iter().all(|constraint| {
            let about = list(&constraint["requests"]);
            let is_about = |one: &&Given| {
                let request = &requests(self.claims[one.claim])[one.request];
                let (whole, _) = &asks(request)[one.alternative];
                let named = |name: &Value| *name == *whole || *name == name_of(request);
                one.claim == last.claim && (about.is_empty() || about.iter().any(named))
            };
            let boards =
                given.iter().filter(is_about).map(|one| &one.device.json["attributes"]["board"]);
            let boards: Vec<&Value> = boards.collect();
            let mut different: Vec<&&Value> = Vec::new();
            for board in &boards {
                if !different.contains(&board) {
                    different.push(board);
                }
            }
            if constraint["matchAttribute"].is_null() {
                different.len() == boards.len()
            } else {
                different.len() <= 1
            }
        })
    }
}
