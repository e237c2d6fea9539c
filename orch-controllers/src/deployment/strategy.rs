//! How far a rollout may go above and below the wanted number of pods.
//!
//! Source: `k8s.io/kubernetes/pkg/controller/deployment/util/deployment_util.go`.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::util::intstr::IntOrString};

/// Whether old pods are stopped before new ones start.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods may exist besides the wanted ones.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    bounds(deployment).0
}

/// How many of the wanted pods may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    if replicas == 0 { 0 } else { bounds(deployment).1.min(replicas) }
}

fn bounds(deployment: &Deployment) -> (i32, i32) {
    if recreates(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable =
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let replicas = replicas(deployment);
    resolve(scaled(surge, replicas, true), scaled(unavailable, replicas, false))
}

/// With neither room above nor below, a rollout could not begin.
fn resolve(surge: i32, unavailable: i32) -> (i32, i32) {
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a percentage of `total` rounded up or down. What cannot be understood is 0.
pub(crate) fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok());
            let product = percent.unwrap_or(0).saturating_mul(i64::from(total));
            let rounded =
                if up { product.saturating_add(99).div_euclid(100) } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        let check = |surge: &str, unavailable: &str, replicas: i32, expected: (i32, i32)| {
            let scale = |text: &str, up| scaled(&IntOrString::String(text.into()), replicas, up);
            assert_eq!(resolve(scale(surge, true), scale(unavailable, false)), expected);
        };
        check("25%", "25%", 4, (1, 1));
        check("25%", "25%", 3, (1, 0));
        check("25%", "25%", 10, (3, 2));
        check("0%", "1%", 10, (0, 1));
        check("100%", "0%", 7, (7, 0));
        assert_eq!(scaled(&IntOrString::Int(3), 10, true), 3);
    }
}
