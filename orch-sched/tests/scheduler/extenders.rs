//! Services outside take part in decisions.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use orch_core::Resources;
use orch_sched::{ExtenderTransport, Fault, configuration::SchedulerConfiguration};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, cpu};

/// Answers by a rule, and remembers what it was asked.
struct Service {
    asked: Mutex<Vec<(String, Value)>>,
    answer: Box<Rule>,
}

type Rule = dyn Fn(&str, &Value) -> Result<(u16, Value), Fault> + Send + Sync;

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

#[async_trait]
impl ExtenderTransport for Service {
    async fn post(&self, url: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), Fault> {
        let body: Value = serde_json::from_slice(&body)?;
        self.asked.lock().push((url.to_owned(), body.clone()));
        if url.ends_with("/never") {
            std::future::pending::<()>().await;
        }
        let (code, answer) = (self.answer)(url, &body)?;
        Ok((code, serde_json::to_vec(&answer)?))
    }
}

fn configuration(extender: &str) -> SchedulerConfiguration {
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         extenders: [{{urlPrefix: 'http://service/', {extender}}}]\n"
    );
    text.parse().unwrap()
}

/// A cluster of three nodes whose scheduler asks the service.
fn cluster(
    extender: &str,
    answer: impl Fn(&str, &Value) -> Result<(u16, Value), Fault> + Send + Sync + 'static,
) -> (Cluster, Arc<Service>) {
    let service = Arc::new(Service { asked: Mutex::default(), answer: Box::new(answer) });
    let (configuration, transport) = (configuration(extender), service.clone());
    let cluster = Cluster::start(
        1,
        |client| client,
        move |builder| builder.configuration(&configuration).extender_transport(transport),
    );
    for name in ["n1", "n2", "n3"] {
        cluster.node(name, json!({}));
    }
    (cluster, service)
}

