//! Source: `test/e2e/apimachinery/webhook.go`, the behaviours of match conditions.

use kube::api::PostParams;
use serde_json::{Value, json};

use super::support::{add_after, cluster, configuration, for_maps, refusal, typed, webhook, with};

fn condition(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

fn conditioned(service: &str, conditions: &Value) -> Value {
    with(for_maps(service), "matchConditions", conditions.clone())
}

#[tokio::test]
async fn should_be_able_to_create_and_update_validating_webhook_configurations_with_match_conditions()
 {
    let cluster = cluster().await;
    let first = json!([condition("expression-1", "object.metadata.namespace == 'production'")]);
    cluster.validate("conditions", vec![conditioned("hook", &first)]).await;
    let mut read = cluster.validating().get("conditions").await.unwrap();
    let hooks = read.webhooks.as_mut().unwrap();
    assert_eq!(serde_json::to_value(&hooks[0].match_conditions).unwrap(), first);
    let second = json!([
        condition("expression-1", "object.metadata.namespace == 'production'"),
        condition("expression-2", "object.metadata.namespace == 'staging'"),
    ]);
    hooks[0].match_conditions = typed(second.clone());
    cluster.validating().replace("conditions", &PostParams::default(), &read).await.unwrap();
    let read = cluster.validating().get("conditions").await.unwrap();
    let hooks = read.webhooks.unwrap();
    assert_eq!(serde_json::to_value(&hooks[0].match_conditions).unwrap(), second);
}

#[tokio::test]
async fn should_be_able_to_create_and_update_mutating_webhook_configurations_with_match_conditions()
{
    let cluster = cluster().await;
    let first = json!([condition("expression-1", "object.metadata.namespace == 'production'")]);
    cluster.mutate("conditions", vec![conditioned("hook", &first)]).await;
    let mut read = cluster.mutating().get("conditions").await.unwrap();
    let hooks = read.webhooks.as_mut().unwrap();
    assert_eq!(serde_json::to_value(&hooks[0].match_conditions).unwrap(), first);
    let second = json!([condition("expression-2", "object.metadata.namespace == 'staging'")]);
    hooks[0].match_conditions = typed(second.clone());
    cluster.mutating().replace("conditions", &PostParams::default(), &read).await.unwrap();
    let read = cluster.mutating().get("conditions").await.unwrap();
    let hooks = read.webhooks.unwrap();
    assert_eq!(serde_json::to_value(&hooks[0].match_conditions).unwrap(), second);
}

#[tokio::test]
async fn should_reject_validating_webhook_configurations_with_invalid_match_conditions() {
    let cluster = cluster().await;
    let bad = json!([condition("invalid-expression-1", "... [] bad expression")]);
    let body = configuration("bad", vec![conditioned("hook", &bad)]);
    let made = cluster.validating().create(&PostParams::default(), &typed(body)).await;
    let (code, message) = refusal(made);
    assert_eq!((code, message.contains("compilation failed")), (422, true), "{message}");
}

#[tokio::test]
async fn should_reject_mutating_webhook_configurations_with_invalid_match_conditions() {
    let cluster = cluster().await;
    let bad = json!([condition("invalid-expression-1", "... [] bad expression")]);
    let body = configuration("bad", vec![conditioned("hook", &bad)]);
    let made = cluster.mutating().create(&PostParams::default(), &typed(body)).await;
    let (code, message) = refusal(made);
    assert_eq!((code, message.contains("compilation failed")), (422, true), "{message}");
}

#[tokio::test]
async fn should_mutate_everything_except_skip_me_configmaps() {
    let cluster = cluster().await;
    cluster.hook("one", |review| add_after(review, "mutation-start", "mutation-stage-1"));
    let skip = json!([condition("skip-me", "object.metadata.name != 'skip-me'")]);
    cluster.mutate("conditions", vec![conditioned("one", &skip)]).await;
    let data = json!({"mutation-start": "yes"});
    let made = cluster.create_map("skip-me", data.clone()).await.unwrap();
    assert_eq!(made.data.unwrap().len(), 1);
    assert!(cluster.asked().is_empty());
    let made = cluster.create_map("do-not-skip", data).await.unwrap();
    assert_eq!(made.data.unwrap().len(), 2);
}

#[tokio::test]
async fn conditions_that_fail_count_as_the_failure_policy_says() {
    let cluster = cluster().await;
    let broken = json!([condition("broken", "object.data.missing == 'x'")]);
    cluster.validate("broken", vec![conditioned("hook", &broken)]).await;
    let (code, message) = refusal(cluster.create_map("m", json!({"a": "b"})).await);
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "configmaps \"m\" is forbidden: expression 'object.data.missing == 'x'' resulted in error: \
         no such key: missing"
    );
    let mut ignoring = cluster.validating().get("broken").await.unwrap();
    ignoring.webhooks.as_mut().unwrap()[0].failure_policy = Some("Ignore".into());
    cluster.validating().replace("broken", &PostParams::default(), &ignoring).await.unwrap();
    cluster.create_map("m", json!({"a": "b"})).await.unwrap();
    // Who asks may be asked about.
    let conditions = json!([condition("who", "request.userInfo.username == 'somebody else'")]);
    let all = with(webhook("nobody", &["*"], "*", "*"), "matchConditions", conditions);
    cluster.validate("who", vec![all]).await;
    cluster.create_map("n", json!({"a": "b"})).await.unwrap();
}
