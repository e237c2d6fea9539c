//! A plan as the code that makes it.

use std::{fmt::Write, time::Duration};

use orch_core::testing::FaultRates;

use super::{Component, Disturbance, FaultPlan, Skew, StoreFaults, Trouble};

/// A struct with the fields that are not as by default.
struct Literal {
    text: String,
    all: usize,
    told: usize,
}

impl Literal {
    fn of(name: &str) -> Self {
        Self { text: format!("{name} {{ "), all: 0, told: 0 }
    }

    fn field(mut self, name: &str, value: Option<String>) -> Self {
        self.all += 1;
        if let Some(value) = value {
            self.told += 1;
            // Writing into a string does not fail.
            let _written = write!(self.text, "{name}: {value}, ");
        }
        self
    }

    fn number(self, name: &str, value: u32) -> Self {
        self.field(name, (value > 0).then(|| value.to_string()))
    }

    fn length(self, name: &str, value: Duration) -> Self {
        self.field(name, (!value.is_zero()).then(|| duration(value)))
    }

    fn end(mut self, rest: &str) -> String {
        if self.told < self.all {
            self.text.push_str(rest);
        }
        let text = self.text.trim_end().trim_end_matches(',');
        format!("{text} }}")
    }
}

fn duration(value: Duration) -> String {
    if value.subsec_nanos() == 0 {
        return format!("Duration::from_secs({})", value.as_secs());
    }
    if value.subsec_nanos().is_multiple_of(1_000_000) {
        return format!("Duration::from_millis({})", value.as_millis());
    }
    format!("Duration::from_nanos({})", value.as_nanos())
}

fn list<T>(items: &[T], code: fn(&T) -> String) -> Option<String> {
    let items: Vec<String> = items.iter().map(code).collect();
    (!items.is_empty()).then(|| format!("vec![{}]", items.join(", ")))
}

fn component(component: &Component) -> String {
    match component {
        Component::Named(name) => format!("Component::Named({name:?}.to_owned())"),
        other => format!("Component::{other:?}"),
    }
}

fn trouble(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Crash { calls, carried_out, restart } => format!(
            "Trouble::Crash {{ calls: {calls}, carried_out: {carried_out}, restart: {} }}",
            duration(*restart)
        ),
        Trouble::CutOff { length } => {
            format!("Trouble::CutOff {{ length: {} }}", duration(*length))
        }
        Trouble::PowerLoss { restart } => {
            format!("Trouble::PowerLoss {{ restart: {} }}", duration(*restart))
        }
        Trouble::RuntimeFails { length } => {
            format!("Trouble::RuntimeFails {{ length: {} }}", duration(*length))
        }
    }
}

fn disturbance(of: &Disturbance) -> String {
    let (at, whom, what) = (duration(of.at), component(&of.component), trouble(&of.trouble));
    format!("Disturbance {{ at: {at}, component: {whom}, trouble: {what} }}")
}

fn skew(of: &Skew) -> String {
    let (whom, ahead) = (component(&of.component), of.ahead_ms);
    format!("Skew {{ component: {whom}, ahead_ms: {ahead} }}")
}

fn rates(of: &FaultRates) -> Option<String> {
    let literal = Literal::of("FaultRates")
        .number("conflict_permille", of.conflict_permille)
        .number("server_error_permille", of.server_error_permille)
        .number("transport_permille", of.transport_permille)
        .number("timeout_permille", of.timeout_permille)
        .number("watch_drop_permille", of.watch_drop_permille)
        .number("expired_permille", of.expired_permille);
    (literal.told > 0).then(|| literal.end("..FaultRates::default()"))
}

fn store(of: &StoreFaults) -> Option<String> {
    let every = of.compacts_every.map(|every| format!("Some({})", duration(every)));
    let literal = Literal::of("StoreFaults")
        .number("unavailable_permille", of.unavailable_permille)
        .number("unknown_permille", of.unknown_permille)
        .field("compacts_every", every);
    (literal.told > 0).then(|| literal.end("..StoreFaults::default()"))
}

impl FaultPlan {
    /// The plan as an expression of Rust.
    pub fn to_code(&self) -> String {
        let literal = Literal::of("FaultPlan")
            .field("rates", rates(&self.rates))
            .length("latency_max", self.latency_max)
            .number("stall_permille", self.stall_permille)
            .length("stall_max", self.stall_max)
            .length("lag_max", self.lag_max)
            .number("stale_list_permille", self.stale_list_permille)
            .field("store", store(&self.store))
            .field("skews", list(&self.skews, skew))
            .field("disturbances", list(&self.disturbances, disturbance));
        if literal.told == 0 {
            "FaultPlan::none()".to_owned()
        } else {
            literal.end("..FaultPlan::none()")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_written_as_code() {
        let check = |plan: &FaultPlan, code: &str| assert_eq!(plan.to_code(), code);
        check(&FaultPlan::none(), "FaultPlan::none()");
        let plan = FaultPlan {
            rates: FaultRates { conflict_permille: 3, ..FaultRates::default() },
            latency_max: Duration::from_millis(20),
            skews: vec![Skew { component: Component::Node(2), ahead_ms: -5 }],
            disturbances: vec![Disturbance {
                at: Duration::from_nanos(1_000_001),
                component: Component::Named("operator".to_owned()),
                trouble: Trouble::CutOff { length: Duration::from_secs(3) },
            }],
            ..FaultPlan::none()
        };
        check(
            &plan,
            "FaultPlan { rates: FaultRates { conflict_permille: 3, ..FaultRates::default() }, \
             latency_max: Duration::from_millis(20), \
             skews: vec![Skew { component: Component::Node(2), ahead_ms: -5 }], \
             disturbances: vec![Disturbance { at: Duration::from_nanos(1000001), \
             component: Component::Named(\"operator\".to_owned()), \
             trouble: Trouble::CutOff { length: Duration::from_secs(3) } }], \
             ..FaultPlan::none() }",
        );
    }
}