#[tokio::test(start_paused = true)]
async fn an_extender_rules_nodes_out_and_ranks_the_others() {
    let (cluster, service) = cluster(
        "filterVerb: filter, prioritizeVerb: rank, weight: 5, nodeCacheCapable: true",
        |url, asked| {
            Ok(match url {
                "http://service/filter" => {
                    assert_eq!(asked["Nodes"], Value::Null);
                    let failed = json!({"n1": "too far"});
                    (200, json!({"NodeNames": ["n2", "n3"], "FailedNodes": failed}))
                }
                "http://service/rank" => {
                    (200, json!([{"host": "n2", "score": 1}, {"Host": "n3", "Score": 10}]))
                }
                other => panic!("{other}"),
            })
        },
    );
    cluster.pod("web", json!({})).await;
    assert_eq!(cluster.placed("web").await, "n3");
    let asked = service.asked.lock();
    assert_eq!(asked[0].1["Pod"]["metadata"]["name"], "web");
    let mut names: Vec<&str> =
        asked[0].1["NodeNames"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["n1", "n2", "n3"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_extender_says_against_all_nodes_is_told() {
    let (cluster, _) = cluster("filterVerb: filter", |_, asked| {
        assert_eq!(asked["Nodes"]["items"].as_array().map(Vec::len), Some(3));
        assert_eq!(asked["NodeNames"], Value::Null);
        let (failed, for_good) = (json!({"n1": "busy", "n2": "busy"}), json!({"n3": "broken"}));
        let none = json!({"items": []});
        Ok((
            200,
            json!({"Nodes": none, "FailedNodes": failed,
                        "FailedAndUnresolvableNodes": for_good}),
        ))
    });
    cluster.pod("web", json!({})).await;
    let (reason, message) = cluster.refused("web").await;
    assert_eq!(reason, "Unschedulable");
    assert_eq!(
        message,
        "0/3 nodes are available: 1 broken, 2 busy. no new claims to deallocate, preemption: \
         0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption \
         victims found for incoming pod."
    );
}

#[tokio::test(start_paused = true)]
async fn only_pods_of_its_resources_are_an_extenders_business() {
    let managed = "filterVerb: filter, managedResources: [{name: example.com/gpu, \
                   ignoredByScheduler: true}]";
    let (cluster, service) = cluster(managed, |_, _| {
        Ok((200, json!({"Nodes": {"items": [{"metadata": {"name": "n2"}}]}})))
    });
    cluster.pod("plain", json!({})).await;
    cluster.placed("plain").await;
    assert!(service.asked.lock().is_empty());
    // No node has the resource; the extender answers for it.
    let mut pod = cpu("1");
    pod["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = "1".into();
    cluster.pod("gpu", pod).await;
    assert_eq!(cluster.placed("gpu").await, "n2");
}

#[tokio::test(start_paused = true)]
async fn an_extender_that_fails_fails_the_pod_unless_it_may_be_ignored() {
    let check = async |extender: &str, words: &str| {
        let (cluster, _) = cluster(extender, |url, _| match url {
            "http://service/error" => Ok((200, json!({"Error": "out of order"}))),
            "http://service/unknown" => Ok((200, json!({"NodeNames": ["n9"]}))),
            "http://service/lost" => Err("connection refused".into()),
            _ => Ok((500, json!({}))),
        });
        cluster.pod("web", json!({})).await;
        if words.is_empty() {
            cluster.placed("web").await;
            return;
        }
        let (reason, message) = cluster.refused("web").await;
        assert_eq!((&*reason, &*message), ("SchedulerError", words));
    };
    check("filterVerb: error", "out of order").await;
    check("filterVerb: lost", "connection refused").await;
    check("filterVerb: other", "failed other with extender at URL http://service/other, code 500")
        .await;
    check(
        "filterVerb: unknown, nodeCacheCapable: true",
        "extender \"http://service/\" claims a filtered node \"n9\" which is not found in the \
         input node list",
    )
    .await;
    check(
        "filterVerb: never, httpTimeout: 2s",
        "Post \"http://service/never\": context deadline exceeded (Client.Timeout exceeded)",
    )
    .await;
    check("filterVerb: never, httpTimeout: 2s, ignorable: true", "").await;
    check("filterVerb: lost, ignorable: true", "").await;
}

#[tokio::test(start_paused = true)]
async fn an_extender_binds_and_has_a_say_in_preemption() {
    let (cluster, service) =
        cluster("bindVerb: bind, preemptVerb: preempt, nodeCacheCapable: true", |url, asked| {
            match url {
                "http://service/bind" => Ok((200, json!({"Error": ""}))),
                "http://service/preempt" => {
                    let all = asked["NodeNameToMetaVictims"].as_object().unwrap();
                    assert_eq!(all.len(), 3);
                    Ok((200, json!({"NodeNameToMetaVictims": {"n2": all["n2"]}})))
                }
                other => panic!("{other}"),
            }
        });
    for node in ["n1", "n2", "n3"] {
        let mut pod = cpu("4");
        pod["spec"]["nodeName"] = node.into();
        cluster.pod(&format!("on-{node}"), pod).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut pod = cpu("1");
    pod["spec"]["priority"] = 10.into();
    cluster.pod("high", pod).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pods: Resources<k8s_openapi::api::core::v1::Pod> = cluster.pods.clone();
    for (name, gone) in [("on-n1", false), ("on-n2", true), ("on-n3", false)] {
        let pod = pods.get(name).await.unwrap();
        assert_eq!(pod.metadata.deletion_timestamp.is_some(), gone, "{name}");
    }
    cluster.node("n4", json!({}));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let asked = service.asked.lock();
    let (_, bound) = asked.iter().find(|(url, _)| url.ends_with("/bind")).expect("it is asked");
    assert_eq!((&bound["PodName"], &bound["Node"]), (&json!("high"), &json!("n4")));
}

/// One request over a real socket, answered by hand.
#[tokio::test]
async fn extenders_are_reached_over_http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let body = json!({"nodeNames": ["n2"]}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let text = format!(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         extenders: [{{urlPrefix: 'http://{address}/base', filterVerb: filter, \
         nodeCacheCapable: true}}]\n"
    );
    let configuration: SchedulerConfiguration = text.parse().unwrap();
    let configure = |builder: orch_sched::SchedulerBuilder| builder.configuration(&configuration);
    let cluster = Cluster::start(1, |client| client, configure);
    for name in ["n1", "n2"] {
        cluster.node(name, json!({}));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.pod("web", json!({})).await;
    assert_eq!(cluster.placed("web").await, "n2");
    let request = service.await.unwrap();
    assert!(request.starts_with("POST /base/filter HTTP/1.1\r\n"), "{request}");
}
