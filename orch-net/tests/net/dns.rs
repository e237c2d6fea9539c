//! Names and their answers, over real sockets.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use k8s_openapi::api::core::v1::Namespace;
use orch_net::{DnsOptions, DnsServer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::*;

async fn seeded() -> Informers {
    let (client, informers) = cluster();
    client.seed_typed::<Namespace>(&typed(json!({"metadata": {"name": "a"}}))).unwrap();
    let services = [
        ("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]})),
        ("db", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        ("empty", json!({"clusterIP": "None"})),
        ("out", json!({"type": "ExternalName", "externalName": "example.org"})),
        ("alias", json!({"type": "ExternalName", "externalName": "web.a.svc.cluster.local"})),
    ];
    for (name, mut spec) in services {
        spec["ports"] = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        let service = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
        client.seed_typed::<Service>(&typed(service)).unwrap();
    }
    let slice = json!({
        "metadata": {"name": "db-1", "namespace": "a",
            "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "hostname": "db-0"},
            {"addresses": ["10.1.0.2"]},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": false}},
        ],
    });
    client.seed_typed::<EndpointSlice>(&typed(slice)).unwrap();
    informers
}

async fn start(options: DnsOptions) -> SocketAddr {
    let informers = seeded().await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = DnsServer::bind(any, &informers, options).await.unwrap();
    informers.of::<Namespace>().synced().await;
    informers.of::<Service>().synced().await;
    informers.of::<EndpointSlice>().synced().await;
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run(CancellationToken::new()));
    address
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_utf8(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), server).await.unwrap();
    let mut packet = [0; 4096];
    let length = socket.recv(&mut packet).await.unwrap();
    Message::from_vec(&packet[..length]).unwrap()
}

fn texts(message: &Message) -> Vec<String> {
    let mut texts: Vec<_> = message.answers.iter().map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn names_are_answered_as_the_specification_says() {
    let server = start(DnsOptions::default()).await;
    let check = async |name: &str, kind: RecordType, expected: &[&str]| {
        let answer = ask(server, name, kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name} {kind}");
        assert!(answer.metadata.authoritative, "{name}");
        assert_eq!(texts(&answer), expected, "{name} {kind}");
        let soa = answer.authorities.iter().filter(|record| matches!(record.data, RData::SOA(_)));
        assert_eq!(soa.count(), usize::from(expected.is_empty()), "{name}: no data comes with SOA");
        assert!(answer.answers.iter().all(|record| record.ttl == 5));
    };
    use RecordType::{A, AAAA, CNAME, PTR, SRV, TXT};
    check("web.a.svc.cluster.local.", A, &["10.96.0.7"]).await;
    check("WEB.a.svc.Cluster.local.", AAAA, &["fd00::7"]).await;
    check("web.a.svc.cluster.local.", TXT, &[]).await;
    check("db.a.svc.cluster.local.", A, &["10.1.0.1", "10.1.0.2"]).await;
    check("db-0.db.a.svc.cluster.local.", A, &["10.1.0.1"]).await;
    check("10-1-0-2.db.a.svc.cluster.local.", A, &["10.1.0.2"]).await;
    check("_http._tcp.web.a.svc.cluster.local.", SRV, &["0 100 80 web.a.svc.cluster.local."]).await;
    let endpoints =
        ["0 50 5432 10-1-0-2.db.a.svc.cluster.local.", "0 50 5432 db-0.db.a.svc.cluster.local."];
    check("_http._tcp.db.a.svc.cluster.local.", SRV, &endpoints).await;
    check("1-2-3-4.a.pod.cluster.local.", A, &["1.2.3.4"]).await;
    check("out.a.svc.cluster.local.", CNAME, &["example.org."]).await;
    check("out.a.svc.cluster.local.", A, &["example.org."]).await;
    check("alias.a.svc.cluster.local.", A, &["10.96.0.7", "web.a.svc.cluster.local."]).await;
    check("7.0.96.10.in-addr.arpa.", PTR, &["web.a.svc.cluster.local."]).await;
    check("1.0.1.10.in-addr.arpa.", PTR, &["db-0.db.a.svc.cluster.local."]).await;
    check("dns-version.cluster.local.", TXT, &["1.1.0"]).await;
    check("a.svc.cluster.local.", A, &[]).await;
}

#[tokio::test]
async fn what_is_not_there_is_denied_or_refused() {
    let server = start(DnsOptions::default()).await;
    for name in [
        "none.a.svc.cluster.local.",
        "web.b.svc.cluster.local.",
        "empty.a.svc.cluster.local.",
        "x.web.a.svc.cluster.local.",
        "_nope._tcp.web.a.svc.cluster.local.",
        "1-2-3-4.b.pod.cluster.local.",
        "b.svc.cluster.local.",
    ] {
        let answer = ask(server, name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert!(matches!(answer.authorities[0].data, RData::SOA(_)), "{name}");
    }
    let refused = ask(server, "example.org.", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn other_names_are_forwarded_and_tcp_is_answered() {
    // Any server can be an upstream: here one with another domain.
    let domain = "other.local".to_owned();
    let upstream = start(DnsOptions { domain, ..DnsOptions::default() }).await;
    let options = DnsOptions { upstreams: vec![upstream], ..DnsOptions::default() };
    let server = start(options).await;
    let answer = ask(server, "web.a.svc.other.local.", RecordType::A).await;
    assert_eq!(texts(&answer), ["10.96.0.7"]);
    assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);

    let mut stream = TcpStream::connect(server).await.unwrap();
    let query = question("web.a.svc.cluster.local.", RecordType::A);
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(texts(&Message::from_vec(&answer).unwrap()), ["10.96.0.7"]);
}
