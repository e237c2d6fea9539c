//! What an autoscaler's status says of itself.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;

use super::Look;

impl Look<'_> {
    /// Sets a condition; the time of its last change stays if its status does.
    pub(super) fn set(&mut self, type_: &str, value: bool, reason: &str, message: &str) {
        let status = if value { "True" } else { "False" };
        let now = self.autoscaler.context.time();
        let conditions = self.status.conditions.get_or_insert_default();
        let known = conditions.iter().position(|condition| condition.type_ == type_);
        let since = known
            .map(|at| &conditions[at])
            .filter(|condition| condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone());
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or(Some(now)),
        };
        match known {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    }
}
